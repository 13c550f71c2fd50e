"""Catalogues of hostile input: at least sixty entries each for coordinates, arrays, metadata and names.

Each entry defines the required outcome. ``REFUSED`` means that put raises an ``ExEngineError`` and changes
nothing. ``STORED`` means that the value is stored, and that reading returns ``wanted``. ``EITHER`` means that
the format may refuse or store the value. Any other outcome is a fault.
"""

import collections
import datetime
import decimal
import enum
import fractions
import functools
import os
import pathlib
import types
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

REFUSED, STORED, EITHER = "refused", "stored", "either"


@dataclass(frozen=True)
class Entry:
    """One hostile value.

    Attributes
    ----------
    id : str
        A short name used in messages.
    make : callable
        A function that returns a new value each time it is called.
    outcome : {'refused', 'stored', 'either'}
        The required outcome of put.
    wanted : object
        The value that reading must return. ``...`` means the value that was put.
    """

    id: str
    make: Callable[[], Any]
    outcome: str = EITHER
    wanted: Any = ...


class _Level(enum.IntEnum):
    HIGH = 3


class _Text(str):
    __slots__ = ()


class _Raising(dict):  # type: ignore[type-arg]
    """A mapping that raises an exception when it is read."""

    def items(self) -> Any:
        raise RuntimeError("a mapping that cannot be read")

    keys = __iter__ = items


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _entries(outcome: str, **values: Any) -> list[Entry]:
    return [Entry(name, _constant(value), outcome) for name, value in values.items()]


# -- coordinates -------------------------------------------------------------------------------------

_AT = {"channel": 0, "z": 0}


def _time(outcome: str, **values: Any) -> list[Entry]:
    """Return one entry for each given position on the axis ``time``."""
    return [Entry(f"time-{name}", _constant({"time": at, **_AT}), outcome) for name, at in values.items()]


def _axis(outcome: str, **names: Any) -> list[Entry]:
    """Return one entry for each given axis name."""
    return [Entry(f"axis-{name}", _constant({axis: 0}), outcome) for name, axis in names.items()]


def _time_is(name: str, at: Any, wanted: int) -> Entry:
    return Entry(name, _constant({"time": at, **_AT}), STORED, {"time": wanted, **_AT})


COORDINATES: list[Entry] = [
    *_entries(REFUSED, none=None, int=5, float=1.5, text="time", bytes=b"time", list=[0, 1], set={0},
              pairs=[("time", 0)], object=object(), type=dict, array=np.zeros(3), nan=float("nan")),
    *_time(REFUSED, half=1.5, nan=float("nan"), infinite=float("inf"), true=True, none=None, bytes=b"0",
           list=[0], dict={"a": 0}, tuple=(0,), set=frozenset((0,)), complex=1j, above_64_bits=2**63,
           below_64_bits=-(2**63) - 1, huge=10**400, object=object(), array=np.array([1, 2]),
           fraction=fractions.Fraction(1, 2), numpy_true=np.True_, date=datetime.date(2024, 1, 1),
           surrogate="\ud800", numpy_nan=np.float32("nan"), type=int),
    *_axis(REFUSED, empty="", underscore="_time", dunder="__class__", dict_method="keys", method="to_json",
           integer=1, none=None, bytes=b"time", tuple=("time",), surrogate="\udfff", true=True, float=0.5),
    _time_is("numpy-int", np.int64(3), 3), _time_is("numpy-uint8", np.uint8(200), 200),
    _time_is("whole-float", 4.0, 4), _time_is("numpy-whole-float", np.float32(6), 6),
    _time_is("int-enum", _Level.HIGH, 3), _time_is("32-bit", 2**31 - 2, 2**31 - 2),
    Entry("mapping-proxy", lambda: types.MappingProxyType({"time": 1, **_AT}), STORED, {"time": 1, **_AT}),
    Entry("ordered-dict", lambda: collections.OrderedDict(time=1, **_AT), STORED, {"time": 1, **_AT}),
    Entry("str-subclass-axis", lambda: {_Text("time"): 1, **_AT}, STORED, {"time": 1, **_AT}),
    *_entries(EITHER, no_axes={}, one_axis={"time": 0}, other_axes={"row": 1, "column": 2},
              sixty_axes={f"axis{number}": number for number in range(60)}),
    *_time(EITHER, most=2**63 - 1, least=-(2**63), minus_one=-1, above_32_bits=2**31,
              above_53_bits=2**53 + 1),
]  # fmt: skip
"""Values passed as coordinates to put and to ``in``."""

