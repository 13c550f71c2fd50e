"""The state of the base classes: one name, which no subclass hits by accident; the optional half of the contract."""

import numpy as np
import pytest

from exengine.base_classes import DatasetReader, DataStorage, ManagedStorage
from exengine.errors import (
    CoordinatesExistError,
    CoordinatesNotFoundError,
    StorageFailedError,
    UnsupportedOperationError,
)

FORMER = (
    "_frames",
    "_index",
    "_lock",
    "_closed",
    "_place",
    "_checks",
    "_failure",
    "_reads",
    "_fail",
    "_conclude",
)


class Listed(ManagedStorage):
    """A storage in memory that uses every name that the base classes once kept for themselves."""

    batch_frames = 4

    def __init__(self):
        for name in FORMER:
            setattr(self, name, f"the subclass's own {name}")
        self.kept = []
        super().__init__()
        for name in FORMER:
            setattr(self, name, f"the subclass's own {name}")

    def write_frame(self, number, coordinates, data, checked):
        self.kept.append((data.copy(), checked))

    def read_frame(self, number):
        return self.kept[number][0]

    def read_frame_metadata(self, number):
        return self.kept[number][1]

    def sync_frames(self):
        pass


def frame(number):
    return {"time": number}, np.full((2, 2), number), {"number": number}


def test_a_subclass_may_use_any_name_but_one():
    storage = Listed()
    storage.put(*frame(0))
    storage.put_many([frame(number) for number in range(1, 7)])
    assert [int(storage[coordinates][0, 0]) for coordinates in storage] == list(range(7))
    storage.finish()
    storage.close()
    assert all(getattr(storage, name) == f"the subclass's own {name}" for name in FORMER)


@pytest.mark.parametrize("base", [ManagedStorage, DatasetReader])
def test_a_subclass_that_defines_the_name_of_the_state_is_refused_by_name(base):
    with pytest.raises(TypeError, match="Careless defines _exengine, which .* choose another name"):
        type("Careless", (base,), {"_exengine": None})


def test_put_many_says_in_its_error_how_many_frames_it_has_stored():
    storage = Listed()
    with pytest.raises(CoordinatesExistError) as refused:
        storage.put_many([frame(number) for number in (0, 1, 2, 3, 4, 5, 6, 3, 8)])
    assert refused.value.frames_stored == len(storage) == 7


class Six(DataStorage):
    """The six methods and no more."""

    def __init__(self):
        self.kept = {}

    def put(self, coordinates, data, metadata):
        if coordinates["time"] == 3:
            raise OSError(28, "No space left on device")
        self.kept[coordinates["time"]] = data

    def get_data(self, coordinates):
        return self.kept[coordinates["time"]]

    def get_metadata(self, coordinates):
        return None

    def __contains__(self, coordinates):
        return coordinates["time"] in self.kept

    def finish(self):
        pass

    def close(self):
        pass


def test_put_many_of_the_six_methods_counts_too():
    with pytest.raises(OSError, match="No space") as failed:
        Six().put_many(frame(number) for number in range(9))
    assert failed.value.frames_stored == 3


def test_the_optional_half_of_the_contract_has_honest_defaults():
    storage = Six()
    assert (storage.path, storage.backend_name, storage.status_reason) == (None, "", "")
    assert (dict(storage.annotations), storage.has_checksums) == ({}, False)
    assert (storage.resolution_levels, storage.level(0), storage.batch_frames) == ((0,), storage, 1)
    with pytest.raises(CoordinatesNotFoundError, match=r"level must be one of \(0,\), got 1"):
        storage.level(1)
    with pytest.raises(UnsupportedOperationError, match="Six does not list its coordinates"):
        _ = storage.axes


def test_the_axes_of_a_storage_that_lists_its_coordinates_follow_from_them():
    class Iterable(Six):
        def __iter__(self):
            return iter([{"time": 1, "z": 0}, {"time": 0, "z": 0}, {"time": 0, "channel": "DAPI"}])

    assert Iterable().axes == {"time": [0, 1], "z": [0], "channel": ["DAPI"]}


@pytest.mark.parametrize("name", ["path", "axes", "annotations", "status_reason", "resolution_levels"])
def test_an_attribute_of_an_instance_replaces_a_default(name):
    storage = Six()
    setattr(storage, name, "its own")
    assert getattr(storage, name) == "its own"


def test_what_was_annotated_so_far_can_be_read_and_not_changed(disk_storage, tmp_path):
    with disk_storage(tmp_path / "data") as storage:
        storage.annotate("config", {"loops": [1, 2]})
        storage.annotations["config"]["loops"].append(3)
        assert storage.annotations == {"config": {"loops": [1, 2]}}
        assert storage.status_reason == ""
        storage.abort("the user has stopped it")
    assert storage.status_reason == "the user has stopped it"


def test_the_reason_is_known_when_the_last_manifest_cannot_be_written(disk_storage, tmp_path, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    storage = disk_storage(tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr("exengine.kernel.storage.manifest.write_manifest", full)
        with pytest.raises(StorageFailedError):
            storage.finish()
    assert (storage.status, "No space left" in storage.status_reason) == ("failed", True)
    storage.close()
