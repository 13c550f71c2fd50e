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
from exengine_ndstorage import layout


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


def decode_pixels(
    data: bytes, form: layout.FrameLayout, axes_crc: int, describe: Callable[[], str]
) -> npt.NDArray[Any]:
    """Return the pixels of a frame of ours, having compared the checksum.

    Parameters
    ----------
    data : bytes
        IFD and pixels. The array that is returned is a view of them, and cannot be written.
    form : FrameLayout
    axes_crc : int
        Of the coordinates at which the frame was asked for.
    describe : callable
        Names the frame, for the error.

    Raises
    ------
    DatasetDamagedError
        When they are not what was written.
    """
    if len(data) == form.ifd_bytes + form.pixel_bytes:
        pixels = np.ndarray(form.shape, form.dtype, data, form.ifd_bytes)
        checksums = form.checksums(data)
        if checksums is not None and crc32c.crc32c(pixels.data, axes_crc) == checksums[0]:
            return pixels
    raise DatasetDamagedError(f"the pixels or coordinates of {describe()} are not those that were written")


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
        As for :func:`decode_pixels`.

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
