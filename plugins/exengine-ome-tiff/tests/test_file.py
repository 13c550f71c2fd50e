"""The finished file: what tifffile and ome-types read in it, and what ExEngine reads after other programs."""

import json
import os
import shutil
import sys

import numpy as np
import ome_types
import pytest
import tifffile

import exengine
from exengine.base_classes import PlannedChannel, PlannedPosition, SourcePlan
from exengine.errors import (
    DatasetDamagedError,
    DatasetExistsError,
    UnsupportedDataError,
    UnsupportedOperationError,
)
from exengine_ome_tiff import OmeTiffReader, OmeTiffStorage

COMPRESSIONS = ["none", "zlib", "zstd"]
DTYPES = ["int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "complex64", "complex128"]
TAG = 65400


def valid(path):
    """Return the OME metadata of a file, which the schema must accept."""
    with tifffile.TiffFile(path) as file:
        xml = file.pages[0].description
    ome_types.validate_xml(xml)
    return ome_types.from_xml(xml)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tifffile_reads_every_frame_with_its_axes_and_metadata(compression, path, write, check):
    written = write(compression=compression)
    check(path, written)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff and len(file.pages) == len(written) == 11
        names = {"none": "NONE", "zlib": "ADOBE_DEFLATE", "zstd": "ZSTD"}
        assert {page.compression.name for page in file.pages} == {names[compression]}
        for number, axes in enumerate(written):
            record = json.loads(file.pages[number].aspage().tags[TAG].value)
            assert (record["c"], record["m"]) == (
                axes.coordinate_dict,
                {"at": axes.coordinate_dict, "text": "\0é"},
            )
        (series,) = file.series
        assert (series.axes, series.shape) == ("TCZYX", (3, 2, 2, 24, 32))
        whole = series.asarray()
        assert [page is None for page in series.pages].count(True) == 1
    for axes, pixels in written.items():
        at = axes["time"], ["DAPI", "FITC"].index(axes["channel"]), [-1, 4].index(axes["z"])
        assert np.array_equal(whole[at], pixels)
    assert not whole[1, 1, 1].any()
    image = valid(path).images[0]
    assert [channel.name for channel in image.pixels.channels] == ["DAPI", "FITC"]
    assert len(image.pixels.planes) == len(image.pixels.tiff_data_blocks) == 11


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_equal_for_exengine_and_tifffile(dtype, compression, path, write, check):
    written = write(dtype=dtype, shape=(5, 3), times=1, compression=compression)
    check(path, written)
    whole = tifffile.imread(path)
    assert whole.dtype == np.dtype(dtype) and whole.shape == (2, 2, 5, 3)
    assert np.array_equal(whole[0, 0], next(iter(written.values())), equal_nan=True)
    valid(path)


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint64", "float16"])
def test_a_dtype_that_ome_has_no_name_for_is_refused_before_anything_is_created(dtype, path):
    with exengine.open_storage("ome-tiff", path) as storage:
        with pytest.raises(UnsupportedDataError, match=f"got dtype {dtype}.*choose another backend"):
            storage.put({"time": 0}, np.ones((2, 2), dtype), None)
        assert len(storage) == 0


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("samples", [1, 2, 3, 4, 7])
def test_frames_with_several_samples_per_pixel_are_one_channel_each(samples, compression, path, write, check):
    written = write(dtype="uint8", shape=(5, 6, samples), times=2, compression=compression)
    check(path, written)
    with tifffile.TiffFile(path) as file:
        whole = file.series[0].asarray().reshape(2, 2, 2, 5, 6, samples)
        assert file.pages[0].photometric.name == ("RGB" if samples in (3, 4) else "MINISBLACK")
    assert np.array_equal(whole[0, 1, 0], written[exengine.DataCoordinates(time=0, channel="FITC", z=-1)])
    pixels = valid(path).images[0].pixels
    assert (pixels.size_c, len(pixels.channels)) == (2 * samples, 2)


def test_each_position_is_an_image_with_its_own_channels_and_planes(path):
    frames = [
        ({"position": position, "time": time, "channel": channel, "z": z}, np.full((4, 6), number, np.uint16))
        for number, (position, time, channel, z) in enumerate(
            [("left", 0, "DAPI", 0), ("left", 0, "FITC", 5), ("right", 0, "FITC", 5), ("left", 3, "DAPI", 0),
             ("right", 3, "FITC", 5)]
        )
    ]  # fmt: skip
    with exengine.open_storage("ome-tiff", path) as storage:
        for axes, pixels in frames:
            storage.put(axes, pixels, None)
    left, right = valid(path).images
    assert (left.name, left.pixels.size_t, left.pixels.size_c, left.pixels.size_z) == ("left", 2, 2, 2)
    assert (right.name, right.pixels.size_t, right.pixels.size_c, right.pixels.size_z) == ("right", 2, 1, 1)
    with tifffile.TiffFile(path) as file:
        one, two = (series.asarray() for series in file.series)
    assert one[..., 0, 0].reshape(2, 2, 2).tolist() == [[[0, 0], [0, 1]], [[3, 0], [0, 0]]]  # T, C, Z
    assert two[..., 0, 0].reshape(2).tolist() == [2, 4]


def test_axes_without_a_dimension_are_images_and_the_longest_takes_the_place_of_time(path):
    frames = [
        ({"angle": angle, "burst": burst}, np.full((4, 6), 10 * number + burst, np.uint8))
        for number, angle in enumerate(["up", "down"])
        for burst in range(3)
    ]
    with exengine.open_storage("ome-tiff", path) as storage:
        for axes, pixels in frames:
            storage.put(axes, pixels, axes)
    with exengine.open_dataset(path) as dataset:
        assert [axes.coordinate_dict for axes in dataset] == [axes for axes, _ in frames]
        assert dataset.axes == {"angle": ["up", "down"], "burst": [0, 1, 2]}
    ome = valid(path)
    assert [image.name for image in ome.images] == ["angle up", "angle down"]
    assert [image.pixels.size_t for image in ome.images] == [3, 3]
    notes = [json.loads(note.value) for note in ome.structured_annotations.comment_annotations]
    assert notes[1] == {"fixed": {"angle": "down"}, "T": {"axis": "burst", "positions": [0, 1, 2]}}
    assert ome.images[1].annotation_refs[0].id == ome.structured_annotations[1].id


def test_an_axis_takes_the_place_of_time_beside_channels(path):
    with exengine.open_storage("ome-tiff", path) as storage:
        for row in range(2):
            for channel in ("DAPI", "FITC"):
                storage.put({"row": row, "channel": channel}, np.full((4, 6), row, np.uint8), None)
    with tifffile.TiffFile(path) as file:
        assert file.series[0].asarray()[:, :, 0, 0].tolist() == [[0, 0], [1, 1]]


def test_frames_that_differ_in_axes_shape_or_dtype_are_images_of_their_own(path):
    frames = [
        ({"time": 0}, np.ones((2, 3), np.uint8)),
        ({"time": 1}, np.ones((2, 3), np.float32)),
        ({"time": 2}, np.full((4, 4, 3), 7, np.uint8)),
        ({"time": 3, "z": "top"}, np.ones((2, 3), np.uint8)),
        ({"z": "low", "time": 0}, np.full((2, 3), 9, np.uint8)),
        ({"a/b": 1, "..": 2**62}, np.ones((1, 1), np.complex64)),
        ({"time": -(2**63)}, np.ones((2, 3), np.uint8)),
    ]
    with exengine.open_storage("ome-tiff", path) as storage:
        for axes, pixels in frames:
            storage.put(axes, pixels, None)
    with exengine.open_dataset(path) as dataset:
        assert [axes.coordinate_dict for axes in dataset] == [axes for axes, _ in frames]
        assert all(np.array_equal(dataset[axes], pixels) for axes, pixels in frames)
    types = [
        (image.pixels.size_t, image.pixels.size_z, image.pixels.type.value) for image in valid(path).images
    ]
    assert types == [(2, 1, "uint8"), (1, 1, "float"), (1, 1, "uint8"), (2, 2, "uint8"), (1, 1, "complex")]
    with tifffile.TiffFile(path) as file:
        series = [each.asarray() for each in file.series]
    assert [each.dtype.name for each in series] == ["uint8", "float32", "uint8", "uint8", "complex64"]
    assert (series[2] == 7).all() and series[2].shape == (4, 4, 3) and series[3].max() == 9


def test_the_plan_and_the_metadata_are_in_the_ome_xml(path):
    plan = SourcePlan(
        pixel_size_um=(0.5, 0.25), z_step_um=2.0, interval_s=30.0,
        channels=(PlannedChannel("DAPI", "0000FF"), PlannedChannel("<&\">\x01", "FF8000")),
        stage_positions=(PlannedPosition(name=1, x_um=10.5, y_um=-3.0),),
    )  # fmt: skip
    with exengine.open_storage("ome-tiff", path) as storage:
        storage.expect(plan)
        for number, channel in enumerate(["DAPI", '<&">\x01']):
            axes = {"position": 1, "time": 0, "channel": channel, "z": 0}
            facts = {"exposure_ms": 20, "elapsed_ms": 1500.0 + number, "position_um": {"x": 10.5, "z": 7}}
            storage.put(axes, np.zeros((4, 4), np.uint8), facts)
    image = valid(path).images[0]
    pixels, plane = image.pixels, image.pixels.planes[1]
    assert (pixels.physical_size_x, pixels.physical_size_y, pixels.physical_size_z) == (0.25, 0.5, 2.0)
    assert (pixels.time_increment, pixels.time_increment_unit.value) == (30.0, "s")
    assert [channel.name for channel in pixels.channels] == ["DAPI", '<&">\ufffd']
    assert [channel.color.as_hex() for channel in pixels.channels] == ["#00f", "#ff8000"]
    assert (image.stage_label.x, image.stage_label.y, image.stage_label.z) == (10.5, -3.0, None)
    assert (plane.the_c, plane.exposure_time, plane.delta_t, plane.position_x, plane.position_z) == (
        1, 0.02, 1.501, 10.5, 7.0,
    )  # fmt: skip
    assert str(image.acquisition_date).startswith("20")
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        numbers = [tags[name].value for name in ("XResolution", "YResolution", "ResolutionUnit")]
    assert numbers == [(40000, 1), (20000, 1), 3]


def test_a_recovered_file_keeps_the_pixel_size_that_the_summary_states(path):
    storage = exengine.open_storage("ome-tiff", path, summary_metadata={"pixel_size_um": 0.65})
    storage.put({"z": 0}, np.ones((4, 4), np.uint8), None)
    storage.close()
    exengine.recover(path, in_place=True)
    assert valid(path).images[0].pixels.physical_size_x == 0.65


def test_other_programs_find_a_note_in_a_file_that_is_not_finished_or_has_no_frames(path):
    storage = exengine.open_storage("ome-tiff", path)
    with tifffile.TiffFile(path) as file:
        assert "not finished" in file.pages[0].description and file.asarray().shape == (1, 1)
    storage.finish()
    storage.close()
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].description == "This dataset has no frames." and len(file.pages) == 1
    with exengine.open_dataset(path) as dataset:
        assert dataset.status == "complete" and len(dataset) == 0


