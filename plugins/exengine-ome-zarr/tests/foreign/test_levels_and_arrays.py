"""Resolution levels and lazy arrays of images of other writers."""

import pickle

import dask
import numpy as np
import pytest
from hand_made import edit, image, numbered, series

from exengine.errors import CoordinatesError, CoordinatesNotFoundError, OptionError
from exengine_ome_zarr.foreign import open_foreign

DATA = numbered(2, 3, 4, 33, 48)


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_every_level_is_read(path, version):
    image(path, DATA, version=version, factors=(1, 2, 4), labels=("a", "b", "c"))
    dataset = open_foreign(path)
    assert dataset.resolution_levels == (0, 1, 2)
    for number in dataset.resolution_levels:
        level = dataset.level(number)
        assert len(level) == 24 and level.axes == dataset.axes
        frame = level[{"time": 1, "channel": "b", "z": 3}]
        np.testing.assert_array_equal(frame, DATA[1, 1, 3, :: 2**number, :: 2**number])
        np.testing.assert_array_equal(level.as_array().compute(), DATA[..., :: 2**number, :: 2**number])
        assert level.path == dataset.path


def test_levels_are_numbered_by_powers_of_two(path):
    image(path, DATA, factors=(1, 4, 16))
    assert open_foreign(path).resolution_levels == (0, 2, 4)
    assert open_foreign(path).level(2)[{"time": 0, "channel": 0, "z": 0}].shape == (9, 12)


def test_a_level_that_does_not_exist_is_refused(path):
    image(path, DATA, factors=(1, 2))
    dataset = open_foreign(path)
    assert dataset.level(0) is dataset
    assert dataset.level(1).level(0).resolution_levels == (0,)
    for call in (lambda: dataset.level(2), lambda: dataset.level(1).level(1)):
        with pytest.raises(CoordinatesNotFoundError, match="level must be one of"):
            call()


def test_a_level_with_fewer_planes_counts_its_own(path):
    image(path, DATA[0, 0], "zyx", factors=(1, 2))
    import shutil

    from hand_made import array

    shutil.rmtree(path / "1")
    array(path / "1", DATA[0, 0, ::2, ::2, ::2])
    level = open_foreign(path).level(1)
    assert level.axes == {"z": [0, 1]}
    np.testing.assert_array_equal(level[{"z": 1}], DATA[0, 0, 2, ::2, ::2])


def test_a_level_can_be_pickled(path):
    image(path, DATA, factors=(1, 2))
    level = pickle.loads(pickle.dumps(open_foreign(path).level(1)))
    assert level[{"time": 0, "channel": 0, "z": 0}].shape == (17, 24)


def test_a_level_without_an_array_is_left_out_and_reported(path):
    image(path, DATA, factors=(1, 2))
    edit(
        path / "zarr.json",
        lambda d: d["attributes"]["ome"]["multiscales"][0]["datasets"].append({"path": "9"}),
    )
    dataset = open_foreign(path)
    assert dataset.resolution_levels == (0, 1)
    assert dataset.status == "damaged" and "9" in dataset.status_reason


def test_levels_are_those_that_every_image_has(path):
    series(path, [DATA, DATA], factors=(1, 2))
    edit(
        path / "1" / "zarr.json",
        lambda d: d["attributes"]["ome"]["multiscales"][0]["datasets"].pop() and None,
    )
    assert open_foreign(path).resolution_levels == (0,)


# -- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "shards", "blocks"),
    [
        ((1, 1, 1, 33, 48), None, ((1, 1), (1, 1, 1), (1, 1, 1, 1))),
        ((2, 1, 3, 16, 16), None, ((2,), (1, 1, 1), (3, 1))),
        ((1, 1, 2, 16, 16), (2, 3, 4, 48, 48), ((1, 1), (1, 1, 1), (2, 2))),
        ((5, 5, 5, 64, 64), None, ((2,), (3,), (4,))),
    ],
)
def test_blocks_have_whole_frames_as_many_as_a_chunk(path, chunks, shards, blocks):
    image(path, DATA, chunks=chunks, shards=shards)
    array = open_foreign(path).as_array()
    assert array.chunks == (*blocks, (33,), (48,))
    assert array.dtype == DATA.dtype
    np.testing.assert_array_equal(array.compute(), DATA)
    np.testing.assert_array_equal(array[1, :, 2, 5:9].compute(), DATA[1, :, 2, 5:9])


def test_blocks_are_limited_in_size(path, monkeypatch):
    import exengine_ome_zarr.foreign.lazy as lazy

    monkeypatch.setattr(lazy, "BLOCK_BYTES", 33 * 48 * 2 * 3)
    image(path, DATA, chunks=(2, 3, 4, 33, 48))
    array = open_foreign(path).as_array()
    assert array.chunks[:3] == ((1, 1), (1, 1, 1), (2, 2))
    np.testing.assert_array_equal(array.compute(), DATA)


def test_axes_are_in_the_order_that_is_asked_for(path):
    image(path, DATA)
    dataset = open_foreign(path)
    array = dataset.as_array(["z", "time", "channel"])
    np.testing.assert_array_equal(array.compute(), DATA.transpose(2, 0, 1, 3, 4))
    with pytest.raises(CoordinatesError, match="axes must be time, channel, z"):
        dataset.as_array(["z"])


def test_the_filler_is_checked_although_no_frame_is_missing(path):
    image(path, DATA)
    dataset = open_foreign(path)
    for missing in ("nothing", 70000, None):
        with pytest.raises(OptionError):
            dataset.as_array(missing=missing)
    masked = dataset.as_array(missing="mask").compute()
    assert isinstance(masked, np.ma.MaskedArray) and not np.ma.is_masked(masked)


def test_an_array_is_lazy_and_can_be_read_in_other_processes(path):
    image(path, DATA)
    array = open_foreign(path).as_array()
    copy = pickle.loads(pickle.dumps(array))
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(copy[1, 1].compute(), DATA[1, 1])
    with dask.config.set(scheduler="processes", num_workers=1):
        np.testing.assert_array_equal(array[1, 1, 1].compute(), DATA[1, 1, 1])
