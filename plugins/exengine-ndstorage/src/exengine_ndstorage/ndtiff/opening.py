"""Chooses the reader for an NDTiff dataset: version 3, a version 3 pyramid, or version 2."""

import os

from exengine.base_classes import DataStorage, packed_names
from exengine.errors import DatasetDamagedError
from exengine_ndstorage.ndtiff.files import existing_folder, refuse_link
from exengine_ndstorage.ndtiff.format import FULL_RESOLUTION, INDEX_NAME, MAJOR_VERSION
from exengine_ndstorage.ndtiff.header import first_tiff, read_header
from exengine_ndstorage.ndtiff.pyramid import PyramidReader
from exengine_ndstorage.ndtiff.reader import NDTiffReader
from exengine_ndstorage.ndtiff.version2 import Version2Reader


def is_ndtiff(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder is an NDTiff dataset of any version, or a pyramid of such datasets."""
    if os.path.isfile(path):
        return is_packed(os.fspath(path))
    places = ((INDEX_NAME,), (FULL_RESOLUTION, INDEX_NAME))
    return any(os.path.isfile(os.path.join(path, *parts)) for parts in places)


def is_packed(path: str) -> bool:
    """Return whether a file is a packed NDTiff dataset."""
    if not path.endswith(".zip"):
        return False
    try:
        return INDEX_NAME in packed_names(path)
    except (DatasetDamagedError, OSError):
        return False


def open_ndtiff(path: str | os.PathLike[str]) -> DataStorage:
    """Open an NDTiff dataset of any version.

    Parameters
    ----------
    path : path
        The folder of the dataset.

    Returns
    -------
    DataStorage
        A reader for the dataset.

    Raises
    ------
    DatasetNotFoundError
        If the path is not a folder.
    DatasetDamagedError
        If no part of the dataset can be read.
    """
    absolute = os.path.abspath(os.path.expanduser(path))
    if is_packed(absolute):
        return NDTiffReader(absolute)
    folder = existing_folder(absolute)
    full = os.path.join(folder, FULL_RESOLUTION)
    if not os.path.isdir(full):
        return NDTiffReader(folder)
    refuse_link(full)
    name = first_tiff(full)
    if name is not None and read_header(os.path.join(full, name))[0] < MAJOR_VERSION:
        return Version2Reader(folder)
    return PyramidReader(folder)
