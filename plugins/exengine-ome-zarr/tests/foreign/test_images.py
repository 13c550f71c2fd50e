"""A single image of another writer: axes, labels, units, data types, codecs."""

import pickle

import numpy as np
import pytest
from hand_made import array, edit, group, image, multiscales, numbered

from exengine.base_classes import DatasetStatus
from exengine.errors import CoordinatesNotFoundError, StorageClosedError, StorageFinishedError
from exengine_ome_zarr.foreign import is_ome_zarr, open_foreign

VERSIONS = ("0.4", "0.5", "0.6")


def check_frames(dataset, data):
    """Compare every frame with the array, whose axes are those of the dataset."""
    count = 0
    for coordinates in dataset:
        place = tuple(dataset.axes[axis].index(value) for axis, value in coordinates.items())
        frame = dataset.get_data(coordinates)
        np.testing.assert_array_equal(frame, data[place])
        assert frame.dtype == data.dtype.newbyteorder("=")
        assert coordinates in dataset
        count += 1
    assert count == len(dataset) == np.prod(data.shape[:-2])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_frame_of_each_version_is_read(path, version):
    data = numbered(2, 3, 4, 20, 30)
    image(path, data, version=version)
    assert is_ome_zarr(path)
    with open_foreign(path) as dataset:
        assert dataset.axes == {"time": [0, 1], "channel": [0, 1, 2], "z": [0, 1, 2, 3]}
        assert dataset.backend_name == "ome-zarr" and dataset.path == str(path)
        check_frames(dataset, data)


@pytest.mark.parametrize("version", VERSIONS)
def test_channels_are_named_by_distinct_labels(path, version):
    image(path, numbered(1, 2, 1, 8, 8), version=version, labels=("DAPI", "FITC"))
    dataset = open_foreign(path)
    assert dataset.axes["channel"] == ["DAPI", "FITC"]
    assert dataset[{"time": 0, "channel": "FITC", "z": 0}][0, 0] == 64


@pytest.mark.parametrize("labels", [("a", "a"), ("a",), ("a", ""), ("a", 7), ("a", "b", "c")])
def test_channels_are_numbered_if_labels_are_not_distinct_or_not_complete(path, labels):
    image(path, numbered(1, 2, 1, 8, 8), labels=labels)
    assert open_foreign(path).axes["channel"] == [0, 1]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_summary_has_sizes_in_micrometers_and_seconds(path, version):
    image(path, numbered(2, 2, 2, 8, 8), version=version, labels=("DAPI", "FITC"))
    summary = open_foreign(path).summary_metadata
    assert summary["pixel_size_um"] == [0.25, 0.25]
    assert summary["z_step_um"] == 2.0 and summary["interval_s"] == 0.5
    assert summary["channels"] == [{"name": "DAPI", "color": "00FF00"}, {"name": "FITC", "color": "01FF00"}]
    assert summary["ome"]["omero"]["channels"][0]["label"] == "DAPI"


def test_other_units_are_converted_and_unknown_units_are_left_out(path):
    image(path, numbered(2, 1, 2, 8, 8))

    def change(document):
        axes = document["attributes"]["ome"]["multiscales"][0]["axes"]
        axes[0]["unit"], axes[2]["unit"], axes[3]["unit"], axes[4]["unit"] = (
            "minute",
            "furlong",
            "nanometer",
            "nanometer",
        )

    edit(path / "zarr.json", change)
    summary = open_foreign(path).summary_metadata
    assert summary["interval_s"] == 30.0 and summary["pixel_size_um"] == [0.00025, 0.00025]
    assert "z_step_um" not in summary


def test_scales_of_the_image_multiply_those_of_the_array(path):
    image(path, numbered(2, 1, 2, 8, 8))
    scale = [{"type": "scale", "scale": [1, 1, 10, 2, 4]}]
    edit(
        path / "zarr.json",
        lambda d: d["attributes"]["ome"]["multiscales"][0].update(coordinateTransformations=scale),
    )
    summary = open_foreign(path).summary_metadata
    assert summary["pixel_size_um"] == [0.5, 1.0] and summary["z_step_um"] == 20.0


