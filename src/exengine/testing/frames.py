"""Frames that identify themselves: pixels computed from coordinates, and coordinates read from pixels.

A frame of any dtype and shape is computed from its coordinates alone, so that every process can compute it
again and compare. If the frame is large enough, its pixels begin with the coordinates as text, so that a
misplaced frame shows where it belongs.

The code is one byte per pixel value (one bit for ``bool``), in C order: a mark, the length of the
text in two bytes, the text as JSON in UTF-8. The values after it are noise, seeded by the text.
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
    """Return coordinates as JSON, independent of the order of the axes."""
    return json.dumps(dict(sorted(coordinates.items())))


def frame_of(coordinates: Coordinates, shape: tuple[int, ...], dtype: Any, salt: int = 0) -> Array:
    """Return the frame for some coordinates.

    Parameters
    ----------
    coordinates : mapping of str to int or str
    shape : tuple of int
    dtype : numpy dtype
        Any dtype without Python objects.
    salt : int
        A seed: another number changes the pixels after the code, for a second frame at the same coordinates.

    Returns
    -------
    numpy.ndarray
        A new, contiguous, writeable array.

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
    """Return the coordinates in the first pixels of a frame, or None."""
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
    """Return whether two arrays are bit-equal, apart from their byte order."""
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
    """Raise if an array is not bit-equal to the frame that was put; the message identifies the array.

    Parameters
    ----------
    got : object
        The value that the storage returned.
    wanted : numpy.ndarray
        The frame that was put.
    coordinates : object
        The coordinates of the frame, for the message.
    label : str
        The promise that a difference breaks.
    others : iterable of (coordinates, numpy.ndarray)
        Other frames in the storage, to identify arrays too small to contain their coordinates.

    Raises
    ------
    PromiseBrokenError
    """
    if same(got, wanted):
        return
    raise PromiseBrokenError(label, f"the frame at {coordinates!r:.200} {_difference(got, wanted, others)}")


def _difference(got: Any, wanted: Array, others: Iterable[tuple[Any, Array]]) -> str:
    if not isinstance(got, np.ndarray):
        return f"was returned as {type(got).__name__}, not as an array"
    if got.shape != wanted.shape or got.dtype.newbyteorder("=") != wanted.dtype.newbyteorder("="):
        return f"was returned as {got.shape} {got.dtype}; {wanted.shape} {wanted.dtype} was put"
    named = name_of(got)
    for where, frame in others:
        if named is None and same(got, frame):
            named = where
    if named is not None and named != name_of(wanted):
        return f"is the one that was put at {named!r:.200}"
    if got.size and not got.astype(bool).any():
        return "was returned as zeros"
    different = int((_items(got) != _items(wanted)).any(axis=1).sum())
    return f"was returned with other pixels: {different} of {got.size} values differ"


def _items(array: Array) -> Array:
    return np.frombuffer(_bytes(array), np.uint8).reshape(max(array.size, 1), -1)
