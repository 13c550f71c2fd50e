"""Promise P9: metadata is any JSON value, and what JSON cannot hold is refused by its place."""

import enum
import json
import math
from collections import OrderedDict, UserDict, defaultdict, namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exengine.kernel.errors import MetadataError
from exengine.kernel.frames.metadata import MAX_DEPTH, clean_metadata

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def parts_of(value):
    yield value
    if isinstance(value, dict):
        for inner in value.values():
            yield from parts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from parts_of(inner)


@given(json_values)
def test_any_json_value_comes_back_equal_and_of_the_same_types(value):
    cleaned = clean_metadata(value)
    assert cleaned == value
    assert [type(part) for part in parts_of(cleaned)] == [type(part) for part in parts_of(value)]
    assert json.loads(json.dumps(cleaned, allow_nan=False)) == value


@given(json_values)
def test_the_copy_shares_nothing_that_can_be_changed(value):
    mine = {id(part) for part in parts_of(value) if isinstance(part, (dict, list))}
    assert not mine & {id(part) for part in parts_of(clean_metadata(value)) if isinstance(part, (dict, list))}


def test_the_order_of_keys_is_kept():
    assert list(clean_metadata({"b": 1, "a": 2, "ä": 3})) == ["b", "a", "ä"]


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    A = "a"


class Text(str):
    def __str__(self):
        return "something else"


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, (2,)), [1, [2]]),
        (Point(1, 2.5), [1, 2.5]),
        (np.int64(5), 5),
        (np.uint8(255), 255),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array(7), 7),
        (np.array([]), []),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([True]), [True]),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Number.ONE, 1),
        (Word.A, "a"),
        (Text("a"), "a"),
        ({Text("k"): Text("v")}, {"k": "v"}),
        ({np.str_("k"): 1}, {"k": 1}),
        (-0.0, -0.0),
        (2**100, 2**100),
        ("\x00\u2028\U0001f52c", "\x00\u2028\U0001f52c"),
    ],
)
def test_numbers_arrays_tuples_and_subclasses_become_plain(value, plain):
    for wrapped, expected in ((value, plain), ({"a": [value]}, {"a": [plain]})):
        cleaned = clean_metadata(wrapped)
        assert cleaned == expected
        assert [type(part) for part in parts_of(cleaned)] == [type(part) for part in parts_of(expected)]
        assert json.loads(json.dumps(cleaned)) == expected


class Odd:
    pass


REFUSED = {
    "NaN": (float("nan"), "is nan, which JSON cannot represent; use None"),
    "infinity": (-math.inf, "is -inf"),
    "a NaN of numpy": (np.float32("nan"), "is nan"),
    "a NaN in an array": (np.array([1.0, np.nan]), r"\[1\] is nan"),
    "bytes": (b"abc", "is a bytes"),
    "a set": ({1}, "is a set"),
    "a complex number": (1j, "is a complex"),
    "a complex number of numpy": (np.complex64(1j), "is a complex64"),
    "an object": (Odd(), "is an Odd"),
    "a function": (print, "is a builtin_function_or_method"),
    "a class": (int, "is a type"),
    "a time of numpy": (np.datetime64("2024-01-01"), "is a datetime64"),
    "an array of objects": (np.array([None]), "is a ndarray|is an ndarray"),
    "a masked array": (np.ma.array([1], mask=[True]), "is a MaskedArray"),
    "a structure": (np.zeros(1, [("a", "u1")]), "ndarray"),
    "a key that is a number": ({1: 2}, "has the key 1, but keys must be str, got int"),
    "a key that is None": ({None: 2}, "keys must be str, got NoneType"),
    "a key that is a tuple": ({(1, 2): 3}, "keys must be str, got tuple"),
    "half a surrogate pair": ("\ud83d", "unpaired surrogate"),
    "half a surrogate pair as a key": ({"\udc00": 1}, "unpaired surrogate"),
    "a mapping that is no dict": (UserDict(a=1), "is an UserDict|is a UserDict"),
    "a generator": ((n for n in "ab"), "is a generator"),
    "a number of thousands of digits": (10**5000, "digits|large|big|long"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_json_cannot_hold_is_refused_by_its_place(name):
    value, says = REFUSED[name]
    with pytest.raises(MetadataError, match=says) as info:
        clean_metadata(value)
    assert isinstance(info.value, ValueError) and str(info.value).startswith("metadata")
    with pytest.raises(MetadataError, match=r"^metadata\['camera'\]\[1\]") as info:
        clean_metadata({"camera": [0, value]})
    assert len(str(info.value)) < 400 and "nothing was stored" in str(info.value)


def nested(depth, leaf=0, kind=list):
    value = leaf
    for _ in range(depth):
        value = [value] if kind is list else {"k": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
def test_nesting_is_taken_up_to_the_limit_and_no_further(kind):
    assert clean_metadata(nested(MAX_DEPTH, kind=kind)) == nested(MAX_DEPTH, kind=kind)
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(MetadataError, match=f"nested deeper than {MAX_DEPTH} levels"):
            clean_metadata(nested(depth, kind=kind))


def test_what_holds_itself_is_refused():
    looped_list, looped_dict = [1], {"a": 1}
    looped_list.append(looped_list)
    looped_dict["self"] = looped_dict
    for value in (looped_list, looped_dict, {"x": looped_list}):
        with pytest.raises(MetadataError, match="or contains itself"):
            clean_metadata(value)


def test_what_occurs_twice_is_no_cycle():
    shared = {"a": [1]}
    assert clean_metadata([shared, shared]) == [{"a": [1]}, {"a": [1]}]


def test_what_was_given_is_not_changed():
    value = {"a": (1, np.int64(2)), "b": {"c": np.arange(2)}}
    clean_metadata(value)
    assert (
        type(value["a"]) is tuple and type(value["a"][1]) is np.int64 and type(value["b"]["c"]) is np.ndarray
    )


@pytest.mark.parametrize("value", [np.longdouble("0.5"), np.array([0.5], np.longdouble), np.float16(0.5)])
def test_floats_of_every_width_are_numbers(value):
    assert clean_metadata({"a": value}) == {"a": [0.5] if np.ndim(value) else 0.5}
