"""``recover`` makes a finished dataset of what can be read, in place and as a copy, and may be killed at any step.

``EXENGINE_LONG=1`` kills it at every call. Otherwise, it is killed at every fifth call.
"""

import itertools
import os

import numpy as np
import pytest

import exengine
from exengine.testing import killed_at_call

pytestmark = pytest.mark.once

STEP = 1 if os.environ.get("EXENGINE_LONG") else 5
PLACES = [
    {"time": t, "channel": channel, "position": p} for t in range(3) for channel in ("a", "b") for p in (0, 1)
]


@pytest.fixture(params=["none", "blosc-lz4"])
def unfinished(request, new, path, frame):
    """Return a dataset whose writer was closed without ``finish``."""
    storage = new(shard=2, codec=request.param)
    for number, axes in enumerate(PLACES):
        storage.put(axes, frame(axes), {"number": number})
    storage.close()
    return path


@pytest.fixture
def is_good(frame, by_zarr):
    """Return what checks that a dataset has exactly these frames, for us and for zarr-python."""

    def check(path, numbers):
        numbers = list(numbers)
        verified = exengine.verify(path)
        assert not verified.damaged and not verified.problems
        with exengine.open_dataset(path) as dataset:
            assert dataset.status == "aborted" and len(dataset) == len(numbers)
            for number in numbers:
                np.testing.assert_array_equal(dataset[PLACES[number]], frame(PLACES[number]))
                assert dataset.get_metadata(PLACES[number]) == {"number": number}
        for number in numbers:
            axes = PLACES[number]
            array = by_zarr(path, f"{axes['position']}/0")
            np.testing.assert_array_equal(array[axes["time"], "ab".index(axes["channel"])], frame(axes))

    return check


@pytest.mark.parametrize("in_place", [True, False])
def test_every_frame_of_a_dead_writer_is_in_the_recovered_dataset(in_place, unfinished, tmp_path, is_good):
    output = None if in_place else tmp_path / "copy.ome.zarr"
    report = exengine.recover(unfinished, in_place=in_place, output=output)
    assert report.frames == len(PLACES) and not report.lost
    is_good(report.path, range(len(PLACES)))
    again = exengine.recover(unfinished, in_place=in_place, output=output)
    assert again.outcome == "nothing to recover" or not in_place


@pytest.mark.parametrize("in_place", [True, False])
def test_a_damaged_frame_is_left_out_and_named(in_place, unfinished, tmp_path, is_good):
    files = [
        f for f in unfinished.rglob("*") if f.is_file() and ("c" in f.parts or f.name.startswith("part-"))
    ]
    file = max(files, key=lambda each: (each.stat().st_size, str(each)))
    data = bytearray(file.read_bytes())
    data[50] ^= 255
    file.write_bytes(data)
    with exengine.open_dataset(unfinished) as dataset:
        bad = [number for number, axes in enumerate(PLACES) if _is_damaged(dataset, axes)]
    assert len(bad) == 1
    report = exengine.recover(
        unfinished, in_place=in_place, output=None if in_place else tmp_path / "copy.ome.zarr"
    )
    assert report.frames == len(PLACES) - 1 and len(report.lost) == 1
    is_good(report.path, [number for number in range(len(PLACES)) if number not in bad])


def _is_damaged(dataset, axes):
    try:
        dataset[axes]
    except exengine.ExEngineError:
        return True
    return False


@pytest.mark.timeout(400)
def test_a_recovery_in_place_that_is_killed_at_any_step_is_repeated(unfinished, is_good):
    killed = 0
    for number, when in zip(itertools.count(1, STEP), itertools.cycle(("before", "after")), strict=False):
        if not killed_at_call(number, when, lambda: exengine.recover(unfinished, in_place=True)):
            break
        killed += 1
        with exengine.open_dataset(unfinished) as dataset:
            assert len(dataset) == len(PLACES)
    assert killed > 3
    is_good(unfinished, range(len(PLACES)))


def test_a_dataset_without_frames_is_recovered(new, path, tmp_path):
    new().close()
    report = exengine.recover(path, output=tmp_path / "copy.ome.zarr")
    with exengine.open_dataset(report.path) as dataset:
        assert (dataset.status, len(dataset)) == ("aborted", 0)
    exengine.recover(path, in_place=True)
    with exengine.open_dataset(path) as dataset:
        assert (dataset.status, len(dataset)) == ("aborted", 0)
