"""The helper thread of a storage: checksums of large frames, and the disk that begins early."""

import errno
import os
import sys
import threading
import time
from queue import SimpleQueue

import crc32c
import numpy as np
import pytest

import exengine
from exengine.base_classes import HelperThread, begin_writing, read_into, write_at
from exengine.errors import DatasetDamagedError, StorageFailedError
from exengine_ndstorage.ndtiff.frame_bytes import combined_checksum
from exengine_ndstorage.ndtiff.sizes import SHARED_WRITE_BYTES

LARGE = (1024, 1100)  # above what two threads read, and no multiple of a piece


@pytest.fixture
def thread():
    thread = HelperThread()
    yield thread
    thread.end()


def names_of_threads():
    return {one.name for one in threading.enumerate()}


@pytest.mark.parametrize("size", [1, 2, 3, 255, 4096, 1_000_003, 8 * 2**20])
def test_the_checksum_of_two_halves_is_that_of_the_whole(size):
    data = np.random.default_rng(size).integers(0, 256, size + 1000).astype(np.uint8)
    first, second = crc32c.crc32c(data[:1000], 77), crc32c.crc32c(data[1000:])
    assert combined_checksum(first, second, size) == crc32c.crc32c(data, 77)


def test_it_makes_one_call_at_a_time_and_the_next_one_after_it(thread):
    started, gate = threading.Event(), threading.Event()

    def wait():
        started.set()
        return gate.wait(10)

    first = thread.begin(wait)
    assert started.wait(10)
    refused = thread.begin(crc32c.crc32c, b"abc")
    gate.set()
    assert refused is None and first.end() is True
    assert thread.begin(crc32c.crc32c, b"xyz", 5).end() == crc32c.crc32c(b"xyz", 5)


def test_a_job_whose_owner_was_interrupted_keeps_nobody_from_the_next_one(thread):
    done = threading.Event()
    thread.begin(done.set)  # and nobody waits for it
    assert done.wait(10)
    deadline = time.monotonic() + 10
    while (job := thread.begin(crc32c.crc32c, b"abc")) is None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert job.end() == crc32c.crc32c(b"abc")


def test_the_thread_ends_when_it_is_told_and_begins_again_when_it_is_needed(thread):
    for _ in range(3):
        thread.begin(int).end()
        assert "exengine-helper" in names_of_threads()
        thread.end()
        thread.end()
        assert "exengine-helper" not in names_of_threads()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*fork")
def test_a_fork_has_a_thread_of_its_own(thread):
    gate = threading.Event()
    unfinished = thread.begin(gate.wait, 10)  # of the parent: the child must not wait for it
    child = os.fork()
    if child == 0:
        thread_ended = thread.begin(crc32c.crc32c, b"abc", 5).end() == crc32c.crc32c(b"abc", 5)
        thread.end()
        os._exit(0 if thread_ended else 1)
    status = os.waitpid(child, 0)[1]
    gate.set()
    assert status == 0 and unfinished.end() is True


@pytest.mark.parametrize("many", [False, True])
def test_frames_of_every_size_are_the_same_for_all_readers(many, path, new, opened, oracle, frame):
    storage = new(max_file_bytes=6_000_000)
    side = int((SHARED_WRITE_BYTES / 2) ** 0.5)
    shapes = [(24, 32), (side - 1, side), (side, side), (side + 1, side), LARGE, LARGE, (8, 8), LARGE]
    frames = [
        ({"time": number}, frame({"time": number}, shape), {"n": number})
        for number, shape in enumerate(shapes)
    ]
    if many:
        storage.put_many(frames)
    else:
        for one in frames:
            storage.put(*one)
    for where, pixels, _ in frames:
        assert np.array_equal(storage[where], pixels)
    storage.finish()
    dataset, theirs = opened(), oracle(path)
    for where, pixels, metadata in frames:
        assert np.array_equal(dataset[where], pixels) and dataset.get_metadata(where) == metadata
        assert not dataset[where].flags.writeable
        assert np.array_equal(theirs.read_image(**where), pixels)
    assert sum(name.endswith(".tif") for name in os.listdir(path)) == 2


