"""Frames as bytes, and back: JSON, checksums, and the refusal of data that does not match its checksum.

The checksums of pixels and of metadata both start with the coordinates. A frame that an altered index names
at wrong coordinates is therefore detected when either of the two is read.
"""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt
import orjson

from exengine.base_classes import read_at, read_into
from exengine.errors import DatasetDamagedError, MetadataError
from exengine_ndstorage.ndtiff.files import OpenFile
from exengine_ndstorage.ndtiff.format import FrameLayout
from exengine_ndstorage.ndtiff.helper_thread import HelperThread
from exengine_ndstorage.ndtiff.sizes import CHECKED_PIECE_BYTES, SHARED_READ_BYTES


def encode_json(value: Any) -> bytes:
    """Return a checked JSON value as bytes; integers beyond 64 bits included.

    Raises
    ------
    MetadataError
        If an integer has more digits than Python reads back.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except ValueError as error:
            raise MetadataError(f"the metadata cannot be encoded as portable JSON: {error}") from None


def axes_checksum(axes: Mapping[str, int | str]) -> int:
    """Return CRC-32C of coordinates; the order of the axes makes no difference."""
    return crc32c.crc32c(orjson.dumps(axes, option=orjson.OPT_SORT_KEYS))


def read_pixels(
    file: OpenFile, begin: int, layout: FrameLayout, thread: HelperThread, describe: Callable[[], str]
) -> npt.NDArray[Any]:
    """Read the pixels of a frame, without comparing their checksum.

    Parameters
    ----------
    file : OpenFile
    begin : int
        The offset of the pixels in the file.
    layout : FrameLayout
    thread : HelperThread
        Reads half of a large frame.
    describe : callable
        Returns the name of the frame, for the error.

    Returns
    -------
    numpy.ndarray
        Read-only, in memory of its own.

    Raises
    ------
    DatasetDamagedError
        If the file is too short.
    """
    data, _ = _read(file, layout.pixel_bytes, begin, thread)
    if len(data) != layout.pixel_bytes:
        raise DatasetDamagedError(f"the pixels of {describe()} end too early")
    return _pixels_in(data, layout)


def read_checked_pixels(
    file: OpenFile,
    begin: int,
    layout: FrameLayout,
    axes_crc: int,
    thread: HelperThread,
    describe: Callable[[], str],
) -> npt.NDArray[Any]:
    """Read the pixels of a frame that has a checksum, and compare it.

    Parameters
    ----------
    file, begin, layout, thread, describe
        See :func:`read_pixels`.
    axes_crc : int
        The checksum of the requested coordinates.

    Returns
    -------
    numpy.ndarray
        Read-only, in memory of its own.

    Raises
    ------
    DatasetDamagedError
        If they differ from the pixels that were written.
    """
    whole, begin = layout.ifd_bytes + layout.pixel_bytes, max(0, begin - layout.ifd_bytes)
    data, pixels_crc = _read(file, whole, begin, thread, skip=layout.ifd_bytes, crc=axes_crc)
    if len(data) == whole:
        checksums = layout.checksums(data)
        if checksums is not None and pixels_crc == checksums[0]:
            return _pixels_in(data, layout, layout.ifd_bytes)
    raise DatasetDamagedError(f"the pixels or coordinates of {describe()} are not those that were written")


def _pixels_in(data: Any, layout: FrameLayout, at: int = 0) -> npt.NDArray[Any]:
    pixels: npt.NDArray[Any] = np.ndarray(layout.shape, layout.dtype, data, at)
    pixels.flags.writeable = False  # a view of bytes is read-only; so is one of an array
    return pixels


def _read(
    file: OpenFile, size: int, begin: int, thread: HelperThread, *, skip: int = 0, crc: int | None = None
) -> tuple[Any, int]:
    """Read a part of a file; the helper thread reads the second half of a large one.

    Parameters
    ----------
    file : OpenFile
    size, begin : int
        The length and the offset of the part.
    thread : HelperThread
    skip : int
        The number of bytes at the beginning that are not part of the checksum.
    crc : int, optional
        The checksum of the data before the part; by default no checksum is computed.

    Returns
    -------
    data : bytes or numpy.ndarray
        The bytes of the part; fewer at the end of the file.
    checksum : int
        Valid if the part is complete.
    """
    if size < SHARED_READ_BYTES:
        small = read_at(file.descriptor, size, begin)
        return small, 0 if crc is None else crc32c.crc32c(memoryview(small)[skip:], crc)
    data: Any = np.empty(size, np.uint8)
    view = memoryview(data)
    half = skip + (size - skip) // 2
    job = thread.begin(_read_part, file, view[half:], begin + half, 0, None if crc is None else 0)
    if job is None:
        got, value = _read_part(file, view, begin, skip, crc)
        return data[:got], value
    try:
        got, value = _read_part(file, view[:half], begin, skip, crc)
    finally:
        rest, rest_value = job.end()
    if got < half:
        return data[:got], value
    return data[: half + rest], combined_checksum(value, rest_value, size - half)


def _read_part(file: OpenFile, view: memoryview, begin: int, skip: int, crc: int | None) -> tuple[int, int]:
    """Fill a buffer from a file; return the number of bytes read, and their checksum if requested."""
    done, size, value = 0, len(view), crc or 0
    piece_bytes = size if crc is None else CHECKED_PIECE_BYTES
    while done < size and (got := read_into(file.descriptor, view[done : done + piece_bytes], begin + done)):
        if crc is not None:
            value = crc32c.crc32c(view[max(done, skip) : done + got], value)
        done += got
    return done, value


def combined_checksum(first: int, second: int, size: int) -> int:
    """Return CRC-32C of two adjacent buffers from the checksum of each.

    CRC-32C is linear over bits: bytes after a buffer shift its checksum, depending on their number only, and
    add their own checksum.

    Parameters
    ----------
    first, second : int
        The checksum of each buffer.
    size : int
        The number of bytes of the second buffer.
    """
    return _shifted(first, _shift(size)) ^ second


@functools.lru_cache(maxsize=256)
def _shift(size: int) -> tuple[int, ...]:
    """Return for each bit of a checksum its value after ``size`` more bytes."""
    if size == 1:
        without = crc32c.crc32c(b"\0")
        return tuple(crc32c.crc32c(b"\0", 1 << bit) ^ without for bit in range(32))
    half = _shift(size // 2)
    shift = tuple(_shifted(value, half) for value in half)
    return tuple(_shifted(value, _shift(1)) for value in shift) if size & 1 else shift


def _shifted(checksum: int, shift: tuple[int, ...]) -> int:
    result = 0
    for value in shift:
        if checksum & 1:
            result ^= value
        checksum >>= 1
    return result


def decode_metadata(
    data: bytes, size: int, ifd: bytes, layout: FrameLayout, axes_crc: int, describe: Callable[[], str]
) -> Any:
    """Compare the checksum of a frame's metadata, and return the metadata.

    Parameters
    ----------
    data : bytes
        The metadata as JSON.
    size : int
        The expected number of bytes.
    ifd : bytes
        The directory of the frame, which holds the checksum.
    layout, axes_crc, describe
        See :func:`read_checked_pixels`.

    Raises
    ------
    DatasetDamagedError
        If the metadata or the coordinates differ from those that were written.
    """
    if len(ifd) == layout.ifd_bytes and len(data) == size:
        checksums = layout.checksums(ifd)
        if checksums is not None and crc32c.crc32c(data, axes_crc) == checksums[1]:
            return json.loads(data)
    raise DatasetDamagedError(f"the metadata or coordinates of {describe()} are not those that were written")
