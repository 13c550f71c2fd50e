"""Frames that wait together go to the storage together, and each is accounted for by itself."""

import contextlib
import statistics
import threading
import time

import numpy as np
import pytest

from exengine.kernel.data_handler import DataHandler
from exengine.kernel.data_storage_base import StorageCapabilities
from exengine.kernel.errors import HandlerError, StorageFailedError
from exengine.kernel.flow.storing import MANY, TURN, Storing
from exengine.kernel.storage.managed import ManagedStorage

PATIENCE_S = 10


class Batches(ManagedStorage):
    """Keeps frames in memory, up to eight at once; waits at the first one, and may fail."""

    capabilities = StorageCapabilities(iterable=True, metadata=True, string_axes=True)
    batch_frames = 8

    def __init__(self, fail_at=None):
        super().__init__()
        self.held = []
        self.batches = []
        self.gate = threading.Event()
        self.waiting = threading.Event()
        self.fail_at = fail_at

    def write_frame(self, number, coordinates, data, checked):
        self.write_frames(number, [(coordinates, data, checked)])

    def write_frames(self, number, batch):
        self.waiting.set()
        assert self.gate.wait(PATIENCE_S)
        if self.fail_at is not None and any(where["time"] == self.fail_at for where, *_ in batch):
            raise OSError(28, "No space left on device")
        self.batches.append(len(batch))
        self.held += [(data.copy(), checked) for _, data, checked in batch]
        return len(batch)

    def read_frame(self, number):
        return self.held[number][0]

    def read_frame_metadata(self, number):
        return self.held[number][1]


def run(storage, times):
    """Put frames while the first one waits, so that the others come together; return the handler."""
    handler = DataHandler(storage)
    for turn, number in enumerate(times):
        handler.put({"time": number}, np.full((4, 4), number, np.uint16), {"turn": turn})
        assert storage.waiting.wait(PATIENCE_S)
    storage.gate.set()
    handler.finish()
    return handler


def test_frames_that_wait_are_stored_together_in_their_order():
    storage = Batches()
    handler = run(storage, range(100))
    handler.await_completion(PATIENCE_S)
    assert [where["time"] for where in storage] == list(range(100))
    assert all(storage[{"time": time}][0, 0] == time for time in range(100))
    assert storage.get_metadata({"time": 77}) == {"turn": 77}
    assert storage.batches[0] == 1 and 8 in storage.batches and len(storage.batches) < 40
    assert (handler.ledger.stored, handler.ledger.stored_bytes) == (100, 100 * 32)
    assert handler.ledger.complete and handler.pending_bytes == 0


def test_a_frame_that_is_refused_is_named_and_those_before_and_behind_it_are_stored():
    storage = Batches()
    handler = run(storage, [0, 1, 2, 3, 1, 4, 5, 3, 6])
    with pytest.raises(HandlerError, match="already"):
        handler.await_completion(PATIENCE_S)
    assert [where["time"] for where in storage] == [0, 1, 2, 3, 4, 5, 6]
    ledger = handler.ledger
    assert (ledger.produced, ledger.stored, ledger.failed_out, ledger.balanced) == (9, 7, 2, True)
    assert [where for where, _ in ledger.not_stored] == [{"time": 1}, {"time": 3}]


def test_an_error_of_the_disk_ends_it_and_every_frame_that_is_not_stored_is_named():
    storage = Batches(fail_at=12)
    handler = run(storage, range(30))
    with pytest.raises(HandlerError) as told:
        handler.await_completion(PATIENCE_S)
    assert isinstance(told.value.__cause__, StorageFailedError)
    stored = [where["time"] for where in storage]
    assert stored == list(range(len(stored))) and 1 < len(stored) <= 12
    ledger = handler.ledger
    assert (ledger.stored, ledger.failed_out, ledger.balanced) == (len(stored), 30 - len(stored), True)
    assert [where["time"] for where, _ in ledger.not_stored] == list(range(len(stored), 30))
    assert handler.pending_bytes == 0


