"""A dataset as one array."""

import pickle

import numpy as np
import pytest
from ndtiff_bytes import SHAPE

import exengine
from exengine.errors import (
    CoordinatesError,
    CoordinatesNotFoundError,
    DatasetNotFoundError,
    OptionError,
    StorageClosedError,
    UnsupportedOperationError,
)


def at(number):
    return {"time": number, "channel": "ab"[number % 2]}


@pytest.fixture
def cube(path, frame):
    """Write 3 channels x 4 times x 2 z in an odd order, without the frame at (2, FITC, 1)."""
    with exengine.open_storage("ndtiff", path) as storage:
        for channel in ("FITC", "DAPI", "Cy5"):
            for t in (3, 0, 1, 2):
                for z in (-1, 1):
                    where = {"time": t, "channel": channel, "z": z}
                    if (t, channel, z) != (2, "FITC", 1):
                        storage.put(where, frame(where), None)
    return path


def test_as_array_has_the_axes_in_a_stable_order_and_reads_lazily(cube, opened, frame, monkeypatch):
    dataset = opened()
    read = []
    read_frame = type(dataset).read_frame
    monkeypatch.setattr(type(dataset), "read_frame", lambda self, n: read.append(n) or read_frame(self, n))
    array = dataset.as_array(missing=0)
    assert array.shape == (4, 3, 2, *SHAPE) and array.dtype == np.uint16
    assert array.chunks[-2:] == ((24,), (32,))
    assert len(read) <= 1
    where = {"time": 1, "channel": "DAPI", "z": -1}
    np.testing.assert_array_equal(array[1, 1, 0].compute(), frame(where))
    assert len(read) <= 3
    whole = array.compute()
    for t in range(4):
        for c, channel in enumerate(("FITC", "DAPI", "Cy5")):
            for k, z in enumerate((-1, 1)):
                where = {"time": t, "channel": channel, "z": z}
                expected = frame(where) if where in dataset else np.zeros(SHAPE, np.uint16)
                np.testing.assert_array_equal(whole[t, c, k], expected)


def test_as_array_takes_another_order_of_axes(cube, opened, frame):
    array = opened().as_array(["z", "channel", "time"], missing=0)
    assert array.shape == (2, 3, 4, *SHAPE)
    expected = frame({"time": 3, "channel": "Cy5", "z": 1})
    np.testing.assert_array_equal(array[1, 2, 3].compute(), expected)
    with pytest.raises(CoordinatesError, match="axes must be time, channel, z, in any order; got time"):
        opened().as_array(["time"])


def test_missing_frames_raise_or_are_masked_or_stand_as_a_number(cube, opened):
    dataset = opened()
    with pytest.raises(CoordinatesNotFoundError, match="1 frame is missing, the first at .*'FITC'"):
        dataset.as_array()
    masked = dataset.as_array(missing="mask").compute()
    assert masked.mask[2, 0, 1].all() and masked.mask.sum() == SHAPE[0] * SHAPE[1]
    filled = dataset.as_array(missing=77).compute()
    assert (filled[2, 0, 1] == 77).all()
    np.testing.assert_array_equal(filled[~masked.mask], masked.compressed())


def test_a_dataset_and_its_array_can_be_pickled(cube, opened, run_python, tmp_path):
    array = opened().as_array(missing=0)
    (tmp_path / "array").write_bytes(pickle.dumps(array))
    program = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).sum().compute())"
    assert int(run_python(program, tmp_path / "array")) == int(array.sum().compute()) > 0


def test_frames_that_differ_are_no_one_array(path, opened):
    with exengine.open_storage("ndtiff", path) as storage:
        storage.put({"time": 0}, np.ones((3, 3), np.uint8), None)
        storage.put({"time": 1}, np.ones((3, 4), np.uint8), None)
    with pytest.raises(UnsupportedOperationError, match="cannot form one array"):
        opened().as_array().compute()


@pytest.mark.parametrize("missing", [0, 65535, "mask", "raise"])
def test_an_array_of_a_dataset_that_was_closed_is_an_error_and_no_filler(missing, path, new, frame):
    with new() as storage:
        for number in range(3):
            storage.put({"time": number}, frame({"time": number}), None)
    with exengine.open_dataset(path) as dataset:
        array = dataset.as_array(missing=missing)
    with pytest.raises(StorageClosedError):
        array.compute()


def test_an_array_whose_dataset_has_gone_is_an_error_and_no_filler(path, new, frame, monkeypatch):
    with new() as storage:
        storage.put({"time": 0}, frame({"time": 0}), None)
    monkeypatch.chdir(path.parent)
    with exengine.open_dataset(path.name) as dataset:
        pickled = pickle.dumps(dataset.as_array(missing=0))
        monkeypatch.chdir(path.parent.parent)
        assert np.array_equal(pickle.loads(pickled).compute()[0], frame({"time": 0}))
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(DatasetNotFoundError):
        pickle.loads(pickled).compute()


@pytest.mark.parametrize("missing", [float("nan"), 1.5, 70_000, -1, "zero", None, [0], 1j])
def test_a_filler_that_the_frames_cannot_hold_is_refused_at_once(missing, path, new, opened, frame):
    with new() as storage:
        storage.put({"time": 0}, frame({"time": 0}), None)
    with pytest.raises(OptionError, match="a number that uint16 can represent"):
        opened().as_array(missing=missing)
