"""A handler syncs its storage at intervals, also while no frames arrive, and reports a failed sync at once."""

import time

import numpy as np
import pytest

from exengine.acquisition.recorder import Recorder
from exengine.kernel.data_handler import DataHandler
from exengine.kernel.data_storage_base import StorageCapabilities
from exengine.kernel.errors import ConfigError, HandlerError, UnsupportedOperationError
from exengine.kernel.source_plan import SourcePlan

PATIENCE_S = 10


class Synced:
    """Keeps the times of its frames, and for each sync its time and the number of frames that it covers."""

    capabilities = StorageCapabilities(durable_flush=True)

    def __init__(self, *, put_s=0.0, fails=False):
        self.stored, self.syncs, self.put_s, self.fails = [], [], put_s, fails

    def put(self, coordinates, data, metadata):
        time.sleep(self.put_s)
        self.stored.append(time.monotonic())

    def flush(self, durable=False):
        assert durable
        self.syncs.append((time.monotonic(), len(self.stored)))
        if self.fails:
            raise OSError(5, "Input/output error")

    def finish(self):
        self.ended = True


def put(handler, number):
    handler.put({"time": number}, np.zeros((2, 2), np.uint8), {})


def wait_for(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def end(handler):
    handler.finish()
    handler.await_completion(PATIENCE_S)


def test_the_last_frames_before_a_pause_are_synced_during_the_pause():
    storage = Synced()
    handler = DataHandler(storage, sync_every_s=0.05)
    for number in range(3):
        put(handler, number)
    wait_for(lambda: storage.syncs and storage.syncs[-1][1] == 3)
    count = len(storage.syncs)
    time.sleep(0.2)
    assert len(storage.syncs) == count  # nothing new was stored
    put(handler, 3)
    wait_for(lambda: storage.syncs[-1][1] == 4)
    end(handler)


def test_while_the_queue_is_never_empty_each_frame_is_synced_in_time():
    storage = Synced(put_s=0.002)
    handler = DataHandler(storage, sync_every_s=0.1)
    for number in range(500):
        put(handler, number)
    end(handler)
    took = storage.stored[-1] - storage.stored[0]
    assert 3 <= len(storage.syncs) <= took / 0.1 + 1
    covered = 0
    for at, frames in storage.syncs:
        assert at - storage.stored[covered] >= 0.09  # not before the interval has passed
        covered = frames


def test_without_an_interval_the_storage_is_not_synced_before_the_end():
    storage = Synced()
    handler = DataHandler(storage)
    put(handler, 0)
    wait_for(lambda: storage.stored)
    time.sleep(0.1)
    end(handler)
    assert storage.syncs == [] and storage.ended


def test_a_failed_sync_is_reported_at_once_and_not_repeated():
    storage, told = Synced(put_s=0.05, fails=True), []
    handler = DataHandler(storage, sync_every_s=0.02, on_error=told.append)
    for number in range(5):
        put(handler, number)
    wait_for(lambda: told)
    assert told == [handler.error] and isinstance(handler.error, OSError)
    with pytest.raises(HandlerError, match="Input/output error"):
        put(handler, 5)
    handler.finish()
    with pytest.raises(HandlerError, match="Input/output error"):
        handler.await_completion(PATIENCE_S)
    assert len(storage.stored) == 5 and len(storage.syncs) == 1


def test_a_storage_without_durable_flush_is_refused(held_storage):
    with pytest.raises(
        UnsupportedOperationError, match=r"sync_every_s is 0\.5, but Held has no durable flush"
    ):
        DataHandler(held_storage, sync_every_s=0.5)


def test_the_setting_of_a_config_reaches_the_storage(disk_storage, monkeypatch, tmp_path):
    syncs, flush = [], disk_storage.flush
    monkeypatch.setattr(disk_storage, "flush", lambda self, durable=False: syncs.append(flush(self, durable)))
    config = {
        "storage": {"backend": "disk", "path": str(tmp_path / "d")},
        "handler": {"sync_every_s": "0.05"},
    }
    recorder = Recorder(config)
    recorder.check(SourcePlan())
    recorder.open(SourcePlan())
    recorder.put({"time": 0}, np.zeros((4, 4), np.uint8), {})
    wait_for(lambda: syncs)
    recorder.finish()
    assert recorder.error is None and recorder.ledger.stored == 1
    recorder.close()


def test_a_recorder_refuses_it_before_it_creates_anything(installed):
    config = {"storage": {"backend": "memory"}, "handler": {"sync_every_s": 5}}
    recorder = Recorder(config)
    with pytest.raises(ConfigError, match=r"handler\.sync_every_s is set, but the backend 'memory' has no"):
        recorder.check(SourcePlan())
    assert recorder.storage is None
