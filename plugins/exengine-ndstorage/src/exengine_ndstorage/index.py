"""Reads ``NDTiff.index``: a million entries in a second, a lookup in microseconds.

An entry is: length of the axes (4 bytes), axes as JSON, length of the file name, file name, eight
numbers of 4 bytes. Entries have no fixed length, so that the place of each is known from the one
before only. Here many are read at once: places where an entry *may* begin are found by their look,
and the chain of lengths then proves them. Where it does not, the entries are walked one by one. The
JSON is compared with texts seen before, digits aside; an unknown text goes through the JSON parser.

What is kept is columns of numbers, 16 bytes per frame and 4 per axis.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.errors import CoordinatesError
from exengine.kernel.coordinate_index import summarize_positions
from exengine.kernel.data_coords import DataCoordinates
from exengine_ndstorage import layout

CHUNK_BYTES = 2 * 2**20
_NUMBERS_BYTES = layout.INDEX_NUMBERS.size
_MAX_TEXT = 2**16  # of axes or of a file name; more is no NDTiff
_MAX_TEMPLATES = 512  # texts that differ in more than digits; beyond, each is parsed by itself
_DIRECT = 2**29  # ints 0 <= i < _DIRECT are their own code; others, and str, are interned
_TAIL = 65_536  # frames that may arrive before the sorted keys are made anew

_PAIR = re.compile(rb'\s*("(?:[^"\\]|\\.)*")\s*:\s*(?:(-?)(\d+)|("(?:[^"\\]|\\.)*"))\s*([,}])')

Form = tuple[int, int, int, int, int]
"""Width, height, pixel type, compression of pixels and of metadata."""


class FrameTable:
    """The frames of a dataset: coordinates -> number, number -> place. Grows by :meth:`feed`.

    Attributes
    ----------
    files : list of str
        Names of the TIFF files, in the order in which they first appear.
    forms : list of Form
        What the frames look like.
    problem : str
        Why the index could not be read to its end; empty when it could.
    """

    def __init__(self) -> None:
        self.files: list[str] = []
        self.forms: list[Form] = []
        self.problem = ""
        self._file_numbers: dict[bytes, int] = {}
        self._form_numbers: dict[Form, int] = {}
        self._axes: dict[str, int] = {}  # axis -> column of _codes
        self._interned: list[dict[int | str, int]] = []
        self._values: list[list[int | str]] = []
        self._templates: dict[tuple[int, int], list[_Template]] = {}
        self._count = 0
        self._codes = np.zeros((0, 0), np.int32)
        self._places = np.zeros(0, _PLACE)
        self._keys: npt.NDArray[np.int64] | None = None
        self._order: npt.NDArray[np.uint32] | None = None
        self._weights: list[int] = []
        self._sorted = 0  # how many frames the keys cover
        self._tail: dict[tuple[int, ...], int] = {}
        self._superseded: set[int] = set()

    # -- feeding ---------------------------------------------------------------------------------

    def feed(self, data: bytes, *, expected_bytes: int = 0) -> int:
        """Take the entries at the beginning of ``data``.

        Parameters
        ----------
        data : bytes
            From where the last call ended.
        expected_bytes : int
            About how many more will come, so that memory is taken once.

        Returns
        -------
        int
            How many bytes were taken. The rest is the beginning of an entry, or ``problem`` is set.
        """
        starts, ends = _prove_chain(data)
        if not len(starts):
            if len(data) >= 4 and layout.LENGTH.unpack_from(data)[0] > _MAX_TEXT:
                self.problem = "an entry has an impossible length"
            return 0
        self._reserve(len(starts), len(starts) * (len(data) + expected_bytes) // max(int(ends[-1]), 1))
        taken = self._take(np.frombuffer(data, np.uint8), data, starts, ends)
        return int(ends[taken - 1]) if taken else 0

    def _reserve(self, more: int, expected: int) -> None:
        need = self._count + more
        if need > len(self._places):
            size = max(need, min(self._count + expected + 64, 2 * need + 10_000_000), self._count * 5 // 4)
            self._places = np.resize(self._places, size) if len(self._places) else np.zeros(size, _PLACE)
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
        """Decode proven entries into the columns; return how many, fewer when one is not valid."""
        axes_bytes = _u32(raw, starts)
        sizes = ends - starts
        group = axes_bytes * _MAX_TEXT + sizes
        begin = self._count
        done = np.zeros(len(starts), bool)
        for key in np.unique(group):
            rows = np.flatnonzero(group == key)
            length, size = int(key) // _MAX_TEXT, int(sizes[rows[0]])
            table = np.lib.stride_tricks.sliding_window_view(raw, size)[starts[rows]]
            self._take_numbers(begin + rows, table[:, -_NUMBERS_BYTES:])
            self._take_files(begin + rows, table[:, 8 + length : -_NUMBERS_BYTES])
            left = self._match(begin + rows, table[:, 4 : 4 + length], (length, size))
            done[rows] = True
            for row in left:
                entry = rows[row]
                done[entry] = self._take_one(begin + int(entry), data[starts[entry] + 4 :][:length])
        taken = len(starts) if done.all() else int(np.argmin(done))
        if taken < len(starts):
            self.problem = f"the coordinates of entry {begin + taken} cannot be understood"
        self._count += taken
        self._remember(begin)
        return taken

    def _take_numbers(self, rows: npt.NDArray[np.int64], table: npt.NDArray[np.uint8]) -> None:
        numbers = np.ascontiguousarray(table).view("<u4")
        places = self._places
        places["pixels"][rows] = numbers[:, 0]
        places["metadata"][rows] = numbers[:, 5]
        places["metadata_bytes"][rows] = numbers[:, 6]
        forms = numbers[:, [1, 2, 3, 4, 7]]
        if (forms == forms[0]).all():
            places["form"][rows] = self._form(forms[0])
        else:
            unique, inverse = np.unique(forms, axis=0, return_inverse=True)
            places["form"][rows] = np.array([self._form(form) for form in unique])[inverse.reshape(-1)]

    def _form(self, numbers: npt.NDArray[np.uint32]) -> int:
        form: Any = tuple(int(number) for number in numbers)
        number = self._form_numbers.setdefault(form, len(self.forms))
        if number == len(self.forms):
            self.forms.append(form)
        return number

    def _take_files(self, rows: npt.NDArray[np.int64], table: npt.NDArray[np.uint8]) -> None:
        if (table == table[0]).all():
            self._places["file"][rows] = self._file(table[0].tobytes())
        else:
            unique, inverse = np.unique(table, axis=0, return_inverse=True)
            self._places["file"][rows] = np.array([self._file(name.tobytes()) for name in unique])[
                inverse.reshape(-1)
            ]

    def _file(self, name: bytes) -> int:
        number = self._file_numbers.setdefault(name, len(self.files))
        if number == len(self.files):
            self.files.append(name.decode("utf-8", "replace"))
        return number

    def _match(
        self, rows: npt.NDArray[np.int64], table: npt.NDArray[np.uint8], shape: tuple[int, int]
    ) -> npt.NDArray[np.int64]:
        """Decode the axes of rows that look like a text seen before; return the rows that do not."""
        known = self._templates.setdefault(shape, [])
        left = np.arange(len(table))
        tried = 0
        while len(left):
            if tried == len(known):
                if len(known) >= _MAX_TEMPLATES:
                    return left
                template = _Template.of(table[left[0]].tobytes())
                if template is None:
                    return left
                known.append(template)
            template = known[tried]
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

    def _apply(
        self, template: "_Template", rows: npt.NDArray[np.int64], table: npt.NDArray[np.uint8]
    ) -> None:
        for axis in template.axes:
            self._column(axis)
        for axis, text in template.texts:
            self._codes[rows, self._column(axis)] = self._code(self._column(axis), text)
        for axis, sign, begin, end in template.numbers:
            column = self._column(axis)
            values = np.zeros(len(table), np.int64)
            for place in range(begin, end):
                values = values * 10 + (table[:, place] - 48)
            if sign < 0 or end - begin > 8:  # beyond 99,999,999: some may not be their own code
                codes = np.array([self._code(column, sign * value) for value in values.tolist()], np.int32)
            else:
                codes = (values * 2 + 1).astype(np.int32)
            self._codes[rows, column] = codes

    def _take_one(self, row: int, text: bytes) -> bool:
        """Decode the axes of one row with the JSON parser; return whether they are valid."""
        try:
            axes = DataCoordinates.from_json(text)
        except (CoordinatesError, UnicodeDecodeError, RecursionError):
            return False
        for axis, value in axes.__dict__.items():
            column = self._column(axis)
            self._codes[row, column] = self._code(column, value)
        return True

    def _column(self, axis: str) -> int:
        column = self._axes.get(axis)
        if column is None:
            column = self._axes[axis] = len(self._axes)
            self._interned.append({})
            self._values.append([])
            self._codes = self._resized(len(self._codes), column + 1)
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

    def _remember(self, begin: int) -> None:
        """Make the new rows findable: at first by a dict, from many on by sorted keys."""
        if self._count - self._sorted > _TAIL:
            self._keys = None
            return
        for number, codes in enumerate(self._codes[begin : self._count].tolist(), begin):
            key = tuple(code for pair in enumerate(codes) if pair[1] for code in pair)
            older = self._tail.get(key)
            if older is None and self._sorted:
                older = self._find_sorted(codes)
            if older is not None:
                self._superseded.add(older)
            self._tail[key] = number

    def _sort(self) -> None:
        """Make one sorted key per frame from its codes; the last of equal ones counts."""
        codes = self._codes[: self._count]
        radices = [int(codes[:, column].max(initial=0)) + 1 for column in range(codes.shape[1])]
        weights = [1] * len(radices)
        for column in range(len(radices) - 2, -1, -1):
            weights[column] = weights[column + 1] * radices[column + 1]
        self._sorted = self._count
        self._tail = {}
        self._radices = radices
        if weights and weights[0] * radices[0] >= 2**63:  # too many positions for one number: by a dict
            self._keys = np.zeros(0, np.int64)
            self._sorted = 0
            self._superseded = set()
            for number, row in enumerate(codes.tolist()):
                key = tuple(code for pair in enumerate(row) if pair[1] for code in pair)
                if key in self._tail:
                    self._superseded.add(self._tail[key])
                self._tail[key] = number
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
        self._keys, self._weights = keys, weights

    # -- finding ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count - len(self._superseded_now())

    def _superseded_now(self) -> set[int]:
        if self._keys is None and self._count > self._sorted + len(self._tail):
            self._sort()
        return self._superseded

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes, in the order in which they first appeared."""
        return tuple(self._axes)

    def find(self, axes: Mapping[str, int | str]) -> int | None:
        """Return the number of the frame at these coordinates, or None."""
        if self._count > self._sorted + _TAIL or (self._keys is None and len(self._tail) < self._count):
            self._sort()
        codes = [0] * len(self._axes)
        for axis, value in axes.items():
            column = self._axes.get(axis)
            if column is None:
                return None
            if type(value) is int and 0 <= value < _DIRECT:
                codes[column] = 2 * value + 1
            else:
                code = self._interned[column].get(value)
                if code is None:
                    return None
                codes[column] = code
        if self._tail:
            number = self._tail.get(tuple(code for pair in enumerate(codes) if pair[1] for code in pair))
            if number is not None:
                return number
        return self._find_sorted(codes) if self._sorted else None

    def _find_sorted(self, codes: list[int]) -> int | None:
        key = 0
        for code, weight, radix in zip(codes, self._weights, self._radices, strict=False):
            if code >= radix:
                return None
            key += code * weight
        if any(codes[len(self._weights) :]):
            return None
        keys = self._keys
        assert keys is not None
        place = int(keys.searchsorted(key, "right")) - 1
        if place < 0 or keys[place] != key:
            return None
        return place if self._order is None else int(self._order[place])

    def place(self, number: int) -> tuple[int, int, int, int, int]:
        """Return file, form, offset of the pixels, offset and length of the metadata of a frame."""
        return self._places[number].item()  # type: ignore[no-any-return]

    def coordinates(self, number: int) -> dict[str, int | str]:
        """Return the coordinates of a frame, in the order of the axes."""
        codes = self._codes[number].tolist()
        return {
            axis: self._value(column, codes[column]) for axis, column in self._axes.items() if codes[column]
        }

    def __iter__(self) -> Iterator[DataCoordinates]:
        """Yield the coordinates of every frame, in the order of arrival."""
        superseded = self._superseded_now()
        names = tuple(self._axes)
        for begin in range(0, self._count, 4096):
            rows = self._codes[begin : min(begin + 4096, self._count)].tolist()
            for number, codes in enumerate(rows, begin):
                if number not in superseded:
                    yield DataCoordinates(
                        {
                            names[column]: self._value(column, code)
                            for column, code in enumerate(codes)
                            if code
                        }
                    )

    def _value(self, column: int, code: int) -> int | str:
        return code >> 1 if code & 1 else self._values[column][(code >> 1) - 1]

    def positions(self) -> dict[str, list[int | str]]:
        """Return the positions that occur on each axis, in the order of arrival."""
        found = {}
        for axis, column in self._axes.items():
            codes, first = np.unique(self._codes[: self._count, column], return_index=True)
            ordered = codes[np.argsort(first)].tolist()
            found[axis] = [self._value(column, code) for code in ordered if code]
        return found

    def describe_absence(self, axes: Mapping[str, int | str]) -> str:
        """Return a sentence for people: what is there instead of these coordinates."""
        if not self._count:
            return "the dataset has no frames yet"
        unknown = [axis for axis in axes if axis not in self._axes]
        if unknown:
            return f"there is no axis {', '.join(map(repr, unknown))}; the axes are {', '.join(self._axes)}"
        if self._count <= _TAIL:
            for axis, values in self.positions().items():
                if axis in axes and axes[axis] not in values:
                    return f"{axis} is one of {summarize_positions(values)}"
        absent = [axis for axis in self._axes if axis not in axes]
        if absent:
            return f"the axes are {', '.join(self._axes)}; {', '.join(absent)} was not given"
        return f"no frame among {self._count} has these positions together"

    def ends(self, pixel_bytes: list[int]) -> dict[str, int]:
        """Return for each file how long it must be at least, given the bytes of each form."""
        places = self._places[: self._count]
        pixels = places["pixels"].astype(np.int64) + np.array(pixel_bytes or [0], np.int64)[places["form"]]
        metadata = places["metadata"].astype(np.int64) + places["metadata_bytes"]
        ends = np.zeros(len(self.files), np.int64)
        np.maximum.at(ends, places["file"], np.maximum(pixels, metadata))
        return {name: int(end) for name, end in zip(self.files, ends, strict=True)}


