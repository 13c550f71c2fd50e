"""``verify`` finds what is not as it was written; ``recover`` makes a finished dataset of the rest.

What was recovered is read with ``ndstorage`` and with tifffile too, which use nothing of ours.
"""

import contextlib
import errno
import os
import shutil
import signal
import struct

import numpy as np
import pytest
from tifffile import TiffFile

import exengine
from exengine.errors import DatasetLockedError, StorageFailedError, UnsupportedOperationError
from exengine.testing.kills import killed_at_call
from exengine_ndstorage.ndtiff import format as layout

COUNT = 12  # frames, in files of some frames each
BACKUP = "NDTiff.index.before-recovery"


def where(number):
    return {"time": number, "channel": "ab"[number % 2]}


@pytest.fixture
def put(frame):
    def make(storage, numbers):
        for number in numbers:
            storage.put(where(number), frame(where(number)), {"number": number})

    return make


@pytest.fixture
def finished(path, new, put):
    """Make a finished dataset with three files; return its path."""
    storage = new(max_file_bytes=9000, summary_metadata={"who": "me"})
    put(storage, range(COUNT))
    storage.finish()
    storage.close()
    return path


@pytest.fixture
def cut_short(path, new, put):
    """Make a dataset whose writer has ended without a word; return its path."""
    storage = new(max_file_bytes=9000, summary_metadata={"who": "me"})
    put(storage, range(COUNT))
    storage.close()
    return path


@pytest.fixture
def assert_good(opened, frame, oracle, keys_of):
    """Return what looks whether a dataset is finished, and holds these frames and no others."""

    def look(path, numbers, status="aborted"):
        numbers = list(numbers)
        dataset = opened(path)
        assert dataset.status == status, dataset.status_reason
        assert [coordinates["time"] for coordinates in dataset] == numbers
        other = oracle(path)
        assert sorted(key["time"] for key in keys_of(other)) == numbers
        for number in numbers:
            wanted = frame(where(number))
            np.testing.assert_array_equal(dataset[where(number)], wanted, strict=True)
            assert dataset.get_metadata(where(number)) == {"number": number}
            np.testing.assert_array_equal(other.read_image(**where(number)), wanted, strict=True)
        pages = [page for file in in_order(path) for page in pages_of(file)]
        assert len(pages) == len(numbers)
        for page, number in zip(pages, numbers, strict=True):
            np.testing.assert_array_equal(page, frame(where(number)), strict=True)

    return look


def in_order(path):
    return sorted(path.glob("*.tif"), key=lambda file: int("0" + "".join(filter(str.isdigit, file.stem))))


def pages_of(file):
    with TiffFile(file) as tiff:
        return [page.asarray() for page in tiff.pages]


def entries_of(path):
    """Return coordinates, name of the file and numbers of each entry; an own reading of the format."""
    data = (path / "NDTiff.index").read_bytes()
    found, at = [], 0
    while at < len(data):
        begin = at
        (size,) = struct.unpack_from("<I", data, at)
        axes = data[at + 4 : at + 4 + size]
        at += 4 + size
        (size,) = struct.unpack_from("<I", data, at)
        name = data[at + 4 : at + 4 + size].decode()
        at += 4 + size
        found.append((axes, name, struct.unpack_from("<8I", data, at), begin))
        at += 32
    return found


def flip(file, at, bit=1):
    with open(file, "r+b") as handle:
        handle.seek(at)
        byte = handle.read(1)[0]
        handle.seek(at)
        handle.write(bytes([byte ^ bit]))


def flip_pixel(path, number):
    _, name, numbers, _ = entries_of(path)[number]
    flip(path / name, numbers[0] + 100)


def flip_metadata(path, number):
    _, name, numbers, _ = entries_of(path)[number]
    flip(path / name, numbers[5] + 11)


def damage_header(path):
    with open(path / "NDTiffStack.tif", "r+b") as file:
        file.write(b"XX")


def cut_file(path, number):
    _, name, numbers, _ = entries_of(path)[number]
    os.truncate(path / name, numbers[0] + 10)


# -- verify --------------------------------------------------------------------------------------


