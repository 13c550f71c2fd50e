"""Datasets as layers of napari: lazy arrays with names, colors and scales, found through an npe2 manifest."""

from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml

import exengine
from exengine.base_classes import PlannedChannel, SourcePlan
from exengine.viewer.napari_reader import get_reader, layers_of

PLAN = SourcePlan(
    pixel_size_um=(0.5, 0.25), z_step_um=2.0, interval_s=10.0,
    channels=(PlannedChannel("DAPI", "0000FF"), PlannedChannel("FITC", "00FF00")),
)  # fmt: skip


def frame(time, channel, z):
    return np.full((6, 8), 100 * time + 10 * (channel == "FITC") + z, np.uint16)


@pytest.fixture
def path(tmp_path):
    with exengine.open_storage("ome-zarr", tmp_path / "cells.ome.zarr") as storage:
        storage.expect(PLAN)
        for time in range(2):
            for channel in ("DAPI", "FITC"):
                for z in range(3):
                    if (time, channel, z) != (1, "FITC", 2):
                        at = {"time": time, "channel": channel, "z": z}
                        storage.put(at, frame(**at), None)
    return tmp_path / "cells.ome.zarr"


def test_each_channel_is_a_layer_with_its_name_color_and_scale(path):
    layers = get_reader(str(path))(str(path))
    assert [(options["name"], options["colormap"], kind) for _, options, kind in layers] == [
        ("DAPI", "#0000FF", "image"),
        ("FITC", "#00FF00", "image"),
    ]
    for pixels, options, _ in layers:
        assert pixels.shape == (2, 3, 6, 8) and pixels.dtype == np.uint16
        assert options["axis_labels"] == ["time", "z", "y", "x"]
        assert options["scale"] == [10.0, 2.0, 0.5, 0.25] and options["blending"] == "additive"
        assert options["units"] == ["second", "micrometer", "micrometer", "micrometer"]
        for time in range(2):
            for z in range(3):
                exists = (time, options["name"], z) != (1, "FITC", 2)
                expected = frame(time, options["name"], z) if exists else np.zeros((6, 8))
                assert np.array_equal(np.asarray(pixels[time, z]), expected)


def test_frames_are_read_when_they_are_shown(path, monkeypatch):
    with exengine.open_dataset(path) as dataset:
        read = []
        get_data = dataset.get_data
        monkeypatch.setattr(dataset, "get_data", lambda at: read.append(dict(at)) or get_data(at))
        (dapi, _, _), _ = layers_of(dataset)
        read.clear()
        np.asarray(dapi[1, 2])
        assert read == [{"time": 1, "channel": "DAPI", "z": 2}]


def test_rgb_frames_are_one_layer_without_a_colormap(tmp_path):
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    with exengine.open_storage("ndtiff", tmp_path / "rgb") as storage:
        for time in range(2):
            storage.put({"time": time}, pixels, {})
    ((found, options, _),) = get_reader([str(tmp_path / "rgb")])([str(tmp_path / "rgb")])
    assert options["rgb"] and options["axis_labels"] == ["time", "y", "x"] and "colormap" not in options
    assert options["scale"] == [1, 1, 1] and options["units"] == ["pixel"] * 3
    assert options["name"] == "rgb" and np.array_equal(np.asarray(found[1]), pixels)


def test_a_path_that_is_not_a_dataset_is_left_to_other_readers(tmp_path, path):
    (tmp_path / "picture.png").write_bytes(b"")
    for other in (tmp_path / "picture.png", tmp_path, tmp_path / "nothing"):
        assert get_reader(str(other)) is None
    assert get_reader([str(path), str(path)]) is None


def manifest_path():
    (entry,) = [each for each in entry_points(group="napari.manifest") if each.name == "exengine"]
    module, _, name = entry.value.partition(":")
    return str(files(module).joinpath(name))


def test_the_manifest_leads_to_the_reader():
    manifest = yaml.safe_load(Path(manifest_path()).read_text())
    assert manifest["name"] == "exengine"
    (command,) = manifest["contributions"]["commands"]
    (reader,) = manifest["contributions"]["readers"]
    assert reader["command"] == command["id"] and reader["accepts_directories"]
    assert command["python_name"] == f"{get_reader.__module__}:{get_reader.__name__}"
