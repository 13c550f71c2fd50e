"""``recover`` makes a finished dataset of the frames that survived.

The recovered datasets are also read with ``ndstorage`` and with tifffile, which use none of the code under test.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import struct

import numpy as np
import pytest
from ndtiff_bytes import (
    BACKUP,
    COUNT,
    cut_file,
    damage_header,
    entries,
    flip,
    flip_metadata,
    flip_pixel,
    in_order,
    numbers_in,
    pages_of,
)

import exengine
from exengine.errors import (
    DatasetExistsError,
    DatasetLockedError,
    StorageFailedError,
    UnsupportedOperationError,
)
from exengine.testing import killed_at_call
from exengine_ndstorage.ndtiff import NDTiffStorage
from exengine_ndstorage.ndtiff.format import GRAY16, FrameLayout

# Little changes on the disk between the end of one call and the start of the next.
MOMENTS = ["before", "after"] if os.environ.get("EXENGINE_LONG") else ["before"]


def recovered(path, in_place):
    """Recover and return where the finished dataset lies; the original of a copy is not touched."""
    report = exengine.recover(path, in_place=in_place)
    assert report.outcome == "recovered"
    return report, type(path)(report.path)


both = pytest.mark.parametrize("in_place", [False, True], ids=["copy", "in place"])


@both
def test_a_dataset_without_an_end_is_finished(in_place, cut_short, assert_good, digest):
    before = digest(cut_short)
    report, target = recovered(cut_short, in_place)
    assert report.ok and report.frames == COUNT
    assert_good(target, range(COUNT))
    assert exengine.verify(target).ok
    assert in_place or digest(cut_short) == before
    with contextlib.closing(exengine.open_dataset(target)) as dataset:
        assert dataset.summary_metadata == {"who": "me"}
    assert exengine.recover(target, in_place=in_place).outcome == "nothing to recover"


def missing_file(path):
    (path / "NDTiffStack_1.tif").unlink()
    return numbers_in(path, "NDTiffStack_1.tif")


def cut_tail(path):
    cut_file(path, COUNT - 1)
    return [COUNT - 1]


def cut_in_the_middle(path):
    cut_file(path, 1)
    first = numbers_in(path, "NDTiffStack.tif")
    return first[1:]


def changed_frames(path):
    flip_pixel(path, 0)
    flip_metadata(path, 6)
    flip_pixel(path, COUNT - 1)
    return [0, 6, COUNT - 1]


def changed_coordinates(path):
    begin = entries(path)[5].begin
    data = (path / "NDTiff.index").read_bytes()
    at = data.index(b"5", begin)
    (path / "NDTiff.index").write_bytes(data[:at] + b"8" + data[at + 1 :])
    return [5]


def changed_directory(path):
    _, name, numbers, *_ = entries(path)[2]
    layout = FrameLayout(24, 32, GRAY16)
    flip(path / name, numbers[0] - layout.ifd_bytes + layout.next_at)
    return []


def no_header(path):
    damage_header(path)
    return []


def all_of_a_file(path):
    lost = numbers_in(path, "NDTiffStack.tif")
    for number in lost:
        flip_pixel(path, number)
    return lost


DAMAGES = [
    missing_file,
    cut_tail,
    cut_in_the_middle,
    changed_frames,
    changed_coordinates,
    changed_directory,
    no_header,
    all_of_a_file,
]


@both
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("state", ["finished", "cut_short"])
def test_what_survives_damage_is_in_a_finished_dataset(
    damage, state, in_place, request, assert_good, digest, path
):
    request.getfixturevalue(state)
    lost = damage(path)
    index = (path / "NDTiff.index").read_bytes()
    before = digest(path)
    report, target = recovered(path, in_place)
    kept = 6 if damage is changed_frames else None  # good pixels are not dropped for their metadata
    lost = [number for number in lost if number != kept]
    assert_good(target, [number for number in range(COUNT) if number not in lost], without_metadata=kept)
    assert kept is None or any("metadata of the frame at {'time': 6" in line for line in report.problems)
    assert (report.frames, report.total) == (COUNT - len(lost), COUNT)
    assert len(report.lost) == len(lost)
    with contextlib.closing(exengine.open_dataset(target)) as dataset:
        # A lone header that is damaged has no other file to come from.
        assert dataset.summary_metadata == {"who": "me"} or (damage is no_header and not in_place)
    verdict = exengine.verify(target)
    assert verdict.damaged == verdict.problems == [] and verdict.structure_checked
    assert len(verdict.missing) == len(lost)
    if in_place:
        assert (path / BACKUP).exists() == bool(lost)
        assert not lost or (path / BACKUP).read_bytes() == index
    else:
        assert digest(path) == before
    assert exengine.recover(target, in_place=in_place).outcome == "nothing to recover"


def test_a_frame_whose_coordinates_became_those_of_another_is_told(finished):
    begin = entries(finished)[5].begin
    data = (finished / "NDTiff.index").read_bytes()
    at = data.index(b"5", begin)
    (finished / "NDTiff.index").write_bytes(data[:at] + b"7" + data[at + 1 :])
    report = exengine.verify(finished)
    assert "index entries with the same coordinates as a later entry: 1" in report.problems
    report = exengine.recover(finished, in_place=True)
    assert (report.frames, report.total) == (COUNT - 1, COUNT)
    assert "lost by the recovery, at unknown coordinates: 1" in exengine.verify(finished).problems[0]


@both
def test_at_every_length_of_the_index_the_frames_it_names_are_recovered(
    in_place, cut_short, assert_good, tmp_path, opened
):
    whole = (cut_short / "NDTiff.index").read_bytes()
    begins = [entry.begin for entry in entries(cut_short)] + [len(whole)]
    for size in [0, 1, 30, *range(begins[4] - 1, begins[5] + 2, 3), begins[-2] + 1, len(whole) - 1]:
        copy = tmp_path / f"copy-{size}"
        shutil.copytree(cut_short, copy)
        os.truncate(copy / "NDTiff.index", size)
        frames = sum(end <= size for end in begins[1:])
        report, target = recovered(copy, in_place)
        assert report.frames == frames
        if frames:
            assert_good(target, range(frames))
        dataset = opened(target)
        assert (dataset.status, len(dataset)) == ("aborted", frames)
        verdict = exengine.verify(target)
        assert verdict.ok, verdict


def test_in_place_no_frame_is_cut_off_that_an_index_has_named(finished):
    sizes = {file.name: file.stat().st_size for file in finished.glob("*.tif")}
    os.truncate(finished / "NDTiff.index", 200)
    exengine.recover(finished, in_place=True)
    assert {file.name: file.stat().st_size for file in finished.glob("*.tif")} == sizes
    assert (finished / BACKUP).stat().st_size == 200


def test_in_place_what_a_killed_writer_had_begun_is_cut_off(cut_short, assert_good):
    size = in_order(cut_short)[-1].stat().st_size
    with open(in_order(cut_short)[-1], "ab") as file:
        file.write(b"half a frame")
    (cut_short / "NDTiffStack_3.tif").write_bytes(b"II")
    exengine.recover(cut_short, in_place=True)
    assert not (cut_short / "NDTiffStack_3.tif").exists()
    assert in_order(cut_short)[-1].stat().st_size == size
    assert not (cut_short / BACKUP).exists()
    assert_good(cut_short, range(COUNT))


def test_in_place_more_than_a_writer_leaves_is_not_cut_off(cut_short):
    file = in_order(cut_short)[-1]
    with open(file, "ab") as handle:
        handle.truncate(20 * 2**20)
    exengine.recover(cut_short, in_place=True)
    assert file.stat().st_size == 20 * 2**20
    assert (cut_short / BACKUP).exists() and exengine.verify(cut_short).ok


@both
def test_a_dataset_whose_writer_died_at_once_becomes_an_empty_one(in_place, path, new):
    new().close()
    for header in (None, b"", b"II*\0"):
        if header is not None:
            (path / "NDTiffStack.tif").write_bytes(header)
        copy = path.parent / f"copy-{header}"
        shutil.copytree(path, copy)
        _, target = recovered(copy, in_place)
        assert exengine.verify(target).ok
        with exengine.open_dataset(target) as dataset:
            assert (dataset.status, len(dataset)) == ("aborted", 0)


@both
def test_frames_of_several_shapes_and_rgb_are_recovered(in_place, path, new, frame, opened):
    shapes = [((24, 32), np.uint16), ((5, 7), np.uint8), ((4, 6, 3), np.uint8), ((24, 32), np.uint8)]
    storage = new()
    for number, (shape, dtype) in enumerate(shapes):
        storage.put({"time": number}, frame({"time": number}, shape, dtype), ["x" * number])
    storage.close()
    _, target = recovered(path, in_place)
    dataset = opened(target)
    for number, (shape, dtype) in enumerate(shapes):
        np.testing.assert_array_equal(
            dataset[{"time": number}], frame({"time": number}, shape, dtype), strict=True
        )
    assert exengine.verify(target).ok
    assert [page.shape for page in pages_of(target / "NDTiffStack.tif")] == [shape for shape, _ in shapes]


WRITER = """
import itertools, os, sys, zlib
import numpy as np
import exengine

