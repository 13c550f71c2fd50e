"""The backend ``ndtiff``: what it promises of a frame that was put."""

import os
import pickle
import threading

import numpy as np
import pytest
from exengine.storage_backends.ndtiff import NDTiffStorage

import exengine
from exengine import DataCoordinates
from exengine.base_classes import CoordinateIndex, DataStorage, has_writer
from exengine.errors import (
    CoordinatesError,
    CoordinatesExistError,
    CoordinatesNotFoundError,
    DatasetExistsError,
    DatasetLockedError,
    MetadataError,
    OptionError,
    StorageClosedError,
    StorageFailedError,
    StorageFinishedError,
    UnsupportedDataError,
)
from exengine.testing import check_class
from exengine_ndstorage.ndtiff import format as layout
from exengine_ndstorage.ndtiff.files import FilePool

AT = {"time": 0, "channel": "DAPI"}


def at(number):
    return {"time": number, "channel": ("DAPI", "FITC", "Cy5")[number % 3], "z": -(number % 7)}


def array_kinds(folder):
    """Return arrays of every kind in which a caller may hold pixels, by name."""
    random = np.random.default_rng(1).integers(0, 65536, (40, 60), np.uint16)
    held = np.memmap(folder / "frames", np.uint16, "w+", shape=(40, 60))
    held[:] = random
    read_only = random.copy()
    read_only.flags.writeable = False
    rgb = random.view(np.uint8)[:, :60].reshape(20, 40, 3)
    return {
        "random": random,
        "uint8": random.astype(np.uint8),
        "every third pixel": random[::2, ::3],
        "sub-array view": random[7:29, 3:50],
        "upside down": random[::-1, ::-1],
        "transposed": random.T,
        "Fortran order": np.asfortranarray(random),
        "byte-swapped": random.astype(">u2"),
        "byte-swapped view": random.astype(">u2")[::3, 1:],
        "read-only": read_only,
        "broadcast": np.broadcast_to(random[0], (40, 60)),
        "memory-mapped": held,
        "memory-mapped view": held[3:, ::2],
        "unaligned": np.frombuffer(b"\0" + random.tobytes(), np.uint16, offset=1).reshape(40, 60),
        "RGB": rgb,
        "RGB with channels in reverse": rgb[:, :, ::-1],
        "RGB Fortran": np.asfortranarray(rgb),
        "one pixel": random[:1, :1],
        "one row": random[:1],
        "one column": random[:, :1],
        "odd number of bytes": random.astype(np.uint8)[:5, :7],
        "zeros": np.zeros((8, 8), np.uint16),
        "full": np.full((8, 8), 65535, np.uint16),
        "a matrix": random.view(type("Subclass", (np.ndarray,), {})),
    }


def frames_of_all_kinds(folder, count):
    kinds = list(array_kinds(folder).items())
    for number in range(count):
        name, data = kinds[number % len(kinds)]
        if number >= len(kinds):
            data = np.roll(data, number)
        yield {"number": number, "kind": name}, data, {"number": number, "kind": name}


READ_ALL = """
import sys, zlib, exengine
with exengine.open_dataset(sys.argv[1]) as dataset:
    print(dataset.status, len(dataset))
    for c in dataset:
        data = dataset[c]
        print(c["number"], zlib.crc32(data.tobytes()), data.shape, data.dtype.str, dataset.get_metadata(c))
"""


def native(data):
    return np.ascontiguousarray(data).astype(data.dtype.newbyteorder("="))


def test_a_thousand_frames_of_every_kind_are_read_back_after_each_put_and_by_another_process(
    tmp_path, path, new, run_python
):
    import zlib

    expected = []
    with new() as storage:
        for coordinates, data, metadata in frames_of_all_kinds(tmp_path, 1000):
            storage.put(coordinates, data, metadata)
            assert coordinates in storage
            got = storage.get_data(coordinates)
            np.testing.assert_array_equal(got, native(data), strict=True)
            assert storage.get_metadata(coordinates) == metadata
            crc = zlib.crc32(native(data).tobytes())
            expected.append(f"{coordinates['number']} {crc} {got.shape} {got.dtype.str} {metadata}")
    assert run_python(READ_ALL, path).splitlines() == ["complete 1000", *expected]


