"""Which hook of a backend is called when, as the authors' guide states it."""

import os

import numpy as np
import pytest

from exengine import ManagedStorage, StorageCapabilities
from exengine.errors import StorageFailedError
from exengine.kernel.system import at_exit

FRAME = np.zeros(3)


class Noted(ManagedStorage):
    """Note each call of a hook."""

    capabilities = StorageCapabilities(persistent=True)
    fails = False

    def __init__(self, path):
        self.calls = []
        super().__init__(path)

    def write_frame(self, number, coordinates, data, checked):
        self.calls.append("write_frame")
        if self.fails:
            raise OSError(28, "No space left on device")

    def read_frame(self, number):
        return FRAME

    def read_frame_metadata(self, number):
        return None

    def sync_frames(self):
        self.calls.append("sync_frames")

    def finish_frames(self):
        self.calls.append("finish_frames")

    def finished_facts(self):
        self.calls.append("finished_facts")
        return {}

    def release(self):
        self.calls.append("release")


@pytest.fixture
def storage(tmp_path):
    made = Noted(tmp_path / "data")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("ends", "calls"),
    [
        (["finish", "close"], ["finish_frames", "finished_facts", "release"]),
        (["abort", "close", "close"], ["finish_frames", "finished_facts", "release"]),
        (["close"], ["release"]),
    ],
)
def test_a_storage_that_works_ends_with(storage, ends, calls):
    storage.put({"time": 0}, FRAME, None)
    for end in ends:
        getattr(storage, end)()
    assert storage.calls == ["write_frame", *calls]


@pytest.mark.parametrize("end", ["finish", "abort", "close"])
def test_after_a_failed_write_any_end_calls_finish_frames_and_no_end_asks_for_facts(storage, end):
    storage.fails = True
    with pytest.raises(StorageFailedError):
        storage.put({"time": 0}, FRAME, None)
    try:
        getattr(storage, end)()
    except StorageFailedError:
        assert end == "finish"
    storage.close()
    assert storage.calls == ["write_frame", "finish_frames", "release"]


def test_a_storage_that_cannot_begin_is_only_released(storage):
    storage.cannot_begin(OSError(28, "No space left on device"))
    assert storage.calls == ["release"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_that_exits_calls_nothing(storage):
    storage.put({"time": 0}, FRAME, None)
    storage.calls.clear()
    child = os.fork()
    if child == 0:
        at_exit._conclude_all()
        os._exit(len(storage.calls))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