def test_a_finished_dataset_is_good(finished):
    report = exengine.verify(finished)
    assert report.ok, report
    assert (report.frames, report.checked, report.has_checksums, report.structure_checked) == (
        COUNT,
        COUNT,
        True,
        True,
    )


def test_a_dataset_without_frames_is_good(path, new):
    new().finish()
    assert exengine.verify(path).ok


def test_a_dataset_whose_writer_was_killed_is_good_as_far_as_it_goes(cut_short):
    report = exengine.verify(cut_short)
    assert report.ok and report.status == "incomplete"
    assert report.checked == COUNT


@pytest.mark.parametrize("damage", [flip_pixel, flip_metadata])
def test_a_changed_bit_of_a_frame_is_found(damage, finished):
    damage(finished, 7)
    report = exengine.verify(finished)
    assert [frame.coordinates for frame in report.damaged] == [where(7)]
    assert report.missing == report.problems == [] and not report.ok


def test_a_file_that_is_gone_makes_its_frames_missing(finished):
    gone = [number for number, entry in enumerate(entries_of(finished)) if entry[1] == "NDTiffStack_1.tif"]
    (finished / "NDTiffStack_1.tif").unlink()
    report = exengine.verify(finished)
    assert [frame.coordinates for frame in report.missing] == [where(number) for number in gone]
    assert report.damaged == []
    assert report.problems == ["the index names the file 'NDTiffStack_1.tif', which is not there"]


def test_every_changed_byte_of_a_directory_is_found(finished):
    """Each by the structure, or by the checksums of the frame that it belongs to."""
    _, name, numbers, _ = entries_of(finished)[1]
    form = layout.FrameLayout(24, 32, layout.GRAY16)
    for at in range(numbers[0] - form.ifd_bytes, numbers[0]):
        flip(finished / name, at)
        assert not exengine.verify(finished).ok, at
        flip(finished / name, at)
    assert exengine.verify(finished).ok


STRUCTURES = {
    "bytes behind the last frame": (
        lambda path: os.truncate(path / "NDTiffStack_1.tif", size_of(path / "NDTiffStack_1.tif") + 5),
        "5 bytes lie behind the last frame",
    ),
    "no end of the chain": (
        lambda path: flip(path / "NDTiffStack_1.tif", last_link(path, "NDTiffStack_1.tif")),
        "does not end with the last frame",
    ),
    "a header that leads nowhere": (
        lambda path: flip(path / "NDTiffStack.tif", 5),
        "the header does not lead",
    ),
    "a header that is none": (lambda path: flip(path / "NDTiffStack_1.tif", 0), "no little-endian TIFF"),
}


def size_of(file):
    return file.stat().st_size


def last_link(path, name):
    numbers = [entry[2] for entry in entries_of(path) if entry[1] == name][-1]
    form = layout.FrameLayout(24, 32, layout.GRAY16)
    return numbers[0] - form.ifd_bytes + form.next_at


@pytest.mark.parametrize("case", STRUCTURES)
def test_what_is_wrong_with_a_file_is_told(case, finished):
    damage, says = STRUCTURES[case]
    damage(finished)
    report = exengine.verify(finished)
    assert any(says in problem for problem in report.problems), report.problems
    assert report.checked == COUNT


def test_many_faults_are_counted_and_not_all_told(path, new, put):
    storage = new(max_file_bytes=4096)
    put(storage, range(120))
    storage.finish()
    for file in path.glob("*.tif"):
        with open(file, "ab") as handle:
            handle.write(b"x")
    problems = exengine.verify(path).problems
    assert len(problems) == 51 and "more such faults" in problems[-1]


def test_a_dataset_of_another_program_is_good_and_nothing_is_said_of_checksums(example_data):
    report = exengine.verify(example_data / "v3/ndtiff3.2_monochrome")
    assert report.ok and report.checked == 128
    assert not report.has_checksums and report.structure_checked


@pytest.mark.parametrize("level", ["Full resolution", "Downsampled_x4"])
def test_every_level_of_a_pyramid_is_read(level, example_data, tmp_path):
    copy = tmp_path / "pyramid"
    shutil.copytree(example_data / "v3/ndtiff3.2_magellan_explore_rgb", copy)
    assert exengine.verify(copy).checked == 12
    (file,) = (copy / level).glob("*.tif")
    os.truncate(file, os.path.getsize(file) - 10)
    report = exengine.verify(copy)
    assert len(report.damaged) == 1 and report.checked == 11
    assert ("resolution level 2" in report.damaged[0].reason) == (level != "Full resolution")


