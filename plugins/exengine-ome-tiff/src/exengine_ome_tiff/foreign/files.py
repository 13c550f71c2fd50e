"""Opens TIFF files with tifffile, and reads their pages with checks that tifffile does not perform.

tifffile returns zeros for a strip without bytes, and raises errors of many types. This module reports a page
that lacks pixels as damaged, and raises only ExEngine's errors.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from exengine.base_classes import open_regular, read_at
from exengine.errors import DatasetDamagedError, UnsupportedOperationError
from exengine_ome_tiff.foreign.chain import Chain, follow

_MOST_OPEN = 16
_MOST_BYTES = 2**33
_MOST_RATIO = 5000


class TiffFiles:
    """A TIFF file, and other files in its folder that contain pages of the same dataset.

    Parameters
    ----------
    path : str
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.RLock()  # a tifffile.TiffFile must not be used by two threads at once
        self._open: dict[str, tuple[tifffile.TiffFile, Chain]] = {}

    def file(self, name: str | None = None) -> tifffile.TiffFile:
        """Return the main file or, if ``name`` is given, another file in its folder.

        Raises
        ------
        DatasetDamagedError
            If the file does not exist or is not a TIFF file.
        """
        return self._file(name)[0]

    def chain(self, name: str | None = None) -> Chain:
        """Return the number of pages in a file, and the reason if their chain ends early."""
        return self._file(name)[1]

    def _file(self, name: str | None) -> tuple[tifffile.TiffFile, Chain]:
        path = self.path if name is None else os.path.join(os.path.dirname(self.path), name)
        found = self._open.pop(path, None)
        if found is None:
            while len(self._open) >= _MOST_OPEN:
                self._open.pop(next(iter(self._open)))[0].close()
            found = _opened(path)
        self._open[path] = found
        return found

    def page(self, name: str | None, number: int) -> Any:
        """Return a page of a file.

        Raises
        ------
        DatasetDamagedError
            If the page does not exist or cannot be read.
        """
        file = self.file(name)
        with as_damage(f"page {number} of {file.filename}"):
            return file.pages[number].aspage()

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1][0].close()


def _opened(path: str) -> tuple[tifffile.TiffFile, Chain]:
    descriptor = _regular(path)
    try:
        with as_damage(path):
            chain = follow(descriptor)
            if not chain.pages:
                raise ValueError(chain.fault)
            return tifffile.TiffFile(path), chain
    finally:
        os.close(descriptor)


def _regular(path: str) -> int:
    try:
        return open_regular(path, follow_links=True)
    except OSError as error:
        raise DatasetDamagedError(f"{path} cannot be opened: {error}") from None


@contextlib.contextmanager
def as_damage(what: str) -> Iterator[None]:
    """Turn errors from tifffile and its codecs into ExEngine's errors, and discard tifffile's warnings."""
    logger, handler = logging.getLogger("tifffile"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    except (DatasetDamagedError, UnsupportedOperationError):
        raise
    except Exception as error:  # tifffile and codecs raise errors of many types
        text = f"{what} cannot be read: {type(error).__name__}: {error}"
        if "imagecodecs" in str(error):
            raise UnsupportedOperationError(f"{text}; install it with: pip install imagecodecs") from None
        raise DatasetDamagedError(text) from None
    finally:
        logger.removeHandler(handler)


def check_page(page: Any) -> None:
    """Raise an error unless all pixels of a page are in its file.

    Raises
    ------
    DatasetDamagedError, UnsupportedOperationError
    """
    what = f"page {page.index} of {page.parent.filename}"
    offsets, counts = page.dataoffsets, page.databytecounts
    end = page.parent.filehandle.size
    if not page.nbytes or not counts or len(offsets) != len(counts) or min(counts) <= 0:
        raise DatasetDamagedError(f"{what} lacks pixels")
    if any(offset <= 0 or offset + count > end for offset, count in zip(offsets, counts, strict=True)):
        raise DatasetDamagedError(f"{what} has pixels beyond the end of the file")
    if page.nbytes > _MOST_BYTES:
        raise UnsupportedOperationError(f"{what} has {page.nbytes} bytes; the limit is {_MOST_BYTES}")
    if page.nbytes > sum(counts) * (1 if page.compression == 1 and page.nbytes > 2**20 else _MOST_RATIO):
        raise DatasetDamagedError(f"{what} is too short to contain {page.nbytes} bytes of pixels")
    if page.axes not in ("YX", "YXS", "SYX"):
        raise UnsupportedOperationError(f"{what} has the dimensions {page.axes}")


def read_page(page: Any) -> npt.NDArray[Any]:
    """Return the pixels of a page: ``(Y, X)`` or ``(Y, X, samples)``.

    Raises
    ------
    DatasetDamagedError, UnsupportedOperationError
    """
    check_page(page)
    with as_damage(f"page {page.index} of {page.parent.filename}"):
        pixels = page.asarray()
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, 2)
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))


def read_run(path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return uncompressed pixels that begin at an offset.

    Raises
    ------
    DatasetDamagedError
    """
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    descriptor = _regular(path)
    try:
        if offset + size > os.fstat(descriptor).st_size:
            raise DatasetDamagedError(f"{path} ends within the pixels that begin at offset {offset}")
        content = read_at(descriptor, size, offset)
    finally:
        os.close(descriptor)
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))
