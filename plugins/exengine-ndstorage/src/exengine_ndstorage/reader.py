"""Import location of ``NDTiffReader`` in pickles that version 1.0 created."""

from exengine_ndstorage.ndtiff.reader import NDTiffReader

__all__ = ["NDTiffReader"]
