"""A frame of ours as bytes, and back: JSON, checksums, and the refusal of what does not match.

The checksums of pixels and of metadata both begin with the coordinates. So a frame that an altered
index names at the wrong place is found out, whichever of the two is read.
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
from exengine_ndstorage.ndtiff import format as layout
from exengine_ndstorage.ndtiff.files import OpenFile
from exengine_ndstorage.ndtiff.helper_thread import SecondThread

_TWO_THREADS_BYTES = 2 * 2**20  # below, the second thread gains less than handing over costs
_PIECE_BYTES = 2**20  # is still near the processor when its checksum is computed


def encode_json(value: Any) -> bytes:
    """Return a checked JSON value as bytes; integers beyond 64 bits included.

    Raises
    ------
    MetadataError
        When an integer has more digits than Python reads back.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except ValueError as error:
            raise MetadataError(f"the metadata cannot be JSON that others read: {error}") from None


def axes_checksum(axes: Mapping[str, int | str]) -> int:
    """Return CRC-32C of coordinates, whatever the order of their axes."""
    return crc32c.crc32c(orjson.dumps(axes, option=orjson.OPT_SORT_KEYS))


def read_pixels(
    file: OpenFile, begin: int, form: layout.FrameLayout, thread: SecondThread, describe: Callable[[], str]
) -> npt.NDArray[Any]:
    """Read the pixels of a frame, and compare nothing.

    Parameters
    ----------
    file : OpenFile
    begin : int
        Where in the file the pixels begin.
    form : FrameLayout
    thread : SecondThread
        Helps with large frames.
    describe : callable
        Names the frame, for the error.

    Returns
    -------
    numpy.ndarray
        In memory of its own, which cannot be written.

    Raises
    ------
    DatasetDamagedError
        When the file is too short.
    """
    data, _ = _read(file, form.pixel_bytes, begin, thread)
    if len(data) != form.pixel_bytes:
        raise DatasetDamagedError(f"the pixels of {describe()} end too early")
    return _pixels_in(data, form)


def read_checked_pixels(
    file: OpenFile,
    begin: int,
    form: layout.FrameLayout,
    axes_crc: int,
    thread: SecondThread,
    describe: Callable[[], str],
) -> npt.NDArray[Any]:
    """Read the pixels of a frame of ours, and compare the checksum.

    Parameters
    ----------
    file, begin, form, thread, describe
        As for :func:`read_pixels`.
    axes_crc : int
        Of the coordinates at which the frame was asked for.

    Returns
    -------
    numpy.ndarray
        In memory of its own, which cannot be written.

    Raises
    ------
    DatasetDamagedError
        When they are not what was written.
    """
    whole, begin = form.ifd_bytes + form.pixel_bytes, max(0, begin - form.ifd_bytes)
    data, pixels_crc = _read(file, whole, begin, thread, form.ifd_bytes, axes_crc)
    if len(data) == whole:
        checksums = form.checksums(data)
        if checksums is not None and pixels_crc == checksums[0]:
            return _pixels_in(data, form, form.ifd_bytes)
    raise DatasetDamagedError(f"the pixels or coordinates of {describe()} are not those that were written")


def _pixels_in(data: Any, form: layout.FrameLayout, at: int = 0) -> npt.NDArray[Any]:
    pixels: npt.NDArray[Any] = np.ndarray(form.shape, form.dtype, data, at)
    pixels.flags.writeable = False  # as those in bytes are, whatever the size
    return pixels


def _read(
    file: OpenFile, size: int, begin: int, thread: SecondThread, skip: int = 0, crc: int | None = None
) -> tuple[Any, int]:
    """Read a part of a file; of a large one the second half on the second thread.

    Parameters
    ----------
    file : OpenFile
    size, begin : int
        Of the part.
    thread : SecondThread
    skip : int
        How many bytes come before those whose checksum is wanted.
    crc : int, optional
        The checksum of what comes before them; without it, none is computed.

    Returns
    -------
    data : bytes or numpy.ndarray
        Its bytes, fewer at the end of the file.
    checksum : int
        Of all bytes, where they are all there.
    """
    if size < _TWO_THREADS_BYTES:
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
    """Fill a buffer from a file; return how many bytes came, and their checksum, where one is wanted."""
    done, size, value = 0, len(view), crc or 0
    piece_bytes = size if crc is None else _PIECE_BYTES
    while done < size and (got := read_into(file.descriptor, view[done : done + piece_bytes], begin + done)):
        if crc is not None:
            value = crc32c.crc32c(view[max(done, skip) : done + got], value)
        done += got
    return done, value


def combined_checksum(first: int, second: int, size: int) -> int:
    """Return CRC-32C of two buffers, of which the second has ``size`` bytes, from those of each.

    CRC-32C is linear over bits: behind a buffer, others change its checksum in a way that only their number
    decides, and add their own.
    """
    return _moved(first, _shift(size)) ^ second


@functools.lru_cache(maxsize=256)
def _shift(size: int) -> tuple[int, ...]:
    """Return what becomes of each bit of a checksum when ``size`` bytes follow."""
    if size == 1:
        without = crc32c.crc32c(b"\0")
        return tuple(crc32c.crc32c(b"\0", 1 << bit) ^ without for bit in range(32))
    half = _shift(size // 2)
    shift = tuple(_moved(value, half) for value in half)
    return tuple(_moved(value, _shift(1)) for value in shift) if size & 1 else shift


def _moved(checksum: int, shift: tuple[int, ...]) -> int:
    result = 0
    for value in shift:
        if checksum & 1:
            result ^= value
        checksum >>= 1
    return result


def decode_metadata(
    data: bytes, size: int, ifd: bytes, form: layout.FrameLayout, axes_crc: int, describe: Callable[[], str]
) -> Any:
    """Return the metadata of a frame of ours, having compared the checksum.

    Parameters
    ----------
    data : bytes
        The JSON.
    size : int
        How long it must be.
    ifd : bytes
        Of the frame.
    form, axes_crc, describe
        As for :func:`read_checked_pixels`.

    Raises
    ------
    DatasetDamagedError
        When they, or the coordinates, are not what was written.
    """
    if len(ifd) == form.ifd_bytes and len(data) == size:
        checksums = form.checksums(ifd)
        if checksums is not None and crc32c.crc32c(data, axes_crc) == checksums[1]:
            return json.loads(data)
    raise DatasetDamagedError(f"the metadata or coordinates of {describe()} are not those that were written")
