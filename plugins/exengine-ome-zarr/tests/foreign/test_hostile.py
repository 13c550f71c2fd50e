"""Hostile datasets: each is refused or read within bounds, by errors of ExEngine, and leads to no other file."""

import os

import numpy as np
import pytest
from hand_made import array, edit, group, image, plate, series
from surveying import DATA, DEEP, survey

from exengine.errors import DatasetDamagedError, DatasetNotFoundError, ExEngineError
from exengine_ome_zarr.foreign import is_ome_zarr, open_foreign

# -- metadata of the image -----------------------------------------------------------------------


def in_image(change):
    def apply(path):
        edit(path / "zarr.json", lambda d: change(d["attributes"]["ome"]["multiscales"][0]))

    return apply


def set_path(value):
    return in_image(lambda m: m["datasets"][0].update(path=value))


def set_axes(value):
    return in_image(lambda m: m.update(axes=value))


def names(*axes):
    return [{"name": axis} for axis in axes]


IMAGES = {
    "path to a parent": set_path("../../outside"),
    "path that returns": set_path("0/../0"),
    "absolute path": set_path("/etc"),
    "path with a drive": set_path("C:\\Windows"),
    "path with a zero": set_path("0\0"),
    "path of the folder itself": set_path("."),
    "empty path": set_path(""),
    "path with empty parts": set_path("0//c"),
    "path that is a number": set_path(0),
    "path that is a list": set_path(["0"]),
    "very long path": set_path("a/" * 100_000 + "0"),
    "path that does not exist": set_path("9"),
    "no datasets": in_image(lambda m: m.update(datasets=[])),
    "datasets that are numbers": in_image(lambda m: m.update(datasets=[1, 2])),
    "datasets that are text": in_image(lambda m: m.update(datasets="0")),
    "too many datasets": in_image(lambda m: m.update(datasets=m["datasets"] * 100_000)),
    "too few axes": set_axes(names("y", "x")),
    "one axis": set_axes(names("x")),
    "no axes": set_axes([]),
    "too many axes": set_axes(names(*map(str, range(1000)))),
    "axes that are text": set_axes("tcyx"),
    "axes without names": set_axes([{}, {}, {}, {}]),
    "axes with the same name": set_axes(names("t", "t", "y", "x")),
    "axes with the same meaning": set_axes(names("t", "time", "y", "x")),
    "axes with names that are numbers": set_axes(names(1, 2, 3, 4)),
    "axes with reserved names": set_axes(names("keys", "_hash", "y", "x")),
    "multiscales that are empty": lambda path: edit(
        path / "zarr.json", lambda d: d["attributes"]["ome"].update(multiscales=[])
    ),
    "multiscales that are null": lambda path: edit(
        path / "zarr.json", lambda d: d["attributes"]["ome"].update(multiscales=[None])
    ),
    "attributes that are a list": lambda path: edit(path / "zarr.json", lambda d: d.update(attributes=[1])),
    "another version of Zarr": lambda path: edit(path / "zarr.json", lambda d: d.update(zarr_format=4)),
    "a document that is deep": lambda path: (path / "zarr.json").write_bytes(DEEP),
    "a document with many values": lambda path: (path / "zarr.json").write_bytes(
        b"[" + b"0," * 2_000_000 + b"0]"
    ),
    "a document that is huge": lambda path: os.truncate(path / "zarr.json", 2**40),
    "a document that is not text": lambda path: (path / "zarr.json").write_bytes(os.urandom(999)),
    "a document that is empty": lambda path: (path / "zarr.json").write_bytes(b""),
    "a document that is a number": lambda path: (path / "zarr.json").write_text("7"),
    "a number with many digits": lambda path: (path / "zarr.json").write_text("1" * 10_000),
    "a document that is a folder": lambda path: [(path / "zarr.json").unlink(), (path / "zarr.json").mkdir()],
    "a document that is a pipe": lambda path: [(path / "zarr.json").unlink(), os.mkfifo(path / "zarr.json")],
    "a document that is a device": lambda path: [
        (path / "zarr.json").unlink(),
        (path / "zarr.json").symlink_to("/dev/zero"),
    ],
}


@pytest.mark.parametrize("kind", IMAGES)
def test_hostile_metadata_of_an_image_are_refused(path, kind):
    image(path, DATA, "tcyx")
    IMAGES[kind](path)
    assert isinstance(survey(path), ExEngineError)


def with_ome(**values):
    return lambda path: edit(path / "zarr.json", lambda d: d["attributes"]["ome"].update(values))


