"""The limits of NDTiff: frame layouts, positions on axes, and combinations of axes in a dataset."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson

from exengine.base_classes import CoordinatesLike, PlannedLayout
from exengine.errors import CoordinatesError, OptionError, UnsupportedDataError
from exengine_ndstorage.ndtiff import sizes
from exengine_ndstorage.ndtiff.files import is_dataset_name
from exengine_ndstorage.ndtiff.format import MAX_LENGTH
from exengine_ndstorage.ndtiff.sizes import MAX_AXES, MAX_FILE_BYTES, MAX_SUMMARY_BYTES, MAX_TEXT_BYTES

INT32 = 2**31


def refuse_options(name: str | None, max_file_bytes: int) -> None:
    """Raise ``OptionError`` for a name or a file size that a dataset cannot have."""
    if name is not None and not is_dataset_name(name):
        raise OptionError(
            f"name {name!r:.80} is not a valid folder name; pass a name without a path, and pass the path as "
            "`directory`"
        )
    least, most = sizes.LEAST_FILE_BYTES, sizes.MAX_FILE_BYTES
    if type(max_file_bytes) is not int or not least <= max_file_bytes <= most:
        raise OptionError(f"max_file_bytes must be an int from {least} to {most}, got {max_file_bytes!r:.40}")


def refuse_shape(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse a uint8 or uint16 frame with a shape that NDTiff cannot store.

    Raises
    ------
    UnsupportedDataError
    """
    if len(shape) == 3 and (shape[2] != 3 or dtype.itemsize != 1):
        raise UnsupportedDataError(
            "NDTiff accepts only frames of shape (Y, X) with dtype uint8 or uint16, or of shape (Y, X, 3) "
            f"with dtype uint8; got shape {shape} and dtype {dtype}"
        )
    if 0 in shape or max(shape) >= MAX_LENGTH:
        raise UnsupportedDataError(
            f"NDTiff accepts only frames with at least one pixel, got the shape {shape}"
        )


def refuse_axes(positions: Mapping[str, int | str], known: Mapping[str, type]) -> dict[str, type]:
    """Refuse axes that are inconsistent with earlier frames, or that readers cannot handle.

    Parameters
    ----------
    positions : mapping of str to int or str
        The coordinates of a frame.
    known : mapping of str to type
        The type of the positions on each axis in the earlier frames.

    Returns
    -------
    dict of str to type
        The type of the position on each axis.

    Raises
    ------
    CoordinatesError
    """
    types = {axis: type(position) for axis, position in positions.items()}
    for axis, position_type in types.items():
        first_type = known.get(axis, position_type)
        if position_type is not first_type:
            raise CoordinatesError(
                f"NDTiff needs positions of one type on each axis; the first position on {axis!r} has the "
                f"type {first_type.__name__}, got {positions[axis]!r:.40}; use only names or only "
                "numbers on this axis"
            )
    if "self" in types:
        raise CoordinatesError("ndstorage cannot read an axis named 'self'; choose another name")
    if len(known.keys() | types.keys()) > MAX_AXES:
        raise CoordinatesError(f"NDTiff datasets cannot have more than {MAX_AXES} axes")
    return types


def refuse_text(axes: bytes) -> None:
    """Refuse coordinates whose JSON is too long for an index entry."""
    if len(axes) > MAX_TEXT_BYTES:
        raise CoordinatesError(
            f"NDTiff coordinates can take up at most {MAX_TEXT_BYTES} bytes as JSON, got {len(axes)}"
        )


def refuse_position(axis: str, value: int) -> None:
    """Refuse a position that does not fit in 32 bits."""
    if not -INT32 <= value < INT32:
        raise CoordinatesError(
            f"NDTiff positions must fit in 32 bits; the position on axis {axis!r} is {value}"
        )


def refuse_plan(layouts: Iterable[PlannedLayout], coordinates: Iterable[CoordinatesLike]) -> None:
    """Refuse planned frames that NDTiff cannot store.

    Parameters
    ----------
    layouts : iterable of (shape, dtype)
    coordinates : iterable of coordinates
        The coordinates of every frame.

    Raises
    ------
    UnsupportedDataError, CoordinatesError
    """
    for shape, name in layouts:
        dtype = np.dtype(name)
        refuse_shape(shape, dtype)
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_FILE_BYTES - MAX_SUMMARY_BYTES - 1024:
            raise UnsupportedDataError(f"a frame of {size} bytes does not fit into a TIFF file of 4 GiB")
    known: dict[str, type] = {}
    for each in coordinates:
        positions = dict(each)
        known.update(refuse_axes(positions, known))
        refuse_text(orjson.dumps(positions))
        for axis, value in positions.items():
            if isinstance(value, int):
                refuse_position(axis, value)
