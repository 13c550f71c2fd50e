"""What NDTiff cannot hold is refused: the dataset stays as it was, and the next frame is right."""

import datetime
import decimal
import enum
import pathlib

import numpy as np
import pytest

from exengine.errors import (
    CoordinatesError,
    CoordinatesExistError,
    ExEngineError,
    MetadataError,
    UnsupportedDataError,
)
from exengine_ndstorage.ndtiff import NDTiffStorage

GOOD = {"time": 0, "channel": "DAPI"}
NEXT = {"time": 1, "channel": "DAPI"}
PIXELS = np.arange(12, dtype=np.uint16).reshape(3, 4)


def huge(shape, dtype):
    return np.broadcast_to(np.zeros((), dtype), shape)


NUMBERS = (
    r"NDTiff\w* accepts only (dtype uint8 or uint16, 2 or 3 dimensions|.*\(Y, X\) with dtype uint8 or uint16)"
)
ARRAYS = {
    **{
        f"dtype {dtype}": (np.zeros((3, 4), dtype), NUMBERS)
        for dtype in (
            "bool", "int8", "int16", "int32", "int64", "uint32", "uint64", "float16", "float32", "float64",
            "longdouble", "complex64", "datetime64[s]", "timedelta64[s]", "S3", "U3", ">i2", ">u4",
        )
    },
    "structured": (np.zeros((3, 4), [("a", "u1"), ("b", "u1")]), NUMBERS),
    "objects": (np.full((3, 4), None), "Python objects"),
    "objects in a structure": (np.zeros((3, 4), [("a", "O")]), "Python objects"),
    "no dimension": (np.array(5, np.uint16), NUMBERS),
    "one dimension": (np.zeros(5, np.uint16), NUMBERS),
    "four dimensions": (np.zeros((2, 2, 2, 3), np.uint8), NUMBERS),
    "RGB uint16": (np.zeros((3, 4, 3), np.uint16), NUMBERS),
    "RGBA": (np.zeros((3, 4, 4), np.uint8), NUMBERS),
    "two samples": (np.zeros((3, 4, 2), np.uint8), NUMBERS),
    "one sample": (np.zeros((3, 4, 1), np.uint8), NUMBERS),
    "channels first": (np.zeros((3, 8, 8), np.uint8), NUMBERS),
    "no rows": (np.zeros((0, 4), np.uint16), "at least one pixel"),
    "no columns": (np.zeros((4, 0), np.uint16), "at least one pixel"),
    "no pixels, RGB": (np.zeros((0, 0, 3), np.uint8), "at least one pixel"),
    "4 GiB": (huge((2**16, 2**16), np.uint8), "4 GiB"),
    "8 GiB": (huge((2**16, 2**16), np.uint16), "4 GiB"),
    "a list": ([[1, 2], [3, 4]], "data must be a numpy array, got list"),
    "a list of arrays": ([np.zeros((3, 4), np.uint16)], "data must be a numpy array, got list"),
    "a number": (5, "data must be a numpy array, got int"),
    "None": (None, "data must be a numpy array, got NoneType"),
    "bytes": (b"\0" * 12, "data must be a numpy array, got bytes"),
    "memoryview": (memoryview(PIXELS), "data must be a numpy array, got memoryview"),
    "a numpy scalar": (np.uint16(5), "data must be a numpy array, got uint16"),
    "masked": (np.ma.masked_array(PIXELS, PIXELS > 5), "masked"),
}  # fmt: skip


def cycle():
    value = []
    value.append(value)
    return value


def cyclic_dict():
    value = {}
    value["itself"] = value
    return value


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return value


class Colour(enum.Enum):
    RED = 1