_PLACE = np.dtype(
    [("file", "<u2"), ("form", "<u2"), ("pixels", "<u4"), ("metadata", "<u4"), ("metadata_bytes", "<u4")]
)


class _Template:
    """A text of axes in which the digits of numbers may differ."""

    def __init__(self, text: bytes) -> None:
        self.texts: list[tuple[str, str]] = []
        self.numbers: list[tuple[str, int, int, int]] = []
        row = np.frombuffer(text, np.uint8)
        digits = np.zeros(len(row), bool)
        position = 1
        while position < len(text):
            pair = _PAIR.match(text, position)
            if pair is None:
                raise ValueError(text)
            axis = json.loads(pair[1])
            if pair[3] is not None:
                self.numbers.append((axis, -1 if pair[2] else 1, *pair.span(3)))
                digits[slice(*pair.span(3))] = True
            else:
                self.texts.append((axis, json.loads(pair[4])))
            position = pair.end()
        names = [text[0] for text in self.texts] + [number[0] for number in self.numbers]
        if text[:1] != b"{" or text[-1:] != b"}" or position != len(text) or len(set(names)) != len(names):
            raise ValueError(text)
        self.axes = list(json.loads(text))
        DataCoordinates(dict.fromkeys(names, 0))  # refuses names that are not valid
        self._fixed = np.flatnonzero(~digits)
        self._digits = np.flatnonzero(digits)
        self._bytes = row[self._fixed]

    @classmethod
    def of(cls, text: bytes) -> "_Template | None":
        try:
            template = cls(text)
        except (ValueError, RecursionError):
            return None
        # Numbers beyond 18 digits do not fit the columns: the JSON parser shall refuse them.
        if any(end - begin > 18 or end - begin == 0 for _, _, begin, end in template.numbers):
            return None
        return template

    def matches(self, table: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        good = (table[:, self._fixed] == self._bytes).all(axis=1)
        return good & ((table[:, self._digits] - 48) <= 9).all(axis=1)  # type: ignore[no-any-return]


def _u32(raw: npt.NDArray[np.uint8], at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the little-endian numbers of 4 bytes at these places."""
    window = np.lib.stride_tricks.sliding_window_view(raw, 4)[at]
    return np.ascontiguousarray(window).view("<u4")[:, 0].astype(np.int64)


def _prove_chain(data: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where the whole entries at the beginning of ``data`` begin and end."""
    raw = np.frombuffer(data, np.uint8)
    nothing = np.zeros(0, np.int64)
    if len(raw) < 8 + _NUMBERS_BYTES:
        return nothing, nothing
    # An entry begins with a length below 65,536, whose upper bytes are 0, and the brace of its JSON.
    at = np.flatnonzero((raw[4:] == 0x7B) & (raw[3:-1] == 0) & (raw[2:-2] == 0))
    lengths = _u32(raw, at)
    inside = at + 8 + lengths + _NUMBERS_BYTES <= len(raw)
    at, lengths = at[inside], lengths[inside]
    names = _u32(raw, at + 4 + lengths)
    ends = at + 8 + lengths + names + _NUMBERS_BYTES
    inside = (names < _MAX_TEXT) & (ends <= len(raw)) & (raw[at + 3 + lengths] == 0x7D)
    at, ends = at[inside], ends[inside]
    if len(at) and at[0] == 0:
        broken = np.flatnonzero(at[1:] != ends[:-1])
        proven = int(broken[0]) + 1 if len(broken) else len(at)
        if proven == len(at) or len(data) - int(ends[proven - 1]) < 8:
            return at[:proven], ends[:proven]
    return _walk_chain(data)


def _walk_chain(data: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    starts, ends = [], []
    position = 0
    while len(data) - position >= 8 + _NUMBERS_BYTES:
        (length,) = layout.LENGTH.unpack_from(data, position)
        after = position + 4 + length
        if not 2 <= length < _MAX_TEXT or after + 4 + _NUMBERS_BYTES > len(data):
            break
        (name,) = layout.LENGTH.unpack_from(data, after)
        end = after + 4 + name + _NUMBERS_BYTES
        if name >= _MAX_TEXT or end > len(data):
            break
        starts.append(position)
        ends.append(end)
        position = end
    return np.array(starts, np.int64), np.array(ends, np.int64)
