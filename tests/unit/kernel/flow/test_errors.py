"""Errors at any frame, and interrupts at any moment: told to everyone, nothing acknowledged is lost, no hang."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from exengine.kernel.data_handler import DataHandler
from exengine.kernel.errors import CoordinatesNotFoundError, HandlerError

PATIENCE_S = 10


class Failing:
    """A storage that keeps the times of its frames, and fails at one of them; it may be stopped."""

    def __init__(self, fail_at=None):
        self.fail_at = fail_at
        self.times, self.ends = [], []
        self.gate = threading.Event()
        self.gate.set()

    def put(self, coordinates, data, metadata):
        assert self.gate.wait(PATIENCE_S)
        if coordinates["time"] == self.fail_at:
            raise OSError(28, "No space left on device")
        self.times.append(coordinates["time"])

    def get_data(self, coordinates):
        return np.full((2, 2), coordinates["time"])

    def get_metadata(self, coordinates):
        return {"stored": True}

    def __contains__(self, coordinates):
        return coordinates["time"] in self.times

    def finish(self):
        self.ends.append("finished")


@pytest.fixture(params=[0.005, 1e-6], ids=["default switch interval", "1 us"])
def switch_interval(request):
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switch_interval")
@pytest.mark.parametrize("at", ["storage", "processor"])
def test_an_error_at_each_of_fifty_frames_reaches_everyone(at):
    for fail_at in range(1, 51):
        told = []

        def process(coordinates, data, metadata, fail_at=fail_at):
            if coordinates["time"] == fail_at:
                raise OSError(28, "No space left on device")
            return coordinates, data, metadata

        storage = Failing(fail_at if at == "storage" else None)
        handler = DataHandler(
            storage, process if at == "processor" else None, max_frames=4, on_error=told.append
        )
        refused = 0
        for number in range(60):
            try:
                handler.put({"time": number}, np.zeros((2, 2), np.uint8), None)
            except HandlerError:
                refused += 1
        handler.finish()
        with pytest.raises(HandlerError, match="No space left") as info:
            handler.await_completion(PATIENCE_S)
        assert info.value.__cause__ is told[0] is handler.error and len(told) == 1
        ledger = handler.ledger
        assert ledger.balanced and (ledger.offered, ledger.stored) == (60, len(storage.times))
        assert storage.times == [n for n in range(60 - refused) if n != fail_at]
        assert storage.ends == ["finished"]
        with pytest.raises(HandlerError, match="No space left"):
            handler.await_data({"time": 99}, timeout=PATIENCE_S)


def test_those_who_wait_for_a_frame_are_told_of_an_error():
    storage, told = Failing(0), []
    storage.gate.clear()
    handler = DataHandler(storage)

    def wait_for(number):
        try:
            handler.await_data({"time": number}, stored=True, timeout=PATIENCE_S)
        except HandlerError as error:
            told.append((number, error.__cause__))

    threads = [threading.Thread(target=wait_for, args=(number,)) for number in (0, 5)]
    for thread in threads:
        thread.start()
    handler.put({"time": 0}, np.zeros((2, 2)), None)
    storage.gate.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert {number for number, _ in told} == {0, 5} and {cause for _, cause in told} == {handler.error}
    handler.finish()


def test_data_can_be_awaited_in_each_state():
    storage, gate = Failing(), threading.Event()
    storage.gate.clear()

    def process(coordinates, data, metadata):
        assert gate.wait(PATIENCE_S)
        return coordinates, data + 1, metadata

    handler = DataHandler(storage, process)
    with pytest.raises(TimeoutError, match="did not arrive in time"):
        handler.await_data({"time": 0}, timeout=0.01)
    threading.Timer(0.05, handler.put, ({"time": 0}, np.zeros((2, 2)), {"m": 1})).start()
    data, metadata = handler.await_data({"time": 0}, timeout=PATIENCE_S)
    assert not data.any() and metadata == {"m": 1}
    with pytest.raises(TimeoutError):
        handler.await_data({"time": 0}, processed=True, timeout=0.01)
    gate.set()
    (pair,) = handler.await_data([{"time": 0}], return_metadata=False, processed=True, timeout=PATIENCE_S)
    assert (pair[0] == 1).all() and pair[1] is None
    with pytest.raises(TimeoutError):
        handler.await_data({"time": 0}, stored=True, timeout=0.01)
    storage.gate.set()
    assert handler.await_data({"time": 0}, stored=True, timeout=PATIENCE_S)[1] == {"stored": True}
    handler.finish()
    handler.await_completion(PATIENCE_S)
    with pytest.raises(CoordinatesNotFoundError, match="has ended without a frame"):
        handler.await_data({"time": 7}, timeout=PATIENCE_S)


def test_a_frame_that_was_got_on_its_way_may_be_changed_by_its_receiver(held_storage):
    held_storage.gate.clear()
    handler = DataHandler(held_storage)
    handler.put({"time": 0}, np.zeros((2, 2)), None)
    handler.put({"time": 1}, np.zeros((2, 2)), {"list": [0]})
    data, metadata = handler.get({"time": 1})
    held_storage.gate.set()
    handler.finish()
    handler.await_completion(PATIENCE_S)
    data[:] = 9
    metadata["list"].append(1)
    assert held_storage.get_metadata({"time": 1}) == {"list": [0]} and not held_storage[{"time": 1}].any()


def test_what_a_future_received_it_may_change(held_storage):
    class Future:
        def _notify_data(self, coordinates, data, metadata, *, processed, stored):
            self.data, self.metadata = data, metadata

    future, handler = Future(), DataHandler(held_storage)
    handler.put({"time": 0}, np.zeros((2, 2)), {"list": [0]}, future)
    handler.finish()
    handler.await_completion(PATIENCE_S)
    future.data[:] = 9
    future.metadata["list"].append(1)
    assert held_storage.get_metadata({"time": 0}) == {"list": [0]} and not held_storage[{"time": 0}].any()


INTERRUPTED = """
import _thread, json, random, signal, sys, threading, time
import numpy as np
from exengine.kernel.data_handler import DataHandler

