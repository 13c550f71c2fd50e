"""The base that keeps the storage promises, tested with a small backend that writes two files per frame.

A label such as P4 is that of the promise; see the page on what is promised.
"""

import gc
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from exengine.datasets.opening import open_dataset
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DatasetStatus, StorageCapabilities
from exengine.kernel.errors import (
    CoordinatesError,
    CoordinatesExistError,
    CoordinatesNotFoundError,
    DatasetExistsError,
    DatasetLockedError,
    ExEngineError,
    MetadataError,
    StorageClosedError,
    StorageFailedError,
    StorageFinishedError,
    StorageStateError,
    UnsupportedDataError,
    UnsupportedOperationError,
)
from exengine.kernel.frames.coordinate_index import CoordinateIndex
from exengine.kernel.storage import manifest
from exengine.kernel.system import files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def make(disk_storage, path):
    """Return what makes a storage, of the class with some things changed; it is closed at the end."""
    made = []

    def make(at=path, options=None, **changes):
        cls = type("Changed", (disk_storage,), changes) if changes else disk_storage
        made.append(cls(at, **(options or {})))
        return made[-1]

    yield make
    for storage in made:
        try:
            storage.close()
        except StorageFailedError:
            continue


def frame_at(time, shape=(3, 4)):
    """Return pixels that tell their time."""
    return np.full(shape, time, np.uint16) + np.arange(shape[-1], dtype=np.uint16)


def put(storage, time, **more):
    storage.put({"time": time, **more}, frame_at(time), {"time": time})


def assert_whole(storage, times):
    assert [coordinates["time"] for coordinates in storage] == list(times)
    for time in times:
        np.testing.assert_array_equal(storage.get_data({"time": time}), frame_at(time))
        assert storage.get_metadata({"time": time}) == {"time": time}


