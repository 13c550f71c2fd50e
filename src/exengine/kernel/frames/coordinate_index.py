"""Which coordinates hold a frame, and which frame: a compact map for millions of them.

Coordinates become one integer: position codes, weighted by powers of a prime. An integer in a dict
costs a third of a frozenset, finds as fast, and decodes back to the coordinates, so that they are
kept once. Numbers count the frames in the order in which they were put.
"""

from collections.abc import Iterator, Mapping

from exengine.kernel.data_coords import DataCoordinates, of_checked_axes

# A prime below 2**32: the low bits of a key, which a dict looks at first, depend on every axis.
_RADIX = 4294967291
_DIRECT = 2**30 - 1  # ints 0 <= i < _DIRECT are their own code; it fits one digit of Python's
_MOST_TO_DESCRIBE = 20_000  # a message about a miss may not cost more than a look at so many frames


class CoordinateIndex:
    """A map of coordinates to the number of their frame, in the order of arrival.

    Not locked: one thread adds; others may look up at the same time.

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
        self._weights: dict[str, int] = {}  # axis -> power of the radix
        self._interned: dict[str, dict[int | str, int]] = {}  # axis -> value -> code
        self._values: dict[str, list[int | str]] = {}  # axis -> code // 2 -> value
        self._numbers: dict[int, int] = {}  # key -> number of the frame
        self._axis_since: list[tuple[int, str]] = []  # the frame with which an axis came

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes, in the order in which they first appeared."""
        return tuple(self._axes_now())

    def _axes_now(self) -> list[str]:
        # A list, while another thread may add an axis: tuple() allocates between the beginning of the
        # iteration and its end, where the garbage collector may run and let that thread go on.
        return list(self._weights)

    def find(self, axes: Mapping[str, int | str]) -> int | None:
        """Return the number of the frame at these coordinates, or None.

        Parameters
        ----------
        axes : mapping of str to int or str
            Checked already: the ``__dict__`` of ``DataCoordinates``.
        """
        key = 0
        weights = self._weights
        for axis, value in axes.items():
            if axis not in weights:
                return None
            weight = weights[axis]
            # Every axis that is there counts from 1, so that an absent one is 0.
            if type(value) is int and 0 <= value < _DIRECT:
                key += (value + value + 1) * weight
            else:
                code = self._interned[axis].get(value)
                if code is None:
                    return None
                key += code * weight
        return self._numbers.get(key)

    def add(self, axes: Mapping[str, int | str]) -> int | None:
        """Give the next number to these coordinates and return it; None where they hold a frame."""
        key = self.reserve(axes)
        return None if key is None else self.commit(key)

    def reserve(self, axes: Mapping[str, int | str]) -> int | None:
        """Return the key of new coordinates, for :meth:`commit`; None where they hold a frame.

        Nobody finds them before they are committed.
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
        """Give the next number to coordinates that were reserved, and return it."""
        number = self._numbers[key] = len(self._numbers)
        return number

    def withdraw(self) -> None:
        """Forget what the last :meth:`reserve` brought: its frame could not be written."""
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
        """Yield the coordinates of every frame that is there now, in the order of arrival."""
        for key in list(self._numbers):
            yield self._decode(key)

    def positions(self) -> dict[str, list[int | str]]:
        """Return the positions that occur on each axis, in the order of arrival."""
        found: dict[str, dict[int | str, None]] = {axis: {} for axis in self._axes_now()}
        for coordinates in self:
            for axis, value in coordinates.__dict__.items():
                found.setdefault(axis, {})[value] = None
        return {axis: list(values) for axis, values in found.items() if values}

    def describe_absence(self, axes: Mapping[str, int | str]) -> str:
        """Return a sentence for people: what is there instead of these coordinates."""
        if not self._numbers:
            return "nothing was put yet"
        unknown = [axis for axis in axes if axis not in self._weights]
        if unknown:
            return (
                f"there is no axis {', '.join(map(repr, unknown))}; the axes are {', '.join(self._weights)}"
            )
        if len(self._numbers) <= _MOST_TO_DESCRIBE:
            positions = self.positions()
            for axis, value in axes.items():
                if axis not in positions:  # another thread is about to put the first frame with it
                    return f"there is no axis {axis!r}; the axes are {', '.join(positions)}"
                if value not in positions[axis]:
                    return f"{axis} is one of {summarize_positions(positions[axis])}"
        absent = [axis for axis in self._axes_now() if axis not in axes]
        if absent:
            return f"the axes are {', '.join(self._weights)}; {', '.join(absent)} was not given"
        return f"no frame among {len(self._numbers)} has these positions together"


def summarize_positions(values: list[int | str], most: int = 8) -> str:
    """Return a short text for the positions on an axis.

    Examples
    --------
    >>> summarize_positions([0, 1, 2, 3])
    '0 - 3'
    >>> summarize_positions(["DAPI", "FITC"])
    "'DAPI', 'FITC'"
    """
    numbers = sorted(value for value in values if type(value) is int)
    if len(numbers) == len(values) and len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} - {numbers[-1]}"
    shown = ", ".join(repr(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown}, ... ({len(values)} in all)"