seed, interval = int(sys.argv[1]), float(sys.argv[2])
sys.setswitchinterval(interval)
stored = []

class Storage:
    def put(self, coordinates, data, metadata):
        stored.append(int(data[0, 0]))
    def finish(self): ...

results = []
for run in range(int(sys.argv[3])):
    rng = random.Random(f"{seed}-{run}")
    stored.clear()
    process = (lambda *frame: frame) if run % 2 else None
    handler = DataHandler(Storage(), process, max_frames=rng.choice((1, 4, 10**6)), workers=1 + run % 3)
    timer = threading.Timer(rng.random() * 0.02, lambda: signal.raise_signal(signal.SIGINT))
    acknowledged, interrupted = [], 0
    try:
        timer.start()
        for number in range(100_000):
            handler.put({"time": number}, np.full((2, 2), number, np.int64), {"n": number})
            acknowledged.append(number)
    except KeyboardInterrupt:
        interrupted = 1
    handler.finish()
    handler.await_completion(10)
    ledger = handler.ledger
    assert interrupted and ledger.balanced, (run, ledger)
    assert ledger.stored == len(stored) and stored == sorted(set(stored)), (run, ledger)
    assert set(acknowledged) <= set(stored), (run, set(acknowledged) - set(stored))
    assert len(stored) - len(acknowledged) in (0, 1), (run, len(stored), len(acknowledged))
    # A put that was interrupted is counted once: as stored or, if it was not queued, as failed.
    assert ledger.offered - len(acknowledged) in (0, 1), (run, ledger, len(acknowledged))
    timer.join()
print("ok", flush=True)
"""


@pytest.mark.parametrize("interval", ["0.005", "1e-6"])
def test_an_interrupt_at_any_moment_loses_nothing_that_was_acknowledged_and_the_interpreter_exits(interval):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", INTERRUPTED, "1", interval, "100"],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-3000:]


def test_an_interrupt_while_the_producer_waits_for_room_or_for_the_end_hangs_nothing():
    program = """
import signal, sys, threading
import numpy as np
from exengine.kernel.data_handler import DataHandler

gate = threading.Event()
class Storage:
    def put(self, *_): gate.wait()
    def finish(self): ...

handler = DataHandler(Storage(), max_frames=1)
handler.put({"time": 0}, np.zeros((2, 2)), None)
for wait in (lambda: handler.put({"time": 1}, np.zeros((2, 2)), None), lambda: handler.await_completion()):
    threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGINT)).start()
    try: wait()
    except KeyboardInterrupt: print("interrupted", flush=True)
gate.set()
handler.finish()
handler.await_completion(5)
print(handler.ledger.offered, handler.ledger.stored, handler.ledger.balanced, flush=True)
"""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["interrupted", "interrupted", "2", "1", "True"], done.stderr[-2000:]
    assert time.monotonic() - begin < 30
