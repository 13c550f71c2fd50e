"""Open files of a dataset: descriptors that close themselves, and a pool with a limited number of them.

A file descriptor is closed when the last reference to it is gone. A file can therefore leave the pool while
another thread is still reading from it, and a descriptor that a thread is using never refers to a different
file.
"""

import os
import threading
from collections.abc import Hashable

from exengine.kernel.system.files import open_regular

READ = os.O_RDONLY
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


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
        If the file cannot be opened, or if it is not a regular file. A link, a pipe or a device is rejected
        without being opened.
    """

    __slots__ = ("descriptor",)

    start: int = 0
    """The offset at which the file begins; greater than 0 only for a file in an archive."""

    @property
    def size(self) -> int:
        """The size of the file in bytes."""
        return os.fstat(self.descriptor).st_size

    def __init__(self, path: str, flags: int) -> None:
        self.descriptor = open_regular(path, flags)

    def __del__(self) -> None:
        descriptor = getattr(self, "descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


class FilePool:
    """The most recently opened files of a dataset, each accessible by a key, such as a number.

    Parameters
    ----------
    most : int
        The maximum number of files in the pool.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: dict[Hashable, OpenFile] = {}
        self._lock = threading.Lock()
        self.get = self._files.get

    def open(self, number: Hashable, path: str) -> OpenFile:
        """Return a file from the pool, or open it for reading if it is not in the pool."""
        return self.get(number) or self.hold(number, OpenFile(path, READ))

    def hold(self, number: Hashable, file: OpenFile) -> OpenFile:
        """Add a file to the pool. If the pool is full, remove the oldest files first."""
        with self._lock:
            while len(self._files) >= self._most:
                del self._files[next(iter(self._files))]
            return self._files.setdefault(number, file)

    def discard(self, number: Hashable) -> None:
        """Remove a file from the pool, if it is there."""
        with self._lock:
            self._files.pop(number, None)

    def release(self) -> None:
        """Remove all files from the pool."""
        with self._lock:
            self._files.clear()
