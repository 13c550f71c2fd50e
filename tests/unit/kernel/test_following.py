"""Following a storage: every frame once, in order, until it is finished."""

import threading

import numpy as np
import pytest

from exengine.errors import UnsupportedOperationError

FRAME = np.zeros((2, 2), np.uint8)


@pytest.fixture
def storage(disk_storage, tmp_path):
    with disk_storage(tmp_path / "data") as storage:
        yield storage


def test_frames_that_are_stored_while_others_are_used_come_too(storage):
    storage.put({"time": 0}, FRAME, {})
    came = []
    for where in storage.follow(timeout=30):
        came.append(where["time"])
        if len(came) < 5:
            storage.put({"time": len(came)}, FRAME, {})
        else:
            storage.finish()
    assert came == [0, 1, 2, 3, 4]


def test_a_reader_waits_for_frames_of_another_thread(storage):
    came, met = [], threading.Semaphore(0)

    def follow():
        for where in storage.follow(timeout=30):
            came.append(where["time"])
            met.release()

    thread = threading.Thread(target=follow, name="following")
    thread.start()
    for number in range(20):
        storage.put({"time": number}, FRAME, {})
        assert met.acquire(timeout=30)
    storage.finish()
    thread.join(30)
    assert not thread.is_alive() and came == list(range(20))


def test_without_a_frame_in_time_there_is_an_error(storage):
    storage.put({"time": 0}, FRAME, {})
    following = storage.follow(timeout=0.05)
    assert next(following) == {"time": 0}
    with pytest.raises(TimeoutError, match=r"no new frame arrived within 0\.05 s"):
        next(following)


def test_a_finished_storage_without_frames_ends_at_once(storage):
    storage.finish()
    assert list(storage.follow()) == []


def test_only_new_frames_are_looked_up(storage, monkeypatch):
    seen = []
    index = storage._exengine.index
    since = type(index).since
    monkeypatch.setattr(type(index), "since", lambda self, start: (seen.append(start), since(self, start))[1])
    for number in range(3):
        storage.put({"time": number}, FRAME, {})
    following = storage.follow(timeout=0.01)
    assert [next(following)["time"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(TimeoutError):
        next(following)
    assert seen[0] == 0 and set(seen[1:]) == {3}


def test_a_storage_that_does_not_list_its_frames_cannot_be_followed(memory_storage):
    with pytest.raises(UnsupportedOperationError):
        next(memory_storage().follow())


def test_a_frame_that_is_stored_just_before_the_end_comes_too(storage, monkeypatch):
    calls, is_finished = [], storage.is_finished

    def finish_at_the_third_call():
        calls.append(None)
        if len(calls) == 3:
            storage.put({"time": 1}, FRAME, {})
            storage.finish()
        return is_finished()

    storage.put({"time": 0}, FRAME, {})
    monkeypatch.setattr(storage, "is_finished", finish_at_the_third_call)
    assert [where["time"] for where in storage.follow(timeout=30)] == [0, 1]