@pytest.mark.parametrize("link", [7, 2**31, 2**32 - 1])
def test_a_chain_of_another_program_that_leads_anywhere_ends(link, example_data, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(example_data / "v3/ndtiffv3.0_test", copy)
    (file,) = copy.glob("*.tif")
    with open(file, "r+b") as handle:
        handle.seek(4)
        (first,) = struct.unpack("<I", handle.read(4))
        handle.seek(first)
        (tags,) = struct.unpack("<H", handle.read(2))
        handle.seek(first + 2 + 12 * tags)
        handle.write(struct.pack("<I", link if link != 7 else first))
    report = exengine.verify(copy)
    assert report.checked == 10 and report.problems


# -- recover -------------------------------------------------------------------------------------


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
    return [number for number, entry in enumerate(entries_of(path)) if entry[1] == "NDTiffStack_1.tif"]


def cut_tail(path):
    cut_file(path, COUNT - 1)
    return [COUNT - 1]


def cut_in_the_middle(path):
    cut_file(path, 1)
    first = [number for number, entry in enumerate(entries_of(path)) if entry[1] == "NDTiffStack.tif"]
    return first[1:]


def changed_frames(path):
    flip_pixel(path, 0)
    flip_metadata(path, 6)
    flip_pixel(path, COUNT - 1)
    return [0, 6, COUNT - 1]


def changed_coordinates(path):
    _, _, _, begin = entries_of(path)[5]
    data = (path / "NDTiff.index").read_bytes()
    at = data.index(b"5", begin)
    (path / "NDTiff.index").write_bytes(data[:at] + b"8" + data[at + 1 :])
    return [5]


def changed_directory(path):
    _, name, numbers, _ = entries_of(path)[2]
    form = layout.FrameLayout(24, 32, layout.GRAY16)
    flip(path / name, numbers[0] - form.ifd_bytes + form.next_at)
    return []


def no_header(path):
    damage_header(path)
    return []


def all_of_a_file(path):
    lost = [number for number, entry in enumerate(entries_of(path)) if entry[1] == "NDTiffStack.tif"]
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
    assert_good(target, [number for number in range(COUNT) if number not in lost])
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
    _, _, _, begin = entries_of(finished)[5]
    data = (finished / "NDTiff.index").read_bytes()
    at = data.index(b"5", begin)
    (finished / "NDTiff.index").write_bytes(data[:at] + b"7" + data[at + 1 :])
    report = exengine.verify(finished)
    assert "1 entries of the index have the coordinates of a later one" in report.problems
    report = exengine.recover(finished, in_place=True)
    assert (report.frames, report.total) == (COUNT - 1, COUNT)
    assert "nothing names them" in exengine.verify(finished).problems[0]


@both
def test_at_every_length_of_the_index_the_frames_it_names_are_recovered(
    in_place, cut_short, assert_good, tmp_path, opened
):
    whole = (cut_short / "NDTiff.index").read_bytes()
    begins = [entry[3] for entry in entries_of(cut_short)] + [len(whole)]
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
    assert report.frames == 7 and any("no whole entry" in problem for problem in report.problems)
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
    assert (report.frames, len(report.lost)) == (2, 1)
    assert any("full resolution" in problem for problem in report.problems)
    verdict = exengine.verify(report.path)
    assert (verdict.checked, len(verdict.missing), verdict.problems) == (2, 1, [])


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


# -- killed --------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("when", ["before", "after"])
def test_recover_may_be_killed_at_any_call(in_place, when, path, new, put, assert_good, tmp_path):
    storage = new(max_file_bytes=4096)
    put(storage, range(5))
    storage.close()
    flip_pixel(path, 1)
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
            assert_good(target, [0, 2, 3, 4])
            wanted = files
        assert files == wanted, call
        verdict = exengine.verify(target)
        assert (verdict.status, verdict.checked, len(verdict.missing)) == ("aborted", 4, 1)
        assert verdict.problems == verdict.damaged == []
        shutil.rmtree(target)
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(tmp_path / "original", path)
    assert call > 20
