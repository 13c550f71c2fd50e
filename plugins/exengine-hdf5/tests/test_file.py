"""The finished file: what h5py reads in it, and what ExEngine reads after other programs used it."""

import json
import os
import shutil
import struct

import crc32c
import h5py
import numpy as np
import pytest

import exengine
from exengine.errors import DatasetDamagedError, DatasetExistsError, UnsupportedDataError
from exengine_hdf5 import Hdf5Reader, Hdf5Storage

RECORD = struct.Struct("<4sQQQIII")  # magic, number, offset, size and CRC of pixels; size and CRC of text
COMPRESSIONS = ["none", "gzip", "lzf"]
DTYPES = ["bool", "uint8", "int16", "uint32", "int64", "float16", "float32", "float64", "complex64"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_h5py_reads_every_frame_with_its_axes_and_metadata(compression, path, write, check):
    written = write(compression=compression)
    check(path, written)
    with h5py.File(path) as file:
        image = file["image"]
        assert image.shape == (3, 2, 2, 24, 32) and image.chunks == (1, 1, 1, 24, 32)
        assert image.compression == (None if compression == "none" else compression)
        assert [dimension.label for dimension in image.dims] == ["time", "channel", "z", "y", "x"]
        assert list(image.dims[2][0]) == [-1, 4] and list(file["axes/channel"].asstr()) == ["DAPI", "FITC"]
        for axes, pixels in written.items():
            at = axes["time"], ["DAPI", "FITC"].index(axes["channel"]), [-1, 4].index(axes["z"])
            assert np.array_equal(image[at], pixels)
        assert not image[1, 1, 1].any() and len(written) == 11
        table = file["frames"]
        assert [json.loads(text) for text in table["coordinates"]] == [a.coordinate_dict for a in written]
        assert json.loads(table["metadata"][0]) == {
            "at": {"time": 0, "channel": "DAPI", "z": -1}, "text": "\0é",
        }  # fmt: skip
        assert json.loads(file["exengine/manifest"][()])["status"] == "complete"


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_equal_for_exengine_and_h5py(dtype, compression, path, write, check):
    written = write(dtype=dtype, shape=(5, 3), times=1, compression=compression)
    check(path, written)
    with h5py.File(path) as file:
        assert np.array_equal(file["image"][0, 0, 0], next(iter(written.values())))
        assert file["image"].dtype == np.dtype(dtype)


def test_frames_that_differ_in_axes_shape_or_dtype_get_datasets_of_their_own(path):
    frames = [
        ({"time": 0}, np.ones((2, 3), np.uint8)),
        ({"time": 1}, np.ones((2, 3), np.float32)),
        ({"time": 2}, np.full((4, 4, 3), 7, np.uint8)),
        ({"time": 3, "z": "top"}, np.ones((2, 3), np.uint8)),
        ({"z": "low", "time": 0}, np.full((2, 3), 9, np.uint8)),
        ({"a/b": 1, "..": 2**62}, np.ones(3, np.uint8)),
        ({"time": 4}, np.ones((2, 3), np.uint8)),
    ]
    with exengine.open_storage("hdf5", path) as storage:
        for axes, pixels in frames:
            storage.put(axes, pixels, None)
    with exengine.open_dataset(path) as dataset:
        assert [axes.coordinate_dict for axes in dataset] == [axes for axes, _ in frames]
        assert all(np.array_equal(dataset[axes], pixels) for axes, pixels in frames)
    with h5py.File(path) as file:
        shapes = {name: file[name].shape for name in file if name.startswith("image")}
        assert shapes == {
            "image": (2, 2, 3), "image_1": (1, 2, 3), "image_2": (1, 4, 4, 3), "image_3": (2, 2, 2, 3),
            "image_4": (1, 1, 3),
        }  # fmt: skip
        assert file["image_3"][0, 1].max() == 9


def test_a_file_that_h5py_extended_still_reads_equal_but_is_not_overwritten(path, write, check):
    written = write()
    with h5py.File(path, "r+") as file:
        file["image"].attrs["stain"] = "DAPI"
        file.create_dataset("segmentation", data=np.zeros((300, 300)))
    check(path, written)
    assert exengine.verify(path).ok
    with pytest.raises(DatasetExistsError, match="changed or replaced"):
        exengine.open_storage("hdf5", path, if_exists="overwrite")
    check(path, written)


def test_a_file_that_was_moved_alone_keeps_its_status_and_annotations(path, tmp_path, write, check):
    written = write(end="abort", summary_metadata={"lens": "20x"})
    (tmp_path / "b").mkdir()
    moved = shutil.move(path, tmp_path / "b" / "other.h5")
    check(moved, written, "aborted")
    with exengine.open_dataset(moved) as dataset:
        assert dataset.summary_metadata == {"lens": "20x"}
        assert dataset.status_reason == "stopped by the user"


def test_a_file_beside_the_manifest_of_another_is_read_by_its_own_records(path, tmp_path, write, check):
    written = write(times=1)
    write(tmp_path / "long.h5", times=3)
    (tmp_path / "long.h5.exengine.json").rename(tmp_path / "kept.json")
    os.replace(tmp_path / "kept.json", f"{path}.exengine.json")
    check(path, written)


def test_a_pixel_that_was_changed_is_reported_by_its_frame_alone(path, write):
    written = write()
    reader = Hdf5Reader.open(path)
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


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("offset", [10**6, 2**63 - 1, 2**63])
def test_a_record_that_leads_out_of_the_file_is_damage(path, write, compression, offset):
    written = write(times=1, compression=compression)
    reader = Hdf5Reader.open(path)
    at = reader.place_of(0).text_at - RECORD.size - 4
    reader.close()
    content = bytearray(path.read_bytes())
    fields = list(RECORD.unpack_from(content, at))
    fields[2] = offset
    head = RECORD.pack(*fields)
    content[at : at + RECORD.size + 4] = head + struct.pack("<I", crc32c.crc32c(head))
    path.write_bytes(content)
    with exengine.open_dataset(path) as dataset:
        with pytest.raises(DatasetDamagedError, match="the file ends before the end of the frame"):
            dataset[next(iter(written))]
        for axes, pixels in [*written.items()][1:]:
            assert np.array_equal(dataset[axes], pixels)


def test_h5py_does_not_have_to_be_open_while_frames_are_written_or_read(path, write, run_python):
    write(end="close")
    program = (
        "import sys, exengine\nwith exengine.open_dataset(sys.argv[1]) as dataset:\n"
        "    print(len(dataset), sum(int(dataset[axes].sum()) for axes in dataset) > 0, 'h5py' in sys.modules)"
    )
    assert run_python(program, path)[1].split() == ["11", "True", "False"]


def test_a_frame_without_pixels_is_refused_and_nothing_changes(path):
    with exengine.open_storage("hdf5", path) as storage:
        with pytest.raises(UnsupportedDataError, match="a frame has 0 bytes"):
            storage.put({"time": 0}, np.zeros((0, 4), np.uint8), None)
        assert len(storage) == 0
    with exengine.open_dataset(path) as dataset:
        assert dataset.status == "complete" and len(dataset) == 0


def test_other_hdf5_files_are_not_taken_for_datasets(path):
    with h5py.File(path, "w") as file:
        file["image"] = np.zeros((3, 4))
    assert not Hdf5Storage.can_open(path)
    with pytest.raises(DatasetDamagedError, match="not written by the backend hdf5"):
        Hdf5Storage.open(path)


def test_a_recovered_file_keeps_the_pixel_size_that_the_summary_states(path):
    storage = exengine.open_storage("hdf5", path, summary_metadata={"pixel_size_um": 0.65})
    storage.put({"time": 0}, np.zeros((4, 4), np.uint16), {})
    storage.close()
    exengine.recover(path, in_place=True)
    with h5py.File(path) as file:
        assert list(file["image"].attrs["pixel_size_um"]) == [0.65, 0.65]


def test_the_pixel_size_of_the_plan_is_an_attribute(path):
    from exengine.base_classes import SourcePlan

    with exengine.open_storage("hdf5", path) as storage:
        storage.expect(SourcePlan(pixel_size_um=(0.5, 0.25), z_step_um=2.0))
        storage.put({"z": 0}, np.zeros((4, 4), np.uint8), None)
    with h5py.File(path) as file:
        assert list(file["image"].attrs["pixel_size_um"]) == [0.5, 0.25]
        assert list(file["image"].attrs["element_size_um"]) == [2.0, 0.5, 0.25]
