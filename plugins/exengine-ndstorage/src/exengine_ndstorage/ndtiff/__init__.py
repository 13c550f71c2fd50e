"""The backend ``ndtiff``: writes and reads NDTiff, the TIFF format of Micro-Manager and Pycro-Manager."""

from exengine_ndstorage.ndtiff.writer import NDTiffStorage

__all__ = ["NDTiffStorage"]
