"""The files of a dataset: which names and folders belong to it, and a bounded number of open descriptors.

A descriptor is closed with the last reference to it. A file may therefore leave the pool while another
thread reads from it, and a descriptor that a thread holds never refers to another file.
"""

import os
import re
import threading

from exengine.base_classes import open_regular
from exengine.errors import DatasetDamagedError, DatasetNotFoundError
from exengine_ndstorage.ndtiff.sizes import MAX_NAME_BYTES, MAX_OPEN_FILES

READ = os.O_RDONLY
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL

_DATASET_NAME = re.compile(r"[^/\\:\x00-\x1f\x7f]+")


def existing_folder(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a dataset, which stays valid when the program changes its folder.

    Raises
    ------
    DatasetNotFoundError
        If the path is not a folder.
    """
    folder = os.path.abspath(path)
    if not os.path.isdir(folder):
        raise DatasetNotFoundError(f"there is no dataset at {folder}")
    return folder


def refuse_link(folder: str) -> None:
    """Refuse a folder of a dataset that is a link to another place (promise D3).

    Raises
    ------
    DatasetDamagedError
    """
    if os.path.islink(folder):
        raise DatasetDamagedError(f"{folder} is a symbolic link, and not a folder of the dataset")


def is_file_name(name: str) -> bool:
    """Return whether a name in an index is that of a file in the dataset's own folder (promise D3)."""
    return bool(name) and os.path.basename(name) == name and name not in (".", "..") and "\0" not in name


def is_dataset_name(name: object) -> bool:
    """Return whether a name is valid for the folder and the files of a new dataset."""
    if not isinstance(name, str) or not _DATASET_NAME.fullmatch(name) or name.strip(". ") != name:
        return False
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


class OpenFile:
    """A regular file that stays open while a reference to this object exists.

    Parameters
    ----------
    path : str
    flags : int
        ``READ`` or ``NEW``.

    Raises
    ------
    OSError
        If it cannot be opened, or is not a regular file: a link, a pipe or a device is refused without
        opening it.
    """

    __slots__ = ("descriptor",)

    def __init__(self, path: str, flags: int) -> None:
        self.descriptor = open_regular(path, flags)

    def __del__(self) -> None:
        descriptor = getattr(self, "descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


class FilePool:
    """The most recent files of a dataset, by their number.

    Parameters
    ----------
    most : int
        The maximum number of files that the pool holds.
    """

    def __init__(self, most: int = MAX_OPEN_FILES) -> None:
        self._most = most
        self._files: dict[int, OpenFile] = {}
        self._lock = threading.Lock()
        self.get = self._files.get

    def open(self, number: int, path: str) -> OpenFile:
        """Return a file from the pool, or open it for reading."""
        return self.get(number) or self.hold(number, OpenFile(path, READ))

    def hold(self, number: int, file: OpenFile) -> OpenFile:
        """Add a file to the pool, and remove the oldest ones if the pool is full."""
        with self._lock:
            while len(self._files) >= self._most:
                del self._files[next(iter(self._files))]
            return self._files.setdefault(number, file)

    def release(self) -> None:
        """Remove all files from the pool."""
        with self._lock:
            self._files.clear()
