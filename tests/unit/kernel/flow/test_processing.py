"""The process function on one or more threads: order kept, memory bounded, each failure accounted for."""

import threading
import time

import numpy as np
import pytest

from exengine.kernel.data_handler import DataHandler
from exengine.kernel.errors import HandlerError

PATIENCE_S = 10


class Kept:
    """A storage that keeps frames in a list; may be stopped."""

    def __init__(self):
        self.frames = []
        self.gate = threading.Event()
        self.gate.set()

    def put(self, coordinates, data, metadata):
        assert self.gate.wait(PATIENCE_S)
        self.frames.append((dict(coordinates), data.copy(), metadata))

    def finish(self): ...


def run(function, count=40, storage=None, **options):
    storage = storage or Kept()
    handler = DataHandler(storage, function, **options)
    for number in range(count):
        handler.put({"time": number}, np.full((4, 4), number, np.uint16), {"n": number})
    handler.finish()
    return storage, handler


def times_of(storage):
    return [where["time"] for where, *_ in storage.frames]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_order_of_frames_is_kept_with_any_number_of_workers(workers):
    def slow_at_first(coordinates, data, metadata):
        time.sleep(0.01 if coordinates["time"] % workers == 0 else 0)
        return coordinates, data + 1, metadata

    storage, handler = run(slow_at_first, workers=workers)
    handler.await_completion(PATIENCE_S)
    assert times_of(storage) == list(range(40)) and handler.ledger.complete
    assert all((data == where["time"] + 1).all() for where, data, _ in storage.frames)


def test_workers_call_the_process_function_at_the_same_time():
    together = threading.Barrier(3, timeout=PATIENCE_S)

    def meet(*frame):
        together.wait()
        return frame

    storage, handler = run(meet, count=9, workers=3)
    handler.await_completion(PATIENCE_S)
    assert times_of(storage) == list(range(9))


@pytest.mark.parametrize("workers", [1, 3])
def test_none_one_or_many_results_keep_their_order(workers):
    def choose(coordinates, data, metadata):
        return [(coordinates.replace(copy=copy), data, metadata) for copy in range(coordinates["time"] % 3)]

    storage, handler = run(choose, workers=workers)
    handler.await_completion(PATIENCE_S)
    expected = [{"time": n, "copy": c} for n in range(40) for c in range(n % 3)]
    assert [where for where, *_ in storage.frames] == expected
    ledger = handler.ledger
    assert (ledger.discarded, ledger.passed_on, ledger.produced) == (14, 26, len(expected))
    assert ledger.balanced


@pytest.mark.parametrize("workers", [1, 2])
def test_a_generator_that_makes_much_more_than_it_gets_stays_within_the_bound(workers):
    storage, made = Kept(), []
    storage.gate.clear()
    size, bound = 2**20, 8 * 2**20

    def multiply(coordinates, data, metadata):
        for copy in range(60):
            made.append(copy)
            yield coordinates.replace(copy=copy), np.zeros(size, np.uint8), metadata

    handler = DataHandler(storage, multiply, max_pending=bound, workers=workers)
    for number in range(3):
        handler.put({"time": number}, np.zeros((4, 4), np.uint8), None)
    handler.finish()
    time.sleep(0.3)
    assert len(made) < 8 + 4 * workers + 2 and handler.pending_bytes <= bound
    storage.gate.set()
    handler.await_completion(PATIENCE_S)
    ledger = handler.ledger
    assert (ledger.offered, ledger.produced, ledger.stored) == (3, 180, 180) and ledger.complete
    assert ledger.most_bytes <= bound
    assert [(where["time"], where["copy"]) for where, *_ in storage.frames] == [
        (number, copy) for number in range(3) for copy in range(60)
    ]


def fails_at(number):
    def process(coordinates, data, metadata):
        data += 1
        metadata["seen"] = True
        if coordinates["time"] == number:
            raise ValueError("not this one")
        return coordinates, data, metadata

    return process


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("number", [0, 7, 39])
def test_a_failure_stops_by_default(number, workers):
    storage = Kept()
    handler = DataHandler(storage, fails_at(number), workers=workers)
    refused = 0
    for time_ in range(40):
        try:
            handler.put({"time": time_}, np.zeros((4, 4), np.uint16), {})
        except HandlerError:
            refused += 1
    handler.finish()
    with pytest.raises(HandlerError, match="not this one") as info:
        handler.await_completion(PATIENCE_S)
    assert isinstance(info.value.__cause__, ValueError)
    ledger = handler.ledger
    assert ledger.balanced and ledger.failed_in == refused + 1 and ledger.offered == 40
    assert ledger.not_stored[0][0] == {"time": number} or refused
    assert number not in times_of(storage) and times_of(storage) == sorted(times_of(storage))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failure_skips_one_frame_and_names_it(workers):
    storage, handler = run(fails_at(7), workers=workers, on_process_error="skip")
    handler.await_completion(PATIENCE_S)
    assert times_of(storage) == [*range(7), *range(8, 40)]
    ledger = handler.ledger
    assert (ledger.failed_in, ledger.stored, ledger.balanced, ledger.complete) == (1, 39, True, False)
    assert ledger.not_stored == [({"time": 7}, "ValueError: not this one")] and handler.error is None


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failure_passes_on_the_frame_as_it_arrived_and_names_it(workers):
    storage, handler = run(fails_at(7), workers=workers, on_process_error="raw")
    handler.await_completion(PATIENCE_S)
    assert times_of(storage) == list(range(40)) and handler.ledger.complete
    _, data, metadata = storage.frames[7]
    assert (data == 7).all() and metadata == {"n": 7}
    _, data, metadata = storage.frames[8]
    assert (data == 9).all() and metadata == {"n": 8, "seen": True}
    assert handler.ledger.to_dict()["passed_raw"] == [
        {"coordinates": {"time": 7}, "reason": "ValueError: not this one"}
    ]


def test_a_process_function_may_keep_what_it_got_and_returned(held_storage):
    kept = []

    def keep(coordinates, data, metadata):
        kept.append((data, metadata))
        return coordinates, data, metadata

    storage = held_storage
    handler = DataHandler(storage, keep)
    handler.put({"time": 0}, np.zeros((2, 2), np.uint16), {"list": [0]})
    handler.finish()
    handler.await_completion(PATIENCE_S)
    ((data, metadata),) = kept
    data[:] = 9
    metadata["list"].append(1)
    assert not storage[{"time": 0}].any() and storage.get_metadata({"time": 0}) == {"list": [0]}
