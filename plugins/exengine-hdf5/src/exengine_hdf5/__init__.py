"""The storage backend ``hdf5``: a dataset in one HDF5 file."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exengine_hdf5.reader import Hdf5Reader
    from exengine_hdf5.writer import Hdf5Storage

__all__ = ["Hdf5Reader", "Hdf5Storage"]


def __getattr__(name: str) -> Any:
    if name == "Hdf5Storage":
        from exengine_hdf5.writer import Hdf5Storage

        return Hdf5Storage
    if name == "Hdf5Reader":
        from exengine_hdf5.reader import Hdf5Reader

        return Hdf5Reader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
