"""The storage backend ``ome-tiff``: a dataset in one OME-TIFF file."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exengine_ome_tiff.reader import OmeTiffReader
    from exengine_ome_tiff.writer import OmeTiffStorage

__all__ = ["OmeTiffReader", "OmeTiffStorage"]


def __getattr__(name: str) -> Any:
    if name == "OmeTiffStorage":
        from exengine_ome_tiff.writer import OmeTiffStorage

        return OmeTiffStorage
    if name == "OmeTiffReader":
        from exengine_ome_tiff.reader import OmeTiffReader

        return OmeTiffReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
