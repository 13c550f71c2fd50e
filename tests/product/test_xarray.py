"""Datasets in xarray: by ``to_xarray()`` and by xarray's own ``open_dataset``, lazy and in other processes."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

import exengine
from exengine.base_classes import PlannedChannel, PlannedPosition, SourcePlan
from exengine.errors import DatasetNotFoundError, UnsupportedOperationError

xarray = pytest.importorskip("xarray", reason="xarray is not installed")

PLAN = SourcePlan(
    pixel_size_um=(0.5, 0.25),
    z_step_um=2.0,
    interval_s=30.0,
    channels=(PlannedChannel("FITC", "00FF00"), PlannedChannel("DAPI", "0000FF")),
    stage_positions=(
        PlannedPosition(name="right", x_um=7.0),
        PlannedPosition(name="left", x_um=10.0, y_um=-5.0),
    ),
)


def pixels(number):
    y, x = np.indices((6, 8), np.uint16)
    return y * 8 + x + 100 * number + 1


def write(path, backend):
    """Write 22 of 24 frames; return them by their coordinates."""
    frames = {}
    with exengine.open_storage(backend, path, summary_metadata={"name": "demo"}) as storage:
        storage.expect(PLAN)
        for position in ("right", "left"):
            for time in (0, 1, 4):
                for channel in ("FITC", "DAPI"):
                    for z in (0, 2):
                        if (position, time, channel) != ("left", 4, "DAPI"):
                            frames[position, time, channel, z] = pixels(len(frames))
                            axes = {"position": position, "time": time, "channel": channel, "z": z}
                            storage.put(axes, frames[position, time, channel, z], None)
    return frames


@pytest.fixture(params=["ndtiff", "ome-zarr"])
def backend(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def frames(path, backend):
    return write(path, backend)


@pytest.fixture(params=["to_xarray", "engine", "engine with dask"])
def dataset(request, path, frames):
    if request.param == "to_xarray":
        storage = exengine.open_dataset(path)
        yield storage.to_xarray()
        storage.close()
    else:
        chunks = {} if request.param == "engine with dask" else None
        with xarray.open_dataset(path, engine="exengine", chunks=chunks) as opened:
            yield opened


def test_every_frame_is_at_its_coordinates_and_gaps_are_zero(dataset, frames):
    image = dataset["image"]
    assert next(iter(dataset)) == "image"
    assert image.dims == ("position", "time", "channel", "z", "y", "x")
    assert image.dtype == np.uint16 and image.shape == (2, 3, 2, 2, 6, 8)
    for position in ("right", "left"):
        for time in (0, 1, 4):
            for channel in ("FITC", "DAPI"):
                for z in (0, 2):
                    frame = frames.get((position, time, channel, z))
                    at = {"position": position, "time": time, "channel": channel, "z": z}
                    assert bool(dataset["present"].sel(at)) == (frame is not None)
                    expected = np.zeros((6, 8), np.uint16) if frame is None else frame
                    assert np.array_equal(image.sel(at).values, expected)


def test_a_selection_by_name_slice_and_list_reads_what_it_should(dataset, frames):
    image = dataset["image"]
    chosen = image.sel(channel="DAPI", z=2, time=slice(0, 1)).isel(position=0, y=slice(None, None, -2), x=3)
    assert chosen.dims == ("time", "y")
    expected = [frames["right", time, "DAPI", 2][::-2, 3] for time in (0, 1)]
    assert np.array_equal(chosen.values, expected)
    picked = image.isel(time=[2, 0], channel=[1], z=0, position=1).values
    assert not picked[0].any() and np.array_equal(picked[1, 0], frames["left", 0, "DAPI", 0])
    assert image.isel(time=slice(0, 0)).values.shape == (2, 0, 2, 2, 6, 8)
    total = image.max("z").sel(position="right", time=4, channel="FITC").values
    assert np.array_equal(total, frames["right", 4, "FITC", 2])


def test_reading_one_frame_reads_no_other(path, frames, monkeypatch):
    with xarray.open_dataset(path, engine="exengine") as opened:
        read = []
        reader = type(exengine.open_dataset(path))
        get = reader.get_data
        monkeypatch.setattr(
            reader, "get_data", lambda self, axes: (read.append(dict(axes)), get(self, axes))[1]
        )
        assert not read
        assert opened["image"].sel(position="left", time=1, channel="FITC", z=0).values.shape == (6, 8)
        assert read == [{"position": "left", "time": 1, "channel": "FITC", "z": 0}]


def test_a_result_is_chunked_by_frames(path, frames):
    with exengine.open_dataset(path) as storage:
        assert storage.to_xarray()["image"].data.chunksize == (1, 1, 1, 1, 6, 8)
        assert isinstance(storage.to_xarray()["present"].variable._data, np.ndarray)
    with xarray.open_dataset(path, engine="exengine", chunks={}) as opened:
        assert opened["image"].data.chunksize == (1, 1, 1, 1, 6, 8)


def test_coordinates_have_units(tmp_path):
    write(tmp_path / "data", "ome-zarr")
    with exengine.open_dataset(tmp_path / "data") as storage:
        found = storage.to_xarray()
    assert np.allclose(found["y"], np.arange(6) * 0.5) and found["y"].attrs == {"units": "micrometer"}
    assert np.allclose(found["x"], np.arange(8) * 0.25) and found["x"].attrs == {"units": "micrometer"}
    assert np.allclose(found["z_um"], [0, 4]) and found["z_um"].attrs["units"] == "micrometer"
    assert np.allclose(found["time_s"], [0, 30, 120]) and found["time_s"].attrs["units"] == "second"
    assert list(found["channel_color"].values) == ["00FF00", "0000FF"]
    assert (
        found["stage_x_um"].sel(position="left") == 10.0 and found["stage_x_um"].sel(position="right") == 7.0
    )
    assert np.isnan(found["stage_y_um"].sel(position="right"))
    assert found.attrs["backend"] == "ome-zarr" and found.attrs["status"] == "complete"
    assert found.attrs["summary_metadata"] == '{"name": "demo"}'


READER = """
import pickle, sys
dataset = pickle.loads(sys.stdin.buffer.read())
print(int(dataset["image"].sum()), dataset["image"].sel(position="left", channel="DAPI", z=2, time=1).values.sum())
"""


def test_a_dataset_can_be_pickled_and_read_in_another_process(dataset, frames):
    found = subprocess.run(
        [sys.executable, "-c", READER],
        input=pickle.dumps(dataset),
        capture_output=True,
        timeout=60,
        check=True,
    )
    total = sum(int(frame.sum()) for frame in frames.values())
    assert found.stdout.split() == [b"%d" % total, b"%d" % frames["left", 1, "DAPI", 2].sum()]


def test_a_variable_can_be_dropped_and_the_backend_named(path, frames, backend):
    with xarray.open_dataset(path, engine="exengine", drop_variables="present", backend=backend) as opened:
        assert "present" not in opened and opened["image"].shape[0] == 2


def test_xarray_finds_the_engine_by_itself(path, frames):
    with xarray.open_dataset(path) as opened:
        assert opened["image"].dims[0] == "position"
    with pytest.raises(DatasetNotFoundError):
        xarray.open_dataset(path.with_name("nothing"), engine="exengine")


def test_rgb_frames_and_other_names_have_dimensions_of_their_own(tmp_path):
    with exengine.open_storage("ndtiff", tmp_path / "rgb") as storage:
        for angle in ("a", "b"):
            storage.put({"angle": angle}, np.full((4, 5, 3), ord(angle), np.uint8), None)
    with exengine.open_dataset(tmp_path / "rgb") as storage:
        image = storage.to_xarray()["image"]
        assert image.dims == ("angle", "y", "x", "rgb") and int(image.sel(angle="b").max()) == ord("b")


def test_frames_that_cannot_form_one_array_are_refused(tmp_path):
    with exengine.open_storage("ndtiff", tmp_path / "axes") as storage:
        storage.put({"time": 0}, np.zeros((4, 4), np.uint16), None)
        storage.put({"z": 0}, np.zeros((4, 4), np.uint16), None)
    with exengine.open_storage("ndtiff", tmp_path / "shapes") as storage:
        storage.put({"time": 0}, np.zeros((4, 4), np.uint16), None)
        storage.put({"time": 1}, np.zeros((4, 5), np.uint16), None)
    with exengine.open_storage("ndtiff", tmp_path / "names") as storage:
        storage.put({"y": 0}, np.zeros((4, 4), np.uint16), None)
    with exengine.open_storage("ndtiff", tmp_path / "empty"):
        pass
    for name, message in (
        ("axes", "differ from those of the dataset"),
        ("names", "'y' has the same name"),
        ("empty", "no frames"),
    ):
        with (
            exengine.open_dataset(tmp_path / name) as storage,
            pytest.raises(UnsupportedOperationError, match=message),
        ):
            storage.to_xarray()
    with (
        exengine.open_dataset(tmp_path / "shapes") as storage,
        pytest.raises(UnsupportedOperationError, match=r"has shape \(4, 5\)"),
    ):
        storage.to_xarray()["image"].load()


def test_without_xarray_the_error_says_how_to_install_it(path, frames):
    program = (
        "import sys; sys.modules['xarray'] = None\n"
        "import exengine\n"
        "exengine.open_dataset(sys.argv[1]).to_xarray()"
    )
    ended = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert "pip install 'exengine[xarray]'" in ended.stderr.splitlines()[-1]
