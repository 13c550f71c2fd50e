"""Frames that identify themselves: pixels computed from coordinates, and coordinates read from pixels.

A frame of any dtype and shape is computed from its coordinates alone, so that any process can recompute the
frame and compare it with the stored one. If the frame is large enough, its first pixels encode the
coordinates as text, so that a misplaced frame reveals where it belongs.

The encoded text uses one byte per pixel value (one bit for ``bool``), in C order. It consists of a marker,
the length of the text in two bytes, and the text itself as JSON in UTF-8. The remaining pixel values are
noise, generated with the text as the seed.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.testing.promises import PromiseBrokenError

Array = npt.NDArray[Any]
Coordinates = Mapping[str, int | str]

_MARK = b"XF"
_NUMBERS = "biufc"


def text_of(coordinates: Coordinates) -> str:
    """Return coordinates as a JSON string that does not depend on the order of the axes."""
    return json.dumps(dict(sorted(coordinates.items())))


def frame_of(coordinates: Coordinates, shape: tuple[int, ...], dtype: Any, salt: int = 0) -> Array:
    """Return the frame that belongs to given coordinates.

    Parameters
    ----------
    coordinates : mapping of str to int or str
        The coordinates of the frame.
    shape : tuple of int
        The shape of the frame.
    dtype : numpy dtype
        The dtype of the frame: any dtype that contains no Python objects.
    salt : int
        An additional seed. A different value changes the pixels after the encoded coordinates, which gives a
        second frame for the same coordinates.

    Returns
    -------
    numpy.ndarray
        A new, contiguous, writable array.

    Examples
    --------
    >>> frame = frame_of({"time": 3, "channel": "DAPI"}, (8, 8), "float32")
    >>> name_of(frame)
    {'channel': 'DAPI', 'time': 3}
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64))
    text = text_of(coordinates).encode()
    noise = np.random.default_rng((zlib.crc32(text), salt))
    if dtype.kind not in _NUMBERS:
        return np.frombuffer(noise.bytes(size * dtype.itemsize), dtype).reshape(shape).copy()
    code = np.frombuffer(_MARK + len(text).to_bytes(2, "big") + text, np.uint8)
    if dtype.kind == "b":
        code = np.unpackbits(code)
        values = noise.integers(0, 2, size, np.uint8)
    else:
        values = noise.integers(0, 256, size, np.uint8)
    if code.size <= size:
        values[: code.size] = code
    with np.errstate(over="ignore"):
        return values.astype(dtype).reshape(shape)


def name_of(frame: Array) -> dict[str, int | str] | None:
    """Return the coordinates encoded in the first pixels of a frame, or None if the pixels encode none."""
    if frame.dtype.kind not in _NUMBERS:
        return None
    values = frame.real if frame.dtype.kind == "c" else frame
    with np.errstate(invalid="ignore", over="ignore"):
        head = values.reshape(-1)[: 8 * (2**16 + 4)].astype(np.uint8)
    data = (np.packbits(head) if frame.dtype.kind == "b" else head).tobytes()
    if not data.startswith(_MARK):
        return None
    try:
        name = json.loads(data[4 : 4 + int.from_bytes(data[2:4], "big")])
    except ValueError:
        return None
    return name if isinstance(name, dict) else None


def same(got: Any, wanted: Array) -> bool:
    """Return whether two arrays are bit-equal, ignoring differences in byte order."""
    return (
        isinstance(got, np.ndarray)
        and got.shape == wanted.shape
        and got.dtype.newbyteorder("=") == wanted.dtype.newbyteorder("=")
        and _bytes(got) == _bytes(wanted)
    )


def _bytes(array: Array) -> bytes:
    return array.astype(array.dtype.newbyteorder("=")).tobytes()


def check_frame(
    got: Any, wanted: Array, coordinates: object, label: str = "P1", others: Iterable[tuple[Any, Array]] = ()
) -> None:
    """Raise an error if an array is not bit-equal to the frame that was put.

    The error message identifies the array that was returned instead.

    Parameters
    ----------
    got : object
        The value that the storage returned.
    wanted : numpy.ndarray
        The frame that was put.
    coordinates : object
        The coordinates of the frame, which appear in the message.
    label : str
        The label of the promise that is broken if the arrays differ.
    others : iterable of (coordinates, numpy.ndarray)
        Other frames in the storage. They are used to identify arrays that are too small to contain their
        coordinates.

    Raises
    ------
    PromiseBrokenError
        If the arrays differ.
    """
    if same(got, wanted):
        return
    raise PromiseBrokenError(label, f"the frame at {coordinates!r:.200} {_difference(got, wanted, others)}")


def _difference(got: Any, wanted: Array, others: Iterable[tuple[Any, Array]]) -> str:
    if not isinstance(got, np.ndarray):
        return f"was returned as an object of type {type(got).__name__}, not as an array"
    if got.shape != wanted.shape or got.dtype.newbyteorder("=") != wanted.dtype.newbyteorder("="):
        return (
            f"was returned with shape {got.shape} and dtype {got.dtype}, but was put "
            f"with shape {wanted.shape} and dtype {wanted.dtype}"
        )
    named = name_of(got)
    for where, frame in others:
        if named is None and same(got, frame):
            named = where
    if named is not None and named != name_of(wanted):
        return f"was returned with the pixels of the frame that was put at {named!r:.200}"
    if got.size and not got.astype(bool).any():
        return "was returned as zeros"
    different = int((_items(got) != _items(wanted)).any(axis=1).sum())
    return f"was returned with wrong pixels: {different} of {got.size} values differ"


def _items(array: Array) -> Array:
    return np.frombuffer(_bytes(array), np.uint8).reshape(max(array.size, 1), -1)
