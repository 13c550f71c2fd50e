"""Short import path of what plugins derive from."""

from exengine.kernel.data_storage_base import DataStorage, StorageCapabilities
from exengine.kernel.frame_source_base import FrameSource, SourcePlan
from exengine.kernel.indexed_storage import DatasetReader, IndexedStorage
from exengine.kernel.managed_storage import ManagedStorage

__all__ = [
    "DataStorage",
    "DatasetReader",
    "FrameSource",
    "IndexedStorage",
    "ManagedStorage",
    "SourcePlan",
    "StorageCapabilities",
]
