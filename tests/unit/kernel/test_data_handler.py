"""Frames on their way to a storage: bounded, none lost silently, every error told, nothing hangs."""

import gc
import logging
import threading
import time
import unittest.mock
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exengine.datasets.opening import open_dataset
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_handler import DataHandler
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage
from exengine.kernel.errors import (
    CoordinatesError,
    CoordinatesExistError,
    CoordinatesNotFoundError,
    ExEngineError,
    HandlerError,
    HandlerFullError,
    MetadataError,
    StorageFailedError,
    UnsupportedDataError,
)
from exengine.kernel.notifications import DataStoredNotification
from exengine.kernel.system import at_exit

PATIENCE_S = 5


class Memory(DataStorage):
    """Keeps frames in a dict; may be stopped, and may fail."""

    def __init__(self, fail_at=(), error=None):
        self.frames = {}
        self.ends = []
        self.notes = {}
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.fail_at = fail_at
        self.error = error or OSError(28, "No space left on device")

    def put(self, coordinates, data, metadata):
        self.waiting.set()
        assert self.gate.wait(PATIENCE_S)
        if coordinates.get("time") in self.fail_at:
            raise self.error
        if coordinates in self.frames:
            raise CoordinatesExistError(f"a frame is at {coordinates}")
        self.frames[coordinates] = (data.copy(), metadata)

    def get_data(self, coordinates):
        return self._frame(coordinates)[0]

    def get_metadata(self, coordinates):
        return self._frame(coordinates)[1]

    def _frame(self, coordinates):
        if coordinates not in self.frames:
            raise CoordinatesNotFoundError(str(coordinates))
        return self.frames[coordinates]

    def __contains__(self, coordinates):
        return coordinates in self.frames

    def finish(self):
        self.ends.append("finished")

    def abort(self, reason="", *, failed=False):
        self.ends.append(("failed" if failed else "aborted", reason))

    def close(self): ...

    def annotate(self, name, value):
        self.notes[name] = value


@pytest.fixture
def make():
    """Return what makes a handler; all are ended, and their threads gone, at the end of the test."""
    made = []

    def make(storage=None, process_function=None, executor=None, **options):
        handler = DataHandler(storage or Memory(), process_function, executor, **options)
        made.append(handler)
        return handler

    yield make
    for handler in made:
        at_exit.release(handler)  # a handler that hangs shall not hang the end of the tests, too
        getattr(handler._storage, "gate", threading.Event()).set()
        handler.finish()
        for thread in handler._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), f"{thread.name} never ended"


def frame_at(time, shape=(2, 3)):
    return np.full(shape, time, np.uint16)


def put(handler, time, **more):
    handler.put({"time": time}, frame_at(time), {"time": time}, **more)


def end(handler):
    handler.finish()
    handler.await_completion(PATIENCE_S)


def wait_for(condition):
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < limit, "it never became true"
        time.sleep(0.001)


def times_in(storage):
    return [coordinates["time"] for coordinates in storage.frames]


# -- the way of a frame --------------------------------------------------------------------------


def test_every_frame_reaches_the_storage_in_order_and_the_storage_is_finished(make):
    storage = Memory()
    handler = make(storage)
    for number in range(50):
        put(handler, number)
    end(handler)
    assert times_in(storage) == list(range(50)) and storage.ends == ["finished"]
    for number in range(50):
        np.testing.assert_array_equal(storage.frames[DataCoordinates(time=number)][0], frame_at(number))
        assert storage.frames[DataCoordinates(time=number)][1] == {"time": number}
    ledger = handler.ledger
    assert (ledger.offered, ledger.stored, ledger.failed, ledger.dropped) == (50, 50, 0, 0)
    assert ledger.stored_bytes == 50 * frame_at(0).nbytes
    assert ledger.balanced and ledger.complete and storage.notes["ledger"]["stored"] == 50
    assert handler.pending_bytes == 0 and handler.error is None


def test_the_caller_may_use_its_buffer_again_at_once(make):
    storage = Memory()
    storage.gate.clear()
    handler = make(storage)
    buffer, metadata, coordinates = frame_at(0), {"list": [0]}, DataCoordinates(time=0)
    for number in range(5):
        buffer[:] = number
        metadata["list"][0] = number
        coordinates["time"] = number
        handler.put(coordinates, buffer, metadata)
    storage.gate.set()
    end(handler)
    for number in range(5):
        data, kept = storage.frames[DataCoordinates(time=number)]
        assert (data == number).all() and kept == {"list": [number]}


