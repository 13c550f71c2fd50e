"""The reader: the status of a dataset, and the refusal of files that are not part of it."""

import json
import os
import shutil
import struct
import sys

import numpy as np
import pytest
from ndtiff_bytes import at, entries

import exengine
from exengine.errors import (
    CoordinatesNotFoundError,
    DatasetDamagedError,
    StorageClosedError,
    StorageFinishedError,
)

PIXELS_AT = 2  # which of the numbers of an index entry
SHAPE = (24, 32)


def test_each_end_has_its_status(path, frame, opened):
    for end, status in [
        (lambda s: s.finish(), "complete"),
        (lambda s: s.abort("enough"), "aborted"),
        (lambda s: s.abort("broken", failed=True), "failed"),
        (lambda s: s.close(), "incomplete"),
    ]:
        where = path / status
        storage = exengine.open_storage("ndtiff", where)
        storage.put(at(0), frame(at(0)), None)
        end(storage)
        storage.close()
        dataset = opened(where)
        assert dataset.status == status
        assert {"aborted": "enough", "failed": "broken"}.get(status, "") in dataset.status_reason
        np.testing.assert_array_equal(dataset[at(0)], frame(at(0)))


def test_a_dataset_opened_to_read_is_read_only(five, opened):
    dataset = opened()
    with pytest.raises(StorageFinishedError, match="open only for reading"):
        dataset.put(at(9), np.ones((3, 3), np.uint8), None)
    with pytest.raises(ValueError, match="read-only"):
        dataset[at(0)][:] = 0
    dataset.close()
    dataset.close()
    with pytest.raises(StorageClosedError):
        dataset[at(0)]


def test_opening_and_reading_writes_nothing(five, opened, digest):
    whole_entry = (five / "NDTiff.index").read_bytes()[: entries(five)[0].end]
    for unfinished in (False, True):
        if unfinished:
            manifest = json.loads((five / "exengine.json").read_text())
            (five / "exengine.json").write_text(json.dumps({**manifest, "status": "incomplete"}))
            with open(five / "NDTiff.index", "ab") as index:
                index.write(whole_entry[:9])
        before = digest(five)
        dataset = opened()
        assert dataset.status == ("incomplete" if unfinished else "complete")
        for coordinates in dataset:
            dataset[coordinates], dataset.get_metadata(coordinates)
        dataset.as_array(missing=0).sum().compute()
        dataset.finish()
        dataset.close()
        assert digest(five) == before


@pytest.mark.parametrize("name", ["../outside.tif", "/etc/passwd", "..", ".", "a/b.tif", "", "x\0y"])
def test_d3_the_index_cannot_name_files_outside_the_folder(name, foreign, opened):
    shutil.copy(foreign / "NDTiffStack.tif", foreign.parent / "outside.tif")
    blob = (foreign / "NDTiff.index").read_bytes()
    old = struct.pack("<I", 15) + b"NDTiffStack.tif"
    (foreign / "NDTiff.index").write_bytes(blob.replace(old, struct.pack("<I", len(name)) + name.encode()))
    dataset = opened()
    assert dataset.status == "damaged" and repr(name) in dataset.status_reason
    assert len(dataset) == 5
    for read in (dataset.get_data, dataset.get_metadata):
        with pytest.raises(DatasetDamagedError, match="not a file of the dataset"):
            read(at(0))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
@pytest.mark.parametrize("name", ["NDTiffStack.tif", "NDTiff.index"])
def test_a_pipe_in_the_place_of_a_file_is_refused_without_waiting(name, five, opened):
    (five / name).unlink()
    os.mkfifo(five / name)
    dataset = opened()
    assert dataset.status == "damaged"
    with pytest.raises((DatasetDamagedError, CoordinatesNotFoundError)):
        dataset[at(0)]


@pytest.mark.parametrize("name", ["NDTiffStack.tif", "NDTiff.index"])
def test_a_folder_in_the_place_of_a_file_is_damage(name, five, opened):
    (five / name).unlink()
    (five / name).mkdir()
    dataset = opened()
    assert dataset.status == "damaged"
    assert dataset.summary_metadata in (None, {"who": "me"})


def test_a_file_that_is_missing_is_named(five, opened):
    (five / "NDTiffStack.tif").unlink()
    dataset = opened()
    assert dataset.status == "damaged" and "'NDTiffStack.tif', which does not exist" in dataset.status_reason
    with pytest.raises(DatasetDamagedError, match=r"'NDTiffStack\.tif' cannot be read: No such file"):
        dataset[at(0)]


HEADERS = {
    "summary longer than the file": (24, struct.pack("<I", 2**31), "longer than the file"),
    "summary that is not JSON": (28, b"[[[[", "cannot be parsed"),
    "another magic": (8, b"\0\0\0\0", "not NDTiff"),
    "big-endian": (0, b"MM", "little-endian"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_is_damaged_is_told_and_the_frames_are_read(kind, five, opened, others_are_whole):
    offset, content, message = HEADERS[kind]
    with open(five / "NDTiffStack.tif", "r+b") as file:
        file.seek(offset)
        file.write(content)
    dataset = opened()
    assert dataset.status == "damaged" and message in dataset.status_reason
    assert dataset.summary_metadata is None
    others_are_whole(dataset, [])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "other"}', b"\xff\xfe"])
def test_a_manifest_that_cannot_be_understood_is_an_error_of_ours(content, five):
    (five / "exengine.json").write_bytes(content)
    with pytest.raises(DatasetDamagedError, match=r"exengine\.json is not a valid manifest"):
        exengine.open_dataset(five)


def test_every_changed_byte_of_the_index_ends_in_an_answer_or_an_error_of_ours(five, frame):
    whole = (five / "NDTiff.index").read_bytes()
    random = np.random.default_rng(3)
    for _ in range(300):
        data = bytearray(whole)
        for place in random.integers(0, len(data), random.integers(1, 4)):
            data[place] = random.integers(256)
        (five / "NDTiff.index").write_bytes(data)
        with exengine.open_dataset(five) as dataset:
            assert dataset.status in ("complete", "damaged")
            for coordinates in dataset:
                try:
                    data = dataset[coordinates]
                except DatasetDamagedError:
                    continue
                np.testing.assert_array_equal(data, frame(coordinates))


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_closing_a_dataset_closes_its_files(five):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with exengine.open_dataset(five) as dataset:
            dataset[at(0)]
            assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) == before


def test_0_4_0_takes_its_arguments_by_name(path, new, frame):
    with new() as storage:
        pixels = frame({"time": 0})
        storage.put(data_coordinates={"time": 0}, data=pixels, metadata={"a": 1})
        assert np.array_equal(storage.get_data(data_coordinates={"time": 0}), pixels)
        assert storage.get_metadata(data_coordinates={"time": 0}) == {"a": 1}


@pytest.mark.parametrize("side", [64, 1100])
def test_no_frame_of_the_writer_can_be_written_whatever_its_size(side, path, new, frame):
    with new() as storage:
        storage.put({"time": 0}, frame({"time": 0}, (side, side)), None)
        assert not storage[{"time": 0}].flags.writeable