@pytest.mark.parametrize(
    ("transformation", "size"),
    [
        (
            {
                "type": "sequence",
                "transformations": [
                    {"type": "scale", "scale": [3, 5]},
                    {"type": "translation", "translation": [1, 1]},
                ],
            },
            [3.0, 5.0],
        ),
        ({"type": "identity"}, None),
        ({"type": "affine", "affine": [[1, 0, 0], [0, 1, 0]]}, None),
        ({"type": "scale", "scale": [1, 1, 1]}, None),
        ({"type": "scale", "scale": [0, -1]}, None),
        ({"type": "scale", "scale": "1"}, None),
        ({"type": 7}, None),
        ("scale", None),
    ],
)
def test_a_transformation_of_version_06_is_read_if_it_is_plain(path, transformation, size):
    data = numbered(8, 8)
    image(path, data, "yx", "0.6")

    def change(document):
        dataset = document["attributes"]["ome"]["multiscales"][0]["datasets"][0]
        if isinstance(transformation, dict):
            transformation["output"] = {"name": "intrinsic"}
        dataset["coordinateTransformations"] = [transformation]

    edit(path / "zarr.json", change)
    edit(
        path / "zarr.json",
        lambda d: d["attributes"]["ome"]["multiscales"][0]["coordinateSystems"].pop(0) and None,
    )
    dataset = open_foreign(path)
    np.testing.assert_array_equal(dataset[{"time": 0}], data)
    assert dataset.summary_metadata.get("pixel_size_um") == size


def test_an_image_with_two_axes_is_one_frame_at_time_0(path):
    data = numbered(20, 30)
    image(path, data, "yx")
    dataset = open_foreign(path)
    assert list(dataset) == [{"time": 0}]
    np.testing.assert_array_equal(dataset[{"time": 0}], data)
    np.testing.assert_array_equal(dataset.as_array().compute(), data[None])


@pytest.mark.parametrize(
    ("axes", "names"),
    [("zyx", ["z"]), ("cyx", ["channel"]), ("tyx", ["time"]), ("zcyx", ["z", "channel"])],
)
def test_an_axis_that_the_image_lacks_is_not_in_the_coordinates(path, axes, names):
    data = numbered(*range(2, len(axes)), 8, 9)
    image(path, data, axes)
    dataset = open_foreign(path)
    assert list(dataset.axes) == names
    check_frames(dataset, data)


def test_an_axis_of_another_name_keeps_it(path):
    data = numbered(2, 3, 8, 9)
    group(path, {"multiscales": multiscales(["angle", "T", "y", "x"])})
    array(path / "0", data)
    dataset = open_foreign(path)
    assert dataset.axes == {"angle": [0, 1], "time": [0, 1, 2]}
    check_frames(dataset, data)


@pytest.mark.parametrize("axes", [("y", "z", "x", "t"), ("x", "y", "c", "z"), ("c", "x", "z", "y")])
def test_frames_are_y_and_x_in_any_order_of_axes(path, axes):
    data = numbered(*{"t": 2, "c": 3, "z": 4, "y": 8, "x": 9}.values())
    places = ["tczyx".index(axis) for axis in axes]
    others = [0 if axis not in axes else slice(None) for axis in "tczyx"]
    kept = [axis for axis in "tczyx" if axis in axes]
    part = data[tuple(others)]
    group(path, {"multiscales": multiscales(list(axes))})
    array(
        path / "0",
        np.ascontiguousarray(part.transpose([kept.index(axis) for axis in axes])),
        chunks=(2, 3, 4, 2),
    )
    dataset = open_foreign(path)
    for coordinates in dataset:
        names = {"time": "t", "channel": "c", "z": "z"}
        at = {names[axis]: value for axis, value in coordinates.items()}
        np.testing.assert_array_equal(
            dataset[coordinates], part[tuple(at.get(axis, slice(None)) for axis in kept)]
        )
    assert places