def test_a_description_that_another_program_changed_still_reads_equal_but_is_not_overwritten(
    path, write, check
):
    written = write()
    tifffile.tiffcomment(path, "<OME>" + "a" * 20_000 + "</OME>")
    check(path, written)
    assert exengine.verify(path).ok
    with pytest.raises(DatasetExistsError, match="changed or replaced"):
        exengine.open_storage("ome-tiff", path, if_exists="overwrite")
    check(path, written)


def test_a_file_that_was_moved_alone_keeps_its_status_and_annotations(path, tmp_path, write, check):
    written = write(end="abort", summary_metadata={"lens": "20x"})
    (tmp_path / "b").mkdir()
    moved = shutil.move(path, tmp_path / "b" / "other.tif")
    check(moved, written, "aborted")
    with exengine.open_dataset(moved) as dataset:
        assert dataset.summary_metadata == {"lens": "20x"}
        assert dataset.status_reason == "stopped by the user"


@pytest.mark.parametrize("end", ["finish", "close"])
def test_a_file_with_a_damaged_beginning_is_not_read_as_a_file_of_another_program(end, path, tmp_path, write):
    write(end=end)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    moved = tmp_path / "b.ome.tif"
    moved.write_bytes(content)
    with tifffile.TiffFile(moved) as file:
        assert len(file.pages) == (11 if end == "finish" else 1)
    with pytest.raises(DatasetDamagedError, match="written by ExEngine, but its beginning is damaged"):
        exengine.open_dataset(moved)