def test_put_many_stores_what_put_stores(tmp_path, path, new, run_python):
    frames = list(frames_of_all_kinds(tmp_path, 150))
    with new() as storage:
        storage.put_many(frames[:70])
        storage.put_many(iter(frames[70:]))
        assert len(storage) == 150
        for coordinates, data, metadata in frames:
            np.testing.assert_array_equal(storage[coordinates], native(data), strict=True)
            assert storage.get_metadata(coordinates) == metadata
    lines = run_python(READ_ALL, path).splitlines()
    assert lines[0] == "complete 150"
    assert [int(line.split()[0]) for line in lines[1:]] == list(range(150))


def test_put_many_goes_on_in_the_next_file(path, new, opened, frame):
    with new(max_file_bytes=4096) as storage:
        storage.put_many([({"time": k}, frame({"time": k}, (16, 16)), {"k": k}) for k in range(40)])
    assert len(list(path.glob("*.tif"))) > 5
    dataset = opened()
    assert [c["time"] for c in dataset] == list(range(40))
    for k in range(40):
        np.testing.assert_array_equal(dataset[{"time": k}], frame({"time": k}, (16, 16)))


def test_a_batch_is_written_as_its_frames_would_be_one_by_one(tmp_path):
    frames = list(frames_of_all_kinds(tmp_path, 60))
    one, many = (NDTiffStorage(tmp_path / name, max_file_bytes=40_000) for name in ("one", "many"))
    for some in frames:
        one.put(*some)
    batch = [
        (DataCoordinates(where), data, many.check_frame(DataCoordinates(where), data, metadata))
        for where, data, metadata in frames
    ]
    calls = 0
    while batch:
        calls += 1
        del batch[: many.write_frames(60 - len(batch), batch)]
    assert calls < 30
    names = [name for name in os.listdir(one.path) if name.endswith((".tif", ".index"))]
    assert len(names) > 3
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
    one.close()
    many.close()


REFUSED_IN_A_BATCH = {
    "array": ({"time": 9}, np.zeros((3, 3)), None, UnsupportedDataError),
    "metadata": ({"time": 9}, np.zeros((3, 3), np.uint8), float("nan"), MetadataError),
    "coordinates": ({"time": True}, np.zeros((3, 3), np.uint8), None, CoordinatesError),
    "kind of position": ({"time": "nine"}, np.zeros((3, 3), np.uint8), None, CoordinatesError),
    "there already": ({"time": 2}, np.zeros((3, 3), np.uint8), None, CoordinatesExistError),
}


@pytest.mark.parametrize("fault", REFUSED_IN_A_BATCH)
@pytest.mark.parametrize("number", [0, 5])
def test_put_many_stores_the_frames_before_the_one_that_is_refused(fault, number, new, opened, frame):
    *refused, error = REFUSED_IN_A_BATCH[fault]
    storage = new()
    storage.put({"time": 2 if number == 0 else 100}, frame(AT), None)
    frames = [({"time": k + 2}, frame({"time": k}), {"k": k}) for k in range(1, 10)]
    if fault == "there already" and number:
        refused[0] = {"time": 5}
    frames.insert(number, tuple(refused))
    with pytest.raises(error):
        storage.put_many(frames)
    assert len(storage) == 1 + number
    assert {"time": 3 + number} not in storage
    storage.put({"time": 50}, frame({"time": 50}), None)
    storage.finish()
    dataset = opened()
    assert [c["time"] for c in dataset][1:] == [*range(3, 3 + number), 50]
    np.testing.assert_array_equal(dataset[{"time": 50}], frame({"time": 50}))