def files_in(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def no_space(*_, **__):
    raise OSError(28, "No space left on device")


# -- per put -------------------------------------------------------------------------------------


def test_p1_what_was_put_is_there_at_once_for_every_frame_and_from_every_thread(make):
    storage = make()
    found = []
    for time in range(5):
        put(storage, time)
        assert {"time": time} in storage and DataCoordinates(time=time) in storage
        thread = threading.Thread(target=lambda: found.append(storage.get_data({"time": len(found)})))
        thread.start()
        thread.join()
    assert_whole(storage, range(5))
    for time, data in enumerate(found):
        np.testing.assert_array_equal(data, frame_at(time))
        assert data.dtype == np.uint16
    assert len(found) == len(storage) == 5


def test_coordinates_have_any_spelling(make):
    storage = make()
    storage.put(DataCoordinates(time=np.int64(1), channel="a"), frame_at(1), None)
    for spelling in (
        {"channel": "a", "time": 1},
        {"time": 1.0, "channel": "a"},
        DataCoordinates(channel="a", time=1),
    ):
        assert spelling in storage
        np.testing.assert_array_equal(storage[spelling], frame_at(1))
        assert storage.get_metadata(spelling) is None


def test_the_callers_coordinates_are_neither_kept_nor_frozen(make):
    storage = make()
    coordinates = DataCoordinates(time=0)
    storage.put(coordinates, frame_at(0), {"time": 0})
    coordinates["time"] = 1
    storage.put(coordinates, frame_at(1), {"time": 1})
    assert_whole(storage, [0, 1])


BAD_PUTS = {
    "coordinates that hold a frame": (CoordinatesExistError, {"time": 0}, frame_at(9), {}),
    "no coordinates": (CoordinatesError, None, frame_at(9), {}),
    "coordinates of a wrong kind": (CoordinatesError, {"time": 1.5}, frame_at(9), {}),
    "an axis of a wrong kind": (CoordinatesError, {1: 1}, frame_at(9), {}),
    "a list": (UnsupportedDataError, {"time": 1}, [[1, 2], [3, 4]], {}),
    "nothing": (UnsupportedDataError, {"time": 1}, None, {}),
    "Python objects": (UnsupportedDataError, {"time": 1}, np.array([[1, None]]), {}),
    "objects within": (UnsupportedDataError, {"time": 1}, np.zeros(2, [("a", "O")]), {}),
    "a mask": (UnsupportedDataError, {"time": 1}, np.ma.array([[1]], mask=[[True]]), {}),
    "NaN in the metadata": (MetadataError, {"time": 1}, frame_at(9), {"a": [float("nan")]}),
    "bytes in the metadata": (MetadataError, {"time": 1}, frame_at(9), b"x"),
    "what the backend refuses": (UnsupportedDataError, {"time": 1}, np.zeros((1, 1)), {}),
}


@pytest.mark.parametrize("name", BAD_PUTS)
def test_p2_a_put_that_is_refused_changes_nothing(make, path, name):
    error, coordinates, data, metadata = BAD_PUTS[name]

    def check_frame(self, coordinates, data, metadata):
        if data.shape == (1, 1):
            raise UnsupportedDataError("not of this shape")
        return metadata

    storage = make(check_frame=check_frame)
    put(storage, 0)
    before, axes = files_in(path), storage.axes
    with pytest.raises(error) as info:
        storage.put(coordinates, data, metadata)
    assert isinstance(info.value, ExEngineError) and isinstance(info.value, ValueError)
    assert files_in(path) == before and storage.axes == axes and len(storage) == 1
    if error is not CoordinatesExistError:
        assert coordinates not in storage
    put(storage, 1)
    storage.finish()
    assert_whole(storage, [0, 1])
    assert_whole(open_dataset(path), [0, 1])


def test_p2_a_put_during_which_the_backend_breaks_changes_nothing_that_can_be_seen(make, path):
    def write_frame(self, number, coordinates, data, checked):
        if coordinates.get("channel") == "odd":
            raise ZeroDivisionError("a fault of the backend")
        super(cls, self).write_frame(number, coordinates, data, checked)

    storage = make(write_frame=write_frame)
    cls = type(storage)
    put(storage, 0)
    axes = storage.axes
    with pytest.raises(ZeroDivisionError):
        put(storage, 1, channel="odd")
    assert {"time": 1, "channel": "odd"} not in storage
    assert (len(storage), storage.axes) == (1, axes)
    put(storage, 1)
    storage.finish()
    assert_whole(open_dataset(path), [0, 1])
    assert storage.status is DatasetStatus.COMPLETE


def test_p3_changing_what_was_given_changes_nothing_stored(make):
    storage = make()
    data, metadata = frame_at(0), {"time": 0}
    storage.put({"time": 0}, data, metadata)
    data[:] = 99
    metadata["time"] = 99
    assert_whole(storage, [0])


def test_p3_the_backend_never_sees_the_metadata_of_the_caller(make):
    seen = []
    storage = make(check_frame=lambda self, coordinates, data, metadata: seen.append(metadata))
    metadata = {"a": [1, (2, np.int8(3))]}
    storage.put({"time": 0}, frame_at(0), metadata)
    assert seen == [{"a": [1, [2, 3]]}]
    assert seen[0] is not metadata and seen[0]["a"] is not metadata["a"]


def test_p4_putting_where_a_frame_is_raises_and_the_first_stays(make):
    storage = make()
    put(storage, 0)
    for coordinates in ({"time": 0}, DataCoordinates(time=0), {"time": np.uint8(0)}):
        with pytest.raises(CoordinatesExistError, match="a frame already exists at {'time': 0}"):
            storage.put(coordinates, frame_at(5), {})
    assert_whole(storage, [0])


def finish(storage):
    storage.finish()


def close(storage):
    storage.close()


def abort(storage):
    storage.abort("no light")


def fail(storage):
    storage.fail_at = len(storage)
    with pytest.raises(StorageFailedError):
        put(storage, 999)


ENDS = {
    finish: (StorageFinishedError, "complete"),
    close: (StorageClosedError, "incomplete"),
    abort: (StorageFinishedError, "aborted"),
    fail: (StorageFailedError, "incomplete"),
}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_p5_put_after_the_end_raises_and_every_file_stays(make, path, end):
    error, status = ENDS[end]
    storage = make()
    put(storage, 0)
    end(storage)
    before = files_in(path)
    for attempt in (lambda: put(storage, 1), lambda: put(storage, 0)):
        with pytest.raises(error):
            attempt()
    if end is fail:
        storage.annotate("x", 1)  # for the last manifest, which is still to come
    else:
        with pytest.raises(error):
            storage.annotate("x", 1)
    assert files_in(path) == before
    assert manifest.read_manifest(path)["status"] == status
    storage.close()
    assert_whole(open_dataset(path), [0])


KILLED = """
import sys, numpy as np
from exengine_disk import DiskStorage
storage = DiskStorage(sys.argv[1])
for time in range(100_000):
    storage.put({"time": time}, np.full((3, 4), time, np.uint16) + np.arange(4, dtype=np.uint16), {"time": time})
    print(time, flush=True)
"""


def test_p6_and_d2_after_kill_9_every_acknowledged_frame_is_there_and_the_lock_is_free(
    installed, tmp_path, path
):
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        for line in writer.stdout:
            if line == "30\n":
                writer.send_signal(signal.SIGKILL)
                break
        acknowledged = 31 + len(writer.stdout.readlines())
    assert not manifest.has_writer(path)
    dataset = open_dataset(path)
    assert dataset.status is DatasetStatus.INCOMPLETE and len(dataset) in (acknowledged, acknowledged + 1)
    assert_whole(dataset, range(len(dataset)))


# -- P7: errors of the disk ----------------------------------------------------------------------


def test_p7_the_first_error_of_the_disk_stays(make, path):
    storage = make(options={"fail_at": 1})
    put(storage, 0)
    with pytest.raises(
        StorageFailedError, match=r"No space left.*the frame at {'time': 1} was not stored"
    ) as first:
        put(storage, 1)
    assert isinstance(first.value, OSError) and isinstance(first.value, StorageStateError)
    assert first.value.errno == 28 and isinstance(first.value.__cause__, OSError)
    storage.fail_at = None  # the disk has room again, but what it lost stays lost
    for attempt in (
        lambda: put(storage, 2),
        storage.flush,
        lambda: storage.flush(durable=True),
        storage.finish,
    ):
        with pytest.raises(StorageFailedError, match="No space left") as again:
            attempt()
        assert again.value.__cause__ is first.value.__cause__ and again.value.errno == 28
    assert {"time": 1} not in storage
    assert_whole(storage, [0])
    assert storage.status is DatasetStatus.FAILED
    storage.close()
    dataset = open_dataset(path)
    assert dataset.status is DatasetStatus.FAILED and "No space left" in dataset.status_reason
    assert_whole(dataset, [0])


def test_p7_closing_a_failed_storage_marks_the_dataset_as_failed(make, path):
    storage = make(options={"fail_at": 0})
    with pytest.raises(StorageFailedError):
        put(storage, 0)
    storage.close()
    assert open_dataset(path).status is DatasetStatus.FAILED


def test_p7_a_failed_sync_is_never_tried_again_as_if_it_were_new(make):
    calls = []

    def sync_frames(self):
        calls.append(1)
        no_space()

    storage = make(sync_frames=sync_frames)
    put(storage, 0)
    with pytest.raises(StorageFailedError, match="may not have reached the disk"):
        storage.flush(durable=True)
    with pytest.raises(StorageFailedError):
        storage.flush(durable=True)
    assert len(calls) == 1
    assert_whole(storage, [0])


def test_p7_an_error_at_the_end_is_raised_and_the_dataset_is_not_complete(make, path):
    storage = make(finish_frames=no_space)
    put(storage, 0)
    for _ in range(2):
        with pytest.raises(StorageFailedError, match="No space left"):
            storage.finish()
    storage.close()
    assert manifest.read_manifest(path)["status"] != "complete"
    assert_whole(open_dataset(path), [0])


def test_p7_a_manifest_that_cannot_be_written_is_an_error(make, path, monkeypatch):
    storage = make()
    put(storage, 0)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_manifest", no_space)
        with pytest.raises(StorageFailedError, match="could not be finished"):
            storage.finish()
    assert storage.status is DatasetStatus.FAILED
    storage.close()
    assert open_dataset(path).status is DatasetStatus.INCOMPLETE


def test_p7_an_annotation_that_cannot_be_written_is_an_error_of_ours_that_stays(make, monkeypatch):
    storage = make()
    put(storage, 0)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_manifest", no_space)
        with pytest.raises(StorageFailedError, match="No space left"):
            storage.annotate("config", {})
    with pytest.raises(StorageFailedError):
        put(storage, 1)


def test_facts_of_the_finished_dataset_are_kept_in_the_manifest_and_those_of_a_failed_one_are_not(
    make, path, tmp_path
):
    def finished_facts(self):
        return {"files": len(self)}

    storage = make(finished_facts=finished_facts)
    put(storage, 0)
    storage.finish()
    assert manifest.read_manifest(path)["facts"] == {"files": 1}
    failed = make(tmp_path / "failed", finished_facts=finished_facts, finish_frames=no_space)
    with pytest.raises(StorageFailedError):
        failed.finish()
    assert "facts" not in manifest.read_manifest(tmp_path / "failed")


def test_an_interrupt_in_the_middle_of_a_write_makes_the_storage_fail(make, path):
    def write_frame(self, number, coordinates, data, checked):
        if number == 1:
            raise KeyboardInterrupt
        super(cls, self).write_frame(number, coordinates, data, checked)

    storage = make(write_frame=write_frame)
    cls = type(storage)
    put(storage, 0)
    with pytest.raises(KeyboardInterrupt):
        put(storage, 1)
    assert {"time": 1} not in storage
    with pytest.raises(StorageFailedError):
        put(storage, 2)
    storage.close()
    assert_whole(open_dataset(path), [0])


def test_what_is_annotated_after_a_failure_is_in_the_last_manifest(make, path):
    storage = make(options={"fail_at": 1})
    put(storage, 0)
    with pytest.raises(StorageFailedError):
        put(storage, 1)
    storage.annotate("ledger", {"failed": 1})
    storage.abort("a frame was lost", failed=True)
    with pytest.raises(StorageFailedError):
        storage.annotate("late", 1)  # nothing is written any more
    storage.close()
    dataset = open_dataset(path)
    assert dataset.status == "failed" and dataset.annotations == {"ledger": {"failed": 1}}


def test_where_there_is_no_room_for_it_the_dataset_says_at_least_that_it_failed(make, path, monkeypatch):
    storage = make(options={"fail_at": 1})
    put(storage, 0)
    with pytest.raises(StorageFailedError):
        put(storage, 1)
    storage.annotate("ledger", {"failed": 1})
    write = manifest.write_manifest

    def no_room_for_more(folder, content, **how):
        if content["annotations"]:
            no_space()
        write(folder, content, **how)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_manifest", no_room_for_more)
        storage.abort("a frame was lost", failed=True)
        storage.close()
    dataset = open_dataset(path)
    assert dataset.status == "failed" and dataset.annotations == {}


class Interrupt:
    """Raises KeyboardInterrupt when a function is called for the n-th time, before or after it has worked."""

    def __init__(self, function, at, after=False):
        self.function, self.at, self.after, self.calls = function, at, after, 0

    def __call__(self, *arguments, **options):
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise KeyboardInterrupt
        result = self.function(*arguments, **options)
        if self.calls == self.at:
            raise KeyboardInterrupt
        return result


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("many", [False, True])
def test_an_interrupt_between_writing_and_counting_never_shifts_the_frames_behind_it(
    make, path, monkeypatch, after, many
):
    storage = make(batch_frames=4)
    put(storage, 0)
    frames = [({"time": time}, frame_at(time), {"time": time}) for time in (1, 2)]
    with monkeypatch.context() as patch:
        patch.setattr(CoordinateIndex, "commit", Interrupt(storage._exengine.frames.commit, 1, after))
        with pytest.raises(KeyboardInterrupt):
            storage.put_many(frames) if many else storage.put(*frames[0])
    with pytest.raises(StorageFailedError, match="interrupted by KeyboardInterrupt"):
        put(storage, 3)
    whole = [0, 1] if after else [0]
    assert_whole(storage, whole)
    with pytest.raises(StorageFailedError):
        storage.finish()
    storage.close()
    dataset = open_dataset(path)
    assert dataset.status == "failed"
    # This backend never takes back what it wrote: the frame that was not acknowledged may be there, as itself.
    assert_whole(dataset, [0, 1])


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("where", ["finish_frames", "conclude"])
def test_a_finish_that_was_interrupted_takes_no_more_frames_and_can_be_done_again(make, path, where, after):
    storage = make()
    put(storage, 0)
    owner = storage if where == "finish_frames" else storage._exengine.place
    real = getattr(owner, where)
    setattr(owner, where, Interrupt(real, 1, after))
    with pytest.raises(KeyboardInterrupt):
        storage.finish()
    with pytest.raises(StorageFinishedError):
        put(storage, 1)
    storage.flush(durable=True)
    storage.finish()
    storage.close()
    dataset = open_dataset(path)
    assert dataset.status == "complete"
    assert_whole(dataset, [0])


# -- P8 and P9: what can be put ------------------------------------------------------------------

ARRAYS = {
    "plain": np.arange(12, dtype=np.uint16).reshape(3, 4),
    "Fortran order": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "not contiguous": np.arange(48, dtype=np.uint8).reshape(6, 8)[::2, ::-2],
    "byte-swapped": np.arange(12, dtype=">u4").reshape(3, 4),
    "read-only": np.broadcast_to(np.uint8(7), (3, 4)),
    "one dimension": np.array([1, 2, 3]),
    "no dimension": np.array(5),
    "no pixel": np.zeros((0, 3)),
    "bool": np.eye(3, dtype=bool),
    "complex": np.array([1j]),
    "a subclass": np.arange(3).view(np.recarray),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_p8_arrays_of_every_layout_are_stored_right(make, path, name):
    array = ARRAYS[name]
    storage = make()
    storage.put({"time": 0}, array, {})
    storage.finish()
    for reader in (storage, open_dataset(path)):
        back = reader.get_data({"time": 0})
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back, np.asarray(array))


@pytest.mark.parametrize(
    ("limits", "good", "bad", "says"),
    [
        (
            {"dtypes": ("uint8", "uint16")},
            np.zeros(2, np.uint8),
            np.zeros(2),
            "accepts only dtype uint8 or uint16; got dtype float64",
        ),
        ({"dtypes": ("uint16",)}, np.zeros(2, ">u2"), np.zeros(2, np.int16), "got dtype int16"),
        (
            {"ndim": (2, 3)},
            np.zeros((2, 2, 3)),
            np.zeros(2),
            r"accepts only 2 or 3 dimensions; got dtype float64, shape \(2,\)",
        ),
        (
            {"same_shape": True},
            np.zeros((2, 2)),
            np.zeros((2, 3)),
            r"the first has \(2, 2\) float64, but this one has \(2, 3\)",
        ),
        ({"same_shape": True}, np.zeros((2, 2)), np.zeros((2, 2), np.float32), "this one has .* float32"),
    ],
)
def test_p8_what_the_format_cannot_hold_is_refused_with_what_it_takes(make, limits, good, bad, says):
    storage = make(capabilities=StorageCapabilities(persistent=True, metadata=True, **limits))
    storage.put({"time": 0}, good, {})
    for _ in range(2):
        with pytest.raises(UnsupportedDataError, match=says):
            storage.put({"time": 1}, bad, {})
    storage.put({"time": 1}, good, {})
    assert len(storage) == 2 and storage.calls == [("write", 0), ("write", 1)]


@pytest.mark.parametrize(
    ("limits", "coordinates", "says"),
    [
        ({}, {"time": "first"}, "accepts only int positions; the position on axis 'time' is 'first'"),
        ({}, {"time": -1}, "does not accept negative positions; the position on axis 'time' is -1"),
        ({"string_axes": True}, {"z": 0, "time": -1}, "axis 'time' is -1"),
        ({"negative_indices": True}, {"time": "first"}, "axis 'time' is 'first'"),
    ],
)
def test_positions_that_the_format_cannot_hold_are_refused(make, limits, coordinates, says):
    storage = make(capabilities=StorageCapabilities(persistent=True, **limits))
    with pytest.raises(CoordinatesError, match=says):
        storage.put(coordinates, frame_at(0), {})
    put(storage, 0)
    assert len(storage) == 1


@pytest.mark.parametrize("metadata", [None, True, 0, -1.5, "ä", [], [1, [None]], {}, {"a": {"b": ["c"]}}])
def test_p9_metadata_of_each_kind_comes_back_equal(make, path, metadata):
    storage = make()
    storage.put({"time": 0}, frame_at(0), metadata)
    storage.finish()
    for reader in (storage, open_dataset(path)):
        back = reader.get_metadata({"time": 0})
        assert back == metadata and type(back) is type(metadata)


def test_p9_numpy_and_tuples_come_back_as_numbers_and_lists(make):
    storage = make()
    storage.put({"time": 0}, frame_at(0), {"a": (np.int8(1), np.array([1.5]))})
    assert storage.get_metadata({"time": 0}) == {"a": [1, [1.5]]}


# -- reading -------------------------------------------------------------------------------------


def test_r1_what_is_not_there_is_named_with_what_is(make):
    storage = make()
    put(storage, 0, channel="a")
    for read in (storage.get_data, storage.get_metadata, storage.__getitem__):
        with pytest.raises(
            CoordinatesNotFoundError,
            match=r"no frame at {'time': 5, 'channel': 'a'}: positions on axis 'time': 0",
        ):
            read({"time": 5, "channel": "a"})
    with pytest.raises(KeyError):
        storage[{"time": 0}]
    with pytest.raises(KeyError):
        storage[{"nonsense": 0}]


@pytest.mark.parametrize(
    "odd", [None, 5, "time", [("time", 0)], {"time": 1.5}, {"time": None}, {"time": [0]}, {1: 0}, {(1,): 0}, {"time": True},
            {"time": float("nan")}, {"time": 2**70}, {"time": "\ud800"}, object(), np.array([1]), {"": 0}]
)  # fmt: skip
def test_r1_in_never_raises(make, odd):
    storage = make()
    put(storage, 0)
    assert odd not in storage
    with pytest.raises(ExEngineError):
        storage.get_data(odd)
    storage.close()
    assert odd not in storage


def test_a_frame_is_not_there_before_it_is_written(make):
    entered, leave = threading.Event(), threading.Event()

    def write_frame(self, number, coordinates, data, checked):
        entered.set()
        leave.wait(10)
        super(cls, self).write_frame(number, coordinates, data, checked)

    storage = make(write_frame=write_frame)
    cls = type(storage)
    writer = threading.Thread(target=put, args=(storage, 0))
    writer.start()
    try:
        assert entered.wait(10)
        assert {"time": 0} not in storage
        assert (len(storage), list(storage)) == (0, [])
        with pytest.raises(CoordinatesNotFoundError):
            storage.get_data({"time": 0})
        with pytest.raises(CoordinatesNotFoundError):
            storage.get_metadata({"time": 0})
    finally:
        leave.set()
        writer.join()
    assert_whole(storage, [0])


def test_many_threads_put_and_read_at_once_and_every_frame_is_whole(make, path):
    storage = make()
    errors = []

    def work(first):
        try:
            for time in range(first, 60, 4):
                put(storage, time)
                np.testing.assert_array_equal(storage.get_data({"time": time}), frame_at(time))
                for coordinates in list(storage):
                    assert storage.get_metadata(coordinates) == dict(coordinates)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    storage.finish()
    assert sorted(c["time"] for c in storage) == list(range(60))
    assert [dict(c) for c in open_dataset(path)] == [dict(c) for c in storage]


def test_frames_come_in_the_order_of_arrival_and_positions_in_theirs_also_after_reopening(make, path):
    storage = make()
    order = [{"z": 2, "time": 0}, {"z": -1, "time": 0}, {"time": 5, "z": 0, "channel": "b"}, {"channel": "a"}]
    for number, coordinates in enumerate(order):
        storage.put(coordinates, frame_at(number), {})
    storage.finish()
    for reader in (storage, open_dataset(path)):
        assert [dict(coordinates) for coordinates in reader] == order
        assert reader.axes == {"z": [-1, 0, 2], "time": [0, 5], "channel": ["b", "a"]}
        assert list(reader.axes) == ["z", "time", "channel"]


def test_closing_waits_for_reads_that_have_begun(make):
    entered, leave = threading.Event(), threading.Event()
    released = []

    def read_frame(self, number):
        entered.set()
        leave.wait(10)
        assert not released
        return super(cls, self).read_frame(number)

    storage = make(read_frame=read_frame, release=lambda self: released.append(1))
    cls = type(storage)
    put(storage, 0)
    found = []
    reader = threading.Thread(target=lambda: found.append(storage.get_data({"time": 0})))
    closer = threading.Thread(target=storage.close)
    reader.start()
    assert entered.wait(10)
    closer.start()
    assert closer.is_alive() and not released
    leave.set()
    reader.join()
    closer.join()
    assert released == [1]
    np.testing.assert_array_equal(found[0], frame_at(0))
    for read in (storage.get_data, storage.get_metadata):
        with pytest.raises(StorageClosedError, match="open the dataset again with exengine.open_dataset"):
            read({"time": 0})
    with pytest.raises(StorageClosedError):
        len(storage)
    with pytest.raises(StorageClosedError):
        iter(storage)


# -- flush ---------------------------------------------------------------------------------------


def test_f2_only_a_durable_flush_syncs(make):
    storage = make()
    put(storage, 0)
    storage.flush()
    assert ("sync", 1) not in storage.calls
    storage.flush(durable=True)
    assert storage.calls[-1] == ("sync", 1)
    storage.finish()
    storage.flush()
    storage.flush(durable=True)
    assert storage.calls.count(("sync", 1)) == 1
    storage.close()
    with pytest.raises(StorageClosedError):
        storage.flush()


def test_without_a_sync_of_its_own_a_backend_syncs_the_file_system(make, monkeypatch, disk_storage):
    synced = []
    monkeypatch.setattr(files, "sync_filesystem", synced.append)
    from exengine.kernel.storage.managed import ManagedStorage

    storage = make(sync_frames=ManagedStorage.sync_frames, finish_frames=ManagedStorage.finish_frames)
    storage.flush(durable=True)
    storage.finish()
    assert synced == [storage.path] * 2


@pytest.fixture
def memory():
    from exengine.kernel.storage.managed import ManagedStorage

    class Memory(ManagedStorage):
        capabilities = StorageCapabilities(metadata=True)

        def __init__(self):
            super().__init__()
            self.held = []

        def write_frame(self, number, coordinates, data, checked):
            self.held.append((data.copy(), checked))

        def read_frame(self, number):
            return self.held[number][0]

        def read_frame_metadata(self, number):
            return self.held[number][1]

    return Memory()


def test_a_backend_that_keeps_nothing_has_no_path_and_is_forgotten_in_silence(memory):
    put(memory, 0)
    assert memory.path is None and memory.status is DatasetStatus.INCOMPLETE
    memory.flush()
    with pytest.raises(UnsupportedOperationError, match="is not persistent"):
        memory.flush(durable=True)
    with pytest.raises(UnsupportedOperationError, match="cannot store annotations"):
        memory.annotate("x", 1)
    memory.finish()
    assert memory.status is DatasetStatus.COMPLETE and memory.is_finished()
    assert_whole(memory, [0])


# -- waiting for data ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [lambda s: put(s, 1), finish, abort, close, fail],
    ids=["put", "finish", "abort", "close", "fail"],
)
def test_who_waits_for_data_is_woken_by_a_frame_and_by_every_end(make, event):
    storage = make()
    put(storage, 0)
    woken = []
    waiter = threading.Thread(target=lambda: woken.append(storage.await_new_data(20)))
    waiter.start()
    while not storage._exengine.waiting:
        assert waiter.is_alive()
    event(storage)
    waiter.join(10)
    assert woken == [True]


