"""``finish`` leaves shards that every program reads, keeps no unused space, and may be killed at any step.

``EXENGINE_LONG=1`` kills it at every call. Otherwise, it is killed at every third call.
"""

import itertools
import os

import numpy as np
import pytest

import exengine
from exengine.base_classes import PlannedAxis, SourcePlan
from exengine.testing import killed_at_call
from exengine_ome_zarr import finishing
from exengine_ome_zarr.format import sizes

pytestmark = pytest.mark.once

SHAPE = (64, 64)
FRAME_BYTES = 2 * 64 * 64
LONG = bool(os.environ.get("EXENGINE_LONG"))


@pytest.fixture
def put(frame):
    """Return what puts frames along time."""

    def make(storage, times):
        for time in times:
            storage.put({"time": time}, frame({"time": time}, SHAPE), {"number": time})

    return make


@pytest.fixture
def is_right(opened, by_zarr, by_tensorstore, frame):
    """Return what compares a dataset along time, by three readers; what is missing is zero for the others."""

    def check(path, times, status="complete"):
        dataset = opened(path)
        assert dataset.status == status, dataset.status_reason
        assert sorted(axes["time"] for axes in dataset) == sorted(times)
        assert exengine.verify(path).ok
        wanted = np.zeros((max(times) + 1, *SHAPE), np.uint16)
        for time in times:
            wanted[time] = frame({"time": time}, SHAPE)
            np.testing.assert_array_equal(dataset[{"time": time}], wanted[time])
            assert dataset.get_metadata({"time": time}) == {"number": time}
        for read in (by_zarr, by_tensorstore):
            np.testing.assert_array_equal(read(path), wanted)

    return check


CASES = {
    "one shard that is full": (4, range(4)),
    "a filled prefix": (64, range(5)),
    "all but the last frame": (8, range(7)),
    "all but the first frame": (8, range(1, 8)),
    "scattered": (64, [3, 40, 41, 63]),
    "backwards": (16, range(11, -1, -1)),
    "several shards with a gap": (4, [0, 1, 9, 21]),
}


@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
@pytest.mark.parametrize("frames_per_chunk", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_every_reader_agrees_after_finish(case, frames_per_chunk, codec, new, put, path, is_right):
    shard, times = CASES[case]
    if codec != "none" and frames_per_chunk > 1:
        pytest.skip("a compressed chunk has one frame")
    storage = new(shard=shard, frames_per_chunk=frames_per_chunk, codec=codec)
    put(storage, times)
    storage.finish()
    is_right(path, list(times))


def shard_sizes(path):
    return {file.name: file.stat().st_size for file in (path / "0" / "c").rglob("*") if file.is_file()}


def test_a_filled_prefix_is_trimmed_so_that_the_file_has_no_unused_space(new, put, path):
    storage = new(shard=1000, frames_per_chunk=1)
    put(storage, range(5))
    assert max(shard_sizes(path).values()) == 1000 * FRAME_BYTES + 16 * 1000 + 4
    storage.finish()
    assert max(shard_sizes(path).values()) == 5 * FRAME_BYTES + 16 * 1000 + 4


@pytest.fixture
def copies(monkeypatch):
    """Make every shard with holes worth a copy; return the shards that were copied."""
    copied = []
    copy = finishing._copy
    monkeypatch.setattr(sizes, "COPY_BYTES", FRAME_BYTES)
    monkeypatch.setattr(finishing, "_copy", lambda *given: (copied.append(given[1]), copy(*given)))
    return copied


def test_a_scattered_shard_is_copied_without_its_holes(new, put, path, is_right, copies):
    storage = new(shard=64, frames_per_chunk=1)
    times = [3, 40, 41, 63]
    put(storage, times)
    storage.finish()
    assert len(copies) == 1
    assert max(shard_sizes(path).values()) == len(times) * FRAME_BYTES + 16 * 64 + 4
    is_right(path, times)


def test_a_shard_that_was_copied_is_not_copied_from_its_old_places_when_finish_is_repeated(
    new, put, path, is_right, copies, monkeypatch
):
    storage = new(shard=64, frames_per_chunk=1)
    times = [3, 40, 41, 63]
    put(storage, times)
    with monkeypatch.context() as patch:
        patch.setattr(finishing, "place_documents", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            storage.finish()
    storage.close()
    assert len(copies) == 1
    exengine.recover(path, in_place=True)
    is_right(path, times, "aborted")


PLAN = SourcePlan(axes=(PlannedAxis("time", tuple(range(6))), PlannedAxis("channel", ("DAPI", "FITC"))))


def write_two_channels(storage, frame, order):
    for time, channel in order:
        axes = {"time": time, "channel": channel}
        storage.put(axes, frame(axes, SHAPE), axes)


ALL = [(time, channel) for time in range(6) for channel in ("DAPI", "FITC")]


@pytest.mark.parametrize("chunk", [None, 40])
@pytest.mark.parametrize("late", [1, 7])
def test_a_late_frame_of_a_compressed_shard_is_in_it_after_finish(
    late, chunk, new, path, opened, by_zarr, frame
):
    storage = new(codec="blosc-lz4", shard=4, chunk=chunk)  # without a plan, arrays grow by whole shards
    order = [each for each in ALL if each != ALL[late]] + [ALL[late]]
    write_two_channels(storage, frame, order)
    storage.finish()
    dataset, array = opened(), by_zarr(path)
    for time, channel in ALL:
        axes = {"time": time, "channel": channel}
        np.testing.assert_array_equal(dataset[axes], frame(axes, SHAPE))
        np.testing.assert_array_equal(array[time, ("DAPI", "FITC").index(channel)], frame(axes, SHAPE))
    assert exengine.verify(path).ok
    assert not list((path / ".exengine" / "open").iterdir())


SOME = [each for each in ALL if each not in ((1, "DAPI"), (2, "DAPI"), (2, "FITC"))]


def calls_of(work):
    """Return how many calls a function makes that touch the disk."""
    low, high = 0, 1024
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high) if killed_at_call(middle, "before", work(f"until-{middle}")) else (low, middle)
        )
    return low