def test_put_many_of_a_generator_that_uses_one_buffer_again_stores_each_frame(new):
    def camera():
        buffer = np.zeros((4, 4), np.uint16)
        for k in range(100):
            buffer[:] = k
            yield {"time": k}, buffer, None

    storage = new()
    storage.put_many(camera())
    assert [int(storage[{"time": k}][0, 0]) for k in range(100)] == list(range(100))


def test_put_many_writes_a_batch_of_small_frames_at_once(new, monkeypatch):
    written = []
    pwritev = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *arguments: written.append(1) or pwritev(*arguments))
    storage = new()
    storage.put({"time": 0}, np.zeros((4, 4), np.uint16), None)
    del written[:]
    storage.put_many([({"time": k}, np.zeros((4, 4), np.uint16), None) for k in range(1, 65)])
    assert len(written) == 4


# -- P1 to P9 ------------------------------------------------------------------------------------


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


# -- reading -------------------------------------------------------------------------------------


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
        ({"time": 9, "channel": "DAPI"}, "time is one of 0 - 3"),
        ({"time": 0, "channel": "FITC"}, "channel is one of 'DAPI'"),
        ({"time": 0, "channel": 0}, "channel is one of 'DAPI'"),
        ({"time": "0", "channel": "DAPI"}, "time is one of 0 - 3"),
        ({"time": 0}, "channel was not given"),
        ({"time": 0, "channel": "DAPI", "z": 0}, "there is no axis 'z'"),
        ({}, "was not given"),
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
    assert "{'well': ['B2', 'A1'], 'laser': [3, 1, 2], 'angle': ['left', 'right', 'up']" in orders.pop()


# -- the end -------------------------------------------------------------------------------------


def test_n1_finish_and_close_may_be_called_again(path, new, digest, frame):
    storage = new()
    storage.put(AT, frame(AT), None)
    storage.finish()
    before = digest(path)
    storage.finish()
    storage.close()
    storage.close()
    storage.finish()
    assert digest(path) == before


def test_n2_a_finished_dataset_reopens_equal(new, opened, frame):
    with new(summary_metadata={"who": "me", "µ": [1, None]}) as storage:
        for number in range(20):
            storage.put(at(number), frame(at(number)), {"number": number})
        order, axes = list(storage), storage.axes
    dataset = opened()
    assert dataset.status == "complete" and dataset.is_finished()
    assert list(dataset) == order and dataset.axes == axes
    assert dataset.summary_metadata == {"who": "me", "µ": [1, None]}
    for number in range(20):
        np.testing.assert_array_equal(dataset[at(number)], frame(at(number)), strict=True)
        assert dataset.get_metadata(at(number)) == {"number": number}


def test_n3_finish_and_durable_flush_sync_every_file_and_the_names_of_the_files(
    path, new, monkeypatch, frame
):
    synced = set()
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.add(os.path.realpath(f"/proc/self/fd/{fd}")) or fsync(fd)
    )
    storage = new(max_file_bytes=4096)
    for number in range(6):
        storage.put(at(number), frame(at(number)), None)
    names = {str(file) for file in path.iterdir() if file.suffix in (".tif", ".index")}
    assert len(names) > 3
    storage.flush(durable=True)
    assert synced >= names | {str(path), str(path.parent)}
    synced.clear()
    storage.put(at(6), frame(at(6)), None)
    storage.finish()
    last = max(path.glob("*.tif"), key=lambda file: file.stat().st_mtime_ns)
    assert synced >= {str(last), str(path / "NDTiff.index"), str(path)}


def test_n5_close_without_finish_leaves_an_incomplete_dataset_that_can_be_read(path, new, opened, frame):
    storage = new()
    for number in range(5):
        storage.put(at(number), frame(at(number)), {"number": number})
    storage.close()
    dataset = opened()
    assert dataset.status == "incomplete" and "ended without finish" in dataset.status_reason
    for number in range(5):
        np.testing.assert_array_equal(dataset[at(number)], frame(at(number)))
        assert dataset.get_metadata(at(number)) == {"number": number}


