"""The frame index: a compact map from coordinates to frame numbers, for millions of frames.

Coordinates are encoded as one integer: the sum of their position codes, weighted by powers of a prime. As a
dict key, an integer takes a third of the memory of a frozenset and is found just as fast. It can be decoded
back to the coordinates, so the coordinates need not be stored separately. Frames are numbered in the order in
which they were stored.
"""

from collections.abc import Iterator, Mapping

from exengine.kernel.axes import summarize_positions
from exengine.kernel.data_coords import DataCoordinates, of_checked_axes

# A prime below 2**32 makes the low bits of a key, which a dict uses first, depend on every axis.
_RADIX = 4294967291
_DIRECT = 2**30 - 1  # ints 0 <= i < _DIRECT are encoded directly; each fits into one digit of a Python int
_MOST_TO_DESCRIBE = 20_000  # describing more frames than this would take too long


class CoordinateIndex:
    """A map from coordinates to frame numbers, which count the frames in order of arrival.

    It needs no lock if only one thread adds frames while others look them up.

    Examples
    --------
    >>> index = CoordinateIndex()
    >>> index.add({"time": 0, "channel": "DAPI"})
    0
    >>> index.find({"channel": "DAPI", "time": 0}), index.find({"time": 9})
    (0, None)
    """

    __slots__ = ("_axis_since", "_interned", "_numbers", "_values", "_weights")

    def __init__(self) -> None:
        self._weights: dict[str, int] = {}  # axis -> weight, which is a power of the radix
        self._interned: dict[str, dict[int | str, int]] = {}  # axis -> value -> code
        self._values: dict[str, list[int | str]] = {}  # axis -> code // 2 -> value
        self._numbers: dict[int, int] = {}  # key -> number of the frame
        self._axis_since: list[tuple[int, str]] = []  # each axis, preceded by the number of its first frame

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes, in the order in which they first appeared."""
        return tuple(self._axes_now())

    def _axes_now(self) -> list[str]:
        # Use list() and not tuple(), because another thread may add an axis: tuple() allocates memory while
        # it iterates, so the garbage collector may run and let the other thread continue.
        return list(self._weights)

    def find(self, axes: Mapping[str, int | str]) -> int | None:
        """Return the number of the frame at these coordinates, or None.

        Parameters
        ----------
        axes : mapping of str to int or str
            Checked axes: the ``__dict__`` of ``DataCoordinates``.
        """
        key = 0
        weights = self._weights
        for axis, value in axes.items():
            if axis not in weights:
                return None
            weight = weights[axis]
            # The codes of an axis start at 1, because 0 stands for an absent axis.
            if type(value) is int and 0 <= value < _DIRECT:
                key += (value + value + 1) * weight
            else:
                code = self._interned[axis].get(value)
                if code is None:
                    return None
                key += code * weight
        return self._numbers.get(key)

    def add(self, axes: Mapping[str, int | str]) -> int | None:
        """Assign the next number to these coordinates.

        Parameters
        ----------
        axes : mapping of str to int or str
            Checked axes: ``DataCoordinates(...).coordinate_dict``. This method does not check them.

        Returns
        -------
        int or None
            The number, counted from 0; None if a frame already exists at these coordinates. Nothing is added
            in this case.
        """
        key = self.reserve(axes)
        return None if key is None else self.commit(key)

    def reserve(self, axes: Mapping[str, int | str]) -> int | None:
        """Return the key of new coordinates, for :meth:`commit`; None if a frame already exists there.

        The coordinates cannot be found before they are committed.
        """
        key = 0
        weights = self._weights
        for axis, value in axes.items():
            weight = weights[axis] if axis in weights else self._add_axis(axis)
            if type(value) is int and 0 <= value < _DIRECT:
                key += (value + value + 1) * weight
            else:
                codes = self._interned[axis]
                key += (codes[value] if value in codes else self._intern(axis, value)) * weight
        return None if key in self._numbers else key

    def commit(self, key: int) -> int:
        """Assign the next number to reserved coordinates, and return it."""
        number = self._numbers[key] = len(self._numbers)
        return number

    def withdraw(self) -> None:
        """Undo the last :meth:`reserve`, because its frame could not be written."""
        while self._axis_since and self._axis_since[-1][0] >= len(self._numbers):
            del self._weights[self._axis_since.pop()[1]]

    def _add_axis(self, axis: str) -> int:
        weight: int = _RADIX ** len(self._weights)
        self._interned[axis] = {}
        self._values[axis] = []
        self._weights[axis] = weight
        self._axis_since.append((len(self._numbers), axis))
        return weight

    def _intern(self, axis: str, value: int | str) -> int:
        values = self._values[axis]
        values.append(value)
        code = self._interned[axis][value] = 2 * len(values)
        return code

    def _decode(self, key: int) -> DataCoordinates:
        axes: dict[str, int | str] = {}
        for axis in self._axes_now():
            key, code = divmod(key, _RADIX)
            if code & 1:
                axes[axis] = code >> 1
            elif code:
                axes[axis] = self._values[axis][(code >> 1) - 1]
            if not key:
                break
        return of_checked_axes(axes)

    def __iter__(self) -> Iterator[DataCoordinates]:
        """Yield the coordinates of every frame that is currently present, in order of arrival."""
        for key in list(self._numbers):
            yield self._decode(key)

    def since(self, start: int) -> Iterator[tuple[int, DataCoordinates]]:
        """Yield the number and coordinates of every frame that is currently present, from frame ``start``."""
        for number, key in enumerate(list(self._numbers)[start:], start):
            yield number, self._decode(key)

    def positions(self) -> dict[str, list[int | str]]:
        """Return the positions that occur on each axis, in order of arrival."""
        found: dict[str, dict[int | str, None]] = {axis: {} for axis in self._axes_now()}
        for coordinates in self:
            for axis, value in coordinates.__dict__.items():
                found.setdefault(axis, {})[value] = None
        return {axis: list(values) for axis, values in found.items() if values}

    def describe_absence(self, axes: Mapping[str, int | str]) -> str:
        """Return a clause that lists the existing axes or positions, for an error message."""
        if not self._numbers:
            return "no frame has been stored yet"
        unknown = [axis for axis in axes if axis not in self._weights]
        if unknown:
            return (
                f"no frame has the axis {' or '.join(map(repr, unknown))}; "
                f"existing axes: {', '.join(self._weights)}"
            )
        if len(self._numbers) <= _MOST_TO_DESCRIBE:
            positions = self.positions()
            for axis, value in axes.items():
                if axis not in positions:  # another thread is adding the first frame with this axis
                    return f"no frame has the axis {axis!r}; existing axes: {', '.join(positions)}"
                if value not in positions[axis]:
                    return f"positions on axis {axis!r}: {summarize_positions(positions[axis])}"
        absent = [axis for axis in self._axes_now() if axis not in axes]
        if absent:
            return f"the coordinates lack {', '.join(absent)}; existing axes: {', '.join(self._weights)}"
        return "no frame has this combination of positions"
