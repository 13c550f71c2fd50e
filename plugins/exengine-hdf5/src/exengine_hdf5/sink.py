"""A file that hides I/O errors from the HDF5 library, and keeps the first error for the caller.

After a failed write, the HDF5 library may end the process with a segmentation fault when it closes the file
or exits. The library therefore writes through this Python class, and never sees an error. Data that cannot be
written is kept in memory, so that the library can read it again. After each chunk, the caller checks for an
error, and discards the file if there is one.
"""

import io
import os
from typing import Any

from exengine.base_classes import open_new, read_at, write_at


class Sink(io.RawIOBase):
    """A new file to pass to ``h5py.File``.

    Parameters
    ----------
    path : str

    Attributes
    ----------
    descriptor : int
    error : OSError or None
        The first error.
    """

    def __init__(self, path: str) -> None:
        self.descriptor = open_new(path, os.O_RDWR)
        self.error: OSError | None = None
        self._at = self._size = 0
        self._kept: list[tuple[int, bytes]] = []  # the data that could not be written

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self.error is not None:
            raise self.error

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            self.check()
            write_at(self.descriptor, [view], self._at, view.nbytes)
        except OSError as error:
            self.error = self.error or error
            self._kept.append((self._at, bytes(view)))
        self._at += view.nbytes
        self._size = max(self._size, self._at)
        return view.nbytes

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        size = max(0, min(view.nbytes, self._size - self._at))
        try:
            found = read_at(self.descriptor, size, self._at)
        except OSError as error:
            self.error, found = self.error or error, b""
        view[:size] = found.ljust(size, b"\0")
        for offset, data in self._kept:
            begin, end = max(offset, self._at), min(offset + len(data), self._at + size)
            if begin < end:
                view[begin - self._at : end - self._at] = data[begin - offset : end - offset]
        self._at += size
        return size

    def truncate(self, size: int | None = None) -> int:
        self._size = self._at if size is None else size
        try:
            self.check()
            os.ftruncate(self.descriptor, self._size)
        except OSError as error:
            self.error = self.error or error
        return self._size

    def close(self) -> None:
        if not self.closed:
            os.close(self.descriptor)
        super().close()