@pytest.mark.parametrize("place", [0.01, 0.5, 0.99])
def test_one_changed_byte_of_a_large_frame_is_found(place, path, new, opened, frame):
    with new() as storage:
        storage.put({"time": 0}, frame({"time": 0}, LARGE), None)
    file = path / "NDTiffStack.tif"
    content = bytearray(file.read_bytes())
    content[int(len(content) * place)] ^= 1
    file.write_bytes(content)
    with pytest.raises(DatasetDamagedError, match="differ from those that were written"):
        opened()[{"time": 0}]


@pytest.mark.parametrize("left_bytes", [0, 100, 1000, 1_100_000, 1_500_000, 2_200_000])
def test_a_large_frame_that_was_cut_off_is_found(left_bytes, path, new, opened, frame):
    with new() as storage:
        storage.put({"time": 0}, frame({"time": 0}, LARGE), None)
    dataset = opened()
    assert dataset[{"time": 0}].shape == LARGE
    os.truncate(path / "NDTiffStack.tif", left_bytes)
    with pytest.raises(DatasetDamagedError, match="differ from those that were written"):
        dataset[{"time": 0}]


def test_the_writer_says_when_a_large_frame_was_cut_off_and_reads_the_others(path, new, frame):
    with new() as storage:
        for number in range(2):
            storage.put({"time": number}, frame({"time": number}, LARGE), None)
        whole = os.path.getsize(path / "NDTiffStack.tif")
        for left_bytes in (whole - 1000, whole - 1_300_000, whole - 2_250_000):
            os.truncate(path / "NDTiffStack.tif", left_bytes)
            with pytest.raises(DatasetDamagedError, match=r"the pixels of frame 1 .* are incomplete"):
                storage[{"time": 1}]
        assert np.array_equal(storage[{"time": 0}], frame({"time": 0}, LARGE))


def test_a_hole_in_the_first_half_is_no_frame_although_the_second_one_is_there(path, new, frame, monkeypatch):
    with new() as storage:
        storage.put({"time": 0}, frame({"time": 0}, LARGE), None)
        monkeypatch.setattr(
            "exengine_ndstorage.ndtiff.frame_bytes.read_into",
            lambda *given: read_into(*given) if threading.current_thread().name == "exengine-helper" else 0,
        )
        with pytest.raises(DatasetDamagedError, match="are incomplete"):
            storage[{"time": 0}]


@pytest.mark.parametrize("on_helper_thread", [False, True])
def test_an_error_of_the_disk_in_either_half_is_the_error_of_the_read(
    on_helper_thread, path, new, opened, frame, monkeypatch
):
    with new() as storage:
        storage.put({"time": 0}, frame({"time": 0}, LARGE), None)
    dataset = opened()

    def broken(descriptor, view, offset):
        if (threading.current_thread().name == "exengine-helper") == on_helper_thread:
            raise OSError(errno.EIO, "Input/output error")
        return read_into(descriptor, view, offset)

    with monkeypatch.context() as patch:
        patch.setattr("exengine_ndstorage.ndtiff.frame_bytes.read_into", broken)
        with pytest.raises((OSError, DatasetDamagedError), match="Input/output error"):
            dataset[{"time": 0}]
    assert np.array_equal(dataset[{"time": 0}], frame({"time": 0}, LARGE))


def test_an_error_in_the_middle_of_a_large_frame_ends_the_storage_and_no_thread_waits(
    path, new, opened, frame, monkeypatch
):
    storage = new()
    storage.put({"time": 0}, frame({"time": 0}, LARGE), None)

    def full(descriptor, parts, *place):
        if sum(memoryview(part).nbytes for part in parts) > 1_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_at(descriptor, parts, *place)

    monkeypatch.setattr("exengine_ndstorage.ndtiff.writer.write_at", full)
    with pytest.raises(StorageFailedError, match="No space left"):
        storage.put({"time": 1}, frame({"time": 1}, LARGE), None)
    monkeypatch.undo()
    storage.close()
    assert "exengine-helper" not in names_of_threads()
    dataset = opened()
    assert [dict(where) for where in dataset] == [{"time": 0}]
    assert np.array_equal(dataset[{"time": 0}], frame({"time": 0}, LARGE))