def test_waiting_ends_when_the_time_runs_out_and_at_once_where_nothing_will_come(make):
    storage = make()
    assert storage.await_new_data(0.01) is False
    storage.finish()
    assert storage.await_new_data(60) is True


# -- finish and close ----------------------------------------------------------------------------


def test_n1_finish_close_and_abort_are_idempotent(make, path):
    storage = make()
    put(storage, 0)
    for _ in range(3):
        storage.finish()
        storage.abort("too late")
    assert storage.calls.count(("finish", 1)) == 1
    for _ in range(3):
        storage.close()
    storage.finish()
    storage.abort("too late")
    assert open_dataset(path).status is DatasetStatus.COMPLETE


def test_n2_a_finished_dataset_reopens_equal_and_read_only(make, path):
    storage = make()
    for time in range(4):
        put(storage, time)
    storage.annotate("config", {"a": 1})
    storage.finish()
    assert_whole(storage, range(4))
    assert storage.is_finished() and storage.status is DatasetStatus.COMPLETE
    storage.close()
    dataset = open_dataset(path)
    assert_whole(dataset, range(4))
    assert dataset.annotations == {"config": {"a": 1}} and dataset.status_reason == ""
    with pytest.raises(StorageFinishedError):
        put(dataset, 9)


def test_finish_after_close_says_that_it_is_too_late(make):
    storage = make()
    storage.close()
    with pytest.raises(StorageClosedError):
        storage.finish()


