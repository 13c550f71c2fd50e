"""Chooses a reader for an OME-Zarr dataset, depending on whether this backend or another program wrote it."""

import os

from exengine.base_classes import DataStorage, is_url, read_manifest
from exengine.errors import DatasetNotFoundError
from exengine_ome_zarr.capabilities import BACKEND_NAME
from exengine_ome_zarr.foreign import is_ome_zarr as is_foreign
from exengine_ome_zarr.foreign import open_foreign
from exengine_ome_zarr.format.files import LAYOUT
from exengine_ome_zarr.packed import PackedReader, is_packed
from exengine_ome_zarr.reader import OmeZarrReader


def is_own(path: str | os.PathLike[str]) -> bool:
    """Return whether this backend wrote the dataset, even if some files are missing or damaged."""
    if os.path.lexists(os.path.join(path, LAYOUT)):
        return True
    manifest = read_manifest(path)
    return manifest is not None and manifest.backend == BACKEND_NAME


def is_ome_zarr(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is an OME-Zarr dataset, regardless of the program that wrote it."""
    return is_packed(path) or is_own(path) or is_foreign(path)


def open_ome_zarr(path: str | os.PathLike[str]) -> DataStorage:
    """Open an OME-Zarr dataset, regardless of the program that wrote it.

    Raises
    ------
    DatasetNotFoundError
        If there is no dataset at the path.
    DatasetDamagedError
        If no part of the dataset can be read.
    """
    if is_url(path):
        from exengine_ome_zarr.remote.reader import open_remote

        return open_remote(os.fspath(path))
    absolute = os.path.abspath(path)
    if not os.path.exists(absolute):
        raise DatasetNotFoundError(f"there is no dataset at {absolute}")
    if os.path.isfile(absolute) and (is_packed(absolute) or not is_foreign(absolute)):
        return PackedReader.open(absolute)
    if is_own(absolute):
        return OmeZarrReader(absolute)
    return open_foreign(absolute)
