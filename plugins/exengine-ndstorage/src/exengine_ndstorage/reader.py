"""The module from which pickles of version 1.0 import ``NDTiffReader``."""

from exengine_ndstorage.ndtiff.reader import NDTiffReader

__all__ = ["NDTiffReader"]
