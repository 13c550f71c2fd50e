"""Full disks, limits on files, changed bytes and forks: every acknowledged frame stays readable."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import pytest

import exengine
from exengine.errors import ExEngineError

LONG = bool(os.environ.get("EXENGINE_LONG"))

# Writes until a limit on the size of files is met, in `put`, or only in `finish`.
WRITER = """
import json, resource, signal, sys
import numpy as np
import exengine
from exengine.errors import StorageFailedError

path, limit, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.dont_write_bytecode = True
import h5py, exengine_hdf5.build
report = {"stored": 0, "errors": []}
storage = exengine.open_storage("hdf5", path)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    for number in range(count):
        storage.put({"time": number}, np.full((size, 8), number, np.uint16), {"number": number})
        report["stored"] += 1
except StorageFailedError as error:
    report["errors"].append(str(error))
for call in (storage.finish, storage.close):
    try:
        call()
    except StorageFailedError as error:
        report["errors"].append(str(error))
print(json.dumps(report))
"""

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX"),
    pytest.mark.once,
]


def compare(path, count, size, status):
    with contextlib.closing(exengine.open_dataset(path)) as dataset:
        assert dataset.status == status, dataset.status_reason
        assert len(dataset) == count > 0
        for number in range(count):
            assert dataset[{"time": number}].shape == (size, 8)
            assert (dataset[{"time": number}] == number).all()
            assert dataset.get_metadata({"time": number}) == {"number": number}


@pytest.mark.parametrize("limit", [9000, 30_001, 65_536, 100_000])
def test_a_limit_that_put_meets_fails_it_and_keeps_every_frame_before(limit, path, run_python):
    code, out, error = run_python(WRITER, path, limit, 5000, 4)
    assert code == 0, error
    report = json.loads(out)
    assert len(report["errors"]) == 2 and "File too large" in report["errors"][0]
    assert report["stored"] < 5000
    compare(path, report["stored"], 4, "failed")


@pytest.mark.parametrize("limit", [18_000, 25_000, 34_567])
def test_a_limit_that_only_finish_meets_keeps_every_frame_and_recover_builds_the_file(
    limit, path, run_python
):
    code, out, error = run_python(WRITER, path, limit, 60, 16)  # 15,360 bytes of pixels
    assert code == 0, error
    report = json.loads(out)
    assert report["stored"] == 60 and report["errors"], report
    compare(path, 60, 16, "failed")
    assert not os.path.exists(f"{path}.exengine.new")
    assert exengine.recover(path, in_place=True).frames == 60
    compare(path, 60, 16, "aborted")
    assert exengine.verify(path).ok
    assert not os.path.exists(f"{path}.exengine.frames")


def test_a_killed_writer_leaves_every_frame_in_the_spool(path):
    program = (
        "import sys, time, numpy as np, exengine\n"
        "storage = exengine.open_storage('hdf5', sys.argv[1])\n"
        "for number in range(10**6):\n"
        "    storage.put({'time': number}, np.full((4, 8), number % 60000, np.uint16), {'number': number})\n"
        "    print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True) as writer:
        for line in writer.stdout:
            if int(line) == 300:
                writer.send_signal(signal.SIGKILL)
                break
        acknowledged = [int(line) for line in writer.stdout if line.endswith("\n")]
    count = (acknowledged or [300])[-1] + 1
    with contextlib.closing(exengine.open_dataset(path)) as dataset:
        assert dataset.status == "incomplete" and count <= len(dataset) <= count + 1
        for number in range(count):
            assert (dataset[{"time": number}] == number).all()
    assert exengine.recover(path, in_place=True).frames >= count


def test_a_forked_child_that_exits_changes_nothing_and_does_not_crash(path, write, check, run_python):
    program = """
import os, sys, numpy as np, exengine, warnings
warnings.simplefilter("ignore")
path = sys.argv[1]
storage = exengine.open_storage("hdf5", path)
storage.put({"time": 0}, np.ones((4, 4), np.uint16), None)
reader = exengine.open_dataset(path)
for _ in range(2):
    child = os.fork()
    if child == 0:
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    if storage.status == "incomplete":
        storage.put({"time": 1}, np.ones((4, 4), np.uint16), None)
        storage.finish()