def test_the_axes_of_the_frame_may_have_other_names(path):
    data = numbered(2, 8, 9)
    group(path, {"multiscales": multiscales(["z", "lat", "lon"])})
    array(path / "0", data)
    check_frames(open_foreign(path), data)


@pytest.mark.parametrize("axes", [["t", "c", "z", "y", "x"], None])
def test_axes_of_versions_before_04_are_strings_or_implied(path, axes):
    data = numbered(2, 1, 2, 8, 9)
    image(path, data, version="0.4")

    def change(attributes):
        if axes:
            attributes["multiscales"][0]["axes"] = axes
        else:
            del attributes["multiscales"][0]["axes"]

    edit(path / ".zattrs", change)
    check_frames(open_foreign(path), data)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    "dtype",
    [
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
    ],
)
def test_every_numeric_type_is_read(path, version, dtype):
    data = numbered(3, 8, 9, dtype=dtype)
    image(path, data, "zyx", version)
    check_frames(open_foreign(path), data)


@pytest.mark.parametrize("dtype", [">u2", ">f4", ">i8"])
def test_big_endian_pixels_become_native(path, dtype):
    data = numbered(3, 8, 9, dtype=dtype)
    image(path, data, "zyx", "0.4")
    check_frames(open_foreign(path), data)


CODECS = ["blosc", "zstd", "gzip", "none"]


@pytest.mark.parametrize("shards", [None, (2, 16, 16)])
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_read_with_and_without_shards(path, codec, shards):
    import zarr.codecs as codecs

    given = {
        "blosc": codecs.BloscCodec(),
        "zstd": codecs.ZstdCodec(),
        "gzip": codecs.GzipCodec(),
        "none": None,
    }[codec]
    data = numbered(5, 20, 30)
    image(path, data, "zyx", chunks=(1, 8, 8), shards=shards, compressors=given)
    check_frames(open_foreign(path), data)
    assert open_foreign(path).check_structure() == []


@pytest.mark.parametrize("codec", ["blosc", "zstd", "gzip", "zlib", "bz2", "lzma", "lz4"])
def test_every_compressor_of_version_04_is_read(path, codec):
    import numcodecs

    data = numbered(3, 20, 30)
    image(
        path,
        data,
        "zyx",
        "0.4",
        chunks=(2, 16, 16),
        compressors=numcodecs.get_codec({"id": codec}),
        filters=[numcodecs.Delta("<u2")],
    )
    check_frames(open_foreign(path), data)


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("name", ["v2", "default"])
def test_chunks_have_names_of_any_form(path, name, separator):
    data = numbered(3, 8, 9)
    image(path, data, "zyx", chunks=(1, 4, 4), chunk_key_encoding={"name": name, "separator": separator})
    check_frames(open_foreign(path), data)


def test_fortran_order_is_read(path):
    data = numbered(3, 8, 9)
    image(path, data, "zyx", "0.4", order="F", chunks=(2, 4, 4))
    check_frames(open_foreign(path), data)


def test_the_index_of_shards_may_be_at_their_beginning(path):
    import zarr.codecs as codecs

    data = numbered(4, 8, 9)
    image(
        path,
        data,
        "zyx",
        chunks=(1, 8, 9),
        shards={"shape": (2, 8, 9), "index_location": "start"},
        compressors=codecs.ZstdCodec(),
    )
    check_frames(open_foreign(path), data)


def test_chunks_that_were_never_written_have_the_fill_value(path):
    group(path, {"multiscales": multiscales("zyx")})
    import zarr

    made = zarr.create_array(
        path / "0", shape=(4, 8, 9), chunks=(1, 8, 9), shards=(2, 8, 9), dtype="uint16", fill_value=7
    )
    made[1] = 1
    dataset = open_foreign(path)
    assert [int(dataset[{"z": z}].max()) for z in range(4)] == [7, 1, 7, 7]
    assert len(dataset) == 4 and {"z": 3} in dataset
    assert dataset.status is DatasetStatus.COMPLETE and dataset.check_structure() == []


