"""The module that contained the two storage classes in ExEngine 0.4.0."""  # noqa: N999

from exengine.storage_backends.ndtiff_and_ndram import NDRAMStorage, NDTiffStorage

__all__ = ["NDRAMStorage", "NDTiffStorage"]
