"""Several images of another writer: plates, wells and the layout of bioformats2raw."""

import json
import shutil

import numpy as np
import pytest
from hand_made import edit, group, image, numbered, plate, series

from exengine.base_classes import DatasetStatus
from exengine.errors import CoordinatesNotFoundError, DatasetDamagedError, UnsupportedOperationError
from exengine_ome_zarr.foreign import is_ome_zarr, open_foreign

VERSIONS = ("0.4", "0.5", "0.6")
IMAGES = [numbered(2, 2, 1, 8, 9) + np.uint16(offset) for offset in (0, 1000, 2000)]


def check(dataset, expected):
    """Compare every frame with the images, by position."""
    assert dataset.axes["position"] == list(expected)
    for coordinates in dataset:
        data = expected[coordinates["position"]]
        place = (coordinates["time"], dataset.axes["channel"].index(coordinates["channel"]), coordinates["z"])
        np.testing.assert_array_equal(dataset[coordinates], data[place])
    assert len(dataset) == 4 * len(expected)


@pytest.mark.parametrize("version", VERSIONS)
def test_images_of_a_series_are_positions(path, version):
    series(path, IMAGES, version, labels=("a", "b"))
    assert is_ome_zarr(path)
    dataset = open_foreign(path)
    assert list(dataset.axes) == ["position", "time", "channel", "z"]
    check(dataset, dict(enumerate(IMAGES)))
    assert dataset.summary_metadata["channels"][1]["name"] == "b"
    assert dataset.summary_metadata["ome"]["bioformats2raw.layout"] == 3
    assert dataset.summary_metadata["image"]["multiscales"]


def test_a_series_without_a_list_is_numbered(path):
    series(path, IMAGES, listed=False)
    check(open_foreign(path), dict(enumerate(IMAGES)))


@pytest.mark.parametrize(
    ("names", "positions"),
    [
        (["A", "B", "C"], ["A", "B", "C"]),
        (["A", "A", "B"], [0, 1, 2]),
        (["A", "", "B"], [0, 1, 2]),
        (["0", "1", "2"], [0, 1, 2]),
    ],
)
def test_positions_have_the_names_of_images_if_these_are_distinct(path, names, positions):
    series(path, IMAGES, names=names)
    check(open_foreign(path), dict(zip(positions, IMAGES, strict=True)))


def test_positions_have_paths_if_these_are_not_numbers(path):
    series(path, IMAGES)
    for number in range(3):
        (path / str(number)).rename(path / f"Pos{number}")
    group(path / "OME", {"series": ["Pos0", "Pos1", "Pos2"]})
    check(open_foreign(path), {f"Pos{number}": data for number, data in enumerate(IMAGES)})


def test_a_series_of_one_image_has_positions(path):
    series(path, IMAGES[:1])
    check(open_foreign(path), {0: IMAGES[0]})


def test_two_dimensional_images_have_positions_only(path):
    for number in range(2):
        image(path / str(number), numbered(8, 9) + np.uint16(number), "yx")
    group(path, {"bioformats2raw.layout": 3})
    dataset = open_foreign(path)
    assert list(dataset) == [{"position": 0}, {"position": 1}]
    assert dataset[{"position": 1}][0, 0] == 1
    assert dataset.as_array().compute()[:, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize("version", VERSIONS)
def test_fields_of_a_plate_are_positions(path, version):
    plate(path, {"A/1": IMAGES[:2], "B/2": IMAGES[2:]}, version)
    assert is_ome_zarr(path)
    dataset = open_foreign(path)
    check(dataset, {"A/1/0": IMAGES[0], "A/1/1": IMAGES[1], "B/2/0": IMAGES[2]})
    assert dataset.check_structure() == []
    assert dataset.summary_metadata["ome"]["plate"]["wells"][1]["path"] == "B/2"


def test_a_plate_takes_precedence_over_a_series(path):
    plate(path, {"A/1": IMAGES[:2]})
    edit(path / "zarr.json", lambda d: d["attributes"]["ome"].update({"bioformats2raw.layout": 3}))
    check(open_foreign(path), {"A/1/0": IMAGES[0], "A/1/1": IMAGES[1]})


def test_a_well_opens_by_itself(path):
    plate(path, {"A/1": IMAGES[:2]})
    assert is_ome_zarr(path / "A" / "1")
    check(open_foreign(path / "A" / "1"), {0: IMAGES[0], 1: IMAGES[1]})


def test_all_positions_form_one_array(path):
    plate(path, {"A/1": IMAGES[:2], "B/2": IMAGES[2:]}, labels=("a", "b"))
    dataset = open_foreign(path)
    np.testing.assert_array_equal(dataset.as_array().compute(), np.stack(IMAGES))
    other = dataset.as_array(["channel", "position", "z", "time"])
    np.testing.assert_array_equal(other.compute(), np.stack(IMAGES).transpose(2, 0, 3, 1, 4, 5))


def test_images_of_different_lengths_form_an_array_with_gaps(path):
    series(path, [IMAGES[0], IMAGES[1][:1]])
    dataset = open_foreign(path)
    assert len(dataset) == 6 and {"position": 1, "time": 1, "channel": 0, "z": 0} not in dataset
    with pytest.raises(CoordinatesNotFoundError, match="2 frames are missing"):
        dataset.as_array()
    filled = dataset.as_array(missing=5).compute()
    np.testing.assert_array_equal(filled[0], IMAGES[0])
    np.testing.assert_array_equal(filled[1, 0], IMAGES[1][0])
    assert (filled[1, 1] == 5).all()
    assert dataset.as_array(missing="mask").compute().mask[1, 1].all()


def test_images_of_different_sizes_open_but_do_not_form_an_array(path):
    series(path, [IMAGES[0], IMAGES[1][..., :4]])
    dataset = open_foreign(path)
    assert dataset[{"position": 1, "time": 0, "channel": 0, "z": 0}].shape == (8, 4)
    with pytest.raises(UnsupportedOperationError):
        dataset.as_array().compute()


@pytest.mark.parametrize("damage", ["no image", "no array", "no metadata"])
def test_an_image_that_cannot_be_read_does_not_hide_the_others(path, damage):
    series(path, IMAGES)
    if damage == "no image":
        shutil.rmtree(path / "1")
    elif damage == "no array":
        shutil.rmtree(path / "1" / "0")
    else:
        (path / "1" / "zarr.json").write_text("{")
    dataset = open_foreign(path)
    check(dataset, {0: IMAGES[0], 2: IMAGES[2]})
    assert dataset.status is DatasetStatus.DAMAGED and "1" in dataset.status_reason
    assert dataset.check_structure() == [dataset.status_reason]


def test_a_series_without_images_is_damaged(path):
    group(path, {"bioformats2raw.layout": 3})
    assert is_ome_zarr(path)
    with pytest.raises(DatasetDamagedError, match="lists no images"):
        open_foreign(path)


def test_a_series_in_which_no_image_can_be_read_names_the_first_fault(path):
    series(path, IMAGES)
    for number in range(3):
        (path / str(number) / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group"}))
    with pytest.raises(DatasetDamagedError, match="is listed as an image, but it is not one"):
        open_foreign(path)
