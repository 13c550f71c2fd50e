"""Coordinates encoded in a frame's pixels. ``encode`` writes the code, and :func:`decode` reads it.

The code has one byte per pixel value, in C order, for every dtype. A color pixel has three values. The code
consists of the magic bytes ``EXF1``, the length of the text (2 bytes, big-endian), the CRC-32 of the text
(4 bytes, big-endian), and the text itself: the coordinates as JSON in UTF-8.
"""

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import CoordinatesError, DatasetDamagedError, UnsupportedDataError

_MAGIC = b"EXF1"
_HEADER = struct.Struct(">4sHI")

TEXT_LIMIT = 0xFFFF
"""Maximum size of the coordinates in JSON form, in bytes."""


def encode(array: npt.NDArray[Any], coordinates: DataCoordinates) -> None:
    """Write coordinates into the first pixels of a frame, in place.

    Parameters
    ----------
    array : numpy.ndarray of an integer or float dtype, any shape
        Changed in place. The caller keeps ownership of the array.
    coordinates : DataCoordinates
        The coordinates that :func:`decode` returns.

    Raises
    ------
    UnsupportedDataError
        If the array has fewer values than the code has bytes.

    Examples
    --------
    >>> frame = np.zeros((8, 8), "uint16")
    >>> encode(frame, DataCoordinates(time=3, channel="DAPI"))
    >>> decode(frame)
    DataCoordinates({'time': 3, 'channel': 'DAPI'})
    """
    code = code_of(coordinates)
    if array.size < len(code):
        raise UnsupportedDataError(
            f"a frame of shape {array.shape} has {array.size} values, but the code of {coordinates!r} needs "
            f"{len(code)}"
        )
    array.flat[: len(code)] = np.frombuffer(code, np.uint8)


def decode(array: npt.NDArray[Any]) -> DataCoordinates:
    """Return the coordinates that ``encode`` wrote into a frame.

    Parameters
    ----------
    array : numpy.ndarray, any shape
        The frame, which is not modified.

    Returns
    -------
    DataCoordinates
        A new object.

    Raises
    ------
    DatasetDamagedError
        If the frame contains no code, or if the code is damaged. This error is also a ``ValueError``.
    """
    header = _bytes_of(array.flat[: _HEADER.size])
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise DatasetDamagedError(
            "the first pixels of the frame contain no code; is the frame from the source 'simulated'?"
        )
    _, length, checksum = _HEADER.unpack(header)
    text = _bytes_of(array.flat[_HEADER.size : _HEADER.size + length])
    if len(text) != length or zlib.crc32(text) != checksum:
        raise DatasetDamagedError(
            "the code in the first pixels of the frame is damaged: its checksum does not match"
        )
    try:
        return DataCoordinates.from_json(text)
    except CoordinatesError as error:
        raise DatasetDamagedError(
            f"the code in the first pixels of the frame is not valid: {error}"
        ) from error


def code_of(coordinates: DataCoordinates) -> bytes:
    """Return the bytes that encode coordinates. Each byte is stored as one pixel value."""
    text = coordinates.to_json().encode()
    if len(text) > TEXT_LIMIT:
        raise UnsupportedDataError(
            f"the coordinates take up {len(text)} bytes as JSON; the limit is {TEXT_LIMIT}"
        )
    return _HEADER.pack(_MAGIC, len(text), zlib.crc32(text)) + text


def _bytes_of(values: npt.NDArray[Any]) -> bytes:
    """Return values as one byte each, or no bytes (and thus no code) if any value does not fit in a byte."""
    with np.errstate(invalid="ignore"):  # casting NaN would cause a warning
        small = values.astype(np.uint8)
    return small.tobytes() if np.array_equal(small, values) else b""
