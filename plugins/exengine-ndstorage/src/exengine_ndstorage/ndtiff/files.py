"""Open files of a dataset: however many it has, only so many descriptors are held.

A descriptor is closed with the last reference to it. So a file may leave the pool while another
thread is reading from it, and nobody reads from a descriptor that already means another file.
"""

import os
import threading

from exengine.base_classes import open_regular

MOST_OPEN = 64
"""Files that a pool holds open; a dataset of 4 GiB files has fewer up to 256 GiB."""

CHUNK_BYTES = 2 * 2**20
"""How much of an index is read at once."""

READ = os.O_RDONLY
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


class OpenFile:
    """A regular file, open as long as somebody refers to this object.

    Parameters
    ----------
    path : str
    flags : int
        ``READ`` or ``NEW``.

    Raises
    ------
    OSError
        When it cannot be opened, or is no regular file: a link, a pipe or a device is refused without
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
    """The files that were used last, by their number in the dataset.

    Parameters
    ----------
    most : int
        How many to hold.
    """

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most = most
        self._files: dict[int, OpenFile] = {}
        self._lock = threading.Lock()
        self.get = self._files.get

    def open(self, number: int, path: str) -> OpenFile:
        """Return a file, opened to read where it is not held."""
        return self.get(number) or self.hold(number, OpenFile(path, READ))

    def hold(self, number: int, file: OpenFile) -> OpenFile:
        """Hold a file, in the place of the one that came first when there are too many."""
        with self._lock:
            while len(self._files) >= self._most:
                del self._files[next(iter(self._files))]
            return self._files.setdefault(number, file)

    def release(self) -> None:
        """Hold nothing any more."""
        with self._lock:
            self._files.clear()
