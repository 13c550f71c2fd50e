"""The files of a dataset: valid names and folders, and a pool with a limited number of open files.

A file descriptor is closed when the last reference to it is gone. A file can therefore leave the pool while
another thread is still reading from it, and a descriptor that a thread is using never refers to a different
file.
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
    """Return a dataset's absolute path, which stays valid if the program changes its working directory.

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


class OpenFile:
    """A regular file that stays open for as long as a reference to this object exists.

    Parameters
    ----------
    path : str
    flags : int
        ``READ`` or ``NEW``.

    Raises
    ------
    OSError
        If the file cannot be opened, or if it is not a regular file. A link, a pipe or a device is refused
        without being opened.
    """

    __slots__ = ("descriptor",)

    def __init__(self, path: str, flags: int) -> None:
        self.descriptor = open_regular(path, flags)

    def __del__(self) -> None:
        descriptor = getattr(self, "descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


class FilePool:
    """The most recently opened files of a dataset, accessible by their number.

    Parameters
    ----------
    most : int
        The maximum number of files in the pool.
    """

    def __init__(self, most: int = MAX_OPEN_FILES) -> None:
        self._most = most
        self._files: dict[int, OpenFile] = {}
        self._lock = threading.Lock()
        self.get = self._files.get

    def open(self, number: int, path: str) -> OpenFile:
        """Return a file from the pool, or open it for reading if it is not in the pool."""
        return self.get(number) or self.hold(number, OpenFile(path, READ))

    def hold(self, number: int, file: OpenFile) -> OpenFile:
        """Add a file to the pool. If the pool is full, remove the oldest files first."""
        with self._lock:
            while len(self._files) >= self._most:
                del self._files[next(iter(self._files))]
            return self._files.setdefault(number, file)

    def release(self) -> None:
        """Remove all files from the pool."""
        with self._lock:
            self._files.clear()