def test_the_manifest_says_finished_last(make, path):
    statuses = []

    def finish_frames(self):
        statuses.append(manifest.read_manifest(self.path)["status"])

    storage = make(finish_frames=finish_frames)
    storage.finish()
    assert statuses == ["incomplete"] and manifest.read_manifest(path)["status"] == "complete"
    assert manifest.read_manifest(path)["frames"] == 0


def test_n5_close_without_finish_leaves_an_incomplete_dataset_with_every_frame(make, path):
    storage = make()
    put(storage, 0)
    put(storage, 1)
    storage.close()
    dataset = open_dataset(path)
    assert dataset.status is DatasetStatus.INCOMPLETE and not dataset.is_finished()
    assert_whole(dataset, [0, 1])
    assert not manifest.has_writer(path)


def test_n5_leaving_a_with_block_finishes_and_closes(make, path):
    with make() as storage:
        put(storage, 0)
    with pytest.raises(StorageClosedError):
        put(storage, 1)
    assert open_dataset(path).status is DatasetStatus.COMPLETE


def test_n5_leaving_a_with_block_by_an_exception_finishes_as_aborted(make, path):
    def work():
        with make() as storage:
            put(storage, 0)
            raise RuntimeError("no light")

    with pytest.raises(RuntimeError, match="no light"):
        work()
    dataset = open_dataset(path)
    assert (dataset.status, dataset.status_reason) == (DatasetStatus.ABORTED, "RuntimeError: no light")
    assert_whole(dataset, [0])


