"""The bytes of ``NDTiff.index``: where entries begin and end, and the coordinates that they contain.

Entries vary in length, so the position of an entry is known only from the entry before it. To read many
entries at once, this module first finds all places that look like the beginning of an entry. It then checks
that the length of each entry leads exactly to the next entry. If this chain is broken, the entries are read
one by one.
"""

import json
import re
from collections.abc import Container

import numpy as np
import numpy.typing as npt
import orjson

from exengine.base_classes import DataCoordinates
from exengine_ndstorage.ndtiff.format import INDEX_NUMBERS, LENGTH
from exengine_ndstorage.ndtiff.sizes import MAX_TEXT_BYTES

_NUMBERS_BYTES = INDEX_NUMBERS.size
_MAX_TEXT = MAX_TEXT_BYTES + 1

_PAIR = re.compile(rb'\s*("(?:[^"\\]|\\.)*")\s*:\s*(?:(-?)(\d+)|("(?:[^"\\]|\\.)*"))\s*([,}])')


def u32(raw: npt.NDArray[np.uint8], at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the little-endian 4-byte numbers at the given offsets."""
    window = np.lib.stride_tricks.sliding_window_view(raw, 4)[at]
    return np.ascontiguousarray(window).view("<u4")[:, 0].astype(np.int64)


def prove_chain(data: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the start and end offsets of the complete entries at the beginning of ``data``.

    This function does not check the coordinates in the entries. :meth:`FrameTable.feed` checks them.
    """
    raw = np.frombuffer(data, np.uint8)
    nothing = np.zeros(0, np.int64)
    if len(raw) < 8 + _NUMBERS_BYTES:
        return nothing, nothing
    # An entry begins with a length below 65,536, so the two upper bytes are 0. The opening brace of its
    # JSON follows.
    at = np.flatnonzero((raw[4:] == 0x7B) & (raw[3:-1] == 0) & (raw[2:-2] == 0))
    lengths = u32(raw, at)
    inside = at + 8 + lengths + _NUMBERS_BYTES <= len(raw)
    at, lengths = at[inside], lengths[inside]
    names = u32(raw, at + 4 + lengths)
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
        (length,) = LENGTH.unpack_from(data, position)
        after = position + 4 + length
        if not 2 <= length < _MAX_TEXT or after + 4 + _NUMBERS_BYTES > len(data):
            break
        (name,) = LENGTH.unpack_from(data, after)
        end = after + 4 + name + _NUMBERS_BYTES
        if name >= _MAX_TEXT or end > len(data):
            break
        starts.append(position)
        ends.append(end)
        position = end
    return np.array(starts, np.int64), np.array(ends, np.int64)


def with_metadata_length(entry: bytes, size: int) -> bytes:
    """Return an entry with a new metadata length, which is its second-to-last number."""
    return entry[:-8] + LENGTH.pack(size) + entry[-4:]


class Template:
    """A pattern for coordinates as JSON, in which only the digits of numbers can vary.

    Attributes
    ----------
    axes : list of str
        The axes, in the order in which they occur in the string.
    texts : list of (axis, text)
        The axes with a string as their position, and that string.
    numbers : list of (axis, sign, begin, end)
        The axes with a number as their position, the sign of the number, and the range of its digits.

    Raises
    ------
    ValueError
        If the string does not contain valid coordinates.
    """

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
        self.axes = list(DataCoordinates.from_json(text))  # raises an exception if the axes are invalid
        self._fixed = np.flatnonzero(~digits)
        self._digits = np.flatnonzero(digits)
        self._bytes = row[self._fixed]

    @classmethod
    def of(cls, text: bytes) -> "Template | None":
        """Return a template for a string, or None if the string requires the JSON parser."""
        try:
            template = cls(text)
        except (ValueError, RecursionError):
            return None
        # Numbers with more than 18 digits do not fit in the columns. The JSON parser rejects them.
        if any(end - begin > 18 or end - begin == 0 for _, _, begin, end in template.numbers):
            return None
        return template

    def matches(self, table: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """For each row of a table of strings, return whether it differs from this template only in digits."""
        good = (table[:, self._fixed] == self._bytes).all(axis=1)
        return good & ((table[:, self._digits] - 48) <= 9).all(axis=1)  # type: ignore[no-any-return]


def parse_checked_axes(text: bytes, checked: Container[str]) -> dict[str, int | str] | None:
    """Return coordinates from JSON, or None if the JSON is not valid or an axis is not in ``checked``."""
    try:
        axes = orjson.loads(text)
    except ValueError:
        return None
    if type(axes) is not dict:
        return None
    for axis, position in axes.items():
        if axis not in checked or not (
            type(position) is str or (type(position) is int and -(2**63) <= position < 2**63)
        ):
            return None
    return axes
