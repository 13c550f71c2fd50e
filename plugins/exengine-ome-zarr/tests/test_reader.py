"""The reader reports what is damaged or missing, and never returns it as a good frame."""

import json
import os
import shutil

import numpy as np
import pytest

import exengine
from exengine.errors import CoordinatesNotFoundError, DatasetDamagedError
from exengine_ome_zarr import reader
from exengine_ome_zarr.format import files
from exengine_ome_zarr.format.journal import decode_record, encode_record

PLACES = [{"time": t, "channel": channel} for t in range(3) for channel in ("DAPI", "FITC")]


@pytest.fixture
def made(new, path, frame):
    """Return what makes a dataset of six frames, finished or not."""

    def make(finish=True, **options):
        storage = new(shard=2, **options)
        for number, axes in enumerate(PLACES):
            storage.put(axes, frame(axes), {"number": number})
        if finish:
            storage.finish()
        storage.close()
        return path

    return make


def own(path, name):
    return path / ".exengine" / name


def change(file, at, old=None):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("finish", [True, False])
def test_frames_whose_labels_were_cut_off_are_damaged_and_not_returned_at_other_coordinates(
    finish, made, opened
):
    layout = own(made(finish), "layout.jsonl")
    lines = layout.read_bytes().splitlines(keepends=True)
    labels = [number for number, line in enumerate(lines) if b'"label"' in line]
    layout.write_bytes(b"".join(lines[: labels[0]]))
    dataset = opened()
    for axes in PLACES:
        with pytest.raises(CoordinatesNotFoundError):
            dataset[axes]
    for coordinates in dataset:
        with pytest.raises(DatasetDamagedError):
            dataset[coordinates]
        with pytest.raises(DatasetDamagedError):
            dataset.get_metadata(coordinates)


@pytest.mark.parametrize("finish", [True, False])
@pytest.mark.parametrize("what", [".exengine", ".exengine/layout.jsonl"])
def test_a_dataset_without_its_own_files_is_damaged_and_not_one_of_another_program(
    what, finish, made, opened
):
    place = made(finish) / what
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    dataset = opened()
    assert dataset.status == "damaged" and len(dataset) == 0


@pytest.mark.parametrize("codec", ["none", "blosc-lz4"])
@pytest.mark.parametrize("finish", [True, False])
def test_a_changed_byte_of_the_pixels_is_found_and_all_other_frames_are_good(
    finish, codec, made, opened, frame
):
    path = made(finish, codec=codec, frames_per_chunk=1 if codec == "none" else None)
    dataset = opened()
    wanted = {tuple(axes.items()): frame(axes) for axes in PLACES}
    dataset.close()
    files = [
        file
        for file in path.rglob("*")
        if file.is_file() and ("c" in file.parts or file.name.startswith("part-"))
    ]
    change(max(files, key=lambda file: (file.stat().st_size, file.name)), 100)
    dataset, damaged = opened(), []
    for axes in PLACES:
        try:
            np.testing.assert_array_equal(dataset[axes], wanted[tuple(axes.items())])
        except DatasetDamagedError:
            damaged.append(axes)
    assert len(damaged) == 1 and not exengine.verify(path).ok


def test_a_changed_line_of_metadata_is_found_and_the_pixels_are_good(made, opened, frame):
    lines = own(made(), "frames.jsonl")
    change(lines, lines.read_bytes().index(b'"number":3'))
    dataset = opened()
    np.testing.assert_array_equal(dataset[PLACES[3]], frame(PLACES[3]))
    with pytest.raises(DatasetDamagedError, match="metadata"):
        dataset.get_metadata(PLACES[3])
    assert dataset.get_metadata(PLACES[2]) == {"number": 2}


def test_the_journal_of_a_finished_dataset_cannot_be_exchanged_for_a_shorter_one(made, opened):
    path = made()
    os.truncate(own(path, "journal"), 64 * 4)
    dataset = opened()
    assert dataset.status == "damaged" and "journal" in dataset.status_reason


@pytest.mark.parametrize("torn", range(0, 64, 7))
def test_a_torn_record_at_the_end_is_no_frame(torn, made, opened, frame):
    journal = own(made(finish=False), "journal")
    data = journal.read_bytes()
    journal.write_bytes(data[: 64 * 6 + torn].ljust(len(data), b"\0"))
    dataset = opened()
    assert (dataset.status, len(dataset)) == ("incomplete", 5)
    np.testing.assert_array_equal(dataset[PLACES[4]], frame(PLACES[4]))
    assert PLACES[5] not in dataset


