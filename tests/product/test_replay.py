"""A dataset of any backend is played into any other backend, and followed while it is being written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import exengine
from exengine.frame_sources.simulated import decode

EXAMPLES = Path(__file__).parents[2] / "examples"
SEQUENCE = {
    "channels": ["DAPI", "FITC"],
    "stage_positions": [{"x": 10, "y": 20, "z": 5, "name": "a"}, {"x": -30, "y": 40, "z": 6, "name": "b"}],
    "time_plan": {"interval": 2, "loops": 2},
    "z_plan": {"range": 4, "step": 2},
}


def acquire(backend, path, source, **more):
    path = None if backend == "ndram" else str(path)
    run = exengine.acquire({"storage": {"backend": backend, "path": path}, "source": source, **more})
    assert run.complete
    return run


def replay(path, **options):
    return {"name": "replay", "options": {"path": str(path), **options}}


@pytest.fixture(scope="module", params=["ndtiff", "ome-zarr"])
def recorded(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "recorded.ome.zarr"
    acquire(
        request.param, path, {"name": "simulated", "options": {"width": 48, "height": 32}}, sequence=SEQUENCE
    )
    return path


@pytest.mark.parametrize("backend", ["ndtiff", "ome-zarr"])
def test_frames_and_facts_survive_a_replay_of_a_replay(recorded, tmp_path, backend):
    acquire(backend, tmp_path / "first", replay(recorded))
    acquire("ome-zarr", tmp_path / "second.ome.zarr", replay(tmp_path / "first"))
    with exengine.open_dataset(recorded) as old, exengine.open_dataset(tmp_path / "second.ome.zarr") as new:
        assert list(map(dict, new)) == list(map(dict, old)) and len(old) == 24
        for where in old:
            assert np.array_equal(new[where], old[where]) and decode(new[where]) == where
            assert new.get_metadata(where) == old.get_metadata(where)
        assert new.summary_metadata == old.summary_metadata
        plan = new.recorded_plan
    assert (plan.pixel_size_um, plan.z_step_um, plan.interval_s) == ((1.0, 1.0), 2.0, 2.0)
    assert [(place.name, place.x_um, place.y_um, place.z_um) for place in plan.stage_positions] == [
        ("a", 10, 20, 3), ("b", -30, 40, 4)
    ]  # fmt: skip


def test_the_scales_of_ome_zarr_are_those_of_the_dataset_that_is_played(recorded, tmp_path):
    import json

    acquire("ome-zarr", tmp_path / "new.ome.zarr", replay(recorded))
    documents = [json.loads(path.read_text()) for path in (tmp_path / "new.ome.zarr").rglob("zarr.json")]
    images = [
        doc["attributes"]["ome"]
        for doc in documents
        if "multiscales" in doc.get("attributes", {}).get("ome", {})
    ]
    assert len(images) == 2
    for image in images:
        (multiscale,) = image["multiscales"]
        axes = [axis["name"] for axis in multiscale["axes"]]
        scale = multiscale["datasets"][0]["coordinateTransformations"][0]["scale"]
        assert dict(zip(axes, scale, strict=True)) == {"t": 2.0, "c": 1.0, "z": 2.0, "y": 1.0, "x": 1.0}


def test_frames_of_different_shapes_are_refused_before_anything_is_written(tmp_path):
    with exengine.open_storage("ndtiff", tmp_path / "mixed") as storage:
        storage.put({"time": 0}, np.zeros((4, 4), np.uint16), {})
        storage.put({"time": 1}, np.zeros((4, 5, 3), np.uint8), {})
    with pytest.raises(exengine.errors.UnsupportedDataError, match=r"\(4, 4\) uint16, \(4, 5, 3\) uint8"):
        acquire("ome-zarr", tmp_path / "new.ome.zarr", replay(tmp_path / "mixed"))
    assert sorted(os.listdir(tmp_path)) == ["mixed"]
    assert acquire("ndtiff", tmp_path / "new", replay(tmp_path / "mixed")).stored == 2


# -- following -----------------------------------------------------------------------------------


@pytest.fixture
def writer(tmp_path):
    """Return a function that starts to acquire 100 simulated frames per second; return process and path."""
    started = []

    def start(backend, loops):
        path = tmp_path / "live.ome.zarr"
        arguments = ["acquire", EXAMPLES / "simulated.yaml", "--backend", backend, "--path", path]
        for setting in (
            "source.options.rate_hz=100",
            "source.options.width=64",
            f"sequence.time_plan.loops={loops}",
        ):
            arguments += ["--set", setting]
        with open(tmp_path / "said", "wb") as said:
            command = [sys.executable, "-m", "exengine", *map(str, arguments)]
            started.append(subprocess.Popen(command, stdout=said, stderr=said))
        while not path.exists():
            assert started[-1].poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.01)
        return started[-1], path

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("backend", ["ndtiff", "ome-zarr"])
def test_a_reader_in_another_process_follows_every_frame_until_the_end(writer, backend):
    process, path = writer(backend, 20)
    came, before_the_end = [], 0
    with exengine.open_dataset(path) as dataset:
        for where in dataset.follow(timeout=30):
            assert decode(dataset[where]) == where
            came.append(where)
            before_the_end += process.poll() is None
        assert dataset.status == "complete" and came == list(dataset)
    assert len(came) == len(set(came)) == 200 and before_the_end > 50


@pytest.mark.parametrize("backend", ["ndtiff", "ome-zarr"])
def test_following_ends_after_the_last_frame_of_a_writer_that_was_killed(writer, backend):
    process, path = writer(backend, 200)
    came = []
    with exengine.open_dataset(path) as dataset:
        for where in dataset.follow(timeout=30):
            came.append(where)
            if len(came) == 40:
                process.send_signal(signal.SIGKILL)
                process.wait()
        assert dataset.status == "incomplete" and came == list(dataset) and 40 <= len(came) < 2000
