"""Full queues: memory stays within the bound, the ledger balances to the frame, and nothing hangs."""

import threading
import time

import numpy as np
import pytest

from exengine.kernel.data_handler import DataHandler
from exengine.kernel.errors import HandlerError, HandlerFullError
from exengine.testing import forget_peak, peak_mib

pytestmark = pytest.mark.once

PATIENCE_S = 10


class Slow:
    """A storage that takes its time for each frame, and keeps only the times of the frames."""

    def __init__(self, delay_s=0.0):
        self.delay_s = delay_s
        self.times = []
        self.gate = threading.Event()
        self.gate.set()

    def put(self, coordinates, data, metadata):
        assert self.gate.wait(PATIENCE_S)
        time.sleep(self.delay_s)
        self.times.append(coordinates["time"])
        assert data[0, 0] == coordinates["time"]

    def __contains__(self, coordinates):
        return coordinates["time"] in self.times

    def finish(self): ...


def frame_at(number, shape=(8, 8)):
    return np.full(shape, number, np.uint16)


def ended(handler):
    handler.finish()
    handler.await_completion(PATIENCE_S)


@pytest.mark.parametrize("delay_s", [0.005, 0.05, 0.5])
@pytest.mark.parametrize("when_full", ["block", "drop", "error"])
def test_under_each_policy_memory_is_bounded_and_the_ledger_balances_to_the_frame(when_full, delay_s):
    shape, bound = (512, 512), 8 * 2**20  # half a mebibyte each: at most 16 in the queue
    count = min(200, int(2 / delay_s))
    storage = Slow(delay_s)
    buffer = np.empty(shape, np.uint16)
    before = forget_peak()
    handler = DataHandler(storage, max_pending=bound, when_full=when_full, block_timeout_s=PATIENCE_S)
    refused = 0
    for number in range(count):
        buffer[:] = number
        try:
            handler.put({"time": number}, buffer, None)
        except HandlerFullError:
            refused += 1
    ended(handler)
    assert peak_mib() - before <= bound / 2**20 + 64
    ledger = handler.ledger
    assert ledger.balanced and ledger.offered == count
    assert ledger.stored == len(storage.times) and ledger.most_bytes <= bound
    assert storage.times == sorted(storage.times)
    named = [where["time"] for where, _ in ledger.not_stored]
    assert sorted(storage.times + named) == list(range(count))
    if when_full == "block":
        assert (ledger.stored, ledger.stalled > 0) == (count, count > 16)
    elif when_full == "drop":
        assert (ledger.dropped, ledger.failed, refused) == (len(named), 0, 0)
    else:
        assert (ledger.failed_in, ledger.dropped) == (refused, 0)


def test_frames_are_dropped_the_newest_first_and_named_with_the_reason():
    storage = Slow()
    storage.gate.clear()
    handler = DataHandler(storage, max_frames=3, when_full="drop")
    for number in range(6):
        handler.put({"time": number}, frame_at(number), None)
    assert handler.ledger.dropped == 3
    storage.gate.set()
    ended(handler)
    assert storage.times == [0, 1, 2] and not handler.ledger.complete and handler.ledger.balanced
    assert handler.ledger.not_stored == [
        ({"time": number}, "dropped, because 3 of 3 frames are queued") for number in (3, 4, 5)
    ]


def test_the_number_of_frames_is_bounded_and_said_in_the_error():
    storage = Slow()
    storage.gate.clear()
    handler = DataHandler(storage, max_frames=2, when_full="error")
    handler.put({"time": 0}, frame_at(0), None)
    handler.put({"time": 1}, frame_at(1), None)
    with pytest.raises(HandlerFullError, match="2 of 2 frames are queued.*raise max_frames or set"):
        handler.put({"time": 2}, frame_at(2), None)
    storage.gate.set()
    ended(handler)
    assert handler.ledger.most_frames == 2


def test_a_producer_waits_for_room_for_a_limited_time():
    storage = Slow()
    storage.gate.clear()
    handler = DataHandler(storage, max_frames=1, block_timeout_s=0.05)
    handler.put({"time": 0}, frame_at(0), None)
    begin = time.monotonic()
    with pytest.raises(HandlerFullError, match=r"after 0\.05 s.*raise max_frames or block_timeout_s"):
        handler.put({"time": 1}, frame_at(1), None)
    assert 0.05 <= time.monotonic() - begin < PATIENCE_S
    storage.gate.set()
    ended(handler)
    assert (handler.ledger.stored, handler.ledger.failed_in) == (1, 1)


def test_a_dropped_frame_is_told_to_its_future_and_to_those_who_wait_for_it():
    class Future:
        def __init__(self):
            self.lost = []

        def _notify_data(self, *_, **__): ...

        def _notify_error(self, coordinates, error):
            self.lost.append((dict(coordinates), error))

    storage, future = Slow(), Future()
    storage.gate.clear()
    handler = DataHandler(storage, max_frames=1, when_full="drop")
    handler.put({"time": 0}, frame_at(0), None)
    handler.put({"time": 1}, frame_at(1), None, future)
    ((where, error),) = future.lost
    assert where == {"time": 1} and isinstance(error, HandlerFullError)
    with pytest.raises(HandlerError, match="was not stored: dropped, because 1 of 1 frames"):
        handler.await_data({"time": 1}, timeout=PATIENCE_S)
    storage.gate.set()
    ended(handler)


@pytest.mark.parametrize("size", [8, 512])
def test_a_buffer_that_is_used_again_for_each_frame_gives_the_right_frames(size):
    storage = Slow()
    storage.gate.clear()
    handler = DataHandler(storage)
    buffer = np.empty((size, size), np.uint16)
    for number in range(40):
        buffer[:] = number
        handler.put({"time": number}, buffer, None)
    buffer[:] = 999
    storage.gate.set()
    ended(handler)  # the storage itself compares each frame with its time
    assert storage.times == list(range(40))


@pytest.mark.parametrize("size", [8, 512])
def test_a_frame_that_is_handed_over_is_never_copied(size):
    received = []

    class Keeps(Slow):
        def put(self, coordinates, data, metadata):
            received.append(data)

    handler = DataHandler(Keeps())
    frames = [frame_at(number, (size, size)) for number in range(5)]
    for number, frame in enumerate(frames):
        handler.put({"time": number}, frame, None, copy=False)
    ended(handler)
    assert all(one is other for one, other in zip(received, frames, strict=True))