storage.close()
print(len(exengine.open_dataset(path)))
"""
    code, out, error = run_python(program, path)
    assert (code, out.strip()) == (0, "2"), error


CHILD = """
import json, sys, time
import numpy as np
import exengine
from exengine.errors import ExEngineError
for line in sys.stdin:
    path = line.strip()
    report = {"frames": {}, "foreign": ""}
    began = time.monotonic()
    try:
        with exengine.open_dataset(path) as dataset:
            report["status"] = str(dataset.status)
            for axes in dataset:
                try:
                    pixels = dataset.get_data(axes)
                    metadata = dataset.get_metadata(axes)
                except ExEngineError:
                    continue
                report["frames"][str(sorted(axes.items(), key=str))] = [pixels.tobytes().hex(), metadata]
    except ExEngineError:
        pass
    except BaseException as error:
        report["foreign"] = repr(error)
    report["seconds"] = time.monotonic() - began
    print(json.dumps(report), flush=True)
"""


def damages(rng, content):
    """Return damaged copies of a file's content, endlessly."""
    while True:
        damaged = bytearray(content)
        kind = rng.randrange(4)
        at = rng.randrange(len(content)) if content else 0
        if kind == 0:
            damaged = damaged[:at]
        elif kind == 1:
            for _ in range(rng.choice((1, 1, 1, 8, 64))):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        elif kind == 2:
            damaged[at : at + rng.choice((1, 4, 40, 4000))] = rng.randbytes(rng.choice((1, 4, 40)))
        else:
            damaged[at : at + 8] = rng.choice((bytes(8), b"\xff" * 8))
        yield bytes(damaged)


@pytest.mark.parametrize("state", ["finished", "gzip", "incomplete"])
def test_damaged_bytes_never_become_frames_and_never_hang_or_crash(state, tmp_path, write):
    count = 700 if LONG else 60
    original = tmp_path / "original" / "scan.h5"
    original.parent.mkdir()
    written = write(
        original, times=2, end="close" if state == "incomplete" else "finish",
        compression="gzip" if state == "gzip" else "none",
    )  # fmt: skip
    good = {
        str(sorted(axes.items(), key=str)): [
            pixels.tobytes().hex(), {"at": axes.coordinate_dict, "text": "\0é"}
        ]
        for axes, pixels in written.items()
    }  # fmt: skip
    rng = random.Random(state)
    names = [name for name in os.listdir(original.parent) if not name.endswith("lock")]
    reported = 0
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        for number in range(count):
            folder = tmp_path / str(number)
            shutil.copytree(original.parent, folder)
            name = rng.choice(names)
            (folder / name).write_bytes(next(damages(rng, (original.parent / name).read_bytes())))
            child.stdin.write(f"{folder / 'scan.h5'}\n")
            child.stdin.flush()
            line = child.stdout.readline()
            assert line, f"the interpreter ended at case {number}: {name}"
            report = json.loads(line)
            assert not report["foreign"] and report["seconds"] < 10, (number, name, report)
            for axes, found in report["frames"].items():
                assert good[axes] == found, (number, name, axes)
            if name == "scan.h5.exengine.frames" or (state != "incomplete" and name == "scan.h5"):
                reported += len(report["frames"]) < len(good)
            shutil.rmtree(folder)
        child.stdin.close()
    assert reported > 0


def test_a_pipe_or_a_link_in_place_of_the_spool_is_an_error(path, write):
    write(end="close")
    journal = f"{path}.exengine.journal"
    shutil.move(journal, f"{path}.elsewhere")
    os.symlink(f"{path}.elsewhere", journal)
    with pytest.raises(ExEngineError):
        exengine.open_dataset(path)
    os.unlink(journal)
    os.mkfifo(journal)
    with pytest.raises(ExEngineError):
        exengine.open_dataset(path)