def test_a_file_in_place_of_another_is_read_by_its_own_records_or_refused(path, tmp_path, write, check):
    written = write(times=1)
    write(tmp_path / "long.ome.tif", times=3)
    os.replace(tmp_path / "long.ome.tif.exengine.json", f"{path}.exengine.json")
    check(path, written)
    tifffile.imwrite(path, np.zeros((4, 5), np.uint8))
    with pytest.raises(DatasetDamagedError, match="another program has replaced the file"):
        exengine.open_dataset(path)
    os.unlink(f"{path}.exengine.json")
    with exengine.open_dataset(path) as dataset:
        assert len(dataset) == 1 and dataset.backend_name == "ome-tiff"


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_a_pixel_that_was_changed_is_reported_by_its_frame_alone(compression, path, write):
    written = write(compression=compression)
    reader = OmeTiffReader.open(path)
    place = reader.place_of(4)
    reader.close()
    content = bytearray(path.read_bytes())
    content[place.offset + 7] ^= 1
    path.write_bytes(content)
    report = exengine.verify(path)
    assert [frame.coordinates for frame in report.damaged] == [[*written][4].coordinate_dict]
    assert exengine.recover(path, in_place=True).frames == len(written) - 1
    assert exengine.verify(path).damaged == [] and exengine.verify(path).frames == len(written) - 1
    assert os.path.getsize(f"{path}.exengine.damaged-file") == len(content)
    with tifffile.TiffFile(path) as file:
        names = {"none": "NONE", "zlib": "ADOBE_DEFLATE"}
        assert file.pages[0].compression.name == names[compression] and len(file.pages) == len(written) - 1


