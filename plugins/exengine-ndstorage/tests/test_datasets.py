"""Datasets that Micro-Manager and Pycro-Manager wrote: what is in them is what we read."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import exengine
from exengine.errors import (
    CoordinatesError,
    CoordinatesNotFoundError,
    DatasetDamagedError,
    OptionError,
    StorageClosedError,
    UnsupportedOperationError,
)
from exengine_ndstorage.ndtiff import NDTiffStorage

LONG = bool(os.environ.get("EXENGINE_LONG"))
PLAIN = ["v3/12_bit_pycromanager_mda", "v3/ndtiff3.2_monochrome", "v3/ndtiffv3.0_test"]
PYRAMIDS = ["v3/ndtiffv3.0_stitched_test", "v3/ndtiff3.2_magellan_explore_rgb"]
VERSION_2 = "v2/ndtiffv2.0_test"
DAMAGED = "v3/mm_mda_tcz_15"
ALL = [*PLAIN, *PYRAMIDS, VERSION_2]


def sha256(dataset):
    whole = hashlib.sha256()
    frames = {json.dumps(dict(c.items()), sort_keys=True): c for c in dataset}
    for text in sorted(frames):
        whole.update(text.encode())
        whole.update(np.ascontiguousarray(dataset[frames[text]]).tobytes())
    return whole.hexdigest()


@pytest.mark.parametrize("name", PLAIN)
def test_frames_axes_and_pixels_are_those_of_the_truth(name, example_data, opened):
    truth = json.loads((example_data / "truth.json").read_text())[name]
    dataset = opened(example_data / name)
    assert len(dataset) == truth["frames"]
    for axis, values in truth["axes"].items():
        assert len(dataset.axes[axis]) == (values if isinstance(values, int) else len(values))
        if not isinstance(values, int):
            assert sorted(map(str, dataset.axes[axis])) == sorted(values)
    first = dataset[next(iter(dataset))]
    assert [list(first.shape), str(first.dtype)] == truth["first"]
    assert sha256(dataset) == truth["sha256"]
    assert dataset.status == "complete"


@pytest.mark.parametrize("name", ALL)
def test_every_frame_and_its_metadata_are_those_that_ndstorage_reads(
    name, example_data, opened, oracle, keys_of
):
    dataset, other = opened(example_data / name), oracle(example_data / name)
    keys = keys_of(other)
    assert sorted(map(str, map(sorted_items, keys))) == sorted(str(sorted_items(dict(c))) for c in dataset)
    assert keys
    for key in keys:
        np.testing.assert_array_equal(dataset[key], other.read_image(**key), strict=True)
        assert dataset.get_metadata(key) == other.read_metadata(**key)
    assert dataset.summary_metadata == other.summary_metadata


def sorted_items(mapping):
    return sorted(mapping.items())


@pytest.mark.parametrize(
    ("name", "frames_per_level"),
    [(PYRAMIDS[0], [2, 1, 1, 1, 1]), (PYRAMIDS[1], [3, 2, 3, 2, 1, 1])],
)
def test_a_pyramid_gives_its_levels(name, frames_per_level, example_data, opened, oracle):
    dataset, other = opened(example_data / name), oracle(example_data / name)
    assert dataset.resolution_levels == tuple(range(len(frames_per_level)))
    assert dataset.capabilities.pyramids and not NDTiffStorage.capabilities.pyramids
    for number, frames in enumerate(frames_per_level):
        tiles = dataset.level(number)
        assert len(tiles) == frames
        for coordinates in tiles:
            expected = other.read_image(resolution_level=number, **dict(coordinates.items()))
            np.testing.assert_array_equal(tiles[coordinates], expected, strict=True)
    with pytest.raises(CoordinatesNotFoundError, match="level must be one of"):
        dataset.level(len(frames_per_level))


@pytest.mark.parametrize("name", PYRAMIDS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_stitched_view_is_that_of_ndstorage_where_missing_tiles_are_asked_for_as_zero(
    name, level, example_data, opened, oracle
):
    mosaic = opened(example_data / name).as_array(stitched=True, level=level, missing=0)
    other = oracle(example_data / name).as_array(stitched=True, res_level=level)
    np.testing.assert_array_equal(np.asarray(mosaic), np.asarray(other), strict=True)


def test_the_stitched_view_never_invents_tiles(example_data, opened):
    dataset = opened(example_data / PYRAMIDS[0])
    with pytest.raises(CoordinatesNotFoundError, match="tiles that were not acquired: 2 of 4"):
        dataset.as_array(stitched=True)
    mosaic = dataset.as_array(stitched=True, missing="mask").compute()
    assert mosaic.shape == (1, 56, 56)
    assert mosaic.mask[0, :28, 28:].all() and mosaic.mask[0, 28:, :28].all()
    assert not mosaic.mask[0, :28, :28].any() and not mosaic.mask[0, 28:, 28:].any()
    np.testing.assert_array_equal(
        mosaic[0, :28, :28], dataset[{"channel": 0, "row": 0, "column": 0}][2:-2, 2:-2]
    )


@pytest.mark.parametrize("missing", [0, "mask"])
def test_a_stitched_view_of_a_dataset_that_was_closed_is_an_error_and_no_filler(missing, example_data):
    with exengine.open_dataset(example_data / PYRAMIDS[0]) as dataset:
        mosaic = dataset.as_array(stitched=True, missing=missing)
    with pytest.raises(StorageClosedError):
        mosaic.compute()


@pytest.mark.parametrize("missing", [1.5, "bad", -1])
def test_a_filler_that_tiles_cannot_hold_is_refused_at_once(missing, example_data, opened):
    with pytest.raises(OptionError, match="missing must be 'raise', 'mask' or a number"):
        opened(example_data / PYRAMIDS[0]).as_array(stitched=True, missing=missing)


def test_axes_of_a_stitched_view_are_checked(example_data, opened):
    with pytest.raises(CoordinatesError, match="axes must be channel, in any order; got row"):
        opened(example_data / PYRAMIDS[0]).as_array(["row"], stitched=True, missing=0)


def test_tiles_of_a_level_can_be_read_along_row_and_column(example_data, opened):
    dataset = opened(example_data / PYRAMIDS[1])
    array = dataset.as_array(["row", "column", "z"], missing=0)
    assert array.shape == (3, 3, 1, 32, 32, 3)
    at = next(iter(dataset))
    rows, columns = (sorted(dataset.axes[axis]) for axis in ("row", "column"))
    tile = array[rows.index(at["row"]), columns.index(at["column"]), 0].compute()
    np.testing.assert_array_equal(tile, dataset[at], strict=True)


def test_a_level_that_is_damaged_makes_the_pyramid_damaged(example_data, tmp_path, opened):
    copy = tmp_path / "pyramid"
    shutil.copytree(example_data / PYRAMIDS[0], copy)
    next((copy / "Downsampled_x4").glob("*.tif")).unlink()
    dataset = opened(copy)
    assert dataset.status == "damaged"
    assert "Downsampled_x4" in dataset.status_reason and ".tif" in dataset.status_reason
    assert dataset[next(iter(dataset))].shape == (32, 32)


def test_version_2_has_the_same_order_of_axes_under_every_hash_seed(example_data, run_python):
    program = "import sys, exengine; d = exengine.open_dataset(sys.argv[1]); print(d.axes, [dict(c.items()) for c in d])"
    orders = {
        run_python(program, example_data / VERSION_2, PYTHONHASHSEED=seed)
        for seed in ("0123" if LONG else "01")
    }
    assert len(orders) == 1
    assert "Reading" not in orders.pop()


@pytest.mark.parametrize(("number", "value"), [(1, 2**31 - 1), (6, 2**31)])
def test_version_2_is_refused_where_its_index_claims_more_than_a_file_has(
    number, value, example_data, tmp_path
):
    copy = shutil.copytree(example_data / VERSION_2, tmp_path / "copy")
    index = copy / "Full resolution" / "NDTiff.index"
    data = bytearray(index.read_bytes())
    data[len(data) - 32 + 4 * number : len(data) - 28 + 4 * number] = value.to_bytes(4, "little")
    index.write_bytes(data)
    with pytest.raises(DatasetDamagedError, match="a frame is larger than its file"):
        exengine.open_dataset(copy)


def test_version_2_is_refused_where_its_index_ends_inside_an_entry(example_data, tmp_path):
    copy = shutil.copytree(example_data / VERSION_2, tmp_path / "copy")
    index = copy / "Full resolution" / "NDTiff.index"
    index.write_bytes(index.read_bytes()[:-3])
    with pytest.raises(DatasetDamagedError, match="the index cannot be read"):
        exengine.open_dataset(copy)


def test_a_level_without_tiles_has_no_mosaic(example_data, tmp_path, opened):
    copy = shutil.copytree(example_data / PYRAMIDS[1], tmp_path / "copy")
    index = copy / "Downsampled_x2" / "NDTiff.index"
    data = index.read_bytes()
    index.write_bytes(data.replace(b'{"', b'["', 1))
    with pytest.raises((CoordinatesNotFoundError, UnsupportedOperationError)):
        opened(copy).as_array(stitched=True, missing=0, level=1)


def test_the_damaged_one_says_which_file_is_missing(example_data, opened):
    dataset = opened(example_data / DAMAGED)
    assert dataset.status == "damaged"
    assert "mm_mda_tcz_15_NDTiffStack.tif" in dataset.status_reason
    assert len(dataset) == 112
    with pytest.raises(DatasetDamagedError, match=r"mm_mda_tcz_15_NDTiffStack\.tif.*No such file"):
        dataset[next(iter(dataset))]


@pytest.mark.parametrize("name", ALL)
def test_opening_and_reading_changes_nothing(name, example_data, digest):
    before = digest(example_data / name)
    with exengine.open_dataset(example_data / name) as dataset:
        for coordinates in dataset:
            dataset.get_metadata(coordinates)
            dataset[coordinates]
    assert digest(example_data / name) == before


def run_exengine(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "exengine", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", [*ALL, DAMAGED])
def test_exengine_info_describes_it(name, example_data):
    result = run_exengine("info", "--json", example_data / name)
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    with exengine.open_dataset(example_data / name) as dataset:
        assert facts["frames"] == len(dataset)
        assert facts["status"] == dataset.status == ("damaged" if name == DAMAGED else "complete")
        if name == DAMAGED:
            assert "mm_mda_tcz_15_NDTiffStack.tif" in facts["problem"]
        else:
            assert facts["shape"] == list(dataset[next(iter(dataset))].shape)
            assert not facts["problem"]


@pytest.mark.parametrize("name", [*ALL, DAMAGED])
def test_exengine_preview_draws_it(name, example_data, tmp_path):
    from PIL import Image

    picture = tmp_path / "picture.png"
    result = run_exengine("preview", "--json", example_data / name, "-o", picture)
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert bool(facts["unreadable"]) == (name == DAMAGED)
    with Image.open(picture) as image:
        assert min(image.size) > 160