def test_a_frame_that_nobody_changes_need_not_be_copied(make, monkeypatch):
    storage, received = Memory(), []
    monkeypatch.setattr(storage, "put", lambda coordinates, data, metadata: received.append(data))
    handler = make(storage)
    data = frame_at(0)
    handler.put({"time": 0}, data, None, copy=False)
    handler.put({"time": 1}, data, None)
    handler.finish()
    handler.await_completion(PATIENCE_S)
    assert [np.shares_memory(each, data) for each in received] == [True, False]


def test_the_threads_have_names_and_do_not_keep_the_interpreter_alive(make):
    handler = make(process_function=lambda *frame: frame)
    assert {thread.name for thread in handler._threads} == {"exengine-store", "exengine-process"}
    assert all(thread.daemon for thread in handler._threads)


def test_many_producers_lose_nothing(make):
    storage = Memory()
    handler = make(storage, max_pending=10 * frame_at(0).nbytes)

    def produce(first):
        for number in range(first, 400, 8):
            put(handler, number)

    producers = [threading.Thread(target=produce, args=(first,)) for first in range(8)]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()
    end(handler)
    assert sorted(times_in(storage)) == list(range(400))
    assert handler.ledger.complete and handler.ledger.offered == 400


# -- bounded -------------------------------------------------------------------------------------


def test_a_full_queue_lets_the_producer_wait_until_there_is_room(make):
    storage = Memory()
    storage.gate.clear()
    size = frame_at(0).nbytes
    handler = make(storage, max_pending=3 * size)
    most = []

    def produce():
        for number in range(20):
            put(handler, number)
            most.append(handler.pending_bytes)

    producer = threading.Thread(target=produce)
    producer.start()
    wait_for(lambda: handler.pending_bytes == 3 * size)
    assert producer.is_alive() and handler.ledger.offered == 3
    storage.gate.set()
    producer.join(PATIENCE_S)
    end(handler)
    assert max(most) <= 3 * size and times_in(storage) == list(range(20))


def test_a_full_queue_raises_where_the_policy_is_error(make):
    storage = Memory()
    storage.gate.clear()
    size = frame_at(0).nbytes
    handler = make(storage, max_pending=2 * size, when_full="error")
    put(handler, 0)
    put(handler, 1)
    with pytest.raises(HandlerFullError, match=f"{2 * size} of {2 * size} bytes are queued") as info:
        put(handler, 2)
    assert isinstance(info.value, BlockingIOError)
    storage.gate.set()
    wait_for(lambda: handler.pending_bytes == 0)
    put(handler, 3)
    end(handler)
    assert times_in(storage) == [0, 1, 3]
    ledger = handler.ledger
    assert (
        (ledger.offered, ledger.stored, ledger.failed) == (4, 3, 1)
        and ledger.balanced
        and not ledger.complete
    )
    assert ledger.not_stored[0][0] == {"time": 2}
    assert storage.ends[0][0] == "failed"


@pytest.mark.parametrize("when_full", ["block", "error"])
def test_a_frame_larger_than_the_bound_waits_alone(make, when_full):
    storage = Memory()
    handler = make(storage, max_pending=1, when_full=when_full)
    for number in range(3):
        wait_for(lambda: handler.pending_bytes == 0)
        put(handler, number)
    end(handler)
    assert times_in(storage) == [0, 1, 2]


@pytest.mark.parametrize("how", ["finish", "abort"])
def test_a_producer_that_waits_for_room_is_told_when_the_handler_ends(make, how):
    storage = Memory()
    storage.gate.clear()
    handler = make(storage, max_pending=1)
    put(handler, 0)
    told = []

    def produce():
        try:
            put(handler, 1)
        except HandlerError as error:
            told.append(error)

    producer = threading.Thread(target=produce)
    producer.start()
    handler.finish() if how == "finish" else handler.abort("no light")
    producer.join(PATIENCE_S)
    assert not producer.is_alive() and "accepts no more frames" in str(told[0])
    storage.gate.set()
    handler.await_completion(PATIENCE_S)
    assert times_in(storage) == [0] and storage.ends[0][0] == "failed"
    assert handler.ledger.balanced and not handler.ledger.complete


@pytest.mark.parametrize(
    "options",
    [
        {"max_pending": 0},
        {"max_pending": -1},
        {"max_pending": 1.5},
        {"max_frames": 0},
        {"max_frames": True},
        {"when_full": "dorp"},
        {"block_timeout_s": 0},
        {"block_timeout_s": float("nan")},
        {"block_timeout_s": "1"},
        {"sync_every_s": 0},
        {"sync_every_s": True},
        {"workers": 0},
        {"workers": 65},
        {"on_process_error": None},
    ],
)
def test_wrong_options_are_an_error_of_ours_and_start_no_thread(options):
    before = threading.active_count()
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be ") as info:
        DataHandler(Memory(), **options)
    assert threading.active_count() == before
    assert isinstance(info.value, ExEngineError)


