"""The positions on each dimension, and their indices in the arrays.

A non-negative integer is its own index, if possible. Names, negative numbers and numbers after a large gap
get the next free index and a label. Each label is stored before the first frame that needs it.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from exengine_ome_zarr.format.sizes import GAP_POSITIONS

Position: TypeAlias = int | str
Key: TypeAlias = Position | tuple[Position, ...]
"""The position on a dimension: a single value, or a tuple if several axes form the dimension."""


class Labels:
    """The indices of the positions on one dimension.

    Examples
    --------
    >>> labels = Labels()
    >>> labels.assign(0), labels.assign(1), labels.assign("DAPI")
    ((0, False), (1, False), (2, True))
    >>> labels.add("DAPI", 2)
    >>> labels.assign("DAPI"), labels.position(2), labels.position(1)
    ((2, False), 'DAPI', 1)
    """

    __slots__ = ("_indices", "_labels", "extent")

    def __init__(self) -> None:
        self._indices: dict[Key, int] = {}
        self._labels: dict[int, Key] = {}
        self.extent = 0
        """The length of the dimension, which is greater than every index in use."""

    def find(self, key: Key) -> int | None:
        """Return the index of a position, even if no frame has the position; None if no index is known."""
        if self._indices:
            index = self._indices.get(key)
            if index is not None:
                return index
        if type(key) is int and key >= 0 and key not in self._labels:
            return key
        return None

    def assign(self, key: Key) -> tuple[int, bool]:
        """Return the index of a position, and whether the position needs a new label.

        The caller stores a new label, and then adds it with :meth:`add`. Until then, the index stays free.
        """
        index = self._indices.get(key) if self._indices else None
        if index is None:
            extent = self.extent
            if type(key) is int and 0 <= key <= extent + GAP_POSITIONS and key not in self._labels:
                if key >= extent:
                    self.extent = key + 1
                return key, False
            return extent, True
        return index, False

    def add(self, key: Key, index: int) -> None:
        """Add a label that was stored."""
        self._indices[key] = index
        self._labels[index] = key
        self.extend(index + 1)

    def extend(self, extent: int) -> None:
        """Make the dimension at least this long."""
        self.extent = max(self.extent, extent)

    def position(self, index: int) -> Key:
        """Return the position at an index."""
        return self._labels.get(index, index)

    def labelled(self) -> Mapping[int, Key]:
        """Return the labels by index."""
        return self._labels


def declared_order(positions: Iterable[Position]) -> list[Position]:
    """Return positions in the order of their indices: integers ascending, then names in the given order."""
    given = list(positions)
    numbers = sorted(position for position in given if isinstance(position, int))
    return [*numbers, *(position for position in given if isinstance(position, str))]
