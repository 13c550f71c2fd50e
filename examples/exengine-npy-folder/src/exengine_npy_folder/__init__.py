"""Storage backend ``npy-folder`` for ExEngine: each frame a ``.npy`` file."""

from exengine_npy_folder.storage import NpyFolderReader, NpyFolderStorage

__all__ = ["NpyFolderReader", "NpyFolderStorage"]
