"""The backend ``ndram``: frames of any kind, in memory."""

import threading

import numpy as np
import pytest
from exengine.storage_backends.ndram import NDRAMStorage

import exengine
from exengine.base_classes import DataStorage
from exengine.errors import (
    CoordinatesError,
    CoordinatesExistError,
    CoordinatesNotFoundError,
    MetadataError,
    OptionError,
    StorageClosedError,
    StorageFinishedError,
    StorageFullError,
    UnsupportedDataError,
    UnsupportedOperationError,
)
from exengine.testing import check_class
from exengine_ndstorage import ndram


def test_put_and_get_data():
    storage = NDRAMStorage()
    data = np.array([1, 2, 3])
    metadata = {"key": "value"}
    coordinates = {"time": 0, "channel": "DAPI"}
    storage.put(coordinates, data, metadata)
    assert coordinates in storage
    np.testing.assert_array_equal(storage.get_data(coordinates), data)
    assert storage.get_metadata(coordinates) == metadata


def test_the_class_keeps_the_contract():
    assert check_class(NDRAMStorage, DataStorage) == []


ARRAYS = {
    "1-D": np.arange(5),
    "0-D": np.array(5.5),
    "5-D": np.arange(2 * 3 * 4 * 5 * 6, dtype=np.int16).reshape(2, 3, 4, 5, 6),
    "float with NaN": np.array([[np.nan, np.inf], [-0.0, 1e-310]]),
    "complex": np.array([1 + 2j, 3 - 4j], np.complex64),
    "bool": np.array([[True, False]]),
    "big-endian": np.arange(9, dtype=">u4").reshape(3, 3),
    "text": np.array(["DAPI", "é"]),
    "bytes": np.array([b"ab", b"c"]),
    "times": np.array(["2024-01-01", "NaT"], "datetime64[s]"),
    "structured": np.array([(1, 2.5)], [("a", "u1"), ("b", ">f8")]),
    "empty": np.zeros((0, 7), np.uint16),
    "non-contiguous": np.arange(100, dtype=np.uint16).reshape(10, 10)[::3, ::-2],
    "Fortran": np.asfortranarray(np.arange(20, dtype=np.uint16).reshape(4, 5)),
    "broadcast": np.broadcast_to(np.uint16(7), (4, 5)),
    "half": np.arange(4, dtype=np.float16),
    "long": np.arange(4, dtype=np.longdouble),
    "larger than a quarter of a slab": np.arange(ndram.SLAB_BYTES // 16 + 1, dtype=np.uint32),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_p1_arrays_of_every_kind_come_back_bit_equal(kind):
    storage, data = NDRAMStorage(), ARRAYS[kind]
    storage.put({"time": 0}, np.ones(3), None)
    storage.put({"time": 1}, data, None)
    storage.put({"time": 2}, np.ones(3), None)
    got = storage[{"time": 1}]
    assert (got.shape, got.dtype) == (data.shape, data.dtype)
    assert got.tobytes() == data.tobytes()


def test_a_thousand_frames_are_read_back_after_each_put_and_at_the_end(frame):
    storage = NDRAMStorage()
    shapes = [(64, 64), (1, 1), (17, 3), (200, 300, 3), (5,)]
    for number in range(1000):
        where = {"time": number, "kind": str(number % 5)}
        data = frame(where, shapes[number % 5])
        storage.put(where, data, {"number": number})
        np.testing.assert_array_equal(storage[where], data, strict=True)
    assert len(storage) == 1000
    for number, where in enumerate(storage):
        np.testing.assert_array_equal(storage[where], frame(where, shapes[number % 5]), strict=True)
        assert storage.get_metadata(where) == {"number": number}


def test_frames_that_fill_more_than_a_slab_do_not_overlap(monkeypatch):
    monkeypatch.setattr(ndram, "SLAB_BYTES", 10_000)
    storage = NDRAMStorage()
    for k in range(50):
        storage.put({"k": k}, np.full(1000 + k, k, np.uint8), None)
    assert all((storage[{"k": k}] == k).all() and storage[{"k": k}].size == 1000 + k for k in range(50))


@pytest.mark.parametrize(
    ("coordinates", "data", "metadata", "error"),
    [
        ({"time": 1.5}, np.ones(3), None, CoordinatesError),
        (None, np.ones(3), None, CoordinatesError),
        ({"time": 1}, [1, 2], None, UnsupportedDataError),
        ({"time": 1}, np.array([object()]), None, UnsupportedDataError),
        ({"time": 1}, np.ma.masked_array([1, 2], [True, False]), None, UnsupportedDataError),
        ({"time": 1}, np.ones(3), float("inf"), MetadataError),
        ({"time": 1}, np.ones(3), {1: 2}, MetadataError),
        ({"time": 0}, np.ones(3), None, CoordinatesExistError),
    ],
)
def test_p2_what_is_refused_changes_nothing(coordinates, data, metadata, error):
    storage = NDRAMStorage()
    storage.put({"time": 0}, np.zeros(3), "first")
    with pytest.raises(error):
        storage.put(coordinates, data, metadata)
    assert len(storage) == 1 and {"time": 1} not in storage
    storage.put({"time": 2}, np.full(3, 2), "second")
    assert storage[{"time": 0}].sum() == 0 and storage[{"time": 2}].sum() == 6
    assert storage.get_metadata({"time": 2}) == "second"


def test_p3_changing_what_was_put_or_what_was_read_changes_nothing_stored():
    storage, data, metadata = NDRAMStorage(), np.zeros((3, 3)), {"a": [1]}
    storage.put({"time": 0}, data, metadata)
    data[:] = 1
    metadata["a"].append(2)
    storage.get_metadata({"time": 0})["a"].append(3)
    with pytest.raises(ValueError, match="read-only"):
        storage[{"time": 0}][:] = 5
    assert storage[{"time": 0}].sum() == 0
    assert storage.get_metadata({"time": 0}) == {"a": [1]}


def test_p1_puts_from_many_threads_are_all_stored(frame):
    storage = NDRAMStorage()

    def put(thread):
        for number in range(100):
            where = {"thread": thread, "number": number}
            storage.put(where, frame(where), where)

    threads = [threading.Thread(target=put, args=(k,), name=f"writer {k}") for k in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(storage) == 500
    for where in storage:
        np.testing.assert_array_equal(storage[where], frame(where))
        assert storage.get_metadata(where) == where


def test_r1_an_absent_frame_is_a_key_error_that_says_what_is_there():
    storage = NDRAMStorage()
    storage.put({"time": 0}, np.ones(3), None)
    for read in (storage.get_data, storage.get_metadata, storage.__getitem__):
        with pytest.raises(CoordinatesNotFoundError, match="positions on axis 'time': 0"):
            read({"time": 1})
    assert None not in storage and {"time": []} not in storage


def test_max_bytes_bounds_the_pixels_and_the_frames_before_stay():
    storage = exengine.open_storage("ndram", max_bytes=1000)
    storage.put({"time": 0}, np.full(600, 1, np.uint8), None)
    with pytest.raises(StorageFullError, match=r"600 of max_bytes=1000.*ndtiff") as error:
        storage.put({"time": 1}, np.full(401, 2, np.uint8), None)
    assert isinstance(error.value, MemoryError)
    assert len(storage) == 1 and storage[{"time": 0}].sum() == 600
    storage.put({"time": 1}, np.full(400, 3, np.uint8), None)
    with pytest.raises(StorageFullError):
        storage.put({"time": 2}, np.ones(1, np.uint8), None)
    storage.finish()
    assert storage.status == "complete" and storage[{"time": 1}].sum() == 1200


@pytest.mark.parametrize("value", [0, -1, "many", 1.5])
def test_max_bytes_is_checked(value):
    with pytest.raises(OptionError, match="max_bytes"):
        exengine.open_storage("ndram", max_bytes=value)


def test_after_finish_it_is_read_only_and_after_close_it_is_gone():
    storage = NDRAMStorage()
    storage.put({"time": 0}, np.ones(3), None)
    storage.finish()
    storage.finish()
    with pytest.raises(StorageFinishedError):
        storage.put({"time": 1}, np.ones(3), None)
    assert storage[{"time": 0}].sum() == 3
    storage.close()
    storage.close()
    assert {"time": 0} not in storage
    for call in (
        lambda: storage[{"time": 0}],
        lambda: len(storage),
        lambda: storage.put({"time": 2}, np.ones(3), None),
    ):
        with pytest.raises(StorageClosedError):
            call()


def test_a_frame_that_was_read_outlives_the_storage():
    storage = NDRAMStorage()
    storage.put({"time": 0}, np.arange(3), None)
    data = storage[{"time": 0}]
    storage.close()
    del storage
    assert data.tolist() == [0, 1, 2]


def test_summary_metadata_are_kept():
    assert NDRAMStorage().summary_metadata == {}
    assert NDRAMStorage([1, "a"]).summary_metadata == [1, "a"]
    with pytest.raises(MetadataError):
        NDRAMStorage({"a": b"bytes"})


def test_as_array_is_lazy_and_in_the_order_of_the_axes():
    storage = NDRAMStorage()
    for t in range(3):
        for c in ("DAPI", "FITC"):
            storage.put(
                {"time": t, "channel": c}, np.full((2, 4), 10 * t + len(c) + (c == "FITC"), np.int16), None
            )
    array = storage.as_array(["channel", "time"])
    assert array.shape == (2, 3, 2, 4) and array.dtype == np.int16
    assert array.compute()[:, :, 0, 0].tolist() == [[4, 14, 24], [5, 15, 25]]


def test_it_cannot_be_made_durable_and_says_so():
    storage = NDRAMStorage()
    storage.flush()
    with pytest.raises(UnsupportedOperationError, match="is not persistent"):
        storage.flush(durable=True)


def test_waiting_for_a_frame_ends_when_it_comes():
    storage = NDRAMStorage()
    assert not storage.await_new_data(0)
    came = []
    thread = threading.Thread(target=lambda: came.append(storage.await_new_data(30)), name="waiting")
    thread.start()
    number = 0
    while thread.is_alive():  # the thread may begin to wait after any of these
        storage.put({"time": number}, np.ones(3), None)
        number += 1
        thread.join(0.01)
    assert came == [True]


# -- frames from a data handler ------------------------------------------------------------------


def through_handler(frames, **options):
    storage = NDRAMStorage()
    handler = exengine.DataHandler(storage)
    for number, frame in enumerate(frames):
        handler.put({"time": number}, frame, None, **options)
    handler.finish()
    handler.await_completion(30)
    return storage


@pytest.mark.parametrize("size", [8, 700])
def test_a_frame_that_is_handed_over_is_kept_without_a_copy_and_cannot_be_written(size):
    frames = [np.full((size, size), number, np.uint16) for number in range(5)]
    storage = through_handler(frames, copy=False)
    for number, frame in enumerate(frames):
        assert np.shares_memory(storage[{"time": number}], frame)
        assert not storage[{"time": number}].flags.writeable and frame.flags.writeable


@pytest.mark.parametrize("size", [8, 700])
def test_a_buffer_that_is_used_again_for_each_frame_gives_the_right_frames(size):
    def reused():
        buffer = np.empty((size, size), np.uint16)
        for number in range(100):
            buffer[:] = number
            yield buffer

    storage = through_handler(reused())
    assert all((storage[{"time": number}] == number).all() for number in range(100))


def test_a_frame_that_is_part_of_a_large_array_does_not_keep_it_in_memory():
    large = np.zeros((3000, 1000), np.uint16)
    storage = through_handler([large[:2], large[:, ::2]], copy=False)
    assert not any(np.shares_memory(storage[{"time": number}], large) for number in (0, 1))