FOR_IN: list[Entry] = [
    *COORDINATES,
    Entry("mapping-that-raises", _Raising, REFUSED),
    Entry("nested-mapping", lambda: {"time": {"time": {}}}, REFUSED),
    Entry("frame", lambda: np.zeros((4, 4), np.uint16), REFUSED),
]
"""Values passed to ``in``, which must never raise an exception: all coordinates, and a few other values."""

# -- names -------------------------------------------------------------------------------------------

NAMES: dict[str, str] = {
    "up": "..", "up-up": "../..", "up-and-down": "../escaped", "here": ".", "home": "~", "home-below": "~/a",
    "slash": "a/b", "slash-end": "a/", "double-slash": "a//b", "backslash": "a\\b",
    "backslash-up": "..\\..\\escaped",
    "drive": "C:\\escaped", "drive-relative": "C:escaped", "unc": "\\\\host\\share", "colon": "a:b",
    "stream": "a:stream:$DATA", "null": "a\0b", "null-end": "a\0", "newline": "a\nb", "return": "a\rb",
    "tab": "a\tb", "escape": "\x1b[31mred", "bell": "\a", "delete": "\x7f", "space": " ", "space-end": "a ",
    "space-start": " a", "dot-end": "a.", "dots": "...", "hidden": ".hidden", "device-con": "CON",
    "device-nul": "NUL", "device-com": "COM1.txt", "dash": "-rf", "option": "--help", "star": "*",
    "glob": "[a-z]?",
    "quote": "a'b", "double-quote": 'a"b', "backtick": "`id`", "dollar": "$HOME", "substitute": "$(id)",
    "pipe": "a|b", "semicolon": "a;b", "ampersand": "a&b", "less": "<a>", "percent": "%s%n",
    "brace": "{0.__class__}",
    "json": '"}, "x": {"', "comma": "a,b", "equals": "a=b", "hash": "#",
    "unicode": "Zähler",
    "emoji": "\U0001f52c", "right-to-left": "\u202egnp.exe", "combining": "A\u030a", "composed": "\u00c5",
    "zero-width": "a\u200bb", "line-separator": "a\u2028b", "no-break": "a\u00a0b", "private": "\ue000",
    "beyond-bmp": "\U0010ffff", "long": "n" * 300, "longer": "n" * 5000, "manifest": "exengine.json",
    "lock": "exengine.lock", "digits": "0", "minus": "-1", "none": "None", "nan": "nan", "true": "true",
}  # fmt: skip
"""Strings used as positions, axis names and metadata keys. None of them may become part of a path."""


def names_that_lead_to(folder: "str | os.PathLike[str]") -> dict[str, str]:
    """Return further names like those in :data:`NAMES`: paths that lead to one of the kit's own folders.

    Examples
    --------
    >>> names_that_lead_to("/kit")["absolute"]
    '/kit/escaped'
    """
    folder = os.path.abspath(folder)
    below_root = os.path.splitdrive(folder)[1].lstrip("/\\")
    return {
        "root": folder, "root-end": os.path.join(folder, ""), "absolute": os.path.join(folder, "escaped"),
        "known": os.path.join(folder, "thesis.txt"), "url": f"file://{folder}/thesis.txt",
        "deep-up": "../" * 64 + f"{below_root}/escaped", "double-root": f"//{below_root}/escaped",
    }  # fmt: skip


# -- arrays ------------------------------------------------------------------------------------------


def _plain(dtype: str, shape: tuple[int, ...] = (6, 8)) -> Any:
    size = int(np.prod(shape))
    return (np.arange(size) % 2 if dtype == "bool" else np.arange(size) % 120).astype(dtype).reshape(shape)


