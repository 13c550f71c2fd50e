"""Backends that need the same axes in all frames, or accept a limited number of axes."""

import numpy as np
import pytest

from exengine.base_classes import StorageCapabilities
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import CoordinatesError
from exengine.kernel.storage.frame_checks import FrameChecks

FRAME = np.zeros((2, 3), np.uint16)
LIMITED = StorageCapabilities(
    persistent=True, string_axes=True, negative_indices=True, same_axes=True, most_axes=2
)


@pytest.fixture
def storage(disk_storage, tmp_path):
    with type("Limited", (disk_storage,), {"capabilities": LIMITED})(tmp_path / "data") as storage:
        yield storage


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            {"time": 1},
            "Limited accepts only frames with the same axes: the first had channel, time, but this one has time",
        ),
        ({"time": 1, "z": 0}, "this one has time, z"),
        ({}, "this one has none"),
        (
            {"time": 1, "channel": "DAPI", "z": 0},
            "Limited limits the number of axes to 2; got 3: time, channel, z",
        ),
    ],
)
def test_a_frame_with_other_axes_is_refused_and_changes_nothing(storage, axes, message, many):
    storage.put({"time": 0, "channel": "DAPI"}, FRAME, None)
    put = (lambda *frame: storage.put_many([frame])) if many else storage.put
    with pytest.raises(CoordinatesError, match=message):
        put(axes, FRAME, None)
    assert axes not in storage and len(storage) == 1
    storage.put({"channel": "FITC", "time": -1}, FRAME, None)
    assert storage.axes == {"time": [-1, 0], "channel": ["DAPI", "FITC"]}


def test_the_first_frame_has_at_most_the_number_of_axes(storage):
    with pytest.raises(CoordinatesError, match="limits the number of axes to 2"):
        storage.put({"a": 0, "b": 0, "c": 0}, FRAME, None)
    storage.put({"a": 0}, FRAME, None)  # a rejected frame does not decide on the axes
    storage.put({"a": 1}, FRAME, None)


def test_a_frame_that_could_not_be_written_does_not_decide_on_the_axes(storage, monkeypatch):
    def refuse(*_):
        raise CoordinatesError("not this one")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "check_frame", refuse)
        with pytest.raises(CoordinatesError, match="not this one"):
            storage.put({"a": 0}, FRAME, None)
    storage.put({"b": 0}, FRAME, None)


def test_a_backend_without_limits_checks_no_axes():
    free = FrameChecks("Free", StorageCapabilities(string_axes=True, negative_indices=True))
    assert not free.limits_axes
    free.require_axes(DataCoordinates(a=0))
    free.axes(DataCoordinates(b=0))


def test_an_instance_may_have_other_limits_than_its_class(disk_storage, tmp_path):
    class ByOption(disk_storage):
        def __init__(self, path, limited=False):
            if limited:
                self.capabilities = LIMITED
            super().__init__(path)

    with ByOption(tmp_path / "free") as storage:
        storage.put({"a": 0, "b": 0, "c": 0}, FRAME, None)
    with ByOption(tmp_path / "limited", limited=True) as storage:
        with pytest.raises(CoordinatesError, match="limits the number of axes to 2"):
            storage.put({"a": 0, "b": 0, "c": 0}, FRAME, None)
        assert storage.has_checksums is False
