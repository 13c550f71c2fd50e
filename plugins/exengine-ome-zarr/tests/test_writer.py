"""What is put is read back as it was, by our reader and by others, whatever the frames and the axes.

``EXENGINE_LONG=1`` draws three times as many acquisitions.
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import exengine
from exengine.base_classes import PlannedAxis, SourcePlan
from exengine.errors import CoordinatesError, OptionError, UnsupportedDataError

INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
LONG = bool(os.environ.get("EXENGINE_LONG"))
CODECS = ("none", "blosc-lz4", "blosc-zstd", "zstd", "gzip")


def check(path, frames, status="complete"):
    """Compare a dataset with what was put."""
    with exengine.open_dataset(path) as dataset:
        assert dataset.status == status, dataset.status_reason
        assert [dict(axes) for axes in dataset] == [axes for axes, _, _ in frames]
        for axes, data, metadata in frames:
            np.testing.assert_array_equal(dataset[axes], data, strict=True)
            assert dataset.get_metadata(axes) == metadata
    report = exengine.verify(path)
    assert report.ok, report


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64"])
def test_every_dtype_returns_through_three_readers(dtype, codec, new, path, frame, by_zarr, by_tensorstore):
    storage = new(codec=codec, shard=2)
    frames = [({"time": t}, frame({"time": t}, (9, 13), dtype), {"t": t}) for t in range(3)]
    storage.put_many(frames)
    storage.finish()
    check(path, frames)
    for read in (by_zarr, by_tensorstore):
        array = read(path)
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, np.stack([data for _, data, _ in frames]))


@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
@pytest.mark.parametrize("chunk", [None, 16, 20])
@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (33, 47), (50, 100), (20, 31, 3), (1, 40, 3)])
def test_odd_sizes_tiles_and_colours_return(shape, chunk, codec, new, path, frame, by_zarr):
    storage = new(codec=codec, chunk=chunk, shard=3)
    frames = [
        ({"time": t, "z": z}, frame({"t": t, "z": z}, shape, "uint8"), None) for t in range(4) for z in (0, 1)
    ]
    for one in frames:
        storage.put(*one)
    storage.finish()
    check(path, frames)
    array = by_zarr(path)
    for axes, data, _ in frames:
        planes = data[None] if data.ndim == 2 else data.transpose(2, 0, 1)
        found = array[axes["time"], axes["z"]][None] if data.ndim == 2 else array[axes["time"], :, axes["z"]]
        np.testing.assert_array_equal(found, planes)


@pytest.mark.parametrize("where", ["before finish", "after finish"])
def test_a_frame_that_was_acknowledged_is_seen_by_other_programs_at_once(
    where, new, path, frame, by_zarr, by_tensorstore
):
    storage = new(shard=4, frames_per_chunk=2)
    for t in range(10):
        storage.put({"time": t}, frame({"time": t}), None)
        if where == "before finish":
            for read in (by_zarr, by_tensorstore):
                array = read(path)
                assert len(array) > t
                np.testing.assert_array_equal(array[t], frame({"time": t}))
                assert not array[t + 1 :].any()
    storage.finish()
    assert by_zarr(path).shape[0] == 10


AXES = {
    "time": st.integers(0, 9) | st.integers(-5, 5) | st.sampled_from([10**6, -(10**9)]),
    "channel": st.sampled_from(["DAPI", "FITC", 0, 1, 7, -1, "0"]),
    "z": st.integers(-3, 3),
    "position": st.sampled_from([0, 1, "A1", "pos 2", -4]),
    "phase": st.sampled_from(["a", "b", 3]),
    "angle": st.integers(0, 3),
}


@st.composite
def acquisitions(draw):
    """Draw axes, options and coordinates in any order."""
    axes = draw(st.lists(st.sampled_from(list(AXES)), min_size=1, max_size=6, unique=True))
    place = st.fixed_dictionaries({axis: AXES[axis] for axis in axes})
    places = draw(st.lists(place, min_size=1, max_size=25, unique_by=lambda each: frozenset(each.items())))
    options = {
        "codec": draw(st.sampled_from(["none", "none", "blosc-lz4"])),
        "shard": draw(st.none() | st.integers(1, 9)),
        "extra_axes": draw(st.sampled_from(["fold", "split"])),
    }
    if options["codec"] == "none" and draw(st.booleans()):
        options["frames_per_chunk"] = draw(st.integers(1, 5))
    plan = None
    if draw(st.booleans()):
        order = draw(st.permutations(axes))
        positions = {axis: list(dict.fromkeys(each[axis] for each in places)) for axis in order}
        planned = [
            PlannedAxis(axis, tuple(positions[axis])) if draw(st.booleans()) else PlannedAxis(axis)
            for axis in order
        ]
        plan = SourcePlan(axes=tuple(planned))
    return places, options, plan, draw(st.integers(1, 4))


@settings(
    max_examples=60 if LONG else 20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(acquisitions())
def test_sparse_negative_and_named_positions_return_in_any_order_with_or_without_a_plan(
    frame, tmp_path_factory, acquisition
):
    places, options, plan, batch = acquisition
    path = tmp_path_factory.mktemp("any") / "data.ome.zarr"
    frames = [(axes, frame(axes, (6, 5)), {"number": n}) for n, axes in enumerate(places)]
    with exengine.open_storage("ome-zarr", path, **options) as storage:
        if plan is not None:
            storage.expect(plan)
        for first in range(0, len(frames), batch):
            storage.put_many(frames[first : first + batch])
        with exengine.open_dataset(path) as live:
            for axes, data, metadata in frames:
                np.testing.assert_array_equal(live[axes], data, strict=True)
                assert live.get_metadata(axes) == metadata
    with exengine.open_dataset(path) as dataset:
        assert dataset.status == "complete"
        assert [dict(axes) for axes in dataset] == places
        for axes, data, metadata in frames:
            np.testing.assert_array_equal(dataset[axes], data, strict=True)
            assert dataset.get_metadata(axes) == metadata


@pytest.mark.parametrize(
    "order", [("time", "channel", "z"), ("z", "time", "channel"), ("channel", "z", "time")]
)
@pytest.mark.parametrize("unknown", [None, "time", "z"])
def test_a_plan_in_any_order_is_one_array_of_t_c_z(order, unknown, new, path, frame, by_zarr, document):
    positions = {"time": tuple(range(4)), "channel": ("DAPI", "FITC"), "z": tuple(range(3))}
    storage = new(shard=6)
    axes = [PlannedAxis(axis) if axis == unknown else PlannedAxis(axis, positions[axis]) for axis in order]
    storage.expect(SourcePlan(axes=tuple(axes)))
    frames = []
    for a in positions[order[0]]:
        for b in positions[order[1]]:
            for c in positions[order[2]]:
                place = dict(zip(order, (a, b, c), strict=True))
                frames.append((place, frame(place), None))
    storage.put_many(frames)
    storage.finish()
    check(path, frames)
    array = by_zarr(path)
    assert array.shape == (4, 2, 3, 24, 32)
    assert document(path, "0")["dimension_names"] == ["t", "c", "z", "y", "x"]
    for place, data, _ in frames:
        index = (place["time"], positions["channel"].index(place["channel"]), place["z"])
        np.testing.assert_array_equal(array[index], data)


def test_an_array_grows_before_the_first_frame_that_needs_it(new, path, frame, by_zarr):
    storage = new(shard=2)
    lengths = []
    for t in range(7):
        storage.put({"time": t}, frame({"time": t}), None)
        lengths.append(by_zarr(path).shape[0])
    assert lengths == [2, 2, 4, 4, 6, 6, 8]


def test_positions_are_images_of_their_own_in_the_order_of_arrival(new, path, frame, by_zarr, document):
    storage = new()
    names = ["left", 3, "right"]
    for t in range(2):
        for name in names:
            storage.put({"time": t, "position": name}, frame({"t": t, "p": name}), None)
    storage.finish()
    series = document(path, "OME")["attributes"]["ome"]["series"]
    assert len(series) == 3 and document(path)["attributes"]["ome"]["bioformats2raw.layout"] == 3
    found = {document(path, each)["attributes"]["ome"]["multiscales"][0]["name"]: each for each in series}
    for name in names:
        array = by_zarr(path, f"{found[str(name)]}/0")
        for t in range(2):
            np.testing.assert_array_equal(array[t], frame({"t": t, "p": name}))


def test_readers_find_the_fields_of_a_plate_in_whatever_order_they_ask(new, path, frame, document):
    storage = new(layout="plate")
    names = ["A1_0", "A1_1", "B12_0", "A1_2"]
    for name in names:
        storage.put({"time": 0, "position": name}, frame({"p": name}), {"name": name})
    storage.finish()
    for name in reversed(names):
        with exengine.open_dataset(path) as dataset:
            np.testing.assert_array_equal(dataset[{"time": 0, "position": name}], frame({"p": name}))
    wells = document(path)["attributes"]["ome"]["plate"]["wells"]
    assert [well["path"] for well in wells] == ["A/1", "B/12"]
    assert exengine.verify(path).ok


def test_a_dataset_without_frames_is_complete_when_it_is_finished(new, path, opened):
    new(summary_metadata={"who": "me"}).finish()
    dataset = opened()
    assert (dataset.status, len(dataset), dataset.summary_metadata) == ("complete", 0, {"who": "me"})
    assert exengine.verify(path).ok


REFUSED = {
    "a fifth axis": (CoordinatesError, {"time": 0, "phase": 0, "angle": 0}, (4, 4), "uint8"),
    "complex numbers": (UnsupportedDataError, {"time": 0}, (4, 4), "complex64"),
    "no pixels": (UnsupportedDataError, {"time": 0}, (0, 4), "uint8"),
    "four planes": (UnsupportedDataError, {"time": 0}, (4, 4, 4), "uint8"),
    "one dimension": (UnsupportedDataError, {"time": 0}, (4,), "uint8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_format_cannot_hold_is_refused_and_changes_nothing(case, new, path, frame):
    kind, axes, shape, dtype = REFUSED[case]
    storage = new()
    with pytest.raises(kind):
        storage.put(axes, np.zeros(shape, dtype), None)
    assert len(storage) == 0
    storage.put({"time": 0}, frame({"time": 0}), None)
    storage.finish()
    check(path, [({"time": 0}, frame({"time": 0}), None)])


@pytest.mark.parametrize(
    "options",
    [
        {"level": 3}, {"codec": "zstd", "level": 23}, {"codec": "gzip", "level": 10},
        {"codec": "blosc-lz4", "level": 10}, {"codec": "blosc-zstd", "level": 22},
        {"codec": "zstd", "frames_per_chunk": 2}, {"codec": "lz4"}, {"chunk": 3}, {"shard": 0},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_contradict_each_other_are_refused_before_a_dataset_is_made(options, path):
    with pytest.raises((OptionError, exengine.ExEngineError)):
        exengine.open_storage("ome-zarr", path, **options)
    assert not path.exists()
