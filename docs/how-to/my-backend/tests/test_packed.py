import numpy as np
import pytest
from exengine_packed import PackedStorage

from exengine import backends, open_storage
from exengine.errors import CoordinatesExistError, OptionError


def test_put_and_get_data():
    storage = PackedStorage()
    data = np.array([1, 2, 3])
    metadata = {"key": "value"}
    coordinates = {"time": 0, "channel": "DAPI"}
    storage.put(coordinates, data, metadata)
    assert coordinates in storage
    np.testing.assert_array_equal(storage.get_data(coordinates), data)
    assert storage.get_metadata(coordinates) == metadata


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float32", "bool"])
def test_every_frame_comes_back_bit_equal(dtype):
    storage = PackedStorage(level=1)
    frames = [np.arange(12).reshape(3, 4).astype(dtype) + np.array(time).astype(dtype) for time in range(5)]
    for time, frame in enumerate(frames):
        storage.put({"time": time}, frame, None)
    for time, frame in enumerate(frames):
        np.testing.assert_array_equal(storage.get_data({"time": time}), frame)
        assert storage.get_data({"time": time}).dtype == frame.dtype


def test_a_frame_is_never_replaced():
    storage = PackedStorage()
    storage.put({"time": 0}, np.zeros(3), None)
    with pytest.raises(CoordinatesExistError):
        storage.put({"time": 0}, np.ones(3), None)
    np.testing.assert_array_equal(storage.get_data({"time": 0}), np.zeros(3))


def test_the_registry_finds_it_and_refuses_a_wrong_option():
    assert backends()["packed"].distribution == "exengine-packed"
    with pytest.raises(OptionError, match="at most 9"):
        open_storage("packed", level=10)