HARMLESS = {
    "channels that are text": with_ome(omero={"channels": "abc"}),
    "channels that are numbers": with_ome(omero={"channels": [1, 2, 3]}),
    "labels that are lists": with_ome(omero={"channels": [{"label": [1]}] * 3}),
    "labels with half a surrogate pair": with_ome(
        omero={"channels": [{"label": "\ud800a"}, {"label": "b"}, {"label": "c"}]}
    ),
    "omero that is a list": with_ome(omero=[1]),
    "a name that is a number": in_image(lambda m: m.update(name=7)),
    "a unit that is a list": in_image(lambda m: m["axes"][0].update(unit=["s"])),
    "transformations that are text": in_image(
        lambda m: m["datasets"][0].update(coordinateTransformations="scale")
    ),
    "transformations that are numbers": in_image(
        lambda m: m["datasets"][0].update(coordinateTransformations=[1])
    ),
    "a scale that is infinite": in_image(
        lambda m: m["datasets"][0].update(
            coordinateTransformations=[{"type": "scale", "scale": [1, 1, float("inf"), float("nan")]}]
        )
    ),
    "a scale that overflows": in_image(
        lambda m: m["datasets"][0].update(
            coordinateTransformations=[{"type": "scale", "scale": [1, 1, 10**400, 1e308]}]
        )
    ),
    "a type that is a list": in_image(
        lambda m: m["datasets"][0].update(coordinateTransformations=[{"type": ["scale"]}])
    ),
    "metadata of frames that are text": lambda path: edit(
        path / "zarr.json", lambda d: d["attributes"].update(ome_writers={"frame_metadata": "x"})
    ),
    "a writer that is a list": lambda path: edit(
        path / "zarr.json", lambda d: d["attributes"].update(ome_writers=[1])
    ),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_metadata_that_pixels_do_not_need_may_be_wrong(path, kind):
    image(path, DATA, "tcyx")
    HARMLESS[kind](path)
    assert survey(path) is None
    dataset = open_foreign(path)
    for coordinates, frame in zip(dataset, DATA.reshape(-1, 8, 9), strict=True):
        np.testing.assert_array_equal(dataset[coordinates], frame)


# -- plates and series ---------------------------------------------------------------------------


def in_series(**values):
    return lambda path: edit(path / "OME/zarr.json", lambda d: d["attributes"]["ome"].update(values))


def in_plate(**values):
    return lambda path: edit(path / "zarr.json", lambda d: d["attributes"]["ome"]["plate"].update(values))


SERIES = {
    "a series that leads out": in_series(series=["../outside"]),
    "a series of absolute paths": in_series(series=["/etc"]),
    "a series of numbers": in_series(series=[0, 1]),
    "a series that is too long": in_series(series=["0"] * 100_000),
    "a series of images that do not exist": in_series(series=["8", "9"]),
    "a series of itself": in_series(series=["."]),
}
PLATES = {
    "wells that lead out": in_plate(wells=[{"path": "../../outside"}]),
    "wells without a path": in_plate(wells=[{}]),
    "wells that are text": in_plate(wells="A/1"),
    "too many wells": in_plate(wells=[{"path": "A/1"}] * 100_000),
    "no wells": in_plate(wells=[]),
    "wells that do not exist": in_plate(wells=[{"path": "Z/99"}]),
    "fields that lead out": lambda path: edit(
        path / "A/1/zarr.json",
        lambda d: d["attributes"]["ome"]["well"].update(images=[{"path": "../../../outside"}]),
    ),
    "fields that are text": lambda path: edit(
        path / "A/1/zarr.json", lambda d: d["attributes"]["ome"]["well"].update(images="0")
    ),
    "too many fields": lambda path: edit(
        path / "A/1/zarr.json",
        lambda d: d["attributes"]["ome"]["well"].update(images=[{"path": "0"}] * 100_000),
    ),
}


@pytest.mark.parametrize("kind", SERIES)
def test_a_hostile_series_is_refused(path, kind):
    series(path, [DATA[None]] * 2)
    SERIES[kind](path)
    assert isinstance(survey(path), ExEngineError)


@pytest.mark.parametrize("kind", PLATES)
def test_a_hostile_plate_is_refused(path, kind):
    plate(path, {"A/1": [DATA[None]]})
    PLATES[kind](path)
    assert isinstance(survey(path), ExEngineError)


def test_too_many_frames_in_many_images_are_refused(path, monkeypatch):
    import exengine_ome_zarr.foreign.images as images

    monkeypatch.setattr(images, "MAX_FRAMES", 10)
    series(path, [DATA[None]] * 2)
    with pytest.raises(DatasetDamagedError, match="claims to have 12 frames or more"):
        open_foreign(path)


# -- links and places ----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["zarr.json", "0", "0/zarr.json", "0/c"])
def test_nothing_outside_the_dataset_is_read(path, tmp_path, what):
    outside = tmp_path / "outside"
    image(path, DATA, "tcyx", compressors=None)
    (path / what).rename(outside)
    (path / what).symlink_to(outside)
    error = survey(path)
    assert isinstance(error, DatasetDamagedError) and "symbolic link" in str(error)


def test_the_dataset_itself_may_be_a_link(path, tmp_path):
    image(tmp_path / "real", DATA, "tcyx")
    path.symlink_to(tmp_path / "real")
    assert is_ome_zarr(path) and survey(path) is None


@pytest.mark.parametrize(
    "make",
    [
        os.mkdir,
        lambda path: None,
        lambda path: group(path, {}),
        lambda path: group(path, {}, "0.4"),
        lambda path: array(path, DATA),
        os.mkfifo,
        lambda path: path.symlink_to(path),
    ],
)
def test_any_other_path_is_not_a_dataset(path, make):
    make(path)
    assert not is_ome_zarr(path)
    with pytest.raises((DatasetNotFoundError, DatasetDamagedError)):
        open_foreign(path)


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000, 7, None, b"bytes"])
def test_is_ome_zarr_never_raises(path):
    assert is_ome_zarr(path) is False