def test_the_first_of_several_multiscales_is_read(path):
    data = numbered(3, 8, 9)
    image(path, data, "zyx")

    def change(document):
        ome = document["attributes"]["ome"]
        ome["multiscales"].append({"axes": [], "datasets": [{"path": "missing"}]})

    edit(path / "zarr.json", change)
    check_frames(open_foreign(path), data)


def test_a_reader_can_be_pickled(path):
    data = numbered(2, 2, 2, 8, 9)
    image(path, data, labels=("a", "b"))
    copy = pickle.loads(pickle.dumps(open_foreign(path)))
    np.testing.assert_array_equal(copy[{"time": 1, "channel": "b", "z": 1}], data[1, 1, 1])


def test_a_frame_that_does_not_exist_is_named(path):
    image(path, numbered(2, 2, 2, 8, 9), labels=("DAPI", "FITC"))
    dataset = open_foreign(path)
    for axes, words in [
        ({"time": 9, "channel": "DAPI", "z": 0}, "positions on axis 'time': 0, 1"),
        ({"time": 0, "channel": "Cy5", "z": 0}, "positions on axis 'channel': 'DAPI', 'FITC'"),
        ({"time": 0, "channel": 0, "z": 0}, "positions on axis 'channel'"),
        ({"time": 0, "z": 0}, "the coordinates lack channel"),
        ({"time": 0, "channel": "DAPI", "z": 0, "angle": 0}, "no frame has the axis 'angle'"),
        ({"time": -1, "channel": "DAPI", "z": 0}, "positions on axis 'time'"),
        ({}, "the coordinates lack time, channel, z"),
    ]:
        assert axes not in dataset
        with pytest.raises(CoordinatesNotFoundError, match=words):
            dataset.get_data(axes)


def test_a_reader_is_read_only_and_closes(path):
    image(path, numbered(1, 1, 1, 8, 9))
    dataset = open_foreign(path)
    with pytest.raises(StorageFinishedError):
        dataset.put({"time": 5}, numbered(8, 9), None)
    assert dataset.is_finished() and dataset.status is DatasetStatus.COMPLETE and not dataset.has_checksums
    lazy = dataset.as_array()
    dataset.close()
    dataset.close()
    for call in (
        lambda: dataset.get_data({"time": 0, "channel": 0, "z": 0}),
        lambda: len(dataset),
        dataset.as_array,
        lazy.compute,
    ):
        with pytest.raises(StorageClosedError):
            call()


def test_frames_can_be_changed_by_the_caller(path):
    data = numbered(2, 8, 9)
    image(path, data, "zyx")
    dataset = open_foreign(path)
    dataset[{"z": 0}][...] = 0
    np.testing.assert_array_equal(dataset[{"z": 0}], data[0])
    dataset.summary_metadata["ome"].clear()
    assert dataset.summary_metadata["ome"]


def test_metadata_are_empty_unless_the_writer_is_known(path):
    image(path, numbered(2, 8, 9), "zyx")
    assert open_foreign(path).get_metadata({"z": 1}) == {}


def test_metadata_of_ome_writers_belong_to_their_frames(path):
    entries = [
        {"delta_t": 0.5, "storage_index": [1, 0]},
        {"storage_index": "x"},
        7,
        {"delta_t": 0.1, "storage_index": [0, 0]},
    ]
    image(path, numbered(2, 1, 8, 9), "tcyx", attributes={"ome_writers": {"frame_metadata": entries}})
    dataset = open_foreign(path)
    assert dataset.get_metadata({"time": 1, "channel": 0}) == {"delta_t": 0.5}
    assert dataset.get_metadata({"time": 0, "channel": 0}) == {"delta_t": 0.1}
