"""The promises about a frame that was put (P, R): it is stored as it was, or refused."""

import os
import threading

import numpy as np
import pytest

from exengine import DataCoordinates
from exengine.errors import (
    CoordinatesExistError,
    CoordinatesNotFoundError,
    StorageClosedError,
    StorageFailedError,
    StorageFinishedError,
)

AT = {"time": 0, "channel": "DAPI"}


def at(number):
    return {"time": number, "channel": ("DAPI", "FITC", "Cy5")[number % 3], "z": -(number % 7)}


def test_p1_a_frame_is_there_for_every_thread_when_put_has_returned(new, frame):
    storage, wrong = new(), []
    stored, ended = [], threading.Event()

    def read():
        done = 0
        while done < len(stored) or not ended.is_set():
            for number in stored[done:]:
                done += 1
                if at(number) not in storage or not np.array_equal(storage[at(number)], frame(at(number))):
                    wrong.append(number)

    threads = [threading.Thread(target=read, name=f"reader {k}") for k in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        storage.put(at(number), frame(at(number)), {"number": number})
        stored.append(number)
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_p1_puts_from_many_threads_are_all_stored(new, opened, frame):
    storage = new()

    def put(thread):
        for number in range(50):
            where = {"thread": thread, "number": number}
            storage.put(where, frame(where), where)

    threads = [threading.Thread(target=put, args=(k,), name=f"writer {k}") for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage.finish()
    dataset = opened()
    assert len(dataset) == 300
    for c in dataset:
        np.testing.assert_array_equal(dataset[c], frame(c))
        assert dataset.get_metadata(c) == c


def test_p3_changing_array_metadata_and_coordinates_after_put_changes_nothing_stored(new):
    storage = new()
    data, metadata, coordinates = np.ones((4, 4), np.uint16), {"list": [1, {"a": 1}]}, {"time": 0}
    storage.put(coordinates, data, metadata)
    data[:], coordinates["time"] = 7, 1
    metadata["list"][1]["a"] = 2
    assert storage[{"time": 0}].max() == 1
    assert storage.get_metadata({"time": 0}) == {"list": [1, {"a": 1}]}
    assert {"time": 1} not in storage
    storage.get_metadata({"time": 0})["list"].clear()
    assert storage.get_metadata({"time": 0}) == {"list": [1, {"a": 1}]}


def test_p4_coordinates_that_hold_a_frame_take_no_second_one(new, frame):
    storage = new()
    storage.put(AT, frame(AT), 1)
    for again in (AT, dict(reversed(AT.items())), DataCoordinates(AT), {**AT, "time": np.int64(0)}):
        with pytest.raises(CoordinatesExistError, match="never replaced"):
            storage.put(again, np.zeros((2, 2), np.uint8), 2)
    assert len(storage) == 1
    assert storage.get_metadata(AT) == 1
    np.testing.assert_array_equal(storage[AT], frame(AT))


@pytest.mark.parametrize("end", ["finish", "abort", "close"])
def test_p5_after_the_end_nothing_is_written(end, path, new, digest, frame):
    storage = new()
    storage.put(AT, frame(AT), None)
    getattr(storage, end)()
    before = digest(path)
    error = StorageClosedError if end == "close" else StorageFinishedError
    with pytest.raises(error):
        storage.put({"time": 1, "channel": "DAPI"}, frame(AT), None)
    with pytest.raises(error):
        storage.put_many([({"time": 1, "channel": "DAPI"}, frame(AT), None)])
    assert digest(path) == before


def test_p6_a_frame_is_on_its_way_to_the_disk_when_put_has_returned(path, new, run_python, frame):
    storage = new()
    program = (
        "import sys, exengine; d = exengine.open_dataset(sys.argv[1]); print(len(d), [d[c].sum() for c in d])"
    )
    for number in range(3):
        storage.put(at(number), frame(at(number)), None)
        sums = [int(frame(at(k)).sum()) for k in range(number + 1)]
        assert run_python(program, path).replace("np.uint64", "").replace("(", "").replace(
            ")", ""
        ).strip() == (f"{number + 1} {sums}")


def test_p7_the_first_error_of_the_disk_stays_and_reaches_whoever_goes_on(
    path, new, opened, monkeypatch, frame
):
    storage = new()
    storage.put(at(0), frame(at(0)), {"number": 0})
    pwritev = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(StorageFailedError, match="Input/output error") as first:
        storage.put(at(1), frame(at(1)), None)
    assert first.value.errno == 5 and isinstance(first.value.__cause__, OSError)
    monkeypatch.setattr(os, "pwritev", pwritev)
    for go_on in (lambda: storage.put(at(2), frame(at(2)), None), storage.flush, storage.finish):
        with pytest.raises(StorageFailedError, match="Input/output error") as later:
            go_on()
        assert later.value.__cause__ is first.value.__cause__
    assert at(1) not in storage and len(storage) == 1
    storage.close()
    dataset = opened()
    assert dataset.status == "failed" and "Input/output error" in dataset.status_reason
    assert list(dataset) == [at(0)]
    np.testing.assert_array_equal(dataset[at(0)], frame(at(0)))


@pytest.mark.parametrize("failing", [1, 2])
def test_p7_half_a_frame_does_not_stay_in_the_files(failing, path, new, oracle, keys_of, monkeypatch, frame):
    storage = new()
    storage.put(at(0), frame(at(0)), {"number": 0})
    sizes = {file.name: file.stat().st_size for file in path.iterdir() if file.name != "exengine.json"}
    pwritev, calls = os.pwritev, []

    def short(descriptor, parts, offset):
        calls.append(1)
        if len(calls) != failing:
            return pwritev(descriptor, parts, offset)
        pwritev(descriptor, [b"".join(map(bytes, parts))[:9]], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", short)
        with pytest.raises(StorageFailedError):
            storage.put(at(1), frame(at(1)), None)
    storage.close()
    after = {file.name: file.stat().st_size for file in path.iterdir() if file.name != "exengine.json"}
    assert after == sizes
    assert keys_of(oracle(path)) == [at(0)]


def test_p7_a_sync_that_failed_is_not_tried_as_if_it_were_new(new, monkeypatch, frame):
    storage = new()
    storage.put(AT, frame(AT), None)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(StorageFailedError, match="may not have reached the disk"):
        storage.flush(durable=True)
    monkeypatch.setattr(os, "fsync", fsync)
    for go_on in (lambda: storage.flush(durable=True), storage.finish):
        with pytest.raises(StorageFailedError):
            go_on()
    assert storage.status == "failed"


METADATA = [
    None, True, False, 0, -1, 2**70, -(2**63), 1.5, 1e-300, 1e16, -0.0, "", "text", "日本 µm \0 \x1b \U0001f52c",
    [], {}, [1, [2, [None]]], {"a": {"b": [{"c": None}]}}, {"": 1, " ": 2}, {"é": "è"},
    {"key": "x" * 100_000}, list(range(1000)), {"nested": {str(k): k for k in range(300)}},
]  # fmt: skip


def test_p9_metadata_of_every_kind_come_back_equal(path, new, opened, frame):
    storage = new()
    for number, metadata in enumerate(METADATA):
        storage.put({"n": number}, frame(AT), metadata)
        assert_same_json(storage.get_metadata({"n": number}), metadata)
    storage.finish()
    dataset = opened()
    for number, metadata in enumerate(METADATA):
        assert_same_json(dataset.get_metadata({"n": number}), metadata)


def assert_same_json(got, expected):
    assert got == expected and repr(got) == repr(expected)  # 1 is not 1.0, and not True


def test_p9_numpy_values_and_tuples_become_plain_json(new, opened, frame):
    metadata = {
        "scalar": np.float32(0.5), "integer": np.int16(-3), "truth": np.bool_(True), "text": np.str_("a"),
        "array": np.arange(6).reshape(2, 3), "tuple": (1, (2, 3)), "empty": np.zeros(0),
    }  # fmt: skip
    with new() as storage:
        storage.put(AT, frame(AT), metadata)
    assert opened().get_metadata(AT) == {
        "scalar": 0.5, "integer": -3, "truth": True, "text": "a",
        "array": [[0, 1, 2], [3, 4, 5]], "tuple": [1, [2, 3]], "empty": [],
    }  # fmt: skip


@pytest.mark.parametrize("reopened", [False, True])
def test_r1_coordinates_that_hold_nothing_raise_a_key_error_that_says_what_is_there(
    reopened, new, opened, frame
):
    storage = new()
    for number in range(4):
        storage.put({"time": number, "channel": "DAPI"}, frame(AT), None)
    if reopened:
        storage.finish()
        storage = opened()
    absent = [
        ({"time": 9, "channel": "DAPI"}, "positions on axis 'time': 0 - 3"),
        ({"time": 0, "channel": "FITC"}, "positions on axis 'channel': 'DAPI'"),
        ({"time": 0, "channel": 0}, "positions on axis 'channel': 'DAPI'"),
        ({"time": "0", "channel": "DAPI"}, "positions on axis 'time': 0 - 3"),
        ({"time": 0}, "the coordinates lack channel"),
        ({"time": 0, "channel": "DAPI", "z": 0}, "no frame has the axis 'z'"),
        ({}, "the coordinates lack time, channel"),
    ]
    for coordinates, message in absent:
        assert coordinates not in storage
        for read in (storage.get_data, storage.get_metadata, storage.__getitem__):
            with pytest.raises(CoordinatesNotFoundError, match=message) as error:
                read(coordinates)
            assert isinstance(error.value, KeyError)


@pytest.mark.parametrize("reopened", [False, True])
def test_r1_in_never_raises(reopened, new, opened, frame):
    storage = new()
    storage.put(AT, frame(AT), None)
    if reopened:
        storage.finish()
        storage = opened()
    for what in (
        None,
        0,
        "time",
        [],
        object(),
        {"time": []},
        {"time": None},
        {1: 2},
        {"time": float("nan")},
        np.zeros(3),
    ):
        assert what not in storage
    assert DataCoordinates(AT) in storage


def test_r4_order_is_the_same_before_and_after_reopening_and_under_any_hash_seed(path, run_python):
    write = """
import sys, exengine, numpy as np
with exengine.open_storage("ndtiff", sys.argv[1]) as s:
    for angle in ("left", "right"):
        for laser in (3, 1, 2):
            for well in ("B2", "A1"):
                s.put({"well": well, "laser": laser, "angle": angle}, np.zeros((2, 2), np.uint8), None)
    s.put({"angle": "up", "zebra": 1, "ant": 2}, np.zeros((2, 2), np.uint8), None)
    print([list(c.items()) for c in s]); print(s.axes)
"""
    read = """
import sys, exengine
with exengine.open_dataset(sys.argv[1]) as s:
    print([sorted(c.items()) for c in s]); print(s.axes)
"""
    write = write.replace("list(c.items())", "sorted(c.items())")
    orders = set()
    for seed in range(3):
        orders.add(run_python(write, f"{path}_{seed}", PYTHONHASHSEED=str(seed)))
        orders.add(run_python(read, f"{path}_{seed}", PYTHONHASHSEED=str(seed + 7)))
    assert len(orders) == 1
    assert "{'well': ['B2', 'A1'], 'laser': [1, 2, 3], 'angle': ['left', 'right', 'up']" in orders.pop()
