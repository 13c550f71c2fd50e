"""What the conformance kit cannot know of the format: HDF5's own readers, full disks, forks and damage."""

import os
import signal
import subprocess
import sys

import exengine
import h5py
import numpy as np
import pytest
from exengine.errors import DatasetDamagedError, StorageFailedError
from exengine.testing import StorageConformance

from exengine_h5_folder import H5FolderStorage


class TestConformance(StorageConformance):
    """The conformance kit, the same as for every backend."""

    backend = "h5-folder"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


def frame_for(time):
    """Return pixels that are different at each time."""
    return (np.arange(4096).reshape(64, 64) + 100 * time).astype(np.uint16)


def write(path, times=range(3), **options):
    with H5FolderStorage(path, **options) as storage:
        for time in times:
            storage.put({"time": time, "channel": "DAPI"}, frame_for(time), {"exposure_ms": time})


def times_in_a_new_process(path):
    """Return the times whose pixels and metadata another process reads as they were put."""
    code = (
        "import sys, exengine; dataset = exengine.open_dataset(sys.argv[1])\n"
        "for at in dataset:\n"
        "    assert (dataset[at].flat[0], dataset.get_metadata(at)) == (100 * at['time'], {'exposure_ms': at['time']})\n"
        "    print(at['time'])"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    return [int(time) for time in done.stdout.split()]


@pytest.mark.parametrize("level", [0, 9])
def test_h5py_alone_reads_the_dataset_through_its_links(path, level):
    write(path, level=level)
    with h5py.File(path / "dataset.h5") as file:
        assert len(file) == 3
        np.testing.assert_array_equal(file["2/pixels"], frame_for(2))
        assert file["2/metadata"].asstr()[()] == '{"exposure_ms": 2}'
        assert file["2/coordinates"].asstr()[()] == '{"time": 2, "channel": "DAPI"}'


FILLS_A_FILE = """
import resource, sys, numpy as np, exengine
storage = exengine.open_storage("h5-folder", sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    for time in range(1000):
        size = 64 if sys.argv[2] == "index" or time < 5 else 200  # a frame that no longer fits
        pixels = (np.arange(size * size).reshape(size, size) + 100 * time).astype(np.uint16)
        storage.put({"time": time, "channel": "DAPI"}, pixels, {"exposure_ms": time})
        print(time, flush=True)
except exengine.errors.StorageFailedError:
    print("failed", flush=True)
try:
    storage.close()
except exengine.ExEngineError:
    pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system cannot limit the size of a file")
@pytest.mark.parametrize("full", ["index", "frame"])
def test_after_an_io_error_every_acknowledged_frame_is_read(path, full):
    command = [sys.executable, "-c", FILLS_A_FILE, path, full]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *acknowledged, failed = done.stdout.split()
    assert failed == "failed" and len(acknowledged) >= 5
    assert times_in_a_new_process(path) == [int(time) for time in acknowledged]
    assert exengine.open_dataset(path).status == "failed"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("end", ["exit", "error", "_exit", "killed"])
def test_a_forked_child_that_ends_changes_nothing_and_does_not_crash(path, end):
    code = f"""
import os, signal, sys, numpy as np, exengine
storage = exengine.open_storage("h5-folder", sys.argv[1])
def put(time):
    pixels = (np.arange(4096).reshape(64, 64) + 100 * time).astype(np.uint16)
    storage.put({{"time": time, "channel": "DAPI"}}, pixels, {{"exposure_ms": time}})
put(0)
before = {{name: open(os.path.join(storage.path, name), "rb").read() for name in os.listdir(storage.path)}}
child = os.fork()
if child == 0:
    end = {end!r}
    if end == "exit": sys.exit(0)
    if end == "error": sys.stderr = open(os.devnull, "w"); raise RuntimeError
    if end == "_exit": os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert before == {{name: open(os.path.join(storage.path, name), "rb").read() for name in os.listdir(storage.path)}}
put(1)
storage.finish()
storage.close()
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = {"exit": 0, "error": 1, "_exit": 0, "killed": -signal.SIGKILL}
    assert int(done.stdout) == expected[end]
    assert times_in_a_new_process(path) == [0, 1]
    assert exengine.open_dataset(path).status == "complete"


def test_a_flipped_byte_anywhere_is_reported_and_never_returned(path):
    write(path, times=range(2))
    for name in sorted(os.listdir(path)):
        if not name.startswith("exengine."):
            whole = (path / name).read_bytes()
            for place in {*range(128), *range(128, len(whole), 61)} & set(range(len(whole))):
                changed = bytes([whole[place] ^ 0x20])
                (path / name).write_bytes(whole[:place] + changed + whole[place + 1 :])
                assert _is_reported(path), f"byte {place} of {name}"
            (path / name).write_bytes(whole)
    assert exengine.open_dataset(path).status == "complete"


def _is_reported(path):
    """Return whether the damage is reported; fail if a frame differs from the one that was put."""
    reported = False
    with exengine.open_dataset(path) as dataset:
        for at in dataset:
            try:
                np.testing.assert_array_equal(dataset[at], frame_for(at["time"]))
            except DatasetDamagedError:
                reported = True
        return reported or dataset.status == "damaged"


def test_the_first_error_stays(path, monkeypatch):
    storage = H5FolderStorage(path)
    storage.put({"time": 0}, frame_for(0), None)
    monkeypatch.setattr("exengine_h5_folder.storage._write_all", _disk_full)
    with pytest.raises(StorageFailedError):
        storage.put({"time": 1}, frame_for(1), None)
    monkeypatch.undo()
    with pytest.raises(StorageFailedError):
        storage.put({"time": 2}, frame_for(2), None)
    storage.close()
    assert [dict(at) for at in exengine.open_dataset(path)] == [{"time": 0}]


def _disk_full(file, content):
    raise OSError(28, "No space left on device")
