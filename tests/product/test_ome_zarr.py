"""Acquisitions with the demo microscope of Micro-Manager, stored as OME-Zarr and read with zarr-python."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import useq
import zarr

import exengine

EXAMPLES = Path(__file__).parents[2] / "examples"
SOURCE = {"name": "micromanager", "options": {"properties": {"Camera.Binning": 2}}}  # pixels of 2 um
POSITIONS = [
    {"name": "left", "x": 10.0, "y": 20.0, "z": 5.0},
    {"name": "right", "x": 50.0, "y": 20.0, "z": 6.0},
]
SEQUENCE = {
    "stage_positions": POSITIONS,
    "channels": ["DAPI", "FITC"],
    "time_plan": {"interval": 0.5, "loops": 2},
    "z_plan": {"range": 4, "step": 2},
}
UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}


def ome(path):
    return json.loads((path / "zarr.json").read_bytes())["attributes"]["ome"]


def check_image(path, dims, scale, translation):
    """Check the metadata of an image, and return its array."""
    (multiscales,) = ome(path)["multiscales"]
    assert "".join(axis["name"] for axis in multiscales["axes"]) == dims
    assert [axis.get("unit") for axis in multiscales["axes"]] == [UNITS.get(dim) for dim in dims]
    (level,) = multiscales["datasets"]
    stated = {each["type"]: each[each["type"]] for each in level["coordinateTransformations"]}
    assert stated["scale"] == pytest.approx(scale)
    assert stated.get("translation", [0.0] * len(dims)) == pytest.approx(translation)
    array = zarr.open_array(path / level["path"], mode="r")
    assert "".join(array.metadata.dimension_names) == dims
    return array


@pytest.fixture(scope="module")
def acquired(tmp_path_factory):
    path = tmp_path_factory.mktemp("acquired") / "demo.ome.zarr"
    ledger = exengine.acquire(
        {"storage": {"backend": "ome-zarr", "path": str(path)}, "source": SOURCE, "sequence": SEQUENCE}
    )
    assert ledger.stored == 24
    return path


def test_positions_are_images_with_axes_scales_units_channels_and_places(acquired):
    assert ome(acquired) == {"version": "0.5", "bioformats2raw.layout": 3}
    assert ome(acquired / "OME")["series"] == ["0", "1"]
    for number, place in enumerate(POSITIONS):
        image = acquired / str(number)
        first_plane = place["z"] - 2
        array = check_image(image, "tczyx", [0.5, 1, 2, 2, 2], [0, 0, first_plane, place["y"], place["x"]])
        assert array.shape == (2, 2, 3, 256, 256)
        described = ome(image)
        assert described["multiscales"][0]["name"] == place["name"]
        assert [channel["label"] for channel in described["omero"]["channels"]] == ["DAPI", "FITC"]


def test_zarr_python_reads_the_frames_that_the_dataset_has(acquired):
    with exengine.open_dataset(acquired) as dataset:
        assert len(dataset) == 24 and dataset.status == "complete"
        for coordinates in dataset:
            image = "0" if coordinates["position"] == "left" else "1"
            index = coordinates["time"], ["DAPI", "FITC"].index(coordinates["channel"]), coordinates["z"]
            pixels = zarr.open_array(acquired / image / "0", mode="r")[index]
            np.testing.assert_array_equal(pixels, dataset[coordinates])
            assert pixels.any()


def test_the_stage_is_where_the_metadata_of_the_images_say(acquired):
    with exengine.open_dataset(acquired) as dataset:
        for place in POSITIONS:
            metadata = dataset.get_metadata({"time": 1, "position": place["name"], "channel": "FITC", "z": 0})
            assert metadata["pixel_size_um"] == 2
            at = metadata["position"]
            assert (at["x_um"], at["y_um"], at["z_um"]) == pytest.approx(
                (place["x"], place["y"], place["z"] - 2), abs=0.1
            )


def test_neighbouring_wells_of_a_plate_become_a_plate(tmp_path):
    path = tmp_path / "plate.ome.zarr"
    wells = {
        "plate": {"rows": 4, "columns": 6, "well_spacing": 0.5, "well_size": 0.4, "name": "24-well"},
        "a1_center_xy": [0.0, 0.0],
        "selected_wells": [[0, 0, 1], [0, 1, 1]],
        "well_points_plan": {"rows": 1, "columns": 2, "fov_width": 64, "fov_height": 64},
    }
    exengine.acquire(
        {
            "storage": {"backend": "ome-zarr", "path": str(path)},
            "source": SOURCE,
            "sequence": {"stage_positions": wells, "channels": ["DAPI"]},
        }
    )
    plate = ome(path)["plate"]
    assert plate["name"] == "24-well" and plate["field_count"] == 2
    assert [row["name"] for row in plate["rows"]] == list("ABCD")
    assert [column["name"] for column in plate["columns"]] == list("123456")
    indices = {well["path"]: (well["rowIndex"], well["columnIndex"]) for well in plate["wells"]}
    assert indices == {"A/1": (0, 0), "A/2": (0, 1), "B/2": (1, 1)}
    for well, (row, column) in indices.items():
        assert [image["path"] for image in ome(path / well)["well"]["images"]] == ["0", "1"]
        for field in range(2):
            place = [0, -500.0 * row, 500.0 * column - 32 + 64 * field]
            assert check_image(path / well / str(field), "cyx", [1, 2, 2], place).shape == (1, 256, 256)


def test_frames_in_arbitrary_order_without_a_plan_find_their_places(tmp_path):
    from exengine_micromanager import MicroManagerSource

    frames = []
    source = MicroManagerSource(**SOURCE["options"])
    try:
        source.prepare(useq.MDASequence(**SEQUENCE))
        source.run(lambda *frame: frames.append(frame))
    finally:
        source.close()
    random.Random(5).shuffle(frames)
    missing = frames.pop()
    path = tmp_path / "events.ome.zarr"
    with exengine.open_storage("ome-zarr", path) as storage:
        for coordinates, pixels, metadata in frames:
            storage.put(coordinates, pixels, metadata)
    with exengine.open_dataset(path) as dataset:
        assert len(dataset) == 23 and missing[0] not in dataset
        for coordinates, pixels, metadata in frames:
            np.testing.assert_array_equal(dataset[coordinates], pixels)
            assert dataset.get_metadata(coordinates)["position"] == metadata["position"]
        order = dataset.axes
    images = {ome(path / str(number))["multiscales"][0]["name"]: path / str(number) for number in range(2)}
    labels = [channel["label"] for channel in ome(path / "0")["omero"]["channels"]]
    assert sorted(labels) == ["DAPI", "FITC"] and sorted(order["position"]) == ["left", "right"]
    for coordinates, pixels, _ in frames:
        array = zarr.open_array(images[coordinates["position"]] / "0", mode="r")
        at = coordinates["time"], labels.index(coordinates["channel"]), coordinates["z"]
        np.testing.assert_array_equal(array[at], pixels)


def test_the_command_in_the_readme_stores_the_first_example_as_ome_zarr(tmp_path):
    command = [sys.executable, "-m", "exengine", "acquire", EXAMPLES / "demo.yaml"]
    given = ["--backend", "ome-zarr", "--path", "data/demo.ome.zarr"]
    done = subprocess.run(
        [*command, *given], check=False, capture_output=True, text=True, cwd=tmp_path, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "100 stored" in done.stdout and "complete: data/demo.ome.zarr (ome-zarr)" in done.stdout
    path = tmp_path / "data" / "demo.ome.zarr"
    array = zarr.open_array(path / "0", mode="r")
    assert array.shape == (10, 2, 5, 512, 512)
    assert (
        " ".join(["exengine acquire examples/demo.yaml", *given])
        in (EXAMPLES.parent / "README.md").read_text()
    )


def test_an_error_of_the_disk_in_the_table_of_frames_is_reported_and_costs_no_frame(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    storage = exengine.open_storage("ome-zarr", tmp_path / "data")
    for time in range(3):
        storage.put({"time": time}, np.full((8, 8), time, np.uint16), {"number": time})
    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", full)
    with pytest.raises(exengine.errors.StorageFailedError, match="No space left"):
        storage.finish()
    storage.close()
    dataset = exengine.open_dataset(tmp_path / "data")
    assert dataset.status == "failed" and "No space left" in dataset.status_reason
    assert [dataset.get_metadata({"time": time}) for time in range(3)] == [{"number": n} for n in range(3)]
    assert zarr.open_array(tmp_path / "data" / "0").shape[0] == 3  # other programs read its final form
    assert not list((tmp_path / "data").rglob("file-*"))
