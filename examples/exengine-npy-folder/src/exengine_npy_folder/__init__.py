"""Storage backend ``npy-folder`` for ExEngine, which stores each frame in a ``.npy`` file."""

from exengine_npy_folder.storage import NpyFolderReader, NpyFolderStorage

__all__ = ["NpyFolderReader", "NpyFolderStorage"]
