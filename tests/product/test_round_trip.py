"""Every pair of backends that write to disk converts a dataset there and back, and states its losses."""

import numpy as np
import pytest

import exengine
from exengine.checks import round_trip
from exengine.errors import ExEngineError

NAMES = round_trip.disk_backends()


def test_the_backends_come_from_the_registry():
    assert {"ndtiff", "ome-zarr", "hdf5"} <= set(NAMES) and "ndram" not in NAMES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("conversions"))


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("source", NAMES)
def test_everything_survives_a_conversion_there_and_back(source, target, folder):
    found = round_trip.round_trip(source, target, folder)
    assert set(found.there) == set(found.back) == set(round_trip.ASPECTS)
    assert [each for each in found.there.items() if each[1]] == []
    assert [each for each in found.back.items() if each[1]] == []
    assert found.is_equal


def test_the_dataset_is_sparse_and_has_names_and_numbers():
    coordinates = [axes for axes, _, _ in round_trip.frames()]
    lengths = {axis: {each[axis] for each in coordinates} for axis in coordinates[0]}
    assert len(coordinates) < np.prod([len(positions) for positions in lengths.values()])
    assert {axis: {type(each) for each in positions} for axis, positions in lengths.items()} == {
        "position": {str}, "time": {int}, "channel": {str}, "z": {int}
    }  # fmt: skip
    assert all(len(positions) >= 2 for positions in lengths.values())


@pytest.mark.parametrize(
    ("aspect", "change"),
    [
        ("coordinates", lambda c, p, m: ({**c, "time": c["time"] + 1}, p, m)),
        ("pixels", lambda c, p, m: (c, p + 1, m)),
        ("dtype", lambda c, p, m: (c, p.astype(np.uint8), m)),
        ("frame metadata", lambda c, p, m: (c, p, {**m, "float": 1})),
    ],
)
def test_a_difference_is_reported(aspect, change, tmp_path, monkeypatch):
    round_trip.write(tmp_path / "one", "ndtiff")
    frames = list(round_trip.frames())
    monkeypatch.setattr(round_trip, "frames", lambda: [change(*each) for each in frames])
    round_trip.write(tmp_path / "other", "ndtiff")
    found = round_trip.compare(tmp_path / "one", tmp_path / "other")
    assert found[aspect] and not found["summary metadata"] and not found["status"]


@pytest.mark.parametrize(("source", "target"), [("hdf5", "ndtiff"), ("hdf5", "ome-zarr"), ("ndtiff", "hdf5")])
def test_the_stated_losses_are_those_that_a_conversion_refuses(source, target, tmp_path):
    lost = round_trip.lost_frames(source, target)
    assert bool(lost) == (source == "hdf5")
    for number, (phrase, (layouts, coordinates)) in enumerate(round_trip.PROBES.items()):
        if max(abs(each) for axes in coordinates for each in axes.values() if type(each) is int) > 2**31:
            continue
        first = tmp_path / f"{number}.h5" if source == "hdf5" else tmp_path / str(number)
        try:
            with exengine.open_storage(source, first) as storage:
                for axes, (shape, dtype) in zip(coordinates, layouts * 2, strict=False):
                    storage.put(axes, np.zeros(shape, dtype), None)
        except ExEngineError:
            continue  # the source cannot store them either
        there = tmp_path / f"there-{number}{'.h5' if target == 'hdf5' else ''}"
        if phrase in lost:
            with pytest.raises(ExEngineError, match="cannot store the frames"):
                exengine.convert(first, there, backend=target)
        else:
            exengine.convert(first, there, backend=target)