def test_n5_leaving_a_with_block_by_an_exception_finishes_as_aborted(new, opened, frame):
    storage = new()
    storage.put(AT, frame(AT), None)
    with pytest.raises(ZeroDivisionError), storage:
        raise ZeroDivisionError
    dataset = opened()
    assert dataset.status == "aborted" and "ZeroDivisionError" in dataset.status_reason
    assert len(dataset) == 1


def test_n5_a_forgotten_storage_is_finished_as_aborted_when_the_program_ends(path, start_python, opened):
    program = (
        "import sys, exengine, numpy as np; s = exengine.open_storage('ndtiff', sys.argv[1]);"
        "s.put({'time': 0}, np.ones((4, 4), np.uint8), None)"
    )
    process = start_python(program, path, PYTHONWARNINGS="default")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0 and b"was not finished" in error
    assert opened().status == "aborted"
    assert opened()[{"time": 0}].sum() == 16


@pytest.mark.parametrize("call", ["pixels", "entry", "after"])
def test_an_interrupt_in_put_leaves_whole_frames_only(
    call, path, new, opened, oracle, keys_of, monkeypatch, frame
):
    storage = new()
    for number in range(3):
        storage.put(at(number), frame(at(number)), {"number": number})
    pwritev, write_frames, calls = os.pwritev, storage.write_frames, []

    def interrupted_write(*arguments):
        calls.append(pwritev(*arguments))
        if ("pixels", "entry")[len(calls) - 1] == call:
            raise KeyboardInterrupt
        return calls[-1]

    def interrupted_return(*arguments):
        write_frames(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if call == "after":
            patch.setattr(storage, "write_frames", interrupted_return)
        else:
            patch.setattr(os, "pwritev", interrupted_write)
        with pytest.raises(KeyboardInterrupt):
            storage.put(at(3), frame(at(3)), None)
    assert at(3) not in storage
    with pytest.raises(StorageFailedError):
        storage.finish()
    storage.close()
    dataset = opened()
    assert dataset.status == "failed"
    assert list(dataset) == [at(k) for k in range(3)] == keys_of(oracle(path))
    for number in range(3):
        np.testing.assert_array_equal(dataset[at(number)], frame(at(number)))


# -- never destroy -------------------------------------------------------------------------------


def test_d1_a_new_dataset_never_lands_on_an_old_one(path, new, digest, frame):
    with new() as storage:
        storage.put(AT, frame(AT), None)
    before = digest(path)
    with pytest.raises(DatasetExistsError):
        NDTiffStorage(path)
    with pytest.raises(DatasetExistsError):
        NDTiffStorage(path.parent, path.name)
    with pytest.raises(DatasetExistsError):
        exengine.open_storage("ndtiff", path)
    assert digest(path) == before
    with exengine.open_storage("ndtiff", path, if_exists="number") as other:
        assert other.path == f"{path}_1"
    assert digest(path) == before


def test_d2_a_second_writer_is_refused_under_every_spelling_of_the_path(path, new, tmp_path, run_python):
    storage = new()
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "parent").symlink_to(tmp_path)
    program = """
import sys
from exengine.errors import DatasetExistsError, DatasetLockedError
from exengine.storage_backends.ndtiff import NDTiffStorage
try:
    NDTiffStorage(sys.argv[1])
except (DatasetLockedError, DatasetExistsError) as error:
    print(type(error).__name__)
"""
    spellings = [
        path,
        tmp_path / "link",
        tmp_path / "folder" / ".." / "dataset",
        tmp_path / "folder/parent/dataset",
    ]
    for spelling in spellings:
        with pytest.raises(DatasetLockedError):
            NDTiffStorage(spelling)
        assert run_python(program, spelling).strip() == "DatasetLockedError"
    storage.put(AT, np.zeros((2, 2), np.uint8), None)


