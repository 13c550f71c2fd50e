"""Checks and helper functions for the files and folders of a dataset."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import crc32c

from exengine.base_classes import OpenFile, open_new, read_at
from exengine.errors import DatasetDamagedError, DatasetNotFoundError
from exengine_ndstorage.ndtiff.sizes import CHUNK_BYTES, MAX_NAME_BYTES

_DATASET_NAME = re.compile(r"[^/\\:\x00-\x1f\x7f]+")


def existing_folder(path: str | os.PathLike[str]) -> str:
    """Return a dataset's absolute path, which stays valid if the program changes its working directory.

    Raises
    ------
    DatasetNotFoundError
        If the path is not a folder.
    """
    folder = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(folder):
        raise DatasetNotFoundError(f"there is no dataset at {folder}")
    return folder


def refuse_link(folder: str) -> None:
    """Refuse a dataset folder that is a symbolic link to another location (promise D3).

    Raises
    ------
    DatasetDamagedError
    """
    if os.path.islink(folder):
        raise DatasetDamagedError(f"{folder} is a symbolic link, not a folder of the dataset")


def is_file_name(name: str) -> bool:
    """Return whether a name in an index refers to a file in the dataset's own folder (promise D3)."""
    return bool(name) and os.path.basename(name) == name and name not in (".", "..") and "\0" not in name


def is_dataset_name(name: object) -> bool:
    """Return whether a new dataset can use a name for its folder and its files."""
    if not isinstance(name, str) or not _DATASET_NAME.fullmatch(name) or name.strip(". ") != name:
        return False
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


@contextmanager
def replacing(path: str) -> Iterator[int]:
    """Open a new file for writing. When the file is complete and on disk, it replaces the old file."""
    temporary = path + ".new"
    descriptor = open_new(temporary, os.O_RDWR)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)


def checksum(file: OpenFile) -> int:
    """Return the CRC-32C of a whole file."""
    found = at = 0
    while data := read_at(file.descriptor, min(CHUNK_BYTES, file.size - at), file.start + at):
        found, at = crc32c.crc32c(data, found), at + len(data)
    return found
