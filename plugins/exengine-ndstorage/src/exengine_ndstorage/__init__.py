"""Storage backends ``ndtiff`` (NDTiff on disk) and ``ndram`` (in memory) for ExEngine."""

from typing import Any

__all__ = ["NDRAMStorage", "NDTiffStorage"]


def __getattr__(name: str) -> Any:
    # Imports are lazy, so that a program that keeps frames in memory does not import the TIFF writer.
    if name == "NDTiffStorage":
        from exengine_ndstorage.ndtiff import NDTiffStorage

        return NDTiffStorage
    if name == "NDRAMStorage":
        from exengine_ndstorage.ndram import NDRAMStorage

        return NDRAMStorage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
