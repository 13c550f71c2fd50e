"""The OME-XML of a series of images."""

from xml.etree import ElementTree

import numpy as np
import pytest

import exengine
from exengine.base_classes import PlannedAxis, PlannedChannel, PlannedPosition, SourcePlan

SCHEMA = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
NAME = "OME/METADATA.ome.xml"
PLAN = SourcePlan(
    axes=(
        PlannedAxis("position", ("left", "right")),
        PlannedAxis("channel", ("DAPI", "FITC")),
        PlannedAxis("z", length=3),
    ),
    pixel_size_um=(0.5, 0.25),
    z_step_um=2.0,
    channels=(PlannedChannel("DAPI", "0000FF"), PlannedChannel("FITC")),
    stage_positions=(PlannedPosition(name="left", x_um=1.0, y_um=2.0), PlannedPosition(name="right")),
)


def put_all(storage, positions, dtype=np.uint16):
    for position in positions:
        for channel in ("DAPI", "FITC"):
            for z in range(3):
                frame = np.zeros((16, 32), dtype)
                storage.put({"position": position, "channel": channel, "z": z}, frame, {})


def test_it_lists_the_images_with_their_sizes_channels_and_places(tmp_path):
    path = tmp_path / "series"
    with exengine.open_storage("ome-zarr", path) as storage:
        storage.expect(PLAN)
        put_all(storage, ["left", "right"])
    left, right = ElementTree.parse(path / NAME).getroot()
    assert (left.get("ID"), left.get("Name")) == ("Image:0", "left")
    assert (right.get("ID"), right.get("Name")) == ("Image:1", "right")
    stage, pixels = left
    assert (stage.get("X"), stage.get("Y"), stage.get("Z"), stage.get("XUnit")) == ("1.0", "2.0", None, "µm")
    stated = {"SizeX": "32", "SizeY": "16", "SizeZ": "3", "SizeC": "2", "SizeT": "1", "Type": "uint16"}
    stated |= {"PhysicalSizeX": "0.25", "PhysicalSizeY": "0.5", "PhysicalSizeZ": "2.0", "TimeIncrement": None}
    assert {name: pixels.get(name) for name in stated} == stated
    dapi, fitc, _ = pixels
    assert (dapi.get("Name"), dapi.get("Color")) == ("DAPI", str(0x0000FFFF))
    assert fitc.get("Name") == "FITC"


def test_an_image_is_listed_as_soon_as_it_exists(tmp_path):
    path = tmp_path / "series"
    storage = exengine.open_storage("ome-zarr", path)
    put_all(storage, ["left"])
    assert len(ElementTree.parse(path / NAME).getroot()) == 1
    put_all(storage, ["right"])
    assert len(ElementTree.parse(path / NAME).getroot()) == 2
    storage.close()


@pytest.mark.parametrize("name", ["a\x01b\ud800", '<&">', "日本"])
def test_any_name_gives_valid_xml(tmp_path, name):
    path = tmp_path / "series"
    try:
        with exengine.open_storage("ome-zarr", path) as storage:
            put_all(storage, [name], np.int64)
    except exengine.errors.ExEngineError:
        assert "\ud800" in name  # refused before
        return
    (image,) = ElementTree.parse(path / NAME).getroot()
    assert image.get("Name") == name.replace("\x01", "\ufffd") and len(image) == 0


def test_a_single_image_and_a_plate_have_none_and_overwriting_deletes_it(tmp_path):
    path = tmp_path / "data"
    with exengine.open_storage("ome-zarr", path) as storage:
        put_all(storage, ["left"])
    assert (path / NAME).exists()
    with exengine.open_storage("ome-zarr", path, if_exists="overwrite", layout="plate") as storage:
        put_all(storage, ["A1"])
    assert not (path / "OME").exists()
    with exengine.open_storage("ome-zarr", path, if_exists="overwrite") as storage:
        storage.put({"time": 0}, np.zeros((16, 16), np.uint8), {})
    assert not (path / "OME").exists()
