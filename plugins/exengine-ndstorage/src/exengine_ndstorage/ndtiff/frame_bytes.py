"""Converts frames to bytes and back, as pixels and JSON, and verifies their checksums.

The checksum of the pixels and the checksum of the metadata both include the coordinates. If an altered index
assigns wrong coordinates to a frame, the error is therefore detected as soon as the pixels or the metadata
are read.
"""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt
import orjson

from exengine.base_classes import HelperThread, OpenFile, read_at, read_into
from exengine.errors import DatasetDamagedError, MetadataError
from exengine_ndstorage.ndtiff.format import FrameLayout
from exengine_ndstorage.ndtiff.sizes import CHECKED_PIECE_BYTES, SHARED_READ_BYTES


def encode_json(value: Any) -> bytes:
    """Encode a checked JSON value, which may contain integers with more than 64 bits.

    Raises
    ------
    MetadataError
        If an integer has more digits than Python can read back.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except ValueError as error:
            raise MetadataError(f"the metadata cannot be encoded as portable JSON: {error}") from None


def axes_checksum(axes: Mapping[str, int | str]) -> int:
    """Return the CRC-32C of coordinates. It does not depend on the order of the axes."""
    return crc32c.crc32c(orjson.dumps(axes, option=orjson.OPT_SORT_KEYS))


def read_pixels(
    file: OpenFile, begin: int, layout: FrameLayout, thread: HelperThread, describe: Callable[[], str]
) -> npt.NDArray[Any]:
    """Read a frame's pixels without verifying their checksum.

    Parameters
    ----------
    file : OpenFile
    begin : int
        The offset of the pixels in the file.
    layout : FrameLayout
    thread : HelperThread
        The helper thread, which reads half of a large frame.
    describe : callable
        Returns the name of the frame, for the error message.

    Returns
    -------
    numpy.ndarray
        The pixels, as a read-only array with its own memory.

    Raises
    ------
    DatasetDamagedError
        If the file is too short.
    """
    data, _ = _read(file, layout.pixel_bytes, begin, thread)
    if len(data) != layout.pixel_bytes:
        raise DatasetDamagedError(f"the pixels of {describe()} are incomplete")
    return _pixels_in(data, layout)


def read_checked_pixels(
    file: OpenFile,
    begin: int,
    layout: FrameLayout,
    axes_crc: int,
    thread: HelperThread,
    describe: Callable[[], str],
) -> npt.NDArray[Any]:
    """Read the pixels of a frame that has a checksum, and verify the checksum.

    Parameters
    ----------
    file, begin, layout, thread, describe
        See :func:`read_pixels`.
    axes_crc : int
        The checksum of the requested coordinates.

    Returns
    -------
    numpy.ndarray
        The pixels, as a read-only array with its own memory.

    Raises
    ------
    DatasetDamagedError
        If the pixels or the coordinates differ from those that were written.
    """
    whole, begin = layout.ifd_bytes + layout.pixel_bytes, max(0, begin - layout.ifd_bytes)
    data, pixels_crc = _read(file, whole, begin, thread, skip=layout.ifd_bytes, crc=axes_crc)
    if len(data) == whole:
        checksums = layout.checksums(data)
        if checksums is not None and pixels_crc == checksums[0]:
            return _pixels_in(data, layout, layout.ifd_bytes)
    raise DatasetDamagedError(
        f"the pixels or coordinates of {describe()} differ from those that were written"
    )


def _pixels_in(data: Any, layout: FrameLayout, at: int = 0) -> npt.NDArray[Any]:
    pixels: npt.NDArray[Any] = np.ndarray(layout.shape, layout.dtype, data, at)
    pixels.flags.writeable = False  # a view of bytes is read-only already, but a view of an array is not
    return pixels


def _read(
    file: OpenFile, size: int, begin: int, thread: HelperThread, *, skip: int = 0, crc: int | None = None
) -> tuple[Any, int]:
    """Read part of a file. If the part is large, the helper thread reads its second half.

    Parameters
    ----------
    file : OpenFile
    size, begin : int
        The length and the offset of the part, in bytes.
    thread : HelperThread
    skip : int
        The number of bytes at the beginning of the part that the checksum does not include.
    crc : int, optional
        The checksum of the data that precedes the part. By default, no checksum is computed.

    Returns
    -------
    data : bytes or numpy.ndarray
        The bytes of the part, or fewer bytes if the file ends too early.
    checksum : int
        The checksum, which is valid only if the part is complete.
    """
    if size < SHARED_READ_BYTES:
        small = read_at(file.descriptor, size, file.start + begin)
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
    """Fill a buffer from a file. Return the number of bytes read and, if requested, their checksum."""
    done, size, value = 0, len(view), crc or 0
    start = file.start + begin
    piece_bytes = size if crc is None else CHECKED_PIECE_BYTES
    while done < size and (got := read_into(file.descriptor, view[done : done + piece_bytes], start + done)):
        if crc is not None:
            value = crc32c.crc32c(view[max(done, skip) : done + got], value)
        done += got
    return done, value


def combined_checksum(first: int, second: int, size: int) -> int:
    """Compute the CRC-32C of two adjacent buffers from their individual checksums.

    CRC-32C is linear over bits. Appending bytes to a buffer shifts its checksum in a way that depends only on
    the number of appended bytes, and then adds the checksum of those bytes.

    Parameters
    ----------
    first, second : int
        The checksums of the two buffers.
    size : int
        The number of bytes in the second buffer.
    """
    return _shifted(first, _shift(size)) ^ second


@functools.lru_cache(maxsize=256)
def _shift(size: int) -> tuple[int, ...]:
    """For each bit of a checksum, return its effect on the checksum after ``size`` more bytes."""
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
    """Verify the checksum of a frame's metadata, and return the metadata.

    Parameters
    ----------
    data : bytes
        The metadata as JSON.
    size : int
        The expected number of bytes.
    ifd : bytes
        The directory of the frame, which contains the checksum.
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
    error = DatasetDamagedError(
        f"the metadata or coordinates of {describe()} differ from those that were written"
    )
    error.readable = data.decode(errors="replace")
    raise error