BAD_NAMES = [
    "", ".", "..", "../out", "a/b", "/absolute", "a\\b", "C:", "a\0b", "a\nb", " a", "a ", "a.", "x" * 201, "é" * 101,
    "\udcff", 5,
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_d3_a_name_never_leaves_the_directory(name, tmp_path, digest):
    before = digest(tmp_path)
    with pytest.raises(OptionError, match="is no name for a folder"):
        NDTiffStorage(tmp_path, name)
    assert digest(tmp_path) == before


def test_d3_coordinates_and_metadata_never_become_names_of_files(path, new, opened, frame):
    storage = new()
    where = {"../../axis": "../../../etc/passwd", "channel": "/tmp/x\0y"}
    storage.put(where, frame(where), {"../a": "/b"})
    storage.finish()
    assert sorted(file.name for file in path.iterdir()) == [
        "NDTiff.index", "NDTiffStack.tif", "exengine.json", "exengine.lock"
    ]  # fmt: skip
    assert [file.name for file in path.parent.iterdir() if file != path] == []
    np.testing.assert_array_equal(opened()[where], frame(where))


# -- the class -----------------------------------------------------------------------------------


def test_the_class_keeps_the_contract():
    assert check_class(NDTiffStorage, DataStorage) == []


def test_a_name_is_the_folder_and_the_beginning_of_the_files(tmp_path, opened, frame):
    with NDTiffStorage(tmp_path, "run_1", {"a": 1}) as storage:
        storage.put(AT, frame(AT), None)
        assert storage.path == str(tmp_path / "run_1")
    assert (tmp_path / "run_1" / "run_1_NDTiffStack.tif").is_file()
    assert opened(tmp_path / "run_1")[AT].shape == (24, 32)


def test_an_empty_dataset_with_a_name_keeps_its_summary(tmp_path, opened):
    NDTiffStorage(tmp_path, "run", {"a": 1}).close()
    dataset = opened(tmp_path / "run")
    assert dataset.summary_metadata == {"a": 1} and len(dataset) == 0


@pytest.mark.parametrize("value", [4095, 2**32 + 1, 0, -1, "4096", 5000.0, True, None])
def test_max_file_bytes_is_checked(value, path):
    with pytest.raises(OptionError, match="max_file_bytes"):
        NDTiffStorage(path, max_file_bytes=value)
    assert not path.exists()


@pytest.mark.parametrize(
    "summary", [[1], "text", 5, {"a": float("nan")}, {"a": b"x"}, {1: 2}, {"a": {1, 2}}], ids=repr
)
def test_summary_metadata_that_cannot_be_held_is_refused_before_anything_is_made(summary, path):
    with pytest.raises(MetadataError):
        NDTiffStorage(path, None, summary)
    assert not path.exists()


def test_summary_metadata_that_take_half_of_a_file_are_refused(path):
    with pytest.raises(MetadataError, match="max_file_bytes=4096"):
        NDTiffStorage(path, None, {"a": "x" * 4000}, 4096)
    assert not path.exists()


def test_no_file_is_longer_than_asked_for_unless_one_frame_is(path, new, opened, frame):
    with new(max_file_bytes=10_000) as storage:
        for number in range(12):
            storage.put(at(number), frame(at(number), (30, 50)), {"number": number})
        storage.put(at(12), frame(at(12), (200, 100)), None)
        storage.put(at(13), frame(at(13), (30, 50)), None)
    sizes = sorted(file.stat().st_size for file in path.glob("*.tif"))
    assert [size > 10_000 for size in sizes] == [False] * (len(sizes) - 1) + [True]
    dataset = opened()
    for number in range(14):
        assert np.array_equal(dataset[at(number)], storage_frame(frame, number))


def storage_frame(frame, number):
    return frame(at(number), (200, 100) if number == 12 else (30, 50))


def test_a_frame_that_would_end_at_4_gib_begins_a_new_file(path, new, opened, frame):
    # The next IFD's place has 32 bits: what ends at 2**32 exactly cannot be pointed behind.
    storage = new()
    storage.put(at(0), frame(at(0)), None)
    storage._end = 2**32 - (storage._end - len(storage._header))  # the same size again ends there
    storage.put(at(1), frame(at(1)), None)
    assert len(list(path.glob("*.tif"))) == 2
    np.testing.assert_array_equal(storage[at(1)], frame(at(1)))


def test_a_dataset_of_more_files_than_descriptors_is_written_read_and_synced(path, run_python):
    program = """
import sys, resource, exengine, numpy as np
resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
with exengine.open_storage("ndtiff", sys.argv[1], max_file_bytes=4096) as s:
    for k in range(300):
        s.put({"time": k}, np.full((40, 40), k, np.uint16), {"k": k})
        if k % 100 == 50:
            s.flush(durable=True)
    assert [int(s[{"time": k}][0, 0]) for k in range(300)] == list(range(300))
with exengine.open_dataset(sys.argv[1]) as d:
    assert d.status == "complete", d.status_reason
    assert [int(d[{"time": k}][0, 0]) for k in range(299, -1, -1)] == list(range(299, -1, -1))
    assert [d.get_metadata({"time": k})["k"] for k in range(300)] == list(range(300))
    print(len(d))
"""
    assert run_python(program, path).strip() == "300"
    assert len(list(path.glob("*.tif"))) == 300


def test_a_folder_that_takes_no_files_fails_at_once_and_says_so(path, monkeypatch):
    opened = os.open

    def refuse(name, *arguments):
        if str(name).endswith(layout.INDEX_NAME):
            raise OSError(24, "Too many open files")
        return opened(name, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageFailedError, match="Too many open files"):
        NDTiffStorage(path)
    monkeypatch.undo()
    with exengine.open_dataset(path) as dataset:
        assert len(dataset) == 0 and dataset.status == "failed"


def test_a_pool_holds_no_more_files_than_it_may(tmp_path):
    pool = FilePool(most=2)
    for number in range(5):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    held = [pool.open(number, str(tmp_path / str(number))) for number in range(5)]
    assert [os.pread(file.descriptor, 1, 0) for file in held] == [b"0", b"1", b"2", b"3", b"4"]
    assert [pool.get(number) is not None for number in range(5)] == [False, False, False, True, True]
    first = held[0].descriptor
    held.clear()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)


