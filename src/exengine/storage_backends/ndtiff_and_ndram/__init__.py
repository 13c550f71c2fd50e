"""The import path that ExEngine 0.4.0 had for its two backends; they live in ``exengine-ndstorage``."""

try:
    from exengine.storage_backends.ndram import NDRAMStorage
    from exengine.storage_backends.ndtiff import NDTiffStorage
except ImportError as error:
    raise ImportError(
        f"NDTiffStorage and NDRAMStorage come with the plugin exengine-ndstorage: {error}"
    ) from None

__all__ = ["NDRAMStorage", "NDTiffStorage"]
