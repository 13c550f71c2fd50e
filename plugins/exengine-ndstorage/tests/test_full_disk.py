"""A disk that is full: told at the put that met it, and every frame before is safe."""

import errno
import json
import os

import numpy as np
import pytest

from exengine.errors import StorageFailedError

pytestmark = pytest.mark.once

pytest.importorskip("resource", reason="a limit on the size of files stands in for a full disk")

# No file may grow beyond a number of bytes; the signal that would end the process is ignored.
WRITER = """
import errno, json, resource, signal, sys
import numpy as np
import exengine
from exengine.errors import StorageFailedError

path, limit, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.dont_write_bytecode = True  # a module that is imported under the limit would be cached cut off
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
report = {"stored": 0, "errors": []}
def attempt(call):
    try:
        call()
    except StorageFailedError as error:
        report["errors"].append([error.errno, error.__cause__ and error.__cause__.errno, str(error)])
    else:
        report["errors"].append(None)
storage = exengine.open_storage("ndtiff", path, max_file_bytes=int(sys.argv[4]))
frame = lambda n: ({"time": n}, np.full((24, 32), n, np.uint16), {"number": n})
try:
    for number in range(0, 10_000, 10):
        frames = [frame(number + k) for k in range(10)]
        if how == "many":
            storage.put_many(frames)
        else:
            for one in frames:
                storage.put(*one)
except StorageFailedError as error:
    report["first"] = [error.errno, error.__cause__.errno, str(error)]
report["stored"] = len(storage)
attempt(lambda: storage.put(*frame(55_555)))
attempt(storage.flush)
attempt(storage.finish)
attempt(storage.close)
report["status"] = storage.status
print(json.dumps(report))
"""


@pytest.mark.parametrize("how", ["one", "many"])
@pytest.mark.parametrize("limit", [500, 1000, 3000, 10_001, 50_000, 123_457])
def test_the_put_that_met_it_raises_and_all_frames_before_are_readable(limit, how, path, run_python, opened):
    report = json.loads(run_python(WRITER, path, limit, how, 2**32))
    number, cause, message = report["first"]
    assert number == cause == errno.EFBIG and "File too large" in message
    put, flush, finish, close = report["errors"]
    for later in (put, flush, finish):
        assert later[:2] == [errno.EFBIG, errno.EFBIG]
    assert close is None  # it was told
    assert report["stored"] >= (limit - 100) // (24 * 32 * 2 + 300) - (10 if how == "many" else 1)
    dataset = opened()
    assert dataset.status in ("failed", "incomplete")
    assert len(dataset) == report["stored"]
    for n in range(report["stored"]):
        assert (dataset[{"time": n}] == n).all()
        assert dataset.get_metadata({"time": n}) == {"number": n}


@pytest.mark.parametrize("limit", [1, 20])
def test_a_disk_without_room_for_a_dataset_is_told_and_nothing_is_left(limit, path, start_python):
    process = start_python(WRITER, path, limit, "one", 2**32)
    _, error = process.communicate(timeout=60)
    assert b"DatasetAccessError: cannot create a dataset at" in error and b"File too large" in error
    assert list(path.parent.iterdir()) == []


def test_a_disk_that_is_full_when_the_next_file_begins(path, run_python, opened):
    # The index is the only file that grows beyond the limit: each TIFF file holds one frame.
    report = json.loads(run_python(WRITER, path, 5000, "one", 4096))
    assert report["first"][0] == errno.EFBIG and report["stored"] > 20
    dataset = opened()
    assert len(dataset) == report["stored"] and dataset.status == "failed"
    assert "File too large" in dataset.status_reason


def test_what_failed_at_the_beginning_of_a_file_leaves_no_such_file(path, new, opened, monkeypatch, frame):
    storage = new(max_file_bytes=4096)
    storage.put({"time": 0}, frame({"time": 0}), None)
    storage.put({"time": 1}, frame({"time": 1}), None)
    before = sorted(file.name for file in path.glob("*.tif"))
    sizes = [(path / name).stat().st_size for name in before]
    pwritev = os.pwritev

    def full(descriptor, parts, offset):
        if offset == 0:  # the header of a new file
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwritev(descriptor, parts, offset)

    monkeypatch.setattr(os, "pwritev", full)
    frames = [({"time": n}, frame({"time": n}), None) for n in range(2, 5)]
    with pytest.raises(StorageFailedError, match="No space left"):
        storage.put_many(frames)
    stored = len(storage)
    monkeypatch.undo()
    storage.close()
    assert sorted(file.name for file in path.glob("*.tif")) == before
    assert [(path / name).stat().st_size for name in before] == sizes
    dataset = opened()
    assert dataset.status == "failed" and len(dataset) == stored
    for n in range(stored):
        np.testing.assert_array_equal(dataset[{"time": n}], frame({"time": n}))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open descriptors are listed on Linux")
@pytest.mark.parametrize("what", ["header", "folder"])
def test_a_failure_that_is_kept_holds_no_file_open(path, new, monkeypatch, frame, what):
    storage = new(max_file_bytes=4096)
    for n in range(2):
        storage.put({"time": n}, frame({"time": n}), None)

    pwritev = os.pwritev

    def fail(*where):
        if what == "header" and where[-1]:
            return pwritev(*where)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        "os.pwritev" if what == "header" else "exengine_ndstorage.ndtiff.writer.sync_folder", fail
    )
    with pytest.raises(StorageFailedError) as kept:
        storage.put({"time": 2}, frame({"time": 2}), None) if what == "header" else storage.flush(
            durable=True
        )
    monkeypatch.undo()
    storage.close()
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    held = [os.readlink(link) for link in links if os.path.lexists(link)]
    assert not [file for file in held if str(path) in file] and kept.value.__cause__ is not None
