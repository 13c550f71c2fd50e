"""``kill -9`` of a writer: every frame that it acknowledged is there, at once.

``EXENGINE_LONG=1`` kills more writers.
"""

import os
import signal

import numpy as np
import pytest

import exengine

pytestmark = pytest.mark.once

TIMES = 60 if os.environ.get("EXENGINE_LONG") else 8

# Acknowledges each frame through a pipe when put has returned, and goes on until it is killed.
WRITER = """
import itertools, os, sys, zlib
import numpy as np
import exengine

def pixels(number):
    return np.full((16, 24), number, np.uint16) ^ np.arange(24, dtype=np.uint16)

storages = [exengine.open_storage("ndtiff", path, max_file_bytes=200_000) for path in sys.argv[1:]]
os.write(1, b"ready\\n")
for storage in storages:
    go = int(sys.stdin.buffer.readline())
    for number in itertools.count():
        storage.put({"time": number, "channel": "ab"[number % 2]}, pixels(number), {"number": number, "list": [number]})
        os.write(1, b".")
        if number + 1 == go:
            sys.stdin.buffer.readline()  # the killer says at which moment to go on
"""


def pixels(number):
    return np.full((16, 24), number, np.uint16) ^ np.arange(24, dtype=np.uint16)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("acknowledged", [10, 100, 1000])
def test_every_acknowledged_frame_is_readable_with_its_metadata_after_kill_9(
    acknowledged, tmp_path, start_python
):
    for attempt in range(TIMES):
        path = tmp_path / f"{attempt}"
        writer = start_python(WRITER, path)
        assert writer.stdout.readline() == b"ready\n"
        writer.stdin.write(b"%d\n" % acknowledged)
        writer.stdin.flush()
        count = len(writer.stdout.read(acknowledged))
        if attempt % 2:  # killed in the middle of what comes next, and not while it waits
            writer.stdin.write(b"\n")
            writer.stdin.flush()
        writer.send_signal(signal.SIGKILL)
        count += len(writer.stdout.read())
        writer.wait()
        with exengine.open_dataset(path) as dataset:
            assert dataset.status == "incomplete"
            assert acknowledged <= count <= len(dataset) <= count + 1
            for number in range(count):
                where = {"time": number, "channel": "ab"[number % 2]}
                assert np.array_equal(dataset[where], pixels(number)), (attempt, where)
                assert dataset.get_metadata(where) == {"number": number, "list": [number]}
            assert [c["time"] for c in dataset] == list(range(len(dataset)))


def test_the_lock_of_a_killed_writer_is_free(tmp_path, start_python):
    from exengine.base_classes import has_writer

    writer = start_python(WRITER, tmp_path / "a")
    assert writer.stdout.readline() == b"ready\n"
    assert has_writer(tmp_path / "a")
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert not has_writer(tmp_path / "a")
    with exengine.open_storage("ndtiff", tmp_path / "a", if_exists="overwrite") as storage:
        storage.put({"time": 0}, np.zeros((2, 2), np.uint8), None)
    with exengine.open_dataset(tmp_path / "a") as dataset:
        assert (dataset.status, len(dataset)) == ("complete", 1)