def test_the_error_of_the_disk_leaves_the_with_block_and_the_dataset_is_failed(make, path):
    def work():
        with make(options={"fail_at": 1}) as storage:
            put(storage, 0)
            put(storage, 1)

    with pytest.raises(StorageFailedError):
        work()
    assert open_dataset(path).status is DatasetStatus.FAILED


def test_an_abort_may_be_a_failure(make, path):
    storage = make()
    storage.abort("three frames were lost", failed=True)
    assert storage.status is DatasetStatus.FAILED and storage.is_finished()
    assert open_dataset(path).status_reason == "three frames were lost"


def test_a_storage_is_true_though_it_is_empty(make):
    storage = make()
    assert bool(storage) and len(storage) == 0


# -- forgotten storages --------------------------------------------------------------------------


def test_n5_a_storage_that_nobody_holds_any_more_is_finished_as_aborted_with_a_warning(disk_storage, path):
    storage = disk_storage(path)
    put(storage, 0)
    with pytest.warns(RuntimeWarning, match="was not finished"):
        del storage
    dataset = open_dataset(path)
    assert dataset.status is DatasetStatus.ABORTED and "without calling finish" in dataset.status_reason
    assert_whole(dataset, [0])
    assert not manifest.has_writer(path)


FORGOTTEN = """
import sys, numpy as np
from exengine_disk import DiskStorage
kept = [DiskStorage(f"{sys.argv[1]}{number}") for number in range(4)]
for storage in kept:
    storage.put({"time": 0}, np.full((3, 4), 0, np.uint16) + np.arange(4, dtype=np.uint16), {"time": 0})
"""