def test_many_threads_read_large_frames_at_once(path, new, frame):
    with new() as storage:
        for time in range(4):
            storage.put({"time": time}, frame({"time": time}, LARGE), None)
    wrong = []

    def read(dataset, time):
        for turn in range(8):
            where = {"time": (time + turn) % 4}
            if not np.array_equal(dataset[where], frame(where, LARGE)):
                wrong.append(where)

    with exengine.open_dataset(path) as dataset:
        threads = [threading.Thread(target=read, args=(dataset, time)) for time in range(6)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert not wrong
    assert "exengine-helper" not in names_of_threads()


@pytest.fixture
def begun(monkeypatch):
    """Return a queue of the parts of files with which the disk was told to begin."""
    begun = SimpleQueue()

    def begin(self, file, offset, size):
        begun.put((os.fstat(file.descriptor).st_ino, offset, size))

    monkeypatch.setattr(HelperThread, "begin_writing", begin)
    return begun


def test_the_disk_begins_with_small_frames_while_more_are_put_and_with_every_byte_once(new, frame, begun):
    storage = new()
    pixels = frame({"time": 0}, (200, 200))
    for number in range(200):  # 16 MB
        storage.put({"time": number}, pixels, None)
    parts = [begun.get(timeout=10) for _ in range(3)]
    storage.finish()
    at = 0
    for _, offset, size in parts:
        assert offset == at and 4 * 2**20 <= size < 4.2 * 2**20
        at += size


def test_the_disk_begins_anew_with_each_file(path, new, frame, begun):
    storage = new(max_file_bytes=6_000_000)
    storage.put_many([({"time": time}, frame({"time": time}, (200, 200)), None) for time in range(150)])
    parts = [begun.get(timeout=10) for _ in range(2)]
    storage.finish()
    files = {(path / name).stat().st_ino: name for name in os.listdir(path)}
    assert [files[inode] for inode, *_ in parts] == ["NDTiffStack.tif", "NDTiffStack_1.tif"]
    assert [offset for _, offset, _ in parts] == [0, 0]


def test_an_error_on_the_helper_thread_is_raised_by_whoever_waits_and_the_thread_goes_on(thread):
    with pytest.raises(TypeError):
        thread.begin(crc32c.crc32c, "no buffer").end()
    assert thread.begin(crc32c.crc32c, b"abc").end() == crc32c.crc32c(b"abc")


def test_the_disk_does_not_begin_early_with_large_frames_which_keep_it_busy(new, frame, monkeypatch):
    monkeypatch.setattr(HelperThread, "begin_writing", lambda *_: pytest.fail("the disk was told to begin"))
    storage = new()
    for number in range(12):
        storage.put({"time": number}, frame({"time": number}, (512, 512)), None)
    storage.finish()


def test_beginning_to_write_is_no_promise_and_never_an_error(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        file.write(bytes(100_000))
        file.flush()
        begin_writing(file.fileno(), 0, 100_000)
    begin_writing(-1, 0, 1)


def test_where_the_system_gives_no_thread_frames_are_stored_and_read_without_it(tmp_path, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    frames = [np.full(LARGE, number, np.uint16) for number in range(3)]
    with monkeypatch.context() as patch:
        storage = exengine.open_storage("ndtiff", tmp_path / "data")
        patch.setattr(threading.Thread, "start", no_thread)
        for number, frame in enumerate(frames):
            storage.put({"time": number}, frame, None)
        storage.finish()
        storage.close()
        dataset = exengine.open_dataset(tmp_path / "data")
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(dataset.get_data({"time": number}), frame)
        dataset.close()


def test_of_many_that_begin_at_once_one_starts_the_thread():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that they meet
    try:
        for _ in range(100):
            thread, barrier, sums = HelperThread(), threading.Barrier(4), []

            def begin(thread=thread, barrier=barrier, sums=sums):
                barrier.wait()
                job = thread.begin(crc32c.crc32c, b"abc")
                if job is not None:
                    sums.append(job.end())

            starters = [threading.Thread(target=begin) for _ in range(4)]
            for starter in starters:
                starter.start()
            for starter in starters:
                starter.join()
            thread.end()
            assert set(sums) == {crc32c.crc32c(b"abc")}
            assert "exengine-helper" not in names_of_threads()
    finally:
        sys.setswitchinterval(interval)