def _view_entries() -> list[Entry]:
    def unaligned() -> Any:
        raw = np.zeros(97, np.uint8)
        array = raw[1:].view("uint16").reshape(6, 8)
        array[...] = _plain("uint16")
        return array

    def read_only() -> Any:
        array = _plain("uint16")
        array.flags.writeable = False
        return array

    views: dict[str, Callable[[], Any]] = {
        "fortran": lambda: np.asfortranarray(_plain("uint16")),
        "transposed": lambda: _plain("uint16").T,
        "every-second-column": lambda: _plain("uint16", (6, 16))[:, ::2],
        "every-second-row": lambda: _plain("uint16", (12, 8))[::2],
        "upside-down": lambda: _plain("uint16")[::-1],
        "mirrored": lambda: _plain("uint16")[:, ::-1],
        "broadcast-row": lambda: np.broadcast_to(_plain("uint16", (1, 8)), (6, 8)),
        "broadcast-scalar": lambda: np.broadcast_to(np.uint16(7), (6, 8)),
        "window": lambda: _plain("uint16", (20, 20))[3:9, 5:13],
        "one-of-three-colours": lambda: _plain("uint16", (6, 8, 3))[..., 1],
        "read-only": read_only,
        "unaligned": unaligned,
        "big-endian": lambda: _plain(">u2"),
        "little-endian": lambda: _plain("<u2"),
        "one-pixel": lambda: _plain("uint16", (1, 1)),
        "one-row": lambda: _plain("uint16", (1, 999)),
        "one-column": lambda: _plain("uint16", (999, 1)),
        "odd": lambda: _plain("uint16", (7, 13)),
        "large": lambda: _plain("uint16", (700, 900)),
        "subclass": lambda: _plain("uint16").view(np.recarray),
        "from-buffer": lambda: np.frombuffer(bytes(range(96)), "uint16").reshape(6, 8),
        "extremes": lambda: np.array([[0, 65535], [32768, 1]], "uint16"),
    }
    return [Entry(name, make, STORED) for name, make in views.items()]


def _dtype_entries() -> list[Entry]:
    numbers = (
        "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64 complex64 complex128"
    )
    swapped = ">i2 >u4 >i4 >f4 >f8 >c8"
    return [
        Entry(f"dtype-{name}", functools.partial(_plain, name), STORED)
        for name in (numbers + " " + swapped).split()
    ]


def _other_array_entries() -> list[Entry]:
    record = np.zeros((4, 4), [("a", "u1"), ("b", "<f4")])
    shapes = {"0-d": (), "1-d": (9,), "3-d": (4, 5, 3), "3-d-two": (4, 5, 2), "4-d": (2, 3, 4, 5),
    "8-d": (2,) * 8,
              "no-rows": (0, 8), "no-columns": (6, 0), "nothing": (0, 0), "empty-1-d": (0,)}  # fmt: skip
    special = np.array([[np.nan, np.inf], [-np.inf, -0.0]])
    refused = _entries(REFUSED, none=None, number=7, text="pixels", bytes=b"12345678", dict={},
    object=object(),
                       set={1}, objects=np.array([[object()]]), object_numbers=np.ones((2, 2), object),
                       masked=np.ma.masked_equal(np.ones((4, 4), np.uint16), 1))  # fmt: skip
    either = _entries(EITHER, list=[[1, 2], [3, 4]], memory=memoryview(b"12"), numpy_scalar=np.uint16(3),
    record=record,
                      dates=np.zeros((2, 2), "M8[s]"), spans=np.zeros((2, 2), "m8[ns]"), texts=np.full((2,
                      2), "a"),
                      raw=np.zeros((2, 2), "V5"), long_float=np.ones((2, 2), np.longdouble))  # fmt: skip
    made = [
        Entry(f"shape-{name}", functools.partial(_plain, "uint16", shape)) for name, shape in shapes.items()
    ]
    colour = Entry("colour", lambda: _plain("uint8", (4, 5, 3)), STORED)
    return [*refused, *either, *made, colour, Entry("special-floats", _constant(special), STORED)]


ARRAYS: list[Entry] = [*_view_entries(), *_dtype_entries(), *_other_array_entries()]
"""Values passed to put as pixels. ``STORED`` applies only if the backend's capabilities allow the array's
dtype and number of dimensions. Otherwise, put must refuse the array."""

# -- metadata ----------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    """Return lists nested to a given depth."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def _shared() -> Any:
    part = [1]
    return {"a": part, "b": part}


def _cycle() -> Any:
    value: list[Any] = []
    value.append({"again": value})
    return value


def _made(name: str, value: Any, wanted: Any) -> Entry:
    return Entry(name, _constant(value), STORED, wanted)