storage = exengine.open_storage("ndtiff", sys.argv[1], max_file_bytes=50_000)
def frame(where):
    return np.random.default_rng(zlib.crc32(repr(sorted(where.items())).encode())).integers(
        0, 65535, (24, 32), np.uint16, endpoint=True)
for number in itertools.count():
    where = {"time": number, "channel": "ab"[number % 2]}
    storage.put(where, frame(where), {"number": number})
    os.write(1, b".")
"""


@both
def test_every_frame_that_a_killed_writer_acknowledged_is_recovered(
    in_place, path, start_python, assert_good
):
    writer = start_python(WRITER, path)
    count = len(writer.stdout.read(100))
    with pytest.raises(DatasetLockedError):
        exengine.recover(path, in_place=in_place)
    assert exengine.verify(path).ok
    writer.send_signal(signal.SIGKILL)
    count += len(writer.stdout.read())
    writer.wait()
    report, target = recovered(path, in_place)
    assert report.ok and count <= report.frames <= count + 1
    assert_good(target, range(report.frames))
    assert exengine.verify(target).ok


@both
def test_a_dataset_that_met_a_full_disk_is_finished(in_place, path, new, put, assert_good, monkeypatch):
    storage = new(max_file_bytes=9000)
    put(storage, range(7))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        for name in ("pwritev", "pwrite", "replace", "ftruncate"):
            patch.setattr(os, name, full)
        with pytest.raises(StorageFailedError):
            put(storage, [7])
        storage.close()
    with contextlib.closing(exengine.open_dataset(path)) as dataset:
        assert dataset.status == "incomplete"
    report, target = recovered(path, in_place)
    assert report.frames == 7
    assert_good(target, range(7))


def test_the_index_of_another_program_that_is_cut_is_recovered_into_a_copy(
    example_data, tmp_path, opened, digest
):
    copy = tmp_path / "copy"
    shutil.copytree(example_data / "v3/12_bit_pycromanager_mda", copy)
    os.truncate(copy / "NDTiff.index", os.path.getsize(copy / "NDTiff.index") - 20)
    before = digest(copy)
    with pytest.raises(UnsupportedOperationError, match="recover it into a copy"):
        exengine.recover(copy, in_place=True)
    report = exengine.recover(copy)
    assert report.frames == 7 and any("incomplete entry" in problem for problem in report.problems)
    assert digest(copy) == before
    dataset, original = opened(report.path), opened(example_data / "v3/12_bit_pycromanager_mda")
    assert len(dataset) == 7
    for coordinates in dataset:
        np.testing.assert_array_equal(dataset[coordinates], original[coordinates], strict=True)
        assert dataset.get_metadata(coordinates) == original.get_metadata(coordinates)
    assert dataset.summary_metadata == original.summary_metadata


def test_a_pyramid_that_is_damaged_is_recovered_at_full_resolution(example_data, tmp_path):
    copy = tmp_path / "pyramid"
    shutil.copytree(example_data / "v3/ndtiff3.2_magellan_explore_rgb", copy)
    (file,) = (copy / "Full resolution").glob("*.tif")
    os.truncate(file, os.path.getsize(file) - 10)
    report = exengine.recover(copy)
    # The file ends within the metadata of the last frame: its pixels are kept.
    assert (report.frames, len(report.lost)) == (3, 0)
    assert any("metadata of the frame" in problem for problem in report.problems)
    assert any("full resolution" in problem for problem in report.problems)
    verdict = exengine.verify(report.path)
    assert (verdict.checked, len(verdict.missing), verdict.problems) == (3, 0, [])


def test_in_place_each_file_is_on_the_disk_before_it_takes_a_place_and_the_manifest_comes_last(
    finished, monkeypatch
):
    flip_pixel(finished, 1)
    done = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor):
        fsync(descriptor)
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    def recording_replace(old, new):
        assert os.path.basename(old) in done  # it was synced
        replace(old, new)
        done.append(f"-> {os.path.basename(new)}")

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("what a descriptor leads to is not told by this system")
    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    exengine.recover(finished, in_place=True)
    placed = [name for name in done if name.startswith("->")]
    assert placed == [f"-> {name}" for name in ("exengine.json", BACKUP, "NDTiff.index", "exengine.json")]
    last = len(done) - 1 - done[::-1].index("-> exengine.json")
    for file in finished.glob("*.tif"):
        assert file.name in done[:last]


@both
@pytest.mark.parametrize("when", MOMENTS)
def test_recover_may_be_killed_at_any_call(in_place, when, path, new, put, assert_good, tmp_path):
    storage = new(max_file_bytes=4096)
    put(storage, range(5))
    storage.close()
    flip_pixel(path, 1)
    flip_metadata(path, 3)
    with open(path / "NDTiff.index", "ab") as file:
        file.write(b"\x20\0\0\0{")  # an entry that was torn
    flip(path / "NDTiffStack_1.tif", 2)
    shutil.copytree(path, tmp_path / "original")
    wanted = None
    call = 0
    killed = True
    while killed:
        call += 1
        killed = killed_at_call(call, when, lambda: exengine.recover(path, in_place=in_place))
        target = path if in_place else tmp_path / "dataset-recovered"
        if target.exists() and not in_place:
            with exengine.open_dataset(target) as dataset:
                assert (dataset.status, len(dataset)) == ("aborted", 4)
        report = exengine.recover(path, in_place=in_place)
        assert in_place or (report.frames, report.total, len(report.lost)) == (4, 5, 1), call
        files = {file.name: file.read_bytes() for file in target.iterdir() if file.name != "exengine.json"}
        if wanted is None:
            assert_good(target, [0, 2, 3, 4], without_metadata=3)
            wanted = files
        assert files == wanted, call
        verdict = exengine.verify(target)
        assert (verdict.status, verdict.checked, len(verdict.missing)) == ("aborted", 4, 1)
        assert verdict.problems == verdict.damaged == []
        shutil.rmtree(target)
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(tmp_path / "original", path)
    assert call > 20


# -- files of others -----------------------------------------------------------------------------


def incomplete(path, name=None, recorded=True):
    """Make an incomplete dataset, with or without the names of its files in the manifest."""
    storage = NDTiffStorage(path.parent if name else path, name)
    storage.put({"time": 0}, np.zeros((4, 4), np.uint16), None)
    storage.close()
    if not recorded:  # an earlier version
        content = json.loads((path / "exengine.json").read_text())
        del content["files"]
        (path / "exengine.json").write_text(json.dumps(content))


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("name", ["thesis_NDTiffStack.tif", "thesis_NDTiffStack_3.tif"])
def test_in_place_a_file_that_only_looks_like_one_of_the_dataset_stays(tmp_path, name, recorded):
    incomplete(tmp_path / "data", recorded=recorded)
    (tmp_path / "data" / name).write_text("mine")
    exengine.recover(tmp_path / "data", in_place=True)
    assert (tmp_path / "data" / name).read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["thesis_NDTiffStack.tif", "NDTiffStack (copy).tif", "NDTiff.index.orig", "a.tif"]
)
def test_a_dataset_with_a_file_that_only_looks_like_one_of_it_is_not_overwritten(tmp_path, name):
    incomplete(tmp_path / "data")
    (tmp_path / "data" / name).write_text("mine")
    with pytest.raises(DatasetExistsError, match=re.escape(name)):
        exengine.open_storage("ndtiff", tmp_path / "data", if_exists="overwrite")
    assert (tmp_path / "data" / name).read_text() == "mine"


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("name", ["data", "{number}", "{name}", "a {b", "a}"])
def test_a_dataset_of_several_files_that_was_recovered_is_overwritten(tmp_path, name, recorded):
    path = tmp_path / name
    with NDTiffStorage(tmp_path, name, max_file_bytes=4096) as storage:
        for time in range(9):
            storage.put({"time": time}, np.zeros((16, 16), np.uint16), None)
    if not recorded:
        content = json.loads((path / "exengine.json").read_text())
        del content["files"]
        (path / "exengine.json").write_text(json.dumps(content))
    content = bytearray((path / f"{name}_NDTiffStack.tif").read_bytes())
    content[-300] ^= 1
    (path / f"{name}_NDTiffStack.tif").write_bytes(content)
    exengine.recover(path, in_place=True)
    assert (path / BACKUP).exists() and (path / f"{name}_NDTiffStack_1.tif").exists()
    with exengine.open_storage("ndtiff", path, if_exists="overwrite") as storage:
        storage.put({"time": 0}, np.ones((4, 4), np.uint16), None)
    assert sorted(os.listdir(path)) == ["NDTiff.index", "NDTiffStack.tif", "exengine.json", "exengine.lock"]


LONG = {"text": "of some length, as metadata are: " + "x" * 600}


@pytest.fixture
def long_metadata(path, new, frame):
    """Make a finished dataset of three frames with long metadata."""
    with new() as storage:
        for time in range(3):
            storage.put({"time": time}, frame({"time": time}), {"number": time, **LONG})
    return path


def other_length(path, number, size):
    """State another length of the metadata of a frame in the index."""
    content = bytearray((path / "NDTiff.index").read_bytes())
    struct.pack_into("<I", content, entries(path)[number].end - 8, size)
    (path / "NDTiff.index").write_bytes(content)


METADATA_DAMAGES = {
    "a byte": lambda path: flip_metadata(path, 1),
    "far too long": lambda path: other_length(path, 1, 2**32 - 1),
    "into the next frame": lambda path: other_length(path, 1, 5000),
    "too short for a note": lambda path: other_length(path, 1, 9),
    "empty": lambda path: other_length(path, 1, 0),
    "of the last frame": lambda path: flip_metadata(path, 2),
    "cut": lambda path: os.truncate(path / "NDTiffStack.tif", entries(path)[2].numbers[5] + 30),
}


@both
@pytest.mark.parametrize("damage", METADATA_DAMAGES)
def test_no_frame_with_good_pixels_is_dropped_for_its_metadata(
    damage, in_place, long_metadata, frame, opened, oracle
):
    at = 2 if damage in ("of the last frame", "cut") else 1
    if damage == "cut":
        (long_metadata / "exengine.json").write_text(
            (long_metadata / "exengine.json").read_text().replace('"complete"', '"incomplete"')
        )
    METADATA_DAMAGES[damage](long_metadata)
    found = exengine.verify(long_metadata)
    assert [(lost.coordinates, lost.has_pixels) for lost in found.damaged] == [({"time": at}, True)]
    planned = exengine.recover(long_metadata, in_place=in_place, dry_run=True)
    report, target = recovered(long_metadata, in_place)
    assert (planned.frames, report.frames, report.lost, report.ok) == (3, 3, [], True)
    for said in (planned, report):
        assert any(
            line.startswith(f"the metadata of the frame at {{'time': {at}}} were") for line in said.problems
        )
    dataset, other = opened(target), oracle(target)
    assert len(dataset) == 3
    for time in range(3):
        np.testing.assert_array_equal(dataset[{"time": time}], frame({"time": time}), strict=True)
        np.testing.assert_array_equal(other.read_image(time=time), frame({"time": time}), strict=True)
        metadata = dataset.get_metadata({"time": time})
        assert other.read_metadata(time=time) == metadata
        if time != at:
            assert metadata == {"number": time, **LONG}
        elif damage != "too short for a note" or not in_place:
            assert "the metadata were lost" in metadata["exengine_note"]
        if time == at and not in_place and damage in ("a byte", "of the last frame"):
            assert "x" * 600 in metadata["exengine_damaged_metadata"]
    assert exengine.verify(target).ok, exengine.verify(target)
    again = exengine.recover(long_metadata, in_place=in_place)
    assert again.outcome == ("nothing to recover" if in_place else "already recovered")
    if in_place:
        saved = [
            json.loads(line) for line in (long_metadata / "NDTiff.damaged-metadata").read_text().splitlines()
        ]
        assert [line["coordinates"] for line in saved] == [{"time": at}]
        assert saved[0]["metadata"].startswith('{"n' if damage == "a byte" else "{")


# -- datasets of other programs -----------------------------------------------------------------


def test_metadata_of_another_program_that_are_not_utf_8_spoil_no_frame(example_data, tmp_path):
    copy = tmp_path / "foreign"
    shutil.copytree(next(p for p in sorted((example_data / "v3").iterdir()) if list(p.glob("*.tif"))), copy)
    for file in copy.rglob("*.tif"):
        file.write_bytes(file.read_bytes().replace(b'"Camera"', b'"C\xb5mera"'))
    before = exengine.verify(copy)
    assert before.frames and before.checked == before.frames and not before.damaged
    report = exengine.recover(copy)
    assert report.outcome != "failed"
    with contextlib.closing(exengine.open_dataset(copy)) as dataset:
        metadata = dataset.get_metadata(next(iter(dataset)))
        assert metadata["exengine_note"] == "text that is not UTF-8 was replaced"
        assert "\ufffd" in str(metadata)


@pytest.fixture
def version_2(path):
    """Write a dataset of version 2 with three frames and metadata in Latin-1; return its path."""
    folder = path / "Full resolution"
    folder.mkdir(parents=True)
    summary = '{"Unit": "µm"}'.encode("latin-1")
    content = bytearray(
        struct.pack("<2sHIIIII", b"II", 42, 24 + len(summary), 483729, 2, 2355492, len(summary))
    )
    content += summary
    index = b""
    for channel in range(3):
        pixels = np.full((4, 6), channel, "<u2").tobytes()
        metadata = f'{{"Channel": "µ{channel}", "Light": "±{channel}"}}'.encode("latin-1")
        axes, name = json.dumps({"channel": channel}).encode(), b"x_NDTiffStack.tif"
        index += struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name
        index += struct.pack("<8I", len(content), 6, 4, 1, 0, len(content) + len(pixels), len(metadata), 0)
        content += pixels + metadata
    (folder / "x_NDTiffStack.tif").write_bytes(content)
    (folder / "NDTiff.index").write_bytes(index)
    return path


def test_metadata_of_version_2_that_are_not_utf_8_spoil_no_frame(version_2, opened):
    dataset = opened(version_2)
    assert dataset.summary_metadata == {
        "Unit": "\ufffdm",
        "exengine_note": "text that is not UTF-8 was replaced",
    }
    found = exengine.verify(version_2)
    assert (found.frames, found.checked, found.damaged, found.problems) == (3, 3, [], [])
    assert exengine.recover(version_2).outcome == "nothing to recover"
    for channel in range(3):
        assert (dataset[{"channel": channel}] == channel).all()
        metadata = dataset.get_metadata({"channel": channel})
        assert (metadata["Channel"], metadata["Light"]) == (f"\ufffd{channel}", f"\ufffd{channel}")
        assert metadata["exengine_note"] == "text that is not UTF-8 was replaced"


def test_metadata_of_version_2_that_cannot_be_parsed_spoil_no_frame(version_2):
    file = version_2 / "Full resolution" / "x_NDTiffStack.tif"
    file.write_bytes(file.read_bytes().replace(b'"\xb51"', b'"\xb51\n').replace(b'"Unit"', b'"Unit\n'))
    found = exengine.verify(version_2)
    assert [(lost.coordinates, lost.has_pixels) for lost in found.damaged] == [({"channel": 1}, True)]
    assert "the summary metadata cannot be parsed" in found.problems[0]
    report = exengine.recover(version_2)
    assert (report.outcome, report.frames, report.lost) == ("recovered", 3, [])
    assert any("the metadata of the frame at {'channel': 1} were lost" in line for line in report.problems)
    with contextlib.closing(exengine.open_dataset(report.path)) as dataset:
        for channel in range(3):
            assert (dataset[{"channel": channel}] == channel).all()
        assert '"Light": "\ufffd1"' in dataset.get_metadata({"channel": 1})["exengine_damaged_metadata"]
    assert exengine.verify(report.path).ok


def test_a_file_without_a_byte_is_called_empty(finished):
    (finished / "NDTiffStack_9.tif").write_bytes(b"")
    assert "NDTiffStack_9.tif: the file is empty and has no header" in exengine.verify(finished).problems


def test_a_dataset_of_another_program_is_of_the_backend_ndtiff(example_data):
    dataset = next(p for p in sorted((example_data / "v3").iterdir()) if list(p.glob("*.tif")))
    assert exengine.verify(dataset).backend == "ndtiff"
