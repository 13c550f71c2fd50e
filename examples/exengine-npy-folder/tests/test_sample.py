"""The sample test of the authors' guide, with the name of the class put in."""

import numpy as np
import pytest

from exengine_npy_folder import NpyFolderStorage


# The sample forgets its storage, which ExEngine then finishes as aborted, with a warning.
@pytest.mark.filterwarnings("ignore:.*was not finished before")
def test_put_and_get_data():
    storage = NpyFolderStorage()
    data = np.array([1, 2, 3])
    metadata = {"key": "value"}
    coordinates = {"time": 0, "channel": "DAPI"}
    storage.put(coordinates, data, metadata)
    assert coordinates in storage
    np.testing.assert_array_equal(storage.get_data(coordinates), data)
    assert storage.get_metadata(coordinates) == metadata
