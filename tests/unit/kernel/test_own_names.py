"""An attribute of a backend that hides a method of the base classes is named at once."""

import numpy as np
import pytest

from exengine import DatasetReader, ManagedStorage, StorageCapabilities
from exengine.base_classes import CoordinateIndex, DatasetStatus, read_manifest


class Frames(ManagedStorage):
    """Keep frames in memory."""

    def __init__(self, path=None):
        self._frames = []
        super().__init__(path)

    def write_frame(self, number, coordinates, data, checked):
        self._frames.append((np.array(data), checked))

    def read_frame(self, number):
        return self._frames[number][0].copy()

    def read_frame_metadata(self, number):
        return self._frames[number][1]


class HidesLevel(Frames):
    """Have an option of the same name as a method."""

    capabilities = StorageCapabilities(persistent=True)

    def __init__(self, path, level=6):
        super().__init__(path)
        self.level = level


def test_an_attribute_of_an_instance_that_hides_a_method_is_named_when_it_is_created(tmp_path):
    message = r"self\.level of HidesLevel hides the method level\(\) of DataStorage; .* such as _level"
    with pytest.raises(TypeError, match=message):
        HidesLevel(tmp_path / "data")
    manifest = read_manifest(
        tmp_path / "data"
    )  # the claimed path is left with the reason, and without a lock
    assert manifest.status is DatasetStatus.FAILED and "self.level" in manifest.reason


def test_a_value_in_a_class_that_hides_a_method_is_named_when_the_class_is_defined():
    with pytest.raises(TypeError, match=r"the attribute flush of Wrong hides the method flush\(\)"):
        type("Wrong", (Frames,), {"flush": True})


def test_a_reader_is_checked_as_well(tmp_path):
    class Reader(DatasetReader):
        read_frame = read_frame_metadata = lambda self, number: None

        def __init__(self):
            super().__init__(str(tmp_path), CoordinateIndex(), DatasetStatus.COMPLETE)
            self.flush = 5

    with pytest.raises(TypeError, match=r"self\.flush of Reader"):
        Reader()


def test_other_attributes_and_overridden_methods_are_free():
    class Free(Frames):
        capabilities = StorageCapabilities()
        own = "value"

        def flush(self, durable=False):
            super().flush(durable)

        summary_metadata = None

    storage = Free()
    storage.put({"time": 0}, np.ones(3), {})
    assert storage.own == "value" and len(storage) == 1