def test_missing_frames_are_errors_that_name_what_is_there_and_never_zeros(made, opened):
    made()
    dataset = opened()
    with pytest.raises(CoordinatesNotFoundError, match="FITC"):
        dataset[{"time": 0, "channel": "Cy5"}]
    with pytest.raises(CoordinatesNotFoundError, match="time"):
        dataset[{"channel": "DAPI"}]
    with pytest.raises(CoordinatesNotFoundError):
        dataset[{"time": 7, "channel": 0}]


def test_a_reader_follows_the_writer(new, path, opened, frame):
    storage = new(shard=2)
    dataset = opened()
    for number, axes in enumerate(PLACES):
        storage.put(axes, frame(axes), None)
        assert len(dataset) == number + 1 and axes in dataset
        np.testing.assert_array_equal(dataset[axes], frame(axes))
    assert dataset.status == "incomplete" and not dataset.is_finished()
    storage.finish()
    assert dataset.status == "complete" and dataset.is_finished()
    assert [dict(axes) for axes in dataset] == PLACES


def test_opening_and_reading_an_unfinished_dataset_changes_no_file(made, opened):
    path = made(finish=False)
    before = {file: file.stat().st_mtime_ns for file in sorted(path.rglob("*"))}
    dataset = opened()
    for axes in PLACES:
        dataset[axes]
    dataset.check_structure()
    assert {file: file.stat().st_mtime_ns for file in sorted(path.rglob("*"))} == before


def forge(path, change):
    """Change the values of the layout file and mend its checksums."""
    file = own(path, "layout.jsonl")
    lines = [json.loads(line[9:]) for line in file.read_bytes().splitlines()]
    change(lines)
    file.write_bytes(b"".join(files.encode_line(line) for line in lines))


FORGED = {
    "an axis that is no axis": lambda lines: lines[1]["layout"]["axes"].__setitem__(0, {}),
    "an axis of another name": lambda lines: lines[1]["layout"]["axes"].__setitem__(0, "place"),
    "a codec that is a number": lambda lines: lines[1]["layout"].update(codec=7),
    "a label of too many names": lambda lines: lines[2]["label"].__setitem__(2, [0, 0, 0]),
    "a label that is no name": lambda lines: lines[2]["label"].__setitem__(2, None),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_layout_is_damaged_and_raises_no_other_error(case, made, opened):
    forge(made(finish=False), FORGED[case])
    dataset = opened()
    assert dataset.status == "damaged" and dataset.axes is not None
    for axes in (*dataset, *PLACES):
        with pytest.raises((DatasetDamagedError, CoordinatesNotFoundError)):
            dataset[axes]


@pytest.mark.parametrize("field", [6, 9])
def test_a_forged_offset_is_damaged(field, made, opened):
    journal = own(made(finish=False), "journal")
    data = bytearray(journal.read_bytes())
    record = list(decode_record(bytes(data[64:128]), 0))
    record[field] = 2**63 - 1
    data[64:128] = encode_record(0, *record[1:])
    journal.write_bytes(data)
    dataset = opened()
    with pytest.raises(DatasetDamagedError):
        (dataset.get_data if field == 6 else dataset.get_metadata)(PLACES[0])


def test_a_forged_number_of_tiles_is_damaged(made, opened):
    forge(made(finish=False, codec="blosc-lz4"), lambda lines: lines[1]["layout"].update(width=65536))
    dataset = opened()
    for axes in PLACES:
        with pytest.raises(DatasetDamagedError):
            dataset[axes]


@pytest.mark.parametrize(("codec", "looks"), [("none", 0), ("blosc-lz4", len(PLACES))])
def test_frames_of_a_finished_dataset_without_compression_are_found_without_the_journal(
    codec, looks, made, opened, frame, monkeypatch
):
    made(codec=codec)
    dataset, seen = opened(), []
    monkeypatch.setattr(reader, "decode_record", lambda *given: seen.append(given) or decode_record(*given))
    for axes in PLACES:
        np.testing.assert_array_equal(dataset[axes], frame(axes))
    assert len(seen) == looks
