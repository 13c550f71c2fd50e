"""An index that finds frames on grids. It computes the numbers of frames instead of storing them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from exengine.base_classes import DataCoordinates, summarize_positions

POSITION = "position"


@dataclass(frozen=True)
class ImageGrid:
    """The frames of one image.

    Attributes
    ----------
    position : int, str or None
        The position on the axis ``position``, or None if the dataset is a single image.
    axes : dict of str to sequence
        The positions on the other axes, in the order of the array.
    """

    position: int | str | None
    axes: dict[str, Sequence[int | str]]

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of positions on each axis except ``position``."""
        return tuple(map(len, self.axes.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all axes."""
        return (*(() if self.position is None else (POSITION,)), *self.axes)


class GridIndex:
    """An index of the frames of several images.

    It implements ``exengine.base_classes.FrameIndex``. The last axis of an image changes fastest.

    Parameters
    ----------
    grids : sequence of ImageGrid
    """

    def __init__(self, grids: Sequence[ImageGrid]) -> None:
        self.grids = tuple(grids)
        self._by_position = {grid.position: number for number, grid in enumerate(self.grids)}
        self._starts = [0]
        self._places: list[dict[str, dict[int | str, int]]] = []
        for grid in self.grids:
            self._starts.append(self._starts[-1] + math.prod(grid.shape))
            named = {
                axis: {value: at for at, value in enumerate(values)}
                for axis, values in grid.axes.items()
                if not isinstance(values, range)
            }
            self._places.append(named)

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(axis for grid in self.grids for axis in grid.names))

    def find(self, axes: Mapping[str, int | str]) -> int | None:
        number = self._by_position.get(axes.get(POSITION))
        if number is None:
            return None
        grid = self.grids[number]
        if len(axes) != len(grid.names):
            return None
        at = 0
        for axis, values in grid.axes.items():
            if axis not in axes:
                return None
            value = axes[axis]
            if isinstance(values, range):
                place = value if type(value) is int and 0 <= value < len(values) else None
            else:
                place = self._places[number][axis].get(value)
            if place is None:
                return None
            at = at * len(values) + place
        return self._starts[number] + at

    def locate(self, number: int) -> tuple[int, tuple[int, ...]]:
        """Return the number of the image that contains a frame, and the frame's indices in that image."""
        low, high = 0, len(self.grids) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._starts[middle] <= number else (low, middle - 1)
        rest = number - self._starts[low]
        place = []
        for length in reversed(self.grids[low].shape):
            rest, at = divmod(rest, length)
            place.append(at)
        return low, tuple(reversed(place))

    def coordinates(self, number: int) -> DataCoordinates:
        """Return the coordinates of a frame."""
        image, place = self.locate(number)
        grid = self.grids[image]
        values = [values[at] for values, at in zip(grid.axes.values(), place, strict=True)]
        return _coordinates(grid, values)

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[DataCoordinates]:
        for grid in self.grids:
            for values in product(*grid.axes.values()):
                yield _coordinates(grid, values)

    def positions(self) -> dict[str, list[int | str]]:
        if len(self.grids) == 1 and len(self) and self.grids[0].position is None:
            return {axis: list(values) for axis, values in self.grids[0].axes.items()}
        found: dict[str, dict[int | str, None]] = {axis: {} for axis in self.axes}
        for grid in self.grids:
            if not math.prod(grid.shape):
                continue
            if grid.position is not None:
                found[POSITION][grid.position] = None
            for axis, values in grid.axes.items():
                if len(found[axis]) != len(values) or list(found[axis]) != list(values):
                    found[axis].update(dict.fromkeys(values))
        return {axis: list(values) for axis, values in found.items() if values}

    def describe_absence(self, axes: Mapping[str, int | str]) -> str:
        if not len(self):
            return "the dataset has no frames"
        positions = self.positions()
        unknown = [axis for axis in axes if axis not in positions]
        if unknown:
            names = " or ".join(map(repr, unknown))
            return f"no frame has the axis {names}; existing axes: {', '.join(positions)}"
        for axis, value in axes.items():
            if value not in positions[axis]:
                return f"positions on axis {axis!r}: {summarize_positions(positions[axis])}"
        absent = [axis for axis in positions if axis not in axes]
        if absent:
            return f"the coordinates lack {', '.join(absent)}; existing axes: {', '.join(positions)}"
        return "no frame has this combination of positions"


def _coordinates(grid: ImageGrid, values: Sequence[int | str]) -> DataCoordinates:
    axes = {} if grid.position is None else {POSITION: grid.position}
    axes.update(zip(grid.axes, values, strict=True))
    return DataCoordinates(axes)
