"""Short import path of what plugins derive from."""

from exengine.kernel.data_storage_base import DataStorage, StorageCapabilities
from exengine.kernel.frame_source_base import FrameSource, SourcePlan
from exengine.kernel.storage.managed import ManagedStorage
from exengine.kernel.storage.reading import DatasetReader, IndexedStorage

__all__ = [
    "DataStorage",
    "DatasetReader",
    "FrameSource",
    "IndexedStorage",
    "ManagedStorage",
    "SourcePlan",
    "StorageCapabilities",
]
