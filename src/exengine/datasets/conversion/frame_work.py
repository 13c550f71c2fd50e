"""Examines, reads and compares the individual frames of a conversion.

The workers of a cluster call the same functions as the threads of this process. Each function takes the open
datasets, first the source and then the result, and one item.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from exengine.kernel.capabilities import PlannedLayout
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage, Frame
from exengine.kernel.errors import message_of

Datasets: TypeAlias = tuple[DataStorage, ...]
Pair: TypeAlias = tuple[DataCoordinates, DataCoordinates]  # in the source, and in the result

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class UnexpectedFrameError(Exception):
    """A frame that was assumed to be like the first one cannot be read, or has a different layout."""


class Expected(NamedTuple):
    """The coordinates of a frame; its layout and checksum if they are known.

    Attributes
    ----------
    pair : tuple of DataCoordinates
    layout : (shape, dtype) or None
    checksum : int
    """

    pair: Pair
    layout: PlannedLayout | None = None
    checksum: int = 0


class Examined(NamedTuple):
    """The layout and the checksum of a frame; without a layout, a description of the problem.

    Attributes
    ----------
    layout : (shape, dtype) or None
    checksum : int
    problem : str
    """

    layout: PlannedLayout | None
    checksum: int = 0
    problem: str = ""


def examine(datasets: Datasets, pair: Pair) -> Examined:
    """Read a frame and its metadata; return its layout and checksum, or the problem."""
    source, (coordinates, _) = datasets[0], pair
    try:
        pixels = source.get_data(coordinates)
        source.get_metadata(coordinates)
    except Exception as error:  # any error, even from a library that the backend uses
        return Examined(None, problem=f"{coordinates.coordinate_dict}: {message_of(error)}")
    return Examined(layout_of(pixels), checksum_of(pixels))


def read(datasets: Datasets, pair: Pair, *, assumed: PlannedLayout | None, without_metadata: bool) -> Frame:
    """Read a frame of the source, with its coordinates in the result.

    Parameters
    ----------
    datasets : tuple of DataStorage
    pair : tuple of DataCoordinates
    assumed : (shape, dtype) or None
        The layout that all frames should have, if they were not checked.
    without_metadata : bool
        Whether to omit the metadata.

    Raises
    ------
    UnexpectedFrameError
        If an unchecked frame cannot be read, or has a different layout.
    """
    source, (coordinates, new) = datasets[0], pair
    try:
        pixels = source.get_data(coordinates)
        metadata = None if without_metadata else source.get_metadata(coordinates)
    except Exception as error:  # any error, even from a library that the backend uses
        if assumed is not None:
            raise UnexpectedFrameError from error
        raise
    if assumed is not None and layout_of(pixels) != assumed:
        raise UnexpectedFrameError
    return new, pixels, metadata


def compare(datasets: Datasets, item: Expected, *, without_metadata: bool) -> list[str]:
    """Compare a frame of the source with the corresponding frame of the result; return the differences."""
    source, result = datasets
    coordinates, new = item.pair
    found = []
    try:
        pixels = result.get_data(new)
        layout, checksum = item.layout, item.checksum
        if layout is None:
            mine = source.get_data(coordinates)
            layout, checksum = layout_of(mine), checksum_of(mine)
        if layout_of(pixels) != layout or checksum_of(pixels) != checksum:
            found.append(f"the pixels at {new.coordinate_dict} differ")
        if without_metadata:
            return found
        here, there = source.get_metadata(coordinates), result.get_metadata(new)
        found += [
            f"the metadata at {new.coordinate_dict} differ: {what}" for what in differences(here, there)
        ]
    except Exception as error:  # any error, even from a library that the backend uses
        found.append(f"the frame at {new.coordinate_dict} cannot be compared: {message_of(error)}")
    return found


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Yield the differences between two JSON values. Numbers of different types differ, as do 1 and true.

    Examples
    --------
    >>> list(differences({"a": [1, 2], "b": 1}, {"a": [1, 3], "b": True}))
    ['a[1] is 3 instead of 2', 'b is True instead of 1']
    """
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            at = f"{where}.{key}" if where else str(key)
            if key not in other:
                yield f"{at} is missing"
            elif key not in one:
                yield f"{at} was added"
            else:
                yield from differences(one[key], other[key], at)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (each, its) in enumerate(zip(one, other, strict=True)):
            yield from differences(each, its, f"{where}[{number}]")
    elif type(one) is not type(other) or one != other:
        yield f"{where or 'the value'} is {other!r:.100} instead of {one!r:.100}"


def layout_of(pixels: npt.NDArray[Any]) -> PlannedLayout:
    """Return the shape and dtype of a frame."""
    return pixels.shape, pixels.dtype.newbyteorder("=").name


def checksum_of(pixels: npt.NDArray[Any]) -> int:
    """Return the CRC-32 of the pixels of a frame, in native byte order."""
    native: Any = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
    return zlib.crc32(native.reshape(-1).view(np.uint8)) if native.size else 0


def in_order(work: Callable[[_Item], _Result], items: Iterable[_Item], threads: int) -> Iterator[_Result]:
    """Yield the result of a function for each item, in order, while threads work on the next items."""
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="exengine-convert-read") as pool:
        running: deque[Future[_Result]] = deque()
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) > threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for each in running:
                each.cancel()
