"""The module of ExEngine 0.4.0 that contained the two classes."""  # noqa: N999

from exengine.storage_backends.ndtiff_and_ndram import NDRAMStorage, NDTiffStorage

__all__ = ["NDRAMStorage", "NDTiffStorage"]