# -- errors --------------------------------------------------------------------------------------


def test_an_error_of_the_storage_reaches_the_next_put_and_the_end(make):
    storage = Memory(fail_at=[1])
    handler = make(storage)
    put(handler, 0)
    put(handler, 1)
    wait_for(lambda: handler.error is not None)
    with pytest.raises(HandlerError, match="No space left on device; this frame was not accepted") as info:
        put(handler, 2)
    assert info.value.__cause__ is storage.error
    handler.finish()
    for _ in range(2):
        with pytest.raises(HandlerError, match="No space left.*frames not stored: 2") as info:
            handler.await_completion(PATIENCE_S)
        assert info.value.__cause__ is storage.error
    assert times_in(storage) == [0]
    assert storage.ends == [("failed", "[Errno 28] No space left on device")]
    ledger = handler.ledger
    assert (ledger.offered, ledger.stored, ledger.failed_in, ledger.failed_out) == (
        3,
        1,
        1,
        1,
    ) and ledger.balanced
    assert [where for where, _ in ledger.not_stored] == [{"time": 1}, {"time": 2}]


@pytest.mark.parametrize(
    "error", [OSError(5, "x"), ValueError("x"), SystemExit(1), KeyboardInterrupt(), MemoryError()]
)
def test_whatever_the_storage_raises_the_frames_that_wait_are_tried_and_nothing_hangs(make, error):
    storage = Memory(fail_at=[2], error=error)
    storage.gate.clear()
    handler = make(storage)
    for number in range(6):
        put(handler, number)
    storage.gate.set()
    handler.finish()
    with pytest.raises(HandlerError) as info:
        handler.await_completion(PATIENCE_S)
    assert info.value.__cause__ is error
    assert times_in(storage) == [0, 1, 3, 4, 5] and handler.pending_bytes == 0


def test_producers_that_wait_for_room_are_told_of_the_error(make):
    storage = Memory(fail_at=[0])
    storage.gate.clear()
    handler = make(storage, max_pending=1)
    told = []

    def produce():
        try:
            for number in range(100):
                put(handler, number)
        except HandlerError as error:
            told.append(error)

    producer = threading.Thread(target=produce)
    producer.start()
    assert storage.waiting.wait(PATIENCE_S)
    storage.gate.set()
    producer.join(PATIENCE_S)
    assert not producer.is_alive() and told[0].__cause__ is storage.error


