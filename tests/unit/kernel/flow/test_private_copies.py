"""No other code can change a frame in flight, and no failure of a thread keeps a caller waiting."""

import contextlib
import threading

import numpy as np
import pytest

import exengine
from exengine import DataHandler
from exengine.errors import CoordinatesError, HandlerError, HandlerFullError
from exengine.kernel.flow.frame_buffers import FrameBuffers
from exengine.kernel.flow.queued_frame import QueuedFrame
from exengine.kernel.system import at_exit


def finished(handler):
    handler.finish()
    handler.await_completion(20)
    return handler.ledger


def test_a_generator_may_change_the_array_that_it_received_after_it_has_yielded_it(held_storage):
    def process(coordinates, data, metadata):
        yield {**coordinates, "channel": "raw"}, data, metadata
        data += 1
        yield {**coordinates, "channel": "changed"}, data, metadata

    handler = DataHandler(held_storage, process)
    handler.put({"time": 0}, np.zeros((4, 4), np.uint8), {})
    finished(handler)
    assert held_storage.get_data({"time": 0, "channel": "raw"}).max() == 0
    assert held_storage.get_data({"time": 0, "channel": "changed"}).min() == 1


@pytest.mark.parametrize("how", ["get", "await_data"])
def test_a_reader_cannot_change_a_frame_in_flight(held_storage, how):
    entered, proceed = threading.Event(), threading.Event()

    def observe(coordinates):
        entered.set()
        assert proceed.wait(20)

    handler = DataHandler(held_storage, on_stored=observe)
    handler.put({"time": 0}, np.zeros((4, 4), np.uint8), {"a": [1]})
    assert entered.wait(20)  # the store thread is busy
    handler.put({"time": 1}, np.zeros((4, 4), np.uint8), {"a": [1]})
    data, metadata = getattr(handler, how)({"time": 1})
    data[:] = 99
    metadata["a"].append(2)
    proceed.set()
    finished(handler)
    assert held_storage.get_data({"time": 1}).max() == 0
    assert held_storage.get_metadata({"time": 1}) == {"a": [1]}


def test_a_frame_of_which_no_raw_copy_can_be_made_is_counted_as_lost(held_storage, monkeypatch):
    class Scarce(np.ndarray):
        def copy(self, *order):
            raise MemoryError("no memory")

    handler = DataHandler(held_storage, lambda *frame: frame, on_process_error="raw")
    handler.put({"time": 0}, np.zeros((4, 4)).view(Scarce), {}, copy=False)
    handler.put({"time": 1}, np.zeros((4, 4)), {})
    ledger = finished_with_loss(handler)
    assert (ledger.offered, ledger.stored, ledger.failed) == (2, 1, 1)


def finished_with_loss(handler):
    handler.finish()
    with contextlib.suppress(HandlerError):
        handler.await_completion(20)
    return handler.ledger


def test_an_error_outside_of_the_process_function_ends_the_handler(held_storage, monkeypatch):
    monkeypatch.setattr("exengine.kernel.flow.processing.Processing._process", lambda *_: 1 / 0)
    handler = DataHandler(held_storage, lambda *frame: frame)
    handler.put({"time": 0}, np.zeros((4, 4)), {})
    handler.finish()
    with pytest.raises(HandlerError) as caught:
        handler.await_completion(20)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("started", [0, 1])
def test_a_handler_whose_threads_cannot_be_started_keeps_nobody_waiting(held_storage, monkeypatch, started):
    original, calls = threading.Thread.start, []

    def start(self):
        calls.append(self)
        if len(calls) > started:
            raise RuntimeError("can't start new thread")
        original(self)

    seen = []
    monkeypatch.setattr(at_exit, "watch_handler", seen.append)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            DataHandler(held_storage, lambda *frame: frame)
    with pytest.raises(HandlerError):
        seen[0].await_completion(20)


def test_a_frame_that_was_rejected_a_thousand_times_and_then_accepted_counts_once(held_storage):
    proceed = threading.Event()
    handler = DataHandler(held_storage, on_stored=lambda _: proceed.wait(20), max_frames=1, when_full="error")
    frame = np.zeros((4, 4), np.uint8)
    handler.put({"time": 0}, frame, {})
    waiting = 1
    for _ in range(1500):
        try:
            handler.put({"time": waiting}, frame, {})
            waiting += 1
        except HandlerFullError:
            pass
    proceed.set()
    while True:
        try:
            handler.put({"time": waiting}, frame, {})
            break
        except HandlerFullError:
            pass
    ledger = finished(handler)
    assert ledger.complete and ledger.offered == ledger.stored == waiting + 1
    assert ledger.not_stored == []


def test_a_frame_that_was_dropped_stays_dropped_when_a_rejected_one_at_its_place_is_accepted(held_storage):
    entered, proceed = threading.Event(), threading.Event()

    def observe(coordinates):
        entered.set()
        proceed.wait(20)

    handler = DataHandler(held_storage, on_stored=observe, max_frames=1, when_full="drop")
    frame = np.zeros((4, 4), np.uint8)
    handler.put({"time": 0}, frame, {})
    assert entered.wait(20)
    handler.put({"time": 1}, frame, {})
    handler.put({"time": 2}, frame, {})  # dropped
    assert handler.ledger.dropped == 1
    with pytest.raises(Exception, match="metadata"):
        handler.put({"time": 2}, frame, {"a": object()})
    proceed.set()
    while handler.pending_bytes:
        pass
    handler.put({"time": 2}, frame, {})
    ledger = finished_with_loss(handler)
    assert (ledger.offered, ledger.stored, ledger.dropped, ledger.failed) == (4, 3, 1, 0)
    assert ledger.balanced and len(ledger.not_stored) == 1


def test_a_slab_can_be_used_after_a_lack_of_memory(monkeypatch):
    buffers, frame = FrameBuffers(), np.arange(2**16, dtype=np.uint8).reshape(256, 256)
    for _ in range(2**22 // frame.nbytes):
        buffers.copy(frame)

    def no_memory(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", no_memory)
        with pytest.raises(MemoryError):
            buffers.copy(frame)
    for _ in range(300):
        np.testing.assert_array_equal(buffers.copy(frame), frame)


def test_a_future_with_a_faulty_attribute_does_not_stop_the_flow():
    class Faulty:
        def __getattr__(self, name):
            raise OSError("no such attribute")

    item = QueuedFrame(exengine.DataCoordinates(time=0), np.zeros(1), {}, Faulty(), False)
    item.notify_of_loss(CoordinatesError("lost"))


def test_the_end_of_the_program_sees_a_set_that_other_threads_change():
    class Changing(set):
        rounds = 0

        def __iter__(self):
            Changing.rounds += 1
            if Changing.rounds < 3:
                raise RuntimeError("Set changed size during iteration")
            return super().__iter__()

    assert at_exit._members(Changing({1})) == [1]


def test_a_result_that_waits_for_room_is_found(held_storage):
    held_storage.gate.clear()
    handler = DataHandler(
        held_storage, lambda *frame: [frame, ({"time": 9}, frame[1], frame[2])], max_frames=1
    )
    handler.put({"time": 0}, np.ones((4, 4), np.uint8), {})
    data, _ = handler.await_data({"time": 9}, timeout=20)
    assert data.min() == 1
    held_storage.gate.set()
    finished(handler)
