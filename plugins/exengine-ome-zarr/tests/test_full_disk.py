"""A disk that is full: the call that meets it raises, every frame before is safe, and no signal ends the process.

``EXENGINE_LONG=1`` tests every size with every codec.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys

import pytest

import exengine

pytestmark = pytest.mark.once

pytest.importorskip("resource", reason="a limit on the size of files stands in for a full disk")

LONG = bool(os.environ.get("EXENGINE_LONG"))

# Writes until something is full; `limit` is a limit on the size of files, 0 for none.
WRITER = """
import json, resource, signal, sys
import numpy as np
import exengine
from exengine.errors import StorageFailedError

path, limit, shard, codec = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.dont_write_bytecode = True
report = {"stored": 0, "errors": []}
storage = exengine.open_storage("ome-zarr", path, shard=shard, codec=codec)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
frame = lambda n: ({"time": n}, np.full((4, 8), n, np.uint16), {"number": n})
try:
    for number in range(40_000):
        storage.put(*frame(number))
        report["stored"] += 1
except StorageFailedError as error:
    report["first"] = str(error)
for call in (lambda: storage.put(*frame(55_555)), storage.flush, storage.finish):
    try:
        call()
    except StorageFailedError as error:
        report["errors"].append(str(error))
storage.close()
print(json.dumps(report))
"""


def cases(*sizes):
    """Return pairs of a codec and a size: all, or each size once."""
    return [*itertools.product(["none", "blosc-lz4"], sizes)][:: 1 if LONG else 2]


def check(report, path, words):
    assert words in report["first"] and len(report["errors"]) == 3
    with exengine.open_dataset(path) as dataset:
        assert dataset.status in ("failed", "incomplete")
        assert len(dataset) == report["stored"] > 0
        for n in range(report["stored"]):
            assert (dataset[{"time": n}] == n).all()
            assert dataset.get_metadata({"time": n}) == {"number": n}


@pytest.mark.parametrize(("codec", "limit"), cases(65_536, 90_001, 131_071))
def test_a_journal_or_metadata_that_cannot_grow_fail_the_put_that_met_it(limit, codec, path, run_python):
    # The shards stay small; the journal doubles at 65,536 bytes, which the first limits do not allow.
    code, out, error = run_python(WRITER, path, limit, 64, codec)
    assert code == 0, error
    check(json.loads(out), path, "File too large")


@pytest.mark.parametrize(("codec", "kib"), cases(160, 300, 700))
def test_a_full_file_system_is_an_error_and_no_signal(kib, codec, tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("there is no program unshare")
    place = tmp_path / "small"
    place.mkdir()
    # A private mount namespace: the file system ends with the process, after its content was copied.
    script = (
        f"mount -t tmpfs -o size={kib}k tmpfs {place} && "
        f'{sys.executable} -c "$1" {place}/data.ome.zarr 0 64 {codec} && cp -r {place}/. {tmp_path}/kept'
    )
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", WRITER],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    if "ermission denied" in ended.stderr or "not permitted" in ended.stderr:
        pytest.skip("mounting is not allowed here")
    assert ended.returncode == 0, ended.stderr
    check(json.loads(ended.stdout), tmp_path / "kept" / "data.ome.zarr", "No space left")


@pytest.mark.skipif(sys.platform != "linux", reason="open descriptors are listed on Linux")
def test_a_failure_that_is_kept_holds_no_file_open(new, path, frame, monkeypatch):
    import os

    storage = new(shard=2)
    storage.put({"time": 0}, frame({"time": 0}), None)
    pwritev = os.pwritev

    def full(descriptor, parts, offset):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(exengine.ExEngineError) as kept:
        storage.put({"time": 1}, frame({"time": 1}), None)
    monkeypatch.setattr(os, "pwritev", pwritev)
    storage.close()
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    held = [os.readlink(link) for link in links if os.path.lexists(link)]
    assert not [file for file in held if str(path) in file] and kept.value.__cause__ is not None


def test_a_folder_that_cannot_be_listed_while_syncing_is_an_error(new, frame, monkeypatch):
    import os

    storage = new()
    storage.put({"time": 0}, frame({"time": 0}), None)

    def fail(where):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(exengine.ExEngineError, match="Input/output error"):
        storage.flush(durable=True)
