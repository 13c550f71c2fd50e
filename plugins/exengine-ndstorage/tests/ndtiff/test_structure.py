"""``verify`` finds each difference from the dataset that was written."""

import os
import shutil
import struct

import pytest
from ndtiff_bytes import COUNT, at, entries, flip, flip_metadata, flip_pixel, numbers_in

import exengine
from exengine_ndstorage.ndtiff.format import GRAY16, FrameLayout


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
    assert [frame.coordinates for frame in report.damaged] == [at(7)]
    assert report.missing == report.problems == [] and not report.ok


def test_a_file_that_is_gone_makes_its_frames_missing(finished):
    gone = numbers_in(finished, "NDTiffStack_1.tif")
    (finished / "NDTiffStack_1.tif").unlink()
    report = exengine.verify(finished)
    assert [frame.coordinates for frame in report.missing] == [at(number) for number in gone]
    assert report.damaged == []
    assert report.problems == ["the index refers to the file 'NDTiffStack_1.tif', which does not exist"]


def test_every_changed_byte_of_a_directory_is_found(finished):
    """Each by the structure, or by the checksums of the frame that it belongs to."""
    _, name, numbers, *_ = entries(finished)[1]
    layout = FrameLayout(24, 32, GRAY16)
    for place in range(numbers[0] - layout.ifd_bytes, numbers[0]):
        flip(finished / name, place)
        assert not exengine.verify(finished).ok, place
        flip(finished / name, place)
    assert exengine.verify(finished).ok


STRUCTURES = {
    "bytes behind the last frame": (
        lambda path: os.truncate(path / "NDTiffStack_1.tif", size_of(path / "NDTiffStack_1.tif") + 5),
        "bytes after the last frame: 5",
    ),
    "no end of the chain": (
        lambda path: flip(path / "NDTiffStack_1.tif", last_link(path, "NDTiffStack_1.tif")),
        "does not end with the last frame",
    ),
    "a header that leads nowhere": (
        lambda path: flip(path / "NDTiffStack.tif", 5),
        "the header does not refer",
    ),
    "a header that is none": (lambda path: flip(path / "NDTiffStack_1.tif", 0), "not a little-endian TIFF"),
}


def size_of(file):
    return file.stat().st_size


def last_link(path, name):
    numbers = [entry.numbers for entry in entries(path) if entry.file == name][-1]
    layout = FrameLayout(24, 32, GRAY16)
    return numbers[0] - layout.ifd_bytes + layout.next_at


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
    assert len(problems) == 51 and "more faults of this kind" in problems[-1]


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