@pytest.mark.timeout(400)
@pytest.mark.parametrize("options", [{}, {"codec": "blosc-lz4", "chunk": 40}], ids=["none", "compressed"])
def test_a_finish_that_is_killed_at_any_step_leaves_every_frame_and_recovers(
    options, tmp_path, frame, copies, by_zarr
):
    def work(name, finish=False):
        def do():
            storage = exengine.open_storage("ome-zarr", tmp_path / f"{name}.ome.zarr", shard=8, **options)
            write_two_channels(storage, frame, SOME)
            if not finish:
                os._exit(0)  # otherwise, the storage would be finished when the process ends
            storage.finish()

        return do

    number, killed = calls_of(work) + 1, 0
    for when in itertools.cycle(("before", "after")):
        path = tmp_path / f"{number}.ome.zarr"
        if not killed_at_call(number, when, work(number, finish=True)):
            break
        killed += 1
        with exengine.open_dataset(path) as dataset:
            assert len(dataset) == len(SOME)
            for time, channel in SOME:
                axes = {"time": time, "channel": channel}
                np.testing.assert_array_equal(dataset[axes], frame(axes, SHAPE))
        exengine.recover(path, in_place=True)
        assert exengine.verify(path).ok
        array = by_zarr(path)
        for time, channel in SOME:
            wanted = frame({"time": time, "channel": channel}, SHAPE)
            np.testing.assert_array_equal(array[time, ("DAPI", "FITC").index(channel)], wanted)
        number += 1 if LONG else 3
    assert killed > 5


def test_a_plan_that_was_not_completed_leaves_an_array_of_the_frames_that_exist(new, path, frame, by_zarr):
    storage = new(shard=4)
    storage.expect(PLAN)
    write_two_channels(storage, frame, ALL[:5])
    assert by_zarr(path).shape == (6, 2, *SHAPE)
    storage.finish()
    assert by_zarr(path).shape == (3, 2, *SHAPE)


def test_finish_leaves_nothing_in_the_folder_of_open_files(new, put, path):
    storage = new(codec="zstd", shard=4)
    put(storage, range(6))
    (path / ".exengine" / "open" / "file-17").write_bytes(b"left over")
    storage.finish()
    assert not os.listdir(path / ".exengine" / "open")
    assert not (path / ".exengine" / "journal").stat().st_size % 64


def test_metadata_are_consolidated_only_when_the_dataset_is_finished(new, put, path, document):
    storage = new()
    put(storage, range(2))
    assert "consolidated_metadata" not in document(path)
    storage.finish()
    assert document(path)["consolidated_metadata"]["metadata"]["0"]["shape"] == [2, *SHAPE]
