"""Storage backend ``h5-folder`` for ExEngine, which writes each frame to an HDF5 file."""

from exengine_h5_folder.reader import H5FolderReader
from exengine_h5_folder.storage import H5FolderStorage

__all__ = ["H5FolderReader", "H5FolderStorage"]
