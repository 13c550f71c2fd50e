"""The storage backend ``ome-zarr``: writes and reads OME-Zarr, the bioimaging community's image format."""

from typing import Any

__all__ = ["OmeZarrStorage", "add_pyramid"]


def __getattr__(name: str) -> Any:
    if name == "OmeZarrStorage":
        from exengine_ome_zarr.writer import OmeZarrStorage

        return OmeZarrStorage
    if name == "add_pyramid":
        from exengine_ome_zarr.finishing import add_pyramid

        return add_pyramid
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