METADATA = {
    "NaN": (float("nan"), "NaN|nan"),
    "infinity": ({"a": [float("-inf")]}, r"\['a'\]\[0\] is -inf"),
    "numpy NaN": ({"a": np.float32("nan")}, r"\['a'\] is nan"),
    "array with NaN": ({"a": np.array([1.0, np.nan])}, r"\['a'\]\[1\] is nan"),
    "complex": ({"a": 1j}, "a complex"),
    "numpy complex": ({"a": np.complex64(1j)}, "JSON cannot represent"),
    "bytes": ({"a": {"b": b"x"}}, r"\['a'\]\['b'\] is a bytes"),
    "bytearray": (bytearray(b"x"), "a bytearray"),
    "a set": ({"a": {1, 2}}, "a set"),
    "a frozenset": ([frozenset()], "a frozenset"),
    "a generator": ((k for k in "ab"), "a generator"),
    "an object": ({"a": object()}, "an object"),
    "a function": ({"a": len}, "builtin_function"),
    "a class": (int, "a type"),
    "a date": ({"a": datetime.datetime(2024, 1, 1)}, "a datetime"),
    "numpy date": ({"a": np.datetime64("2024-01-01")}, "datetime64"),
    "a path": ({"a": pathlib.Path("x")}, "Path"),
    "a decimal": ({"a": decimal.Decimal(1)}, "Decimal"),
    "an enum": ({"a": Colour.RED}, "Colour"),
    "an array of objects": ({"a": np.array([None])}, "ndarray"),
    "a structured array": ({"a": np.zeros(1, [("a", "u1")])}, "ndarray"),
    "int key": ({1: 2}, "has the key 1, but keys must be str, got int"),
    "None key": ({"a": {None: 2}}, "has the key None"),
    "tuple key": ({(1, 2): 3}, "keys must be str, got tuple"),
    "bytes key": ({b"a": 3}, "keys must be str, got bytes"),
    "half a surrogate": ({"a": "\ud800"}, "unpaired surrogate"),
    "half a surrogate in a key": ({"\udfff": 1}, "unpaired surrogate"),
    "a list that holds itself": (cycle(), "contains itself"),
    "a dict that holds itself": (cyclic_dict(), "contains itself"),
    "nested too deep": (nested(65), "nested deeper than 64"),
    "an integer of 5,000 digits": ({"a": 10**5000}, "digits"),
}

COORDINATES = {
    "None": (None, "coordinates must be DataCoordinates or a mapping"),
    "a number": (5, "coordinates must be DataCoordinates or a mapping"),
    "a text": ("time", "coordinates must be DataCoordinates or a mapping"),
    "a list of pairs": ([("time", 1)], "coordinates must be DataCoordinates or a mapping"),
    "a fraction": ({"time": 1.5}, "time"),
    "NaN": ({"time": float("nan")}, "time"),
    "infinity": ({"time": float("inf")}, "time"),
    "a bool": ({"time": True}, "time"),
    "a numpy bool": ({"time": np.bool_(True)}, "time"),
    "no position": ({"time": [1]}, "time"),
    "bytes": ({"channel": b"DAPI"}, "channel"),
    "a dict": ({"channel": {}}, "channel"),
    "a complex": ({"time": 1j}, "time"),
    "an array": ({"time": np.arange(2)}, "time"),
    "32 bits": ({"time": 2**31}, r"positions must fit in 32 bits; the position on axis 'time' is 2147483648"),
    "32 bits, negative": ({"time": -(2**31) - 1}, "positions must fit in 32 bits"),
    "64 bits": ({"time": 2**63}, "time"),
    "int where str was": (
        {"time": 1, "channel": 0},
        "positions of one type on each axis; the first position on 'channel' has the type str",
    ),
    "str where int was": (
        {"time": "1"},
        "positions of one type on each axis; the first position on 'time' has the type int, got '1'",
    ),
    "int as a name": ({1: 2}, "axis name must be a str"),
    "empty name": ({"": 2}, "cannot be an axis name"),
    "private name": ({"_time": 2}, "cannot be an axis name"),
    "name of a method": ({"items": 2}, "cannot be an axis name"),
    "self": ({"self": 2}, "ndstorage cannot read an axis named 'self'"),
    "half a surrogate": ({"channel": "\ud800"}, "surrogate"),
    "half a surrogate in a name": ({"a\udfff": 1}, "surrogate"),
    "64 KiB": ({"channel": "x" * 65_536}, "at most 65535 bytes as JSON"),
    "256 axes": ({f"axis {k}": k for k in range(256)}, "more than 255 axes"),
    "there already": (GOOD, "already exists at"),
    "there already, in another order": (dict(reversed(GOOD.items())), "already exists at"),
}