@pytest.mark.parametrize("where", ["finish", "annotate"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left"), StorageFailedError("no"), RuntimeError("odd"), SystemExit()]
)
def test_an_error_at_the_end_reaches_the_caller_and_the_storage_is_ended_all_the_same(make, where, error):
    storage = Memory()

    def raise_error(*_, **__):
        raise error

    setattr(storage, where, raise_error)
    handler = make(storage)
    put(handler, 0)
    handler.finish()
    with pytest.raises(HandlerError, match="the dataset was not finished correctly") as info:
        handler.await_completion(PATIENCE_S)
    assert info.value.__cause__ is error
    if where == "annotate":
        assert storage.ends and storage.ends[0][0] == "failed"


def test_two_frames_at_the_same_coordinates_are_an_error_and_the_first_stays(make):
    storage = Memory()
    storage.gate.clear()
    handler = make(storage)
    handler.put({"time": 0}, frame_at(1), {"which": "first"})
    handler.put({"time": 0}, frame_at(2), {"which": "second"})
    storage.gate.set()
    handler.finish()
    with pytest.raises(HandlerError, match="frames not stored: 1") as info:
        handler.await_completion(PATIENCE_S)
    assert isinstance(info.value.__cause__, CoordinatesExistError)
    assert storage.frames[DataCoordinates(time=0)][1] == {"which": "first"}
    assert handler.ledger.not_stored[0][0] == {"time": 0}
    assert (handler.get({"time": 0})[0] == 1).all()


@pytest.mark.parametrize(
    ("error", "coordinates", "image", "metadata"),
    [
        (CoordinatesError, {"time": 1.5}, frame_at(0), {}),
        (CoordinatesError, None, frame_at(0), {}),
        (CoordinatesError, [1], frame_at(0), {}),
        (UnsupportedDataError, {"time": 0}, [[1]], {}),
        (UnsupportedDataError, {"time": 0}, None, {}),
        (MetadataError, {"time": 0}, frame_at(0), {"a": float("nan")}),
        (MetadataError, {"time": 0}, frame_at(0), {1}),
    ],
)
def test_a_frame_that_is_not_valid_is_refused_and_counted_and_the_others_go_on(
    make, error, coordinates, image, metadata
):
    storage = Memory()
    handler = make(storage)
    with pytest.raises(error):
        handler.put(coordinates, image, metadata)
    put(handler, 5)
    end(handler)
    assert times_in(storage) == [5]
    ledger = handler.ledger
    assert (
        (ledger.offered, ledger.stored, ledger.failed) == (2, 1, 1)
        and ledger.balanced
        and len(ledger.not_stored) == 1
    )
    assert storage.ends[0][0] == "failed"


def test_after_the_end_no_frame_is_taken(make):
    handler = make()
    end(handler)
    with pytest.raises(HandlerError, match="the handler is finished and accepts no more frames"):
        put(handler, 0)


def test_waiting_for_the_end_runs_out_of_time_where_frames_still_wait(make):
    storage = Memory()
    storage.gate.clear()
    handler = make(storage)
    put(handler, 0)
    handler.finish()
    with pytest.raises(TimeoutError, match=r"still being stored after 0\.01 s"):
        handler.await_completion(0.01)
    storage.gate.set()
    handler.await_completion(PATIENCE_S)


def test_finishing_twice_ends_the_storage_once(make):
    storage = Memory()
    handler = make(storage)
    for _ in range(3):
        end(handler)
    assert storage.ends == ["finished"]


def test_an_abort_stores_what_was_accepted_and_marks_the_dataset(make):
    storage = Memory()
    storage.gate.clear()
    handler = make(storage)
    put(handler, 0)
    put(handler, 1)
    handler.abort("no light")
    handler.abort("another reason")
    storage.gate.set()
    handler.await_completion(PATIENCE_S)
    assert times_in(storage) == [0, 1] and storage.ends == [("aborted", "no light")]


# -- the process function ------------------------------------------------------------------------


def test_a_process_function_may_change_frames(make):
    def double(coordinates, data, metadata):
        return coordinates.replace(channel="doubled"), data * 2, {**metadata, "gain": 2}

    storage = Memory()
    handler = make(storage, double)
    for number in range(5):
        put(handler, number)
    end(handler)
    for number in range(5):
        data, metadata = storage.frames[DataCoordinates(time=number, channel="doubled")]
        assert (data == 2 * number).all() and metadata == {"time": number, "gain": 2}
    assert handler.ledger.complete and handler.ledger.stored == 5


def test_a_process_function_may_return_one_buffer_again_and_again(make):
    buffer, told, storage = np.zeros((4, 4), np.uint16), {}, Memory()
    storage.gate.clear()  # so that all wait when the last one is made

    def process(coordinates, data, metadata):
        buffer[:] = data + 1
        told["time"] = coordinates["time"]
        return coordinates, buffer, told

    handler = make(storage, process)
    for number in range(5):
        handler.put({"time": number}, np.full((4, 4), number, np.uint16), {})
    wait_for(lambda: handler.ledger.produced == 5)
    storage.gate.set()
    handler.finish()
    handler.await_completion(PATIENCE_S)
    for number in range(5):
        data, metadata = storage.frames[DataCoordinates(time=number)]
        assert (data == number + 1).all() and metadata == {"time": number}


def test_an_interrupt_when_a_frame_was_taken_counts_it_once(make):
    handler = make()
    handler.put({"time": 0}, np.zeros((2, 2)), {})
    wait_for(lambda: handler.ledger.stored == 1)
    flight = handler._flight
    wait_for(lambda: flight.arrivals.tickets)  # the store thread sleeps, so the next frame wakes it
    real = flight.arrivals.tickets

    class Interrupted(deque):
        def popleft(self):
            flight.arrivals.tickets = real
            raise KeyboardInterrupt

    flight.arrivals.tickets = Interrupted(real)
    with pytest.raises(KeyboardInterrupt):
        handler.put({"time": 1}, np.zeros((2, 2)), {})
    handler.finish()
    handler.await_completion(PATIENCE_S)
    ledger = handler.ledger
    assert (ledger.offered, ledger.stored, ledger.failed, ledger.not_stored) == (2, 2, 0, [])
    assert ledger.complete


@pytest.mark.parametrize("coordinates", [{"channel": "\udc80"}, {"time": 10**5000}, {"\udc80": 1}])
def test_a_frame_that_cannot_even_be_named_in_json_leaves_the_ledger_with_the_dataset(
    disk_storage, tmp_path, coordinates
):
    handler = DataHandler(disk_storage(tmp_path / "data"))
    handler.put({"time": 0}, np.zeros((2, 2)), {})
    with pytest.raises(CoordinatesError):
        handler.put(coordinates, np.zeros((2, 2)), {})
    handler.finish()
    handler.await_completion(PATIENCE_S)
    dataset = open_dataset(tmp_path / "data")
    assert dataset.annotations["ledger"]["failed"] == 1
    assert dataset.status == "failed" and dataset.status_reason == "some frames were not stored"


def test_a_process_function_may_discard_and_multiply(make):
    def choose(coordinates, data, metadata):
        if coordinates["time"] % 2:
            return None
        return [(coordinates.replace(copy=copy), data, metadata) for copy in range(coordinates["time"] // 2)]

    storage = Memory()
    handler = make(storage, choose)
    for number in range(7):
        put(handler, number)
    end(handler)
    ledger = handler.ledger
    assert (ledger.offered, ledger.discarded, ledger.passed_on, ledger.produced, ledger.stored) == (
        7,
        4,
        3,
        6,
        6,
    )
    assert ledger.complete and storage.ends == ["finished"] and len(storage.frames) == 6


@pytest.mark.parametrize(
    "results", [lambda c, d, m: ((c, d, m),), lambda c, d, m: iter([(c, d, m)]), lambda c, d, m: [[c, d, m]]]
)
def test_a_process_function_may_return_frames_in_any_sequence(make, results):
    storage = Memory()
    handler = make(storage, results)
    put(handler, 3)
    end(handler)
    assert times_in(storage) == [3]


def raise_value_error(*frame):
    raise ValueError("not today")


def raise_exit(*frame):
    raise SystemExit(1)


FAULTY_FUNCTIONS = {
    "raises": raise_value_error,
    "exits": raise_exit,
    "returns a number": lambda c, d, m: 5,
    "returns a pair": lambda c, d, m: (c, d),
    "returns pixels": lambda c, d, m: d,
    "returns text": lambda c, d, m: "abc",
    "returns bad coordinates": lambda c, d, m: ({"time": 1.5}, d, m),
    "raises half way": lambda c, d, m: ((c, d, m) if k else raise_value_error() for k in (1, 0)),
}


@pytest.mark.parametrize("name", FAULTY_FUNCTIONS)
def test_a_process_function_that_is_at_fault_loses_its_frame_only_and_nothing_hangs(make, name):
    storage = Memory()
    gate = threading.Event()

    def process(coordinates, data, metadata):
        assert gate.wait(PATIENCE_S)
        if coordinates["time"] == 1:
            return FAULTY_FUNCTIONS[name](coordinates, data, metadata)
        return coordinates, data, metadata

    handler = make(storage, process)
    for number in range(4):
        put(handler, number)
    gate.set()
    handler.finish()
    with pytest.raises(HandlerError, match="frames not stored: 1"):
        handler.await_completion(PATIENCE_S)
    assert times_in(storage) == [0, 2, 3] and storage.ends[0][0] == "failed"
    ledger = handler.ledger
    assert (ledger.offered, ledger.failed_in, ledger.stored) == (4, 1, 3) and ledger.balanced
    assert ledger.not_stored[0][0] == {"time": 1} and handler.pending_bytes == 0


def test_frames_in_processing_count_as_waiting(make):
    gate, size = threading.Event(), frame_at(0).nbytes
    handler = make(
        None, lambda *frame: gate.wait(PATIENCE_S) and frame, max_pending=2 * size, when_full="error"
    )
    put(handler, 0)
    put(handler, 1)
    with pytest.raises(HandlerFullError):
        put(handler, 2)
    gate.set()
    wait_for(lambda: handler.pending_bytes == 0)


# -- reading back --------------------------------------------------------------------------------


def test_a_frame_can_be_had_on_its_way_and_when_it_is_stored(make):
    storage = Memory()
    storage.gate.clear()
    handler = make(storage)
    put(handler, 1)
    for _ in range(2):
        data, metadata = handler.get({"time": 1})
        np.testing.assert_array_equal(data, frame_at(1))
        assert metadata == {"time": 1}
        storage.gate.set()
        wait_for(lambda: storage.frames)
    with pytest.raises(CoordinatesNotFoundError):
        handler.get({"time": 2})
    assert handler.get({"time": 1}, return_data=False) == (None, {"time": 1})
    assert handler.get({"time": 1}, return_metadata=False)[1] is None


def test_processed_true_gives_a_frame_only_when_the_process_function_has_seen_it(make):
    storage, gate, entered = Memory(), threading.Event(), threading.Event()
    storage.gate.clear()

    def process(coordinates, data, metadata):
        entered.set()
        assert gate.wait(PATIENCE_S)
        return coordinates, data + 1, metadata

    handler = make(storage, process)
    put(handler, 1)
    assert entered.wait(PATIENCE_S)
    assert handler.get({"time": 1}, processed=True) is None
    assert (handler.get({"time": 1})[0] == 1).all()
    gate.set()
    wait_for(lambda: handler.get({"time": 1}, processed=True) is not None)
    assert (handler.get({"time": 1}, processed=True)[0] == 2).all()
    storage.gate.set()
    end(handler)
    assert (handler.get({"time": 1}, processed=True)[0] == 2).all()


def test_without_a_process_function_every_frame_counts_as_processed(make):
    storage = Memory()
    storage.gate.clear()
    handler = make(storage)
    put(handler, 1)
    assert (handler.get({"time": 1}, processed=True)[0] == 1).all()


# -- observers -----------------------------------------------------------------------------------


class Future:
    def __init__(self, error=None):
        self.told = []
        self.error = error

    def _notify_data(self, coordinates, data, metadata, *, processed, stored):
        self.told.append((dict(coordinates), int(data[0, 0]), metadata, processed, stored))
        if self.error is not None:
            raise self.error


def test_a_future_is_told_when_its_frame_arrives_and_when_it_is_stored(make):
    handler = make()
    future = Future()
    put(handler, 3, execution_future=future)
    put(handler, 4)
    end(handler)
    wait_for(lambda: len(future.told) == 2)
    assert {told[4] for told in future.told} == {False, True}
    assert all(told[:3] == ({"time": 3}, 3, {"time": 3}) for told in future.told)


def test_a_future_is_told_when_its_frame_is_processed(make):
    handler = make(None, lambda c, d, m: (c, d + 1, m))
    future = Future()
    put(handler, 3, execution_future=future)
    end(handler)
    wait_for(lambda: len(future.told) == 3)
    assert sorted((processed, stored, value) for _, value, _, processed, stored in future.told) == [
        (False, False, 3),
        (True, False, 4),
        (True, True, 4),
    ]


def test_an_executor_is_told_of_every_stored_frame(make):
    class Executor:
        def __init__(self):
            self.told = []

        def publish_notification(self, notification):
            self.told.append(notification)

    executor = Executor()
    handler = make(Memory(fail_at=[1]), None, executor)
    put(handler, 0)
    put(handler, 1)
    handler.finish()
    with pytest.raises(HandlerError):
        handler.await_completion(PATIENCE_S)
    (told,) = executor.told
    assert type(told) is DataStoredNotification and told.payload == {"time": 0} and told.timestamp


@pytest.mark.parametrize("error", [RuntimeError("odd"), SystemExit(1), KeyboardInterrupt()])
@pytest.mark.parametrize("process_function", [None, lambda *frame: frame], ids=["stored", "processed"])
def test_an_observer_that_raises_stops_no_frame_and_is_reported(make, caplog, error, process_function):
    class Executor:
        def publish_notification(self, notification):
            raise error

    class Shy(Future):
        """Raises on the threads of the handler only."""

        def _notify_data(self, *frame, processed, stored):
            if processed:
                raise error

    storage = Memory()
    handler = make(storage, process_function, Executor())
    with caplog.at_level(logging.ERROR, "exengine"):
        for number in range(3):
            put(handler, number, execution_future=Shy())
        end(handler)
    assert times_in(storage) == [0, 1, 2] and handler.ledger.complete and storage.ends == ["finished"]
    assert "raised an exception when notified of the frame" in caplog.text


# -- the ledger balances -------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(
        st.sampled_from(
            ["good", "same", "bad coordinates", "bad metadata", "fails", "discarded", "doubled", "breaks"]
        ),
        max_size=25,
    ),
    processing=st.booleans(),
    bound=st.sampled_from([1, 50, 10_000]),
)
def test_n4_the_ledger_balances_whatever_becomes_of_the_frames(frames, processing, bound):
    def process(coordinates, data, metadata):
        kind = metadata["kind"]
        if kind == "breaks":
            raise ValueError(kind)
        if kind == "discarded":
            return None
        if kind == "doubled":
            return [(coordinates, data, metadata), (coordinates.replace(copy=1), data, metadata)]
        return coordinates, data, metadata

    storage = Memory(
        fail_at=[number for number, kind in enumerate(frames) if kind == "fails"], error=ValueError("x")
    )
    handler = DataHandler(storage, process if processing else None, max_pending=bound)
    refused = 0
    for number, kind in enumerate(frames):
        try:
            handler.put(
                {"time": 1.5 if kind == "bad coordinates" else -1 if kind == "same" else number},
                frame_at(number),
                {"kind": {1} if kind == "bad metadata" else kind},
            )
        except ExEngineError:
            refused += 1
    handler.finish()
    try:
        handler.await_completion(PATIENCE_S)
    except HandlerError:
        assert not handler.ledger.complete
    ledger = handler.ledger
    assert ledger.balanced and ledger.offered == len(frames) and handler.pending_bytes == 0
    assert ledger.stored == len(storage.frames) and ledger.failed >= refused
    assert len(ledger.not_stored) == ledger.failed + ledger.dropped
    assert storage.ends == (["finished"] if ledger.complete else [storage.ends[0]])
    assert (storage.ends[0] == "finished") is (ledger.failed == 0)
    assert storage.notes["ledger"]["balanced"] is True
    for thread in handler._threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


# -- with a storage on the disk ------------------------------------------------------------------


def test_an_error_of_the_disk_is_told_with_its_cause_and_the_dataset_is_failed(make, disk_storage, tmp_path):
    storage = disk_storage(tmp_path / "data", fail_at=2)
    handler = make(storage)
    for number in range(2):
        put(handler, number)
    wait_for(lambda: handler.ledger.stored == 2)
    put(handler, 2)
    handler.finish()
    with pytest.raises(HandlerError, match="No space left") as info:
        handler.await_completion(PATIENCE_S)
    assert isinstance(info.value.__cause__, StorageFailedError)
    storage.close()
    dataset = open_dataset(tmp_path / "data")
    assert dataset.status is DatasetStatus.FAILED and [c["time"] for c in dataset] == [0, 1]


def test_the_ledger_is_kept_with_the_dataset(make, disk_storage, tmp_path):
    storage = disk_storage(tmp_path / "data")
    handler = make(storage)
    put(handler, 0)
    end(handler)
    storage.close()
    ledger = open_dataset(tmp_path / "data").annotations["ledger"]
    assert (ledger["offered"], ledger["stored"], ledger["balanced"]) == (1, 1, True)


# -- the end of the program ----------------------------------------------------------------------

PROGRAM = """
import sys, threading, time, numpy as np
from exengine.kernel.data_handler import DataHandler
from exengine_disk import DiskStorage

class Slow(DiskStorage):
    def write_frame(self, *frame):
        time.sleep(0.01)
        super().write_frame(*frame)

def work(**options):
    handler = DataHandler(Slow(sys.argv[1]), **options)
    for number in range(20):
        handler.put({"time": number}, np.full((2, 3), number, np.uint16), {})
    return handler
"""


def assert_all_there(path, status, frames=20):
    dataset = open_dataset(path)
    assert dataset.status is status
    assert [c["time"] for c in dataset] == list(range(frames))
    for c in dataset:
        assert (dataset[c] == c["time"]).all()


@pytest.mark.parametrize("keep", ["handler = work()", "work()"], ids=["kept", "dropped"])
@pytest.mark.parametrize("options", [["-W", "always"], ["-W", "error"]], ids=["warned", "strict"])
def test_n5_forgetting_finish_neither_loses_frames_nor_keeps_the_interpreter_alive(
    installed, run_python, tmp_path, keep, options
):
    result = run_python(PROGRAM + keep, tmp_path / "data", timeout=30, options=options)
    assert_all_there(tmp_path / "data", DatasetStatus.ABORTED)
    assert "a DataHandler was not finished before the program ended" in result.stderr


def test_n5_also_when_the_program_ends_by_an_exception(installed, run_python, tmp_path):
    result = run_python(
        PROGRAM + "handler = work()\nraise ValueError('no light')", tmp_path / "data", check=False
    )
    assert result.returncode == 1 and "no light" in result.stderr
    assert_all_there(tmp_path / "data", DatasetStatus.ABORTED)


def test_a_handler_that_was_finished_but_not_awaited_completes_its_dataset(installed, run_python, tmp_path):
    result = run_python(PROGRAM + "work().finish()", tmp_path / "data", options=["-W", "always"])
    assert_all_there(tmp_path / "data", DatasetStatus.COMPLETE)
    assert "was not finished" not in result.stderr


def test_an_error_at_the_end_of_the_program_is_printed(installed, run_python, tmp_path):
    program = PROGRAM + "handler = work()\nhandler._storage.fail_at = 19"
    result = run_python(program, tmp_path / "data")
    assert_all_there(tmp_path / "data", DatasetStatus.FAILED, 19)
    assert "No space left" in result.stderr


def test_a_handler_and_its_storage_are_freed_when_they_have_ended(make):
    import weakref

    storage = Memory()
    handler = DataHandler(storage)
    put(handler, 0)
    end(handler)
    for thread in handler._threads:
        thread.join(PATIENCE_S)
    watched = weakref.ref(handler), weakref.ref(storage)
    del handler, storage, thread
    gc.collect()
    assert [each() for each in watched] == [None, None]


def test_a_forked_child_is_told_that_the_handler_is_not_its_own(installed, run_python, tmp_path):
    program = """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # the threads are there on purpose
handler = work()
child = os.fork()
if not child:
    __import__("signal").alarm(10)
    for call in (lambda: handler.put({"time": 99}, np.zeros((2, 3)), {}), lambda: handler.await_completion(5)):
        try: call()
        except Exception as error: print(type(error).__name__, flush=True)
    handler.finish()
    sys.exit()
os.waitpid(child, 0)
handler.finish()
handler.await_completion()
print("parent")
"""
    result = run_python(PROGRAM + program, tmp_path / "data", timeout=30)
    assert result.stdout.split() == ["HandlerError", "HandlerError", "parent"]
    assert_all_there(tmp_path / "data", DatasetStatus.COMPLETE)


def test_a_process_function_may_set_an_axis_of_its_coordinates():
    def process(coordinates, data, metadata):
        coordinates.z = 5
        return coordinates, data, metadata

    storage = Memory()
    handler = DataHandler(storage, process)
    handler.put({"time": 0}, np.zeros((2, 2)), {})
    handler.finish()
    handler.await_completion()
    assert [dict(where) for where in storage.frames] == [{"time": 0, "z": 5}]


def test_a_frame_that_was_refused_and_is_put_again_counts_once_and_the_dataset_is_complete():
    storage = Memory()
    storage.gate.clear()
    handler = DataHandler(storage, max_pending=100, when_full="error")
    big = np.zeros(90, np.uint8)
    handler.put({"time": 0}, big, {})
    for _ in range(3):
        with pytest.raises(HandlerFullError):
            handler.put({"time": 1}, big, {})
    with pytest.raises(MetadataError):
        handler.put({"time": 2}, big, {"a": float("nan")})
    assert (handler.ledger.offered, handler.ledger.failed) == (5, 4)
    storage.gate.set()
    deadline = time.monotonic() + PATIENCE_S
    for number in (1, 2):
        while time.monotonic() < deadline:
            try:
                handler.put({"time": number}, big, {"a": None})
            except HandlerFullError:
                time.sleep(0.001)
                continue
            break
    handler.finish()
    handler.await_completion()
    ledger = handler.ledger
    assert (ledger.offered, ledger.stored, ledger.not_stored, ledger.complete) == (3, 3, [], True)
    assert storage.ends == ["finished"]


def test_a_frame_that_was_refused_and_never_put_again_is_lost_and_named():
    storage = Memory()
    handler = DataHandler(storage)
    handler.put({"time": 0}, np.zeros(2), {})
    with pytest.raises(MetadataError):
        handler.put({"time": 1}, np.zeros(2), {"a": float("nan")})
    handler.finish()
    handler.await_completion()
    assert [where for where, _ in handler.ledger.not_stored] == [{"time": 1}]
    assert not handler.ledger.complete and storage.ends[0][0] == "failed"


class Plain:
    """A storage of somebody's own, which is no subclass of anything."""

    def __init__(self):
        self.frames, self.ends = {}, []

    def put(self, coordinates, data, metadata):
        self.frames[coordinates] = data

    def finish(self):
        self.ends.append("finish")


class OwnNames(Memory):
    """Has methods of the names of ours, with a meaning of their own."""

    def abort(self):
        raise AssertionError("this abort is somebody's own")

    def annotate(self, text):
        raise AssertionError("this annotate is somebody's own")


@pytest.mark.parametrize("make", [Plain, OwnNames])
@pytest.mark.parametrize("fails", [False, True])
def test_a_storage_that_knows_nothing_of_ours_is_finished_however_it_ends(make, fails):
    def process(coordinates, data, metadata):
        if fails and coordinates["time"] == 1:
            raise ValueError("no")
        return coordinates, data, metadata

    storage = make()
    handler = DataHandler(storage, process)
    handler.put({"time": 0}, np.zeros((2, 2)), {})
    handler.put({"time": 1}, np.zeros((2, 2)), {})
    handler.finish()
    if fails:
        with pytest.raises(HandlerError, match="no; frames not stored: 1"):
            handler.await_completion()
    else:
        handler.await_completion()
    assert len(storage.frames) == (1 if fails else 2)
    assert storage.ends in (["finish"], ["finished"], ["complete"])


def test_a_mock_is_a_storage():
    storage = unittest.mock.MagicMock()
    handler = DataHandler(storage)
    handler.put({"time": 0}, np.zeros((2, 2)), {})
    handler.finish()
    handler.await_completion()
    storage.put.assert_called_once()
    storage.finish.assert_called_once_with()
