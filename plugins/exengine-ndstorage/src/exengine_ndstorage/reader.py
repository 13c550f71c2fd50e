"""The address of ``NDTiffReader`` in pickles of version 1.0."""

from exengine_ndstorage.ndtiff.reader import NDTiffReader

__all__ = ["NDTiffReader"]
