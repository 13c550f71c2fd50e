"""Storage backends ``ndtiff`` (NDTiff on disk) and ``ndram`` (in memory) for ExEngine."""

from typing import Any

__all__ = ["NDRAMStorage", "NDTiffStorage"]


def __getattr__(name: str) -> Any:
    # Each class when it is needed: who keeps frames in memory need not import what writes TIFF.
    if name == "NDTiffStorage":
        from exengine_ndstorage.ndtiff import NDTiffStorage

        return NDTiffStorage
    if name == "NDRAMStorage":
        from exengine_ndstorage.ndram import NDRAMStorage

        return NDRAMStorage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