@pytest.mark.parametrize(
    "options", [["-W", "always"], ["-W", "error"], []], ids=["warned", "strict", "quiet"]
)
def test_n5_forgotten_storages_are_finished_as_aborted_when_the_program_ends(
    installed, run_python, path, options
):
    result = run_python(FORGOTTEN, path, options=options)
    for number in range(4):
        dataset = open_dataset(f"{path}{number}")
        assert dataset.status is DatasetStatus.ABORTED
        assert_whole(dataset, [0])
    if "error" not in options:
        assert result.stderr.count("was not finished before the program ended") == 4


def test_n5_one_storage_that_cannot_be_finished_does_not_keep_the_others_from_it(installed, run_python, path):
    program = (
        FORGOTTEN + "def broken(): raise ZeroDivisionError('a fault of the backend')\n"
        "kept[1].finish_frames = broken\nkept[2].fail_at = 1\n"
        "try: kept[2].put({'time': 1}, np.zeros(2), {})\nexcept OSError: pass\n"
    )
    run_python(program, path, check=False)
    statuses = [str(open_dataset(f"{path}{number}").status) for number in range(4)]
    assert statuses == ["aborted", "incomplete", "failed", "aborted"]


def test_a_storage_that_was_closed_without_finish_is_not_forgotten(installed, run_python, path):
    result = run_python(FORGOTTEN + "for storage in kept: storage.close()", path, options=["-W", "error"])
    assert result.stderr == ""
    assert open_dataset(f"{path}0").status is DatasetStatus.INCOMPLETE