def test_tifffile_is_not_imported_while_frames_are_written_or_read(path, write, run_python):
    write(end="close")
    program = (
        "import sys, exengine\nwith exengine.open_dataset(sys.argv[1]) as dataset:\n"
        "    print(len(dataset), sum(int(dataset[axes].sum()) for axes in dataset) > 0, 'tifffile' in sys.modules)"
    )
    assert run_python(program, path)[1].split() == ["11", "True", "False"]


@pytest.mark.parametrize("shape", [(0, 4), (3, 4, 0), (1, 1, 2**16)])
def test_a_frame_that_a_page_cannot_hold_is_refused_and_nothing_changes(shape, path):
    with pytest.raises(UnsupportedDataError, match="TIFF"):
        OmeTiffStorage.check_plan([(shape, "uint8")], [])
    with exengine.open_storage("ome-tiff", path) as storage:
        with pytest.raises(UnsupportedDataError, match="TIFF"):
            storage.put({"time": 0}, np.zeros(shape, np.uint8), None)
        assert len(storage) == 0


def test_zstd_without_its_library_is_refused_before_anything_is_created(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for refuse in (
        lambda: exengine.open_storage("ome-tiff", path, compression="zstd"),
        lambda: OmeTiffStorage.check_plan([], [], options={"compression": "zstd"}),
    ):
        with pytest.raises(UnsupportedOperationError, match=r"pip install 'exengine-ome-tiff\[zstd\]'"):
            refuse()
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "better"),
    [("scan", "scan.ome.tif"), ("scan.tif", "scan.ome.tif"), ("scan.TIFF", "scan.ome.tif"),
     ("scan.5x", "scan.5x.ome.tif"), ("scan.h5", "scan.h5.ome.tif")],
)  # fmt: skip
def test_a_name_without_the_suffix_is_refused_with_a_name_that_works(tmp_path, name, better):
    with pytest.raises(exengine.errors.ConfigError, match=r"end with \.ome\.tif or \.ome\.tiff") as refused:
        exengine.open_storage("ome-tiff", tmp_path / name)
    assert str(refused.value).endswith(f"set '{tmp_path / better}'")
    exengine.open_storage("ome-tiff", tmp_path / better).close()
