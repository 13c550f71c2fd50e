"""A frame of ours as bytes, and back: JSON, checksums, and the refusal of what does not match.

The checksums of pixels and of metadata both begin with the coordinates. So a frame that an altered
index names at the wrong place is found out, whichever of the two is read.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt
import orjson

from exengine.errors import DatasetDamagedError, MetadataError
from exengine.kernel import platform
from exengine_ndstorage import layout
from exengine_ndstorage.second_thread import RunningChecksum, SecondThread

_PIPELINE_BYTES = 2 * 2**20  # below, the pieces gain less than handing them over costs
_PIECE_BYTES = 2**20


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
    descriptor: int,
    begin: int,
    form: layout.FrameLayout,
    axes_crc: int,
    thread: SecondThread,
    describe: Callable[[], str],
) -> npt.NDArray[Any]:
    """Read the pixels of a frame of ours, and compare the checksum.

    Parameters
    ----------
    descriptor : int
        Of the file.
    begin : int
        Where in the file the pixels begin.
    form : FrameLayout
    axes_crc : int
        Of the coordinates at which the frame was asked for.
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
        When they are not what was written.
    """
    whole, begin = form.ifd_bytes + form.pixel_bytes, max(0, begin - form.ifd_bytes)
    running = thread.begin(axes_crc) if form.pixel_bytes >= _PIPELINE_BYTES else None
    if running is not None:
        data, pixels_crc = _read_in_pieces(descriptor, whole, begin, form.ifd_bytes, running)
    else:
        data = platform.read_at(descriptor, whole, begin)
        pixels_crc = crc32c.crc32c(memoryview(data)[form.ifd_bytes :], axes_crc)
    if len(data) == whole:
        checksums = form.checksums(data)
        if checksums is not None and pixels_crc == checksums[0]:
            pixels = np.ndarray(form.shape, form.dtype, data, form.ifd_bytes)
            pixels.flags.writeable = False
            return pixels
    raise DatasetDamagedError(f"the pixels or coordinates of {describe()} are not those that were written")


def _read_in_pieces(
    descriptor: int, size: int, begin: int, skip: int, running: RunningChecksum
) -> tuple[Any, int]:
    """Read so that the checksum of a piece is computed while the next one comes."""
    data: Any = np.empty(size, np.uint8)
    view = memoryview(data)
    done = 0
    try:
        while done < size and (
            got := platform.read_into(descriptor, view[done : done + _PIECE_BYTES], begin + done)
        ):
            running.add(view[max(done, skip) : done + got], last=done + got == size)
            done += got
    finally:
        value = running.end()
    return data[:done], value


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
        As for :func:`read_pixels`.

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