def test_a_storage_that_could_not_be_made_is_not_finished(make, path, recwarn):
    (path).mkdir()
    (path / "notes").write_text("mine")
    with pytest.raises(DatasetExistsError):
        make()
    assert [str(warning.message) for warning in recwarn] == []
    assert files_in(path) == {"notes": b"mine"}


# -- one writer ----------------------------------------------------------------------------------


def test_d1_and_d2_a_second_writer_is_refused_until_the_first_ends_and_the_dataset_stays(
    make, path, tmp_path
):
    first = make()
    (tmp_path / "link").symlink_to(path)
    put(first, 0)
    for spelling in (path, tmp_path / "link", f"{path}/", os.path.relpath(path)):
        with pytest.raises(DatasetLockedError):
            make(spelling)
    first.finish()
    with pytest.raises(DatasetLockedError):
        make()
    first.close()
    with pytest.raises(DatasetExistsError):
        make()
    assert_whole(open_dataset(path), [0])


def test_d2_a_second_process_is_refused(make, path, run_python):
    make()
    program = "import sys; from exengine_disk import DiskStorage\ntry: DiskStorage(sys.argv[1])\nexcept BlockingIOError: print('no')"
    assert run_python(program, path).stdout == "no\n"


# -- forked children -----------------------------------------------------------------------------

FORK = """
import os, sys, threading, time, warnings, numpy as np
from exengine_disk import DiskStorage
warnings.simplefilter("ignore", DeprecationWarning)  # the thread is there on purpose
storage = DiskStorage(sys.argv[1])
frame = np.full((3, 4), 0, np.uint16) + np.arange(4, dtype=np.uint16)
storage.put({"time": 0}, frame, {"time": 0})

def tell(call, *arguments):
    try: call(*arguments)
    except Exception as error: print(type(error).__name__, flush=True)
    else: print("done", flush=True)

%s
child = os.fork()
if not child:
    tell(storage.put, {"time": 1}, frame, {})
    tell(storage.annotate, "x", 1)
    tell(storage.finish)
    storage.abort("from the child")
    tell(storage.close)
    sys.exit()
os.waitpid(child, 0)
%s
"""


def test_a_forked_child_can_neither_write_nor_end_the_storage_of_its_parent(installed, run_python, path):
    after = (
        "storage.put({'time': 1}, frame + 1, {'time': 1}); storage.finish(); storage.close(); print('parent')"
    )
    result = run_python(FORK % ("", after), path, timeout=30)
    assert result.stdout.split() == ["StorageStateError"] * 3 + ["done", "parent"]
    dataset = open_dataset(path)
    assert dataset.status is DatasetStatus.COMPLETE and dataset.annotations == {}
    assert_whole(dataset, [0, 1])


def test_a_forked_child_of_a_failed_storage_changes_nothing(installed, run_python, path):
    before = "storage.fail_at = 1\ntry: storage.put({'time': 1}, frame, {})\nexcept OSError: pass"
    after = "from exengine.kernel.storage.manifest import read_manifest; print(read_manifest(storage.path)['status'])\nstorage.close()"
    result = run_python(FORK % (before, after), path, timeout=30)
    assert result.stdout.split()[-1] == "incomplete"