METADATA: list[Entry] = [
    *_entries(STORED, none=None, true=True, false=False, zero=0, one=1, minus=-1, int_64=2**63 - 1,
              least=-(2**63),
              half=0.5, tiny=5e-324, large=1.7976931348623157e308, tenth=0.1, text="text", empty_text="",
              list=[1, "a", None],
              empty_list=[], empty_dict={}, dict={"a": {"b": [1, {"c": None}]}}, empty_key={"": 0},
              unicode={"Zähler": "\U0001f52c \u00b5m"}, control={"a": "\x00\x01\x1f\x7f"},
              lines={"a": "1\n2\r\n3\u2028"},
              quotes={"a\"b'": "\\\"'"}, json_in_text={"a": '{"b": [1]}'}, key_like_number={"1": 1, "1.0": 2},
              int_and_float={"a": 1, "b": 1.0, "c": True}, many={f"key{n}": n for n in range(2000)},
              long={"a": "x" * 200_000}, order={"z": 1, "a": 2}, reserved={"__class__": "x", "$ref": "#",
              "_id": 1},
              deep=nested(40), spaces={" a ": " b "}, combining={"A\u030a": 1, "\u00c5": 2}),
    _made("tuple", {"roi": (0, 0, 8, 8)}, {"roi": [0, 0, 8, 8]}),
    _made("nested-tuple", ((1, 2), (3,)), [[1, 2], [3]]),
    _made("numpy-int", {"a": np.int64(3)}, {"a": 3}), _made("numpy-float", {"a": np.float32(0.5)},
    {"a": 0.5}),
    _made("numpy-bool", {"a": np.bool_(True)}, {"a": True}), _made("numpy-text", {"a": np.str_("x")},
    {"a": "x"}),
    _made("array", {"a": np.arange(3)}, {"a": [0, 1, 2]}), _made("array-2-d", np.eye(2), [[1.0, 0.0], [0.0,
    1.0]]),
    _made("empty-array", {"a": np.zeros(0)}, {"a": []}), _made("big-endian", {"a": np.arange(2,
    dtype=">i4")}, {"a": [0, 1]}),
    Entry("shared", _shared, STORED, {"a": [1], "b": [1]}),
    *_entries(REFUSED, nan=float("nan"), nested_nan={"a": [1.0, float("nan")]}, infinite={"a": float("inf")},
              minus_infinite=[float("-inf")], numpy_nan={"a": np.float32("nan")},
              array_with_nan=np.array([np.nan]),
              bytes={"a": b"raw"}, bytearray={"a": bytearray(b"raw")}, set={"a": {1}},
              frozenset=frozenset((1,)),
              int_key={1: "a"}, none_key={None: "a"}, tuple_key={"a": {(1, 2): 0}}, bytes_key={b"a": 1},
              object={"a": object()},
              function={"a": len}, type=dict, complex={"a": 1j}, date={"a": datetime.datetime(2024, 1, 1)},
              decimal={"a": decimal.Decimal("0.1")}, path={"a": pathlib.Path("a")},
              uuid={"a": uuid.UUID(int=1)},
              surrogate={"a": "\ud800"}, surrogate_key={"\ud800": 1}, array_of_objects=np.array([object()]),
              record=np.zeros(1, [("a", "u1")]), numpy_complex=np.complex64(1j), deep_beyond=nested(20_000),
              exception={"a": ValueError("x")}, module={"a": np}, ellipsis={"a": ...}),
    Entry("generator", lambda: iter([1, 2]), REFUSED), Entry("cycle", _cycle, REFUSED),
    *_entries(EITHER, beyond_64_bits={"a": 2**64}, very_large_int={"a": 10**400},
              date_numpy={"a": np.datetime64("2024")},
              masked={"a": np.ma.masked_equal([1, 2], 1)}),
    Entry("int-enum", _constant({"a": _Level.HIGH}), EITHER, {"a": 3}),
    Entry("str-subclass", _constant({_Text("a"): _Text("b")}), EITHER, {"a": "b"}),
    Entry("minus-zero", _constant({"a": -0.0}), STORED),
]  # fmt: skip
"""Values passed to put as metadata. ``STORED`` applies only if the backend declares ``metadata``. A
backend that does not declare it may also refuse the value."""