def test_a_storage_that_was_opened_to_read_can_be_pickled(new, opened, frame):
    with new() as storage:
        storage.put(AT, frame(AT), None)
    copy = pickle.loads(pickle.dumps(opened()))
    np.testing.assert_array_equal(copy[AT], frame(AT))
    copy.close()


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_behind_the_writing_of_a_frame_loses_and_shifts_no_other(
    path, new, opened, frame, monkeypatch, after
):
    storage = new()
    storage.put({"time": 0}, frame({"time": 0}), None)
    commit = CoordinateIndex.commit

    def interrupted(self, key):
        if after:
            commit(self, key)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CoordinateIndex, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            storage.put({"time": 1}, frame({"time": 1}), None)
    with pytest.raises(StorageFailedError, match="interrupted by KeyboardInterrupt"):
        storage.put({"time": 2}, frame({"time": 2}), None)
    with pytest.raises(StorageFailedError):
        storage.finish()
    storage.close()
    dataset = opened(path)
    assert dataset.status == "failed"
    assert [where["time"] for where in dataset] == ([0, 1] if after else [0])
    for where in dataset:
        np.testing.assert_array_equal(dataset.get_data(where), frame(where))


def test_a_frame_for_which_there_is_no_memory_leaves_nothing_behind(new, frame, monkeypatch):
    storage = new()

    def no_memory(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(np, "ascontiguousarray", no_memory)
        with pytest.raises(MemoryError):
            storage.put({"time": "a"}, frame({"time": 0}), None)
    storage.put({"time": 0}, frame({"time": 0}), None)
    storage.finish()
    assert list(storage) == [{"time": 0}]


def test_an_interrupt_when_the_first_file_is_begun_leaves_an_empty_dataset(path, opened, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("exengine_ndstorage.ndtiff.writer.write_at", interrupted)
        with pytest.raises(KeyboardInterrupt):
            NDTiffStorage(path)
    dataset = opened(path)
    assert (dataset.status, len(dataset)) == ("failed", 0)
    assert not has_writer(path)