@pytest.mark.parametrize("busy", ["write_frame", "read_frame"])
def test_a_child_that_is_forked_while_another_thread_is_at_work_does_not_hang(
    installed, run_python, path, busy
):
    before = f"""
entered, leave = threading.Event(), threading.Event()
real = storage.{busy}
def slow(*arguments):
    entered.set(); leave.wait(20)
    return real(*arguments)
storage.{busy} = slow
work = lambda: storage.put({{"time": 9}}, frame, {{}}) if "{busy}" == "write_frame" else storage.get_data({{"time": 0}})
thread = threading.Thread(target=work, daemon=True)
thread.start()
assert entered.wait(10)
"""
    after = "leave.set(); thread.join(); storage.close(); print('parent')"
    # The child ends, or is ended by this alarm; the parent has none.
    guard = "os.register_at_fork(after_in_child=lambda: __import__('signal').alarm(5))\n"
    result = run_python(FORK % (guard + before, after), path, timeout=40)
    assert result.stdout.split() == ["StorageStateError"] * 3 + ["done", "parent"]


# -- identity ------------------------------------------------------------------------------------


def test_the_manifest_names_the_backend_or_else_the_class(make, path, tmp_path):
    make()
    assert manifest.read_manifest(path)["backend"] == "disk"
    nameless = make(tmp_path / "other", backend_name="")
    assert manifest.read_manifest(tmp_path / "other")["backend"] == f"{type(nameless).__module__}:Changed"


def test_annotations_are_json(make):
    storage = make()
    with pytest.raises(MetadataError):
        storage.annotate("x", {1, 2})
    storage.annotate("x", (np.int8(1),))
    storage.finish()
    assert open_dataset(storage.path).annotations == {"x": [1]}


def test_a_dataset_opens_from_the_moment_it_can_be_seen(make, path):
    make()
    dataset = open_dataset(path)
    assert (len(dataset), dataset.status) == (0, DatasetStatus.INCOMPLETE)
    dataset.finish()
    assert files_in(path).keys() == {"exengine.json", "exengine.lock"}


@pytest.mark.parametrize("finished", [True, False])
def test_p7_files_that_cannot_be_closed_are_told_and_hinder_no_other_writer(make, path, finished):
    def release(self):
        raise OSError(5, "Input/output error")

    storage = make(release=release)
    put(storage, 0)
    if finished:
        storage.finish()
    with pytest.raises(StorageFailedError, match="the dataset's files could not be closed") as info:
        storage.close()
    assert info.value.errno == 5 and isinstance(info.value.__cause__, OSError)
    storage.close()  # it was told
    assert not manifest.has_writer(path)
    with pytest.raises(StorageStateError):
        put(storage, 1)
    assert_whole(open_dataset(path), [0])


def test_a_release_that_breaks_lets_the_next_writer_in(make, path):
    def release(self):
        raise ZeroDivisionError

    storage = make(release=release)
    with pytest.raises(ZeroDivisionError):
        storage.close()
    assert not manifest.has_writer(path)


def test_a_storage_that_failed_while_it_was_closed_keeps_no_annotation_that_nobody_writes(make):
    def release(self):
        raise OSError(5, "Input/output error")

    storage = make(release=release)
    put(storage, 0)
    with pytest.raises(StorageFailedError):
        storage.close()
    with pytest.raises(StorageFailedError):
        storage.annotate("late", 1)


def test_a_subclass_that_cannot_be_made_leaves_a_failed_dataset_and_no_lock(disk_storage, path):
    class HalfMade(disk_storage):
        def __init__(self, path):
            super().__init__(path)
            try:
                raise OSError(24, "Too many open files")
            except OSError as error:
                self.cannot_begin(error)
                raise

        def finish_frames(self):
            raise AssertionError("there is nothing to finish")

        def release(self):
            self.file_that_was_never_opened.close()

    with pytest.raises(OSError, match="Too many open files"):
        HalfMade(path)
    gc.collect()
    content = manifest.read_manifest(path)
    assert content["status"] == "failed" and "Too many open files" in content["reason"]
    assert not manifest.has_writer(path)


@pytest.mark.parametrize("written", [0, -1, 3])
def test_a_backend_that_miscounts_what_it_wrote_is_an_error_and_no_endless_loop(make, written):
    storage = make(batch_frames=4, write_frames=lambda self, number, batch: written)
    with pytest.raises(ValueError, match=f"write_frames returned {written} for"):
        storage.put_many([({"time": time}, frame_at(time), None) for time in range(2)])


@pytest.mark.parametrize("read", ["get_data", "get_metadata"])
@pytest.mark.parametrize("line", [1, 2, 3, 4, 5])
def test_a_read_that_was_interrupted_keeps_close_from_nothing(make, read, line):
    storage = make()
    put(storage, 0)
    seen = 0

    def trace(frame, event, _):
        """Raise before the given line of the method, as a signal that comes there does."""
        nonlocal seen
        if event == "line" and frame.f_code.co_name == read:
            seen += 1
            if seen == line:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            getattr(storage, read)({"time": 0})
    finally:
        sys.settrace(before)
    storage.close()


def test_byte_order_is_no_difference_where_all_frames_are_alike(make):
    storage = make(capabilities=StorageCapabilities(persistent=True, reopen=True, same_shape=True))
    for time, order in enumerate("<>="):
        storage.put({"time": time}, np.arange(12, dtype=f"{order}u2").reshape(3, 4), None)
    for time in range(3):
        assert np.array_equal(storage[{"time": time}], np.arange(12).reshape(3, 4))
    with pytest.raises(UnsupportedDataError, match="the same shape and dtype"):
        storage.put({"time": 3}, np.zeros((3, 4), np.int16), None)
