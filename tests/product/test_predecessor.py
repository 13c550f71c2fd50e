"""What users of ExEngine 0.4.0 have in their code goes on working."""

import numpy as np
import pytest

from exengine.data import DataCoordinates, DataCoordinatesIterator, DataHandler
from exengine.kernel.data_storage_base import DataStorage
from exengine.storage_backends.ndtiff_and_ndram import NDRAMStorage, NDTiffStorage


@pytest.fixture(params=["tiff", "ram"])
def storage(request, tmp_path):
    made = NDTiffStorage(directory=str(tmp_path)) if request.param == "tiff" else NDRAMStorage()
    yield made
    made.close()


def test_the_import_paths_lead_to_the_same_classes():
    from exengine.storage_backends.ndtiff import NDTiffStorage as alias

    import exengine_ndstorage
    from exengine.base_classes import DataStorage as short
    from exengine.storage_backends.ndtiff_and_ndram.NDTiffandRAM import NDTiffStorage as historic

    assert historic is alias is NDTiffStorage is exengine_ndstorage.NDTiffStorage
    assert short is DataStorage


def test_a_storage_takes_coordinates_data_and_metadata(storage):
    coordinates = DataCoordinates(coordinate_dict={"time": 1, "channel": "DAPI", "z": 0})
    data = np.array([[1, 2], [3, 4]], dtype=np.uint16)
    storage.put(coordinates, data, {"some": "metadata"})
    assert coordinates in storage
    np.testing.assert_array_equal(storage.get_data(coordinates), data)
    np.testing.assert_array_equal(storage[coordinates], data)
    assert storage.get_metadata(coordinates) == {"some": "metadata"}
    storage.finish()


def test_the_signatures_of_0_4_0(tmp_path):
    with NDTiffStorage(str(tmp_path), "named", {"a": 1}) as storage:
        assert storage.summary_metadata == {"a": 1}
    assert (tmp_path / "named" / "named_NDTiffStack.tif").is_file()
    assert NDRAMStorage(summary_metadata={"b": 2}).summary_metadata == {"b": 2}


def test_a_data_handler_with_process_function_executor_and_future(storage):
    class Executor:
        def __init__(self):
            self.told = []

        def publish_notification(self, notification):
            self.told.append(notification.payload)

    class Future:
        def __init__(self):
            self.told = []

        def _notify_data(self, coordinates, data, metadata, processed=False, stored=False):
            self.told.append((processed, stored))

    executor, future = Executor(), Future()

    def double(coordinates, image, metadata):
        return coordinates, image * 2, metadata

    handler = DataHandler(storage, double, _executor=executor)
    coordinates = DataCoordinates(time=0, channel="DAPI")
    handler.put(coordinates, np.ones((2, 2), np.uint16), {"m": 1}, future)
    handler.finish()
    handler.await_completion()
    data, metadata = handler.get(coordinates)
    np.testing.assert_array_equal(data, np.full((2, 2), 2))
    assert metadata == {"m": 1}
    assert executor.told == [coordinates]
    assert future.told == [(False, False), (True, False), (True, True)]


def test_a_process_function_may_give_none_one_or_many():
    storage = NDRAMStorage()

    def process(coordinates, image, metadata):
        if coordinates["time"] == 0:
            return None
        return [({**coordinates, "copy": k}, image + k, metadata) for k in range(coordinates["time"])]

    handler = DataHandler(storage, process)
    for time in range(4):
        handler.put({"time": time}, np.zeros((2, 2)), {}, None)
    handler.finish()
    handler.await_completion()
    assert len(storage) == 1 + 2 + 3
    assert (handler.ledger.discarded, handler.ledger.passed_on, handler.ledger.produced) == (1, 3, 6)
    storage.close()


def test_iterators_of_everything():
    expected = [DataCoordinates(time=k) for k in range(3)]
    for given in ([{"time": k} for k in range(3)], expected, (c for c in expected)):
        assert list(DataCoordinatesIterator.create(given)) == expected
    iterator = DataCoordinatesIterator.create(expected)
    assert iterator.is_finite()
    assert iterator.might_produce_coordinates(DataCoordinates(time=1)) is True
    assert iterator.might_produce_coordinates(DataCoordinates(time=9)) is False
    stream = DataCoordinatesIterator.create(c for c in expected)
    assert not stream.is_finite()
    assert stream.might_produce_coordinates(DataCoordinates(time=1)) is None
