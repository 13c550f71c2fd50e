"""The spool of a single-file dataset: records, torn tails, damage in the middle, and readers that follow."""

import os

import numpy as np
import pytest

from exengine.errors import DatasetDamagedError
from exengine.kernel.storage.one_file.spool import (
    FRAMES,
    JOURNAL,
    Scan,
    SpoolWriter,
    as_stored,
    describe,
    read_pixels,
)


def pixels_of(number):
    return np.full((3, 5 + number % 2), number, np.uint16)


@pytest.fixture
def written(tmp_path):
    """Return the path of a dataset with a spool of 20 frames."""
    path = str(tmp_path / "scan.h5")
    writer = SpoolWriter(path, {"lens": "20x"})
    for number in range(20):
        pixels = pixels_of(number)
        writer.append(number, pixels, describe({"time": number}, pixels, {"number": number}))
    writer.close()
    return path


def scanned(path, journal=None):
    """Return the times of the frames that a scan finds and can read, and the scan."""
    if journal is not None:
        with open(f"{path}.{JOURNAL}", "wb") as file:
            file.write(journal)
    records, frames = (os.open(f"{path}.{part}", os.O_RDONLY) for part in (JOURNAL, FRAMES))
    scan = Scan(records)
    found = []
    for frame, text in scan.advance():
        number = text["c"]["time"]
        assert np.array_equal(read_pixels(frames, frame, text, scan._checksum, "a frame"), pixels_of(number))
        assert text["m"] == {"number": number}
        found.append(number)
    os.close(records)
    os.close(frames)
    return found, scan


def journal_of(path):
    with open(f"{path}.{JOURNAL}", "rb") as file:
        return file.read()


def test_all_frames_and_the_summary_metadata_are_found(written):
    found, scan = scanned(written)
    assert (
        found == [*range(20)] and scan.gap == "" and scan.head == {"summary": {"lens": "20x"}, "options": {}}
    )


def test_a_journal_that_was_cut_anywhere_has_the_frames_before_the_cut(written):
    whole = journal_of(written)
    counts = []
    for size in range(0, len(whole), 3):
        found, scan = scanned(written, whole[:size])
        assert found == [*range(len(found))] and scan.gap == ""
        counts.append(len(found))
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] >= 18


def test_a_damaged_record_costs_its_frame_alone_and_is_reported(written):
    whole = journal_of(written)
    lost = set()
    for at in range(120, len(whole) - 120, 11):
        found, scan = scanned(written, whole[:at] + bytes((whole[at] ^ 4,)) + whole[at + 1 :])
        assert len(found) == 19 and scan.gap
        lost |= {*range(20)} - {*found}
    assert len(lost) >= 17


def test_a_scan_goes_on_with_the_frames_that_were_added(tmp_path):
    path = str(tmp_path / "scan.h5")
    writer = SpoolWriter(path, None)
    scan = Scan(writer.journal)
    for number in range(3):
        assert [text["c"] for _, text in scan.advance()] == ([{"time": number - 1}] if number else [])
        writer.append(number, pixels_of(number), describe({"time": number}, pixels_of(number), None))
    writer.close()


def test_a_record_longer_than_a_chunk_is_read_whole(tmp_path, monkeypatch):
    from exengine.kernel.storage.one_file import spool

    monkeypatch.setattr(spool, "_STEP_BYTES", 200)
    path = str(tmp_path / "scan.h5")
    writer = SpoolWriter(path, "x" * 900)
    for number in range(3):
        pixels = pixels_of(number)
        writer.append(number, pixels, describe({"time": number}, pixels, {"number": number}))
    writer.append(3, pixels_of(3), describe({"time": 3}, pixels_of(3), "y" * 5000))
    found = [text["c"]["time"] for _, text in Scan(writer.journal).advance()]
    writer.close()
    assert found == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "change", [{"s": [3, 6]}, {"d": "object"}, {"d": "uint8"}, {"s": "x"}, {"s": [2**40, 2**40]}]
)
def test_a_layout_that_the_pixels_do_not_have_is_damage(written, change):
    frames = os.open(f"{written}.{FRAMES}", os.O_RDONLY)
    records = os.open(f"{written}.{JOURNAL}", os.O_RDONLY)
    scan = Scan(records)
    frame, text = next(scan.advance())
    with pytest.raises(DatasetDamagedError, match="a frame is damaged"):
        read_pixels(frames, frame, {**text, **change}, scan._checksum, "a frame")
    os.close(frames)
    os.close(records)


@pytest.mark.parametrize("offset", [10**6, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_place_outside_of_the_file_is_damage(written, offset):
    frames = os.open(f"{written}.{FRAMES}", os.O_RDONLY)
    records = os.open(f"{written}.{JOURNAL}", os.O_RDONLY)
    scan = Scan(records)
    frame, text = next(scan.advance())
    with pytest.raises(DatasetDamagedError, match="the file ends before the end of the frame"):
        read_pixels(frames, frame._replace(offset=offset), text, scan._checksum, "a frame")
    os.close(frames)
    os.close(records)


def test_pixels_that_the_system_cannot_read_are_damage(written):
    records = os.open(f"{written}.{JOURNAL}", os.O_RDONLY)
    frames = os.open(f"{written}.{FRAMES}", os.O_WRONLY)  # reading it is an error of the system
    scan = Scan(records)
    frame, text = next(scan.advance())
    with pytest.raises(DatasetDamagedError, match="a frame is damaged: .*Bad file descriptor"):
        read_pixels(frames, frame, text, scan._checksum, "a frame")
    os.close(frames)
    os.close(records)


def test_large_frames_begin_on_a_page(tmp_path):
    writer = SpoolWriter(str(tmp_path / "scan.h5"), None)
    small = writer.append(0, np.zeros(10, np.uint8), b"{}")
    large = writer.append(1, np.zeros((256, 256), np.uint8), b"{}")
    writer.close()
    assert (small.offset, large.offset) == (0, 4096)


def test_pixels_are_stored_in_order_and_little_endian():
    data = np.arange(12, dtype=">u2").reshape(3, 4).T[::-1]
    stored = as_stored(data)
    assert stored.flags.c_contiguous and stored.dtype == "<u2" and np.array_equal(stored, data)
    assert as_stored(np.zeros((2, 2), "<u2")).dtype == "<u2" and as_stored(np.array(3, ">i4")).shape == ()
