"""The frames of a dataset in compact columns. Frames are numbered in the order in which they were stored.

The page identifies a frame by its number, so that positions need no encoding in URLs. The list only grows: a
frame keeps its number, and a position on an axis keeps its place.
"""

import json
import sys
import threading
from array import array
from bisect import bisect_left
from itertools import islice
from typing import Any

from exengine.kernel.data_storage_base import DataStorage

MOST_FRAMES = 200_000
"""The largest number of frames in one message to the page."""


class _Axis:
    """The positions of all frames on one axis.

    Attributes
    ----------
    name : str
    positions : list of int or str
        The positions, in the order in which they first occurred.
    first : list of int
        The number of the first frame at each position.
    column : array of int32
        For each frame, the index of its position in ``positions``; -1 if the frame does not have this axis.
    """

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.positions: list[int | str] = []
        self.first: list[int] = []
        self.column = array("i", [-1]) * count
        self._places: dict[int | str, int] = {}

    def add(self, position: int | str, number: int) -> None:
        place = self._places.get(position)
        if place is None:
            place = self._places[position] = len(self.positions)
            self.positions.append(position)
            self.first.append(number)
        self.column.append(place)


class FrameList:
    """The frames of a dataset that may still be growing.

    Parameters
    ----------
    dataset : DataStorage
        A dataset that lists its coordinates.
    """

    def __init__(self, dataset: DataStorage) -> None:
        self._dataset = dataset
        self._axes: dict[str, _Axis] = {}
        self._count = 0
        self._lock = threading.Lock()
        self.refresh()

    def refresh(self) -> int:
        """Add the frames that were stored since the last call, and return the number of frames."""
        with self._lock:
            if len(self._dataset) > self._count:
                for coordinates in islice(iter(self._dataset), self._count, None):
                    self._add(coordinates.coordinate_dict)
            return self._count

    def _add(self, coordinates: dict[str, int | str]) -> None:
        for name, position in coordinates.items():
            axis = self._axes.get(name)
            if axis is None:
                axis = self._axes[name] = _Axis(name, self._count)
            axis.add(position, self._count)
        self._count += 1
        if len(coordinates) < len(self._axes):
            for axis in self._axes.values():
                if len(axis.column) < self._count:
                    axis.column.append(-1)

    def coordinates(self, number: int) -> dict[str, int | str] | None:
        """Return the coordinates of a frame; None if there is no frame with this number."""
        with self._lock:
            if not 0 <= number < self._count:
                return None
            return {
                axis.name: axis.positions[axis.column[number]]
                for axis in self._axes.values()
                if axis.column[number] >= 0
            }

    def message(self, start: int, facts: dict[str, Any]) -> bytes:
        """Return a message to the page: the frames from a given number on, and facts about the dataset.

        The message is a JSON document, a zero byte, padding to a multiple of 4 bytes, and one int32 column
        per axis (little-endian). The JSON document lists the axes with their new positions.

        Parameters
        ----------
        start : int
            The number of the first frame in the message.
        facts : dict
            The facts about the dataset, as JSON values.
        """
        with self._lock:
            start = min(max(start, 0), self._count)
            end = min(start + MOST_FRAMES, self._count)
            axes = [axis for axis in self._axes.values() if axis.first[0] < end]
            head = {
                **facts,
                "from": start,
                "to": end,
                "frames": self._count,
                "axes": [{"name": axis.name, "positions": _new_positions(axis, start, end)} for axis in axes],
            }
            columns = [axis.column[start:end] for axis in axes]
        text = json.dumps(head).encode() + b"\0"
        text += b"\0" * (-len(text) % 4)
        return text + b"".join(_little_endian(column) for column in columns)


def _new_positions(axis: _Axis, start: int, end: int) -> list[Any]:
    """Return the positions that are new in a range of frames. An integer becomes a list with one string."""
    new = axis.positions[bisect_left(axis.first, start) : bisect_left(axis.first, end)]
    return [[str(each)] if isinstance(each, int) else each for each in new]


def _little_endian(column: "array[int]") -> bytes:
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()
