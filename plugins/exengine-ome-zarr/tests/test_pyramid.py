"""Resolution levels: their pixels, and the moments at which they are built."""

import os
import threading
import time

import numpy as np
import pytest
import zarr

import exengine
from exengine.base_classes import PlannedAxis, SourcePlan
from exengine_ome_zarr import OmeZarrStorage, add_pyramid
from exengine_ome_zarr.pyramid import halve

PLAN = SourcePlan(axes=(PlannedAxis("time", length=4), PlannedAxis("z", (0, 1))))


def frame_at(time, z, shape=(1101, 1303)):
    return np.random.default_rng([time, z]).integers(0, 4096, shape, np.uint16)


def block_means(frame):
    """Return the mean of each block of 2 x 2 pixels that exist, rounded, without the code under test."""
    found = np.empty([(length + 1) // 2 for length in frame.shape], frame.dtype)
    for y in range(found.shape[0]):
        for x in range(found.shape[1]):
            block = frame[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            found[y, x] = int(np.floor(block.mean() + 0.5))
    return found


@pytest.mark.parametrize("shape", [(6, 8), (5, 8), (6, 7), (5, 7), (1, 1), (1, 6)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16"])
def test_the_mean_of_each_block_covers_the_pixels_that_exist(shape, dtype):
    frame = np.random.default_rng(1).integers(0, 120, shape).astype(dtype)
    np.testing.assert_array_equal(halve(frame, "mean"), block_means(frame))


def test_the_mean_of_large_integers_does_not_overflow():
    frame = np.full((2, 2), 2**64 - 1, np.uint64)
    assert halve(frame, "mean").tolist() == [[2**64 - 1]]


def test_the_median_and_every_second_pixel():
    frame = np.array([[1, 9, 4], [3, 100, 4]], np.uint16)
    assert halve(frame, "median").tolist() == [[6, 4]]
    assert halve(frame, "decimate").tolist() == [[1, 4]]


@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
def test_finish_builds_levels_that_zarr_python_and_the_reader_agree_on(tmp_path, codec):
    with exengine.open_storage("ome-zarr", tmp_path / "data", codec=codec, pyramid="mean") as storage:
        for t, z in ((0, 0), (0, 1), (1, 1)):  # one frame is missing
            storage.put({"time": t, "z": z}, frame_at(t, z), None)
    dataset = exengine.open_dataset(tmp_path / "data")
    assert dataset.resolution_levels == (0, 1, 2)
    levels = zarr.open_group(tmp_path / "data", mode="r")
    for t, z in ((0, 0), (0, 1), (1, 1)):
        expected = frame_at(t, z)
        for number in (0, 1, 2):
            np.testing.assert_array_equal(dataset.level(number)[{"time": t, "z": z}], expected)
            np.testing.assert_array_equal(levels[str(number)][t, z], expected)
            expected = halve(expected, "mean")
    assert {"time": 1, "z": 0} not in dataset.level(2)


def wait_for(path):
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        assert time.monotonic() < deadline, f"{path} was not built"
        time.sleep(0.01)  # another thread creates the file and notifies nobody


def test_a_complete_shard_gets_its_levels_while_more_frames_are_stored(tmp_path):
    storage = exengine.open_storage("ome-zarr", tmp_path / "data", pyramid="mean", shard=2)
    storage.expect(PLAN)
    for t in (0, 1):
        for z in (0, 1):
            storage.put({"time": t, "z": z}, frame_at(t, z), None)
    wait_for(tmp_path / "data/2/c/0/0/0/0")
    storage.put({"time": 2, "z": 0}, frame_at(2, 0), None)
    storage.finish()
    storage.close()
    assert "exengine-pyramid" not in {thread.name for thread in threading.enumerate()}
    levels = zarr.open_group(tmp_path / "data", mode="r")
    for t, z in ((0, 0), (1, 1), (2, 0)):
        np.testing.assert_array_equal(levels["1"][t, z], halve(frame_at(t, z), "mean"))


def test_levels_can_be_added_to_a_finished_dataset_and_replaced(tmp_path):
    with exengine.open_storage("ome-zarr", tmp_path / "data") as storage:
        storage.put({"time": 0}, frame_at(0, 0), None)
    assert exengine.open_dataset(tmp_path / "data").resolution_levels == (0,)
    for method in ("decimate", "median"):
        add_pyramid(tmp_path / "data", method)
        dataset = exengine.open_dataset(tmp_path / "data")
        assert dataset.status == "complete" and dataset.check_structure() == []
        np.testing.assert_array_equal(dataset.level(1)[{"time": 0}], halve(frame_at(0, 0), method))


def test_levels_are_not_added_while_the_dataset_is_being_written(tmp_path):
    with exengine.open_storage("ome-zarr", tmp_path / "data") as storage:
        storage.put({"time": 0}, frame_at(0, 0), None)
        with pytest.raises(exengine.ExEngineError, match="is not finished"):
            add_pyramid(tmp_path / "data")


def test_a_dataset_with_resolution_levels_passes_verify(tmp_path):
    with OmeZarrStorage(tmp_path / "data", pyramid="mean") as storage:
        for time in range(3):
            storage.put({"time": time}, np.full((600, 600), time, np.uint16), {"time": time})
    report = exengine.verify(tmp_path / "data")
    assert report.ok and report.full_frames == 3 and report.frames == report.checked == 6