ERRORS = {"array": UnsupportedDataError, "metadata": MetadataError, "coordinates": CoordinatesError}
CASES = [
    *(
        pytest.param("array", NEXT, data, None, match, id=f"array: {kind}")
        for kind, (data, match) in ARRAYS.items()
    ),
    *(
        pytest.param("metadata", NEXT, PIXELS, value, match, id=f"metadata: {kind}")
        for kind, (value, match) in METADATA.items()
    ),
    *(
        pytest.param("coordinates", value, PIXELS, None, match, id=f"coordinates: {kind}")
        for kind, (value, match) in COORDINATES.items()
    ),
]


def test_there_are_as_many_kinds_as_were_promised():
    assert len(CASES) >= 60 and min(len(ARRAYS), len(METADATA), len(COORDINATES)) >= 30


@pytest.mark.parametrize(("what", "coordinates", "data", "metadata", "match"), CASES)
def test_what_is_refused_changes_nothing_and_the_next_frame_is_right(
    what, coordinates, data, metadata, match, path, new, digest, oracle, keys_of, frame
):
    storage = new()
    storage.put(GOOD, frame(GOOD), {"which": "good"})
    before, axes = digest(path), storage.axes
    with pytest.raises(ERRORS[what], match=match) as error:
        storage.put(coordinates, data, metadata)
    assert isinstance(error.value, ExEngineError) and len(str(error.value)) < 600
    assert digest(path) == before
    assert len(storage) == 1 and storage.axes == axes
    if not isinstance(error.value, CoordinatesExistError):
        assert coordinates not in storage
    storage.put(NEXT, frame(NEXT), {"which": "next"})
    storage.finish()
    assert storage.status == "complete"
    dataset = oracle(path)
    assert keys_of(dataset) == [GOOD, NEXT]
    for where, which in ((GOOD, "good"), (NEXT, "next")):
        np.testing.assert_array_equal(dataset.read_image(**where), frame(where), strict=True)
        assert dataset.read_metadata(**where) == {"which": which}


def test_what_stands_at_the_limits_is_taken(new, opened, oracle, path):
    storage = new()
    limits = [{"n": 2**31 - 1}, {"n": -(2**31)}, {f"axis {k}": k for k in range(253)}, {"text": "x" * 65_524}]
    for where in limits:
        storage.put(where, PIXELS, None)
    storage.put({"n": 0}, PIXELS, nested(64))
    storage.finish()
    dataset = opened()
    assert dataset.status == "complete" and list(dataset) == [*limits, {"n": 0}]
    for where in limits[:2]:
        np.testing.assert_array_equal(oracle(path).read_image(**where), PIXELS)
    assert dataset.get_metadata({"n": 0}) == nested(64)


def test_the_home_folder_is_expanded_by_the_class_and_by_its_reader(tmp_path, monkeypatch, frame):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path, arguments in (("x", ("~/x",)), ("y/z", ("~/y", "z"))):
        with NDTiffStorage(*arguments) as storage:
            storage.put({"time": 0}, frame({"time": 0}), None)
        assert storage.path == str(tmp_path / path)
        with NDTiffStorage.open(f"~/{path}") as dataset:
            assert dataset.path == str(tmp_path / path)
    assert list((tmp_path / "here").iterdir()) == []
