"""The import path of the two ExEngine 0.4.0 backends, which are now in ``exengine-ndstorage``."""

try:
    from exengine.storage_backends.ndram import NDRAMStorage
    from exengine.storage_backends.ndtiff import NDTiffStorage
except ImportError as error:
    raise ImportError(
        "NDTiffStorage and NDRAMStorage are in the plugin exengine-ndstorage, which cannot be imported: "
        f"{error}"
    ) from None

__all__ = ["NDRAMStorage", "NDTiffStorage"]
