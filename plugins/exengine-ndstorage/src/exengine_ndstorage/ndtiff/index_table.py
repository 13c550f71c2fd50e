"""Reads ``NDTiff.index`` at one million entries per second, and looks up frames in microseconds.

An entry consists of the length of the axes (4 bytes), the axes as JSON, the length of the file name, the file
name, and eight 4-byte numbers. :mod:`exengine_ndstorage.ndtiff.index_entries` finds the entries. Entries of
equal length are decoded together. Their JSON is compared with that of earlier entries, ignoring digits, and
is parsed only if nothing matches. The table stores columns of numbers: 20 bytes per frame, plus 4 bytes for
each axis.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.base_classes import DataCoordinates, summarize_positions
from exengine.errors import CoordinatesError
from exengine_ndstorage.ndtiff.format import INDEX_NUMBERS, LENGTH, EntryLayout, pixel_bytes
from exengine_ndstorage.ndtiff.index_entries import Template, parse_checked_axes, prove_chain, u32
from exengine_ndstorage.ndtiff.sizes import MAX_AXES, MAX_TEXT_BYTES

_NUMBERS_BYTES = INDEX_NUMBERS.size
_MAX_ENTRY = 2**20  # an upper bound on the size of an entry, in bytes
_MAX_TEXT = MAX_TEXT_BYTES + 1
_MAX_TEMPLATES = 32  # maximum number of templates; JSON that matches none of them is parsed
_DIRECT = 2**29  # an int 0 <= i < _DIRECT is its own code; other ints and strings are interned
_TAIL = 65_536  # the number of new frames after which the sorted keys are computed again


class FrameTable:
    """The frames of a dataset. Maps coordinates to frame numbers, and frame numbers to locations in files.

    Attributes
    ----------
    files : list of str
        The names of the TIFF files.
    layouts : list of EntryLayout
        The layouts of the frames.
    problem : str
        The reason why the index could not be read to its end, or an empty string.
    """

    def __init__(self) -> None:
        self.files: list[str] = []
        self.layouts: list[EntryLayout] = []
        self.problem = ""
        self._file_numbers: dict[bytes, int] = {}
        self._layout_numbers: dict[EntryLayout, int] = {}
        self._axes: dict[str, int] = {}  # maps each axis to its column in _codes
        self._names: list[str] = []  # the axis of each column
        # Columns are created in any order, because entries of equal length are decoded together. The axes are
        # ordered by their first appearance in the index: by frame, then by their order in the frame's JSON.
        self._appeared: list[tuple[int, int]] = []
        self._order_of_axes: tuple[int, ...] = ()
        self._interned: list[dict[int | str, int]] = []
        self._values: list[list[int | str]] = []
        self._templates: dict[tuple[int, int], list[Template]] = {}
        self._count = 0
        self._codes = np.zeros((0, 0), np.int32)
        self._places = np.zeros((0, 5), np.uint32)  # file, layout, and three numbers from the entry
        # Sorted keys cover the first _sorted frames. A dict covers further frames, up to _remembered.
        self._sorted = self._remembered = 0
        self._keys = np.zeros(0, np.int64).data  # a memoryview, whose elements are read faster
        self._order: npt.NDArray[np.uint32] | None = None
        self._weights: list[int] = []
        self._radices: list[int] = []
        self._tail: dict[int, int] = {}  # the key combines all codes of a frame, 32 bits each
        self._by_dict = False  # if the keys exceed 64 bits, the dict covers all frames
        self._superseded: set[int] = set()

    # -- feeding ---------------------------------------------------------------------------------

    def feed(self, data: bytes, *, expected_bytes: int = 0) -> int:
        """Add the complete entries at the beginning of ``data``.

        Parameters
        ----------
        data : bytes
            The contents of the index, starting where the last call ended.
        expected_bytes : int
            An estimate of how many bytes later calls will add, so that memory is allocated only once.

        Returns
        -------
        int
            The number of bytes used. Any remaining bytes are an incomplete entry, unless ``problem`` is set.
        """
        starts, ends = prove_chain(data)
        if not len(starts):
            if len(data) >= 4 and LENGTH.unpack_from(data)[0] > _MAX_TEXT:
                self.problem = "an entry has an impossible length"
            return 0
        self._reserve(len(starts), len(starts) * (len(data) + expected_bytes) // max(int(ends[-1]), 1))
        taken = self._take(np.frombuffer(data, np.uint8), data, starts, ends)
        return int(ends[taken - 1]) if taken else 0

    def _reserve(self, more: int, expected: int) -> None:
        need = self._count + more
        if need > len(self._places):
            size = max(need, min(self._count + expected + 64, 2 * need + 10_000_000), self._count * 5 // 4)
            places = np.zeros((size, 5), np.uint32)
            places[: self._count] = self._places[: self._count]
            self._places = places
            self._codes = self._resized(size, self._codes.shape[1])

    def _resized(self, rows: int, columns: int) -> npt.NDArray[np.int32]:
        codes = np.zeros((rows, columns), np.int32)
        kept = min(len(self._codes), rows)
        codes[:kept, : self._codes.shape[1]] = self._codes[:kept]
        return codes

    def _take(
        self,
        raw: npt.NDArray[np.uint8],
        data: bytes,
        starts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
    ) -> int:
        """Decode entries into the columns, and return the number of entries before the first invalid one."""
        axes_bytes = u32(raw, starts)
        sizes = ends - starts
        group = axes_bytes * _MAX_ENTRY + sizes
        begin = self._count
        done = np.zeros(len(starts), bool)
        for key in np.unique(group):
            rows = np.flatnonzero(group == key)
            length, size = divmod(int(key), _MAX_ENTRY)
            table = np.lib.stride_tricks.sliding_window_view(raw, size)[starts[rows]]
            self._take_numbers(begin + rows, table[:, -_NUMBERS_BYTES:])
            names = table[:, 8 + length : -_NUMBERS_BYTES]
            self._places[begin + rows, 0] = _distinct(names, self._file_number)
            left = self._match(begin + rows, table[:, 4 : 4 + length], (length, size))
            done[rows] = True
            for entry, at in zip(rows[left].tolist(), (starts[rows[left]] + 4).tolist(), strict=True):
                done[entry] = self._take_one(begin + entry, data[at : at + length])
        taken = len(starts) if done.all() else int(np.argmin(done))
        if taken < len(starts):
            self.problem = f"the coordinates of entry {begin + taken} cannot be parsed"
        self._order_of_axes = tuple(sorted(range(len(self._names)), key=self._appeared.__getitem__))
        self._count += taken
        return taken

    def _take_numbers(self, rows: npt.NDArray[np.int64], table: npt.NDArray[np.uint8]) -> None:
        numbers = np.ascontiguousarray(table).view("<u4")
        places = self._places
        places[rows, 2] = numbers[:, 0]  # offset of the pixels
        places[rows, 3] = numbers[:, 5]  # offset of the metadata
        places[rows, 4] = numbers[:, 6]  # length of the metadata
        places[rows, 1] = _distinct(numbers[:, [1, 2, 3, 4, 7]], self._layout_number)

    def _layout_number(self, numbers: npt.NDArray[np.uint32]) -> int:
        layout: Any = tuple(int(number) for number in numbers)
        number = self._layout_numbers.setdefault(layout, len(self.layouts))
        if number == len(self.layouts):
            self.layouts.append(layout)
        return number

    def _file_number(self, row: npt.NDArray[np.uint8]) -> int:
        name = row.tobytes()
        number = self._file_numbers.setdefault(name, len(self.files))
        if number == len(self.files):
            self.files.append(name.decode("utf-8", "replace"))
        return number

    def _match(
        self, rows: npt.NDArray[np.int64], table: npt.NDArray[np.uint8], lengths: tuple[int, int]
    ) -> npt.NDArray[np.int64]:
        """Decode the axes of the rows that match an earlier string, and return the remaining rows."""
        templates = self._templates.setdefault(lengths, [])
        left = np.arange(len(table))
        tried = 0
        while len(left):
            if tried == len(templates):
                if len(templates) >= _MAX_TEMPLATES:
                    return left
                template = Template.of(table[left[0]].tobytes())
                if template is None or not self._has_room_for(template.axes):
                    return left
                templates.append(template)
            template = templates[tried]
            tried += 1
            some = table if len(left) == len(table) else table[left]
            good = template.matches(some)
            if good.all():
                self._apply(template, rows[left], some)
                return left[:0]
            if good.any():
                self._apply(template, rows[left[good]], some[good])
                left = left[~good]
        return left

    def _apply(self, template: Template, rows: npt.NDArray[np.int64], table: npt.NDArray[np.uint8]) -> None:
        for place, axis in enumerate(template.axes):
            column = self._column(axis)
            self._appeared[column] = min(self._appeared[column], (int(rows[0]), place))
        for axis, text in template.texts:
            self._codes[rows, self._column(axis)] = self._code(self._column(axis), text)
        for axis, sign, begin, end in template.numbers:
            column = self._column(axis)
            values = np.zeros(len(table), np.int64)
            for place in range(begin, end):
                values = values * 10 + (table[:, place] - 48)
            if sign < 0 or end - begin > 8:  # the code of a larger or negative number must be looked up
                codes = np.array([self._code(column, sign * value) for value in values.tolist()], np.int32)
            else:
                codes = (values * 2 + 1).astype(np.int32)
            self._codes[rows, column] = codes

    def _take_one(self, row: int, text: bytes) -> bool:
        """Decode the axes of one row with a JSON parser, and return whether they are valid."""
        axes = parse_checked_axes(text, self._axes)
        if axes is None:
            try:
                axes = DataCoordinates.from_json(text).__dict__
            except (CoordinatesError, UnicodeDecodeError, RecursionError):
                return False
            if not self._has_room_for(axes):
                return False
        for place, (axis, value) in enumerate(axes.items()):
            column = self._column(axis)
            self._codes[row, column] = self._code(column, value)
            if row < self._appeared[column][0]:
                self._appeared[column] = (row, place)
        return True

    def _has_room_for(self, axes: Iterable[str]) -> bool:
        return len(self._axes.keys() | set(axes)) <= MAX_AXES

    def _column(self, axis: str) -> int:
        column = self._axes.get(axis)
        if column is None:
            column = len(self._axes)
            self._interned.append({})
            self._values.append([])
            self._names.append(axis)
            self._appeared.append((2**62, 0))
            self._codes = self._resized(len(self._codes), column + 1)
            self._axes[axis] = column
        return column

    def _code(self, column: int, value: int | str) -> int:
        if type(value) is int and 0 <= value < _DIRECT:
            return 2 * value + 1
        codes = self._interned[column]
        code = codes.get(value)
        if code is None:
            self._values[column].append(value)
            code = codes[value] = 2 * len(self._values[column])
        return code

    def settle(self) -> None:
        """Make all added frames available for lookups now, instead of at the next lookup."""
        if self._remembered == self._count:
            return
        if self._count - self._sorted > _TAIL and not self._by_dict:
            self._sort()
        if not self._sorted or self._count > self._sorted:
            self._add_to_tail()
        self._remembered = self._count

    def _add_to_tail(self) -> None:
        begin = max(self._remembered, self._sorted)
        codes = self._codes[begin : self._count].astype("<i4").tobytes()
        row_bytes = 4 * self._codes.shape[1]
        for number in range(begin, self._count):
            at = (number - begin) * row_bytes
            key = int.from_bytes(codes[at : at + row_bytes], "little")
            older = self._tail.get(key)
            if older is None and self._sorted:
                older = self._find_sorted(key)
            if older is not None:
                self._superseded.add(older)
            self._tail[key] = number

    def _sort(self) -> None:
        """Compute a key for each frame, and sort the keys. The last of several equal keys is used."""
        codes = self._codes[: self._count]
        radices = [int(codes[:, column].max(initial=0)) + 1 for column in range(codes.shape[1])]
        weights = [1] * len(radices)
        for column in range(len(radices) - 2, -1, -1):
            weights[column] = weights[column + 1] * radices[column + 1]
        self._tail, self._superseded, self._remembered = {}, set(), 0
        if weights and weights[0] * radices[0] >= 2**63:  # there are too many positions for a 64-bit key
            self._by_dict, self._sorted, self._keys = True, 0, np.zeros(0, np.int64).data
            return
        keys = np.zeros(self._count, np.int64)
        for column, weight in enumerate(weights):
            keys += codes[:, column] * np.int64(weight)
        self._order = None
        if not (keys[1:] > keys[:-1]).all():
            order = np.argsort(keys, kind="stable").astype(np.uint32)
            keys = keys[order]
            self._order = order
            older = np.flatnonzero(keys[1:] == keys[:-1])
            self._superseded = set(order[older].tolist())
        self._keys, self._weights, self._radices = keys.data, weights, radices
        self._sorted = self._count

    # -- finding ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        self.settle()
        return self._count - len(self._superseded)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes, in the order in which they first appeared."""
        return tuple(self._names[column] for column in self._order_of_axes)

    def find(self, axes: Mapping[str, int | str]) -> int | None:
        """Return the number of the frame at these coordinates, or None if no frame has them."""
        if self._remembered != self._count:
            self.settle()
        key = 0
        for axis, value in axes.items():
            column = self._axes.get(axis)
            if column is None:
                return None
            if type(value) is int and 0 <= value < _DIRECT:
                key |= (value + value + 1) << (column << 5)
            else:
                code = self._interned[column].get(value)
                if code is None:
                    return None
                key |= code << (column << 5)
        number = self._tail.get(key)
        return self._find_sorted(key) if number is None and self._sorted else number

    def _find_sorted(self, codes: int) -> int | None:
        key = column = 0
        radices, weights = self._radices, self._weights
        while codes:
            if column == len(radices):  # this axis was added after the keys were computed
                return None
            code = codes & 0xFFFFFFFF
            if code >= radices[column]:
                return None
            key += code * weights[column]
            codes >>= 32
            column += 1
        keys = self._keys
        place = bisect_right(keys, key) - 1
        if place < 0 or keys[place] != key:
            return None
        return place if self._order is None else int(self._order[place])

    def place(self, number: int) -> tuple[int, int, int, int, int]:
        """Return a frame's file, layout, pixel offset, metadata offset and metadata length."""
        place: tuple[int, int, int, int, int] = self._places[number].tolist()
        return place

    def coordinates(self, number: int) -> dict[str, int | str]:
        """Return the coordinates of a frame, in the order of the axes."""
        names, values, order = self._names, self._values, self._order_of_axes
        codes = self._codes[number].tolist()  # read the codes last, so that they cover every axis
        axes: dict[str, int | str] = {}
        for column in order:
            code = codes[column]
            if code & 1:
                axes[names[column]] = code >> 1
            elif code:
                axes[names[column]] = values[column][(code >> 1) - 1]
        return axes

    def __iter__(self) -> Iterator[DataCoordinates]:
        """Yield the coordinates of the frames that are currently in the table, in the order of arrival."""
        return (coordinates for _, coordinates in self.since(0))

    def since(self, start: int) -> Iterator[tuple[int, DataCoordinates]]:
        """Yield the frames' numbers and coordinates in the order of arrival, starting at a given number."""
        superseded = self.superseded
        found = self._iterate(self._codes[: self._count], start, self._order_of_axes)
        return (item for item in found if item[0] not in superseded)

    def _iterate(self, rows: npt.NDArray[np.int32], start: int, order: tuple[int, ...]) -> Iterator[Any]:
        names = self._names
        for begin in range(start, len(rows), 4096):
            for at, codes in enumerate(rows[begin : begin + 4096].tolist(), begin):
                yield at, DataCoordinates({names[c]: self._value(c, codes[c]) for c in order if codes[c]})

    def _value(self, column: int, code: int) -> int | str:
        return code >> 1 if code & 1 else self._values[column][(code >> 1) - 1]

    def positions(self) -> dict[str, list[int | str]]:
        """Return the positions on each axis, in the order in which they first appeared."""
        found = {}
        for column in self._order_of_axes:
            codes, first = np.unique(self._codes[: self._count, column], return_index=True)
            ordered = codes[np.argsort(first)].tolist()
            found[self._names[column]] = [self._value(column, code) for code in ordered if code]
        return found

    def describe_absence(self, axes: Mapping[str, int | str]) -> str:
        """Return a user-readable explanation of why there is no frame at these coordinates."""
        if not self._count:
            return "the dataset has no frames yet"
        unknown = [repr(axis) for axis in axes if axis not in self._axes]
        if unknown:
            return f"no frame has the axis {' or '.join(unknown)}; existing axes: {', '.join(self.axes)}"
        if self._count <= _TAIL:
            for axis, values in self.positions().items():
                if axis in axes and axes[axis] not in values:
                    return f"positions on axis {axis!r}: {summarize_positions(values)}"
        if absent := [axis for axis in self.axes if axis not in axes]:
            return f"the coordinates lack {', '.join(absent)}; existing axes: {', '.join(self.axes)}"
        return "no frame has this combination of positions"

    @property
    def superseded(self) -> frozenset[int]:
        """The frames with the same coordinates as a later frame. Lookups do not find them."""
        self.settle()
        return frozenset(self._superseded)

    def in_file_order(self, dropped: Collection[int] = ()) -> dict[int, npt.NDArray[np.intp]]:
        """Return, for each file, the numbers of its frames in the order of their offsets.

        Parameters
        ----------
        dropped : collection of int
            The frames to leave out.
        """
        places = self._places[: self._count]
        order = np.lexsort((places[:, 2], places[:, 0]))
        if dropped:
            order = order[~np.isin(order, np.fromiter(dropped, np.intp, len(dropped)))]
        if not len(order):
            return {}
        files = places[order, 0]
        begins = np.flatnonzero(np.concatenate(([True], files[1:] != files[:-1])))
        return dict(zip(files[begins].tolist(), np.split(order, begins[1:]), strict=True))

    def ends(self) -> dict[str, int]:
        """Return, for each file, the offset at which its last frame ends."""
        places = self._places[: self._count]
        # An invalid layout may claim more bytes than a 64-bit number can represent.
        claimed = np.array([min(pixel_bytes(layout), 2**62) for layout in self.layouts] or [0], np.int64)
        pixels = places[:, 2].astype(np.int64) + claimed[places[:, 1]]
        metadata = places[:, 3].astype(np.int64) + places[:, 4]
        ends = np.zeros(len(self.files), np.int64)
        np.maximum.at(ends, places[:, 0], np.maximum(pixels, metadata))
        return {name: int(end) for name, end in zip(self.files, ends, strict=True)}


def _distinct(table: npt.NDArray[Any], number_of: Callable[[npt.NDArray[Any]], int]) -> Any:
    """Apply ``number_of`` to each row of a table; return a single number if all rows are identical."""
    if (table == table[0]).all():
        return number_of(table[0])
    unique, inverse = np.unique(table, axis=0, return_inverse=True)
    return np.array([number_of(row) for row in unique])[inverse.reshape(-1)]