def test_a_storage_that_is_closed_in_the_middle_has_what_the_ledger_says():
    storage = Batches()
    real = storage.write_frames

    def close_soon(number, batch):
        written = real(number, batch)
        if number == 9:  # the third batch: from the next one on it is closed
            storage.close()
        return written

    storage.write_frames = close_soon
    handler = run(storage, range(200))
    with pytest.raises(HandlerError, match="closed"):
        handler.await_completion(PATIENCE_S)
    ledger = handler.ledger
    assert ledger.balanced and ledger.stored == storage.frames_stored == len(storage.held) < 200
    assert [where["time"] for where, _ in ledger.not_stored] == list(range(ledger.stored, 200))


def test_what_somebody_else_puts_into_the_storage_is_not_taken_for_a_frame_of_the_batch():
    storage = Batches()
    real = storage.write_frames

    def with_others(number, batch):
        written = real(number, batch)
        if number == 1:  # in the batch whose last frame will be refused
            for other in range(3):
                storage._exengine.frames.add({"other": other})
        return written

    storage.write_frames = with_others
    handler = run(storage, [0, 1, 2, 0, 4])
    with pytest.raises(HandlerError, match="already exists at"):
        handler.await_completion(PATIENCE_S)
    assert [where["time"] for where, _ in handler.ledger.not_stored] == [0]
    assert handler.ledger.stored == 4 and {"time": 4} in storage


def test_an_error_of_put_that_carries_the_count_of_another_storage_loses_one_frame_only(
    disk_storage, tmp_path
):
    class Tiled(disk_storage):
        """Each frame is several frames of another storage, whose error says how many of them it has stored."""

        def put(self, coordinates, data, metadata):
            if dict(coordinates)["time"] == 1:
                error = OSError(28, "No space left on device")
                error.frames_stored = 5
                raise error
            super().put(coordinates, data, metadata)

    storage = Tiled(tmp_path / "data")
    handler = DataHandler(storage)
    for number in range(4):
        with contextlib.suppress(HandlerError):
            handler.put({"time": number}, np.zeros((2, 2)), None)
    handler.finish()
    with pytest.raises(HandlerError, match="No space left"):
        handler.await_completion(10)
    assert (handler.ledger.stored, handler.ledger.failed_out) == (len(storage), 1)
    assert {"time": 1} in [where for where, _ in handler.ledger.not_stored]


def test_an_observer_that_is_false_is_notified_all_the_same(disk_storage, tmp_path):
    class Seen(list):
        def __call__(self, coordinates):
            self.extend(coordinates)

    seen = Seen()
    handler = DataHandler(disk_storage(tmp_path / "data"), on_stored=seen)
    handler.put({"time": 0}, np.zeros((2, 2)), None)
    handler.finish()
    handler.await_completion(10)
    assert seen == [{"time": 0}]


class Slow(Batches):
    """Stores up to 128 frames at once, and waits for each batch."""

    batch_frames = 128
    wait_s = 0.0

    def write_frames(self, number, batch):
        if self.wait_s:
            time.sleep(self.wait_s)
        return super().write_frames(number, batch)


@pytest.mark.parametrize(("wait_s", "usual"), [(0.01, 128), (0.0, 32)])
def test_batches_grow_only_while_the_storage_waits(wait_s, usual):
    storage = Slow()
    storage.wait_s = wait_s
    handler = run(storage, range(3000))
    handler.await_completion(PATIENCE_S)
    assert statistics.median(storage.batches) == usual
    assert [int(data[0, 0]) for data, _ in storage.held] == list(range(3000))


def test_a_producer_pauses_for_the_store_thread_when_many_frames_wait(monkeypatch):
    """While the storage stores nothing, the producer pauses at each ``TURN`` frames once ``MANY`` wait."""
    pauses, storage = [], Batches()
    take_turn = Storing.take_turn
    monkeypatch.setattr(Storing, "take_turn", lambda self: (pauses.append(put), take_turn(self)))
    handler, put = DataHandler(storage), 0
    for put in range(1, 10 * MANY):
        handler.put({"time": put}, np.full((4, 4), put, np.uint16), None)
    storage.gate.set()
    handler.finish()
    handler.await_completion(PATIENCE_S)
    assert pauses[0] - MANY in range(3 * TURN) and not any(number % TURN for number in pauses)
    assert len(pauses) == 1 + (pauses[-1] - pauses[0]) // TURN and 10 * MANY - pauses[-1] <= TURN
    assert [data[0, 0] for data, _ in storage.held] == list(range(1, 10 * MANY))
