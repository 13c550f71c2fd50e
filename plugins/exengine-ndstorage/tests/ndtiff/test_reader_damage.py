"""A damaged dataset never gives wrong frames."""

import os
import struct

import numpy as np
import pytest
from ndtiff_bytes import SHAPE, at, change, entries, flip

import exengine
from exengine.errors import DatasetDamagedError, ExEngineError
from exengine_ndstorage import NDTiffStorage

PIXELS_AT = 2  # which of the numbers of an index entry


@pytest.mark.parametrize("ours", [True, False])
def test_a_tiff_file_that_is_cut_off_is_damaged(ours, five, opened, others_are_whole):
    if not ours:
        (five / "exengine.json").unlink()
    size = (five / "NDTiffStack.tif").stat().st_size
    os.truncate(five / "NDTiffStack.tif", size - 200)
    dataset = opened()
    assert dataset.status == "damaged" and f"is {size - 200} bytes long" in dataset.status_reason
    with pytest.raises(DatasetDamagedError):
        dataset[at(4)]
    with pytest.raises(DatasetDamagedError):
        dataset.get_metadata(at(4))
    others_are_whole(dataset, [4])


@pytest.mark.parametrize("left", range(0, 1600, 53))
def test_a_tiff_file_that_is_cut_off_anywhere_never_gives_wrong_pixels(
    left, five, opened, frame, others_are_whole
):
    begin = entries(five)[2].numbers[0]
    os.truncate(five / "NDTiffStack.tif", begin - 202 + left)
    dataset = opened()
    assert dataset.status == "damaged"
    for read in (dataset.get_data, dataset.get_metadata):
        try:
            got = read(at(2))
        except DatasetDamagedError:
            continue
        assert np.array_equal(got, frame(at(2))) if read == dataset.get_data else got == {"number": 2}
    others_are_whole(dataset, [2, 3, 4])


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("lost", [1, 20, 40, 60])
def test_an_index_that_is_cut_inside_an_entry_is_damaged(lost, ours, five, opened, others_are_whole):
    if not ours:
        (five / "exengine.json").unlink()
    os.truncate(five / "NDTiff.index", (five / "NDTiff.index").stat().st_size - lost)
    dataset = opened()
    assert dataset.status == "damaged" and "incomplete entry" in dataset.status_reason
    assert len(dataset) == 4 and at(4) not in dataset
    others_are_whole(dataset, [4])


def test_an_index_whose_coordinates_were_changed_is_damaged(five, opened, others_are_whole):
    index = five / "NDTiff.index"
    content = index.read_bytes()
    assert content.count(b'"time":3') == 1
    index.write_bytes(content.replace(b'"time":3', b'"time":8'))
    dataset = opened()
    assert dataset.status == "damaged" and "differs from the one that was written" in dataset.status_reason
    assert len(dataset) == 5 and at(3) not in dataset
    with pytest.raises(DatasetDamagedError, match="differ from those that were written"):
        dataset[{"time": 8, "channel": "b"}]
    others_are_whole(dataset, [3])


def test_an_index_that_lost_whole_entries_is_damaged(five, opened, others_are_whole):
    os.truncate(five / "NDTiff.index", entries(five)[3].begin)
    dataset = opened()
    assert dataset.status == "damaged"
    assert dataset.status_reason == "the index lists 3 frames, but 5 were written"
    others_are_whole(dataset, [3, 4])


def test_an_index_that_cannot_be_understood_is_damaged_from_there_on(five, opened, others_are_whole):
    begin = entries(five)[3].begin
    change(five / "NDTiff.index", begin + 4, lambda _: ord("["))
    dataset = opened()
    assert dataset.status == "damaged" and f"from byte {begin}" in dataset.status_reason
    assert len(dataset) == 3
    others_are_whole(dataset, [3, 4])


@pytest.mark.parametrize("offset", [0, 1, 767, 1535])
def test_a_changed_pixel_is_never_returned(offset, five, opened, frame, others_are_whole):
    flip(five / "NDTiffStack.tif", entries(five)[2].numbers[0] + offset)
    dataset = opened()
    with pytest.raises(
        DatasetDamagedError, match=r"pixels or coordinates of the frame at .*2.*differ from those that were"
    ):
        dataset[at(2)]
    assert dataset.get_metadata(at(2)) == {"number": 2}
    others_are_whole(dataset, [2])


def test_changed_metadata_are_never_returned(five, opened, frame, others_are_whole):
    numbers = entries(five)[2].numbers
    change(five / "NDTiffStack.tif", numbers[5] + numbers[6] - 2, lambda byte: byte + 1)  # {"number":3}
    dataset = opened()
    with pytest.raises(DatasetDamagedError, match="metadata or coordinates of the frame"):
        dataset.get_metadata(at(2))
    np.testing.assert_array_equal(dataset[at(2)], frame(at(2)))
    others_are_whole(dataset, [2])


def test_a_frame_is_never_returned_at_coordinates_that_were_changed_in_the_index(
    five, opened, frame, others_are_whole
):
    begin = entries(five)[2].begin
    place = (five / "NDTiff.index").read_bytes().index(b"2", begin + 4)
    change(five / "NDTiff.index", place, lambda _: ord("8"))
    moved = {"time": 8, "channel": "a"}
    dataset = opened()
    assert moved in dataset and at(2) not in dataset
    for read in (dataset.get_data, dataset.get_metadata):
        with pytest.raises(DatasetDamagedError, match=r"coordinates of the frame at .*8"):
            read(moved)
    others_are_whole(dataset, [2])


def test_frames_that_the_index_confuses_are_never_returned(five, opened):
    first, second = entries(five)[1], entries(five)[3]
    data = bytearray((five / "NDTiff.index").read_bytes())
    data[first.end - 32 : first.end], data[second.end - 32 : second.end] = (
        data[second.end - 32 : second.end],
        data[first.end - 32 : first.end],
    )
    (five / "NDTiff.index").write_bytes(data)
    dataset = opened()
    for number in (1, 3):
        for read in (dataset.get_data, dataset.get_metadata):
            with pytest.raises(DatasetDamagedError):
                read(at(number))


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("byte", range(4))
@pytest.mark.parametrize("ours", [True, False])
def test_a_changed_number_in_the_index_harms_at_most_its_frame(
    number, byte, ours, five, opened, frame, others_are_whole
):
    if not ours:
        (five / "exengine.json").unlink()
    end = entries(five)[2].end
    change(five / "NDTiff.index", end - 32 + 4 * number + byte, lambda value: value ^ 0xC1)
    dataset = opened()
    others_are_whole(dataset, [2])
    for read in (dataset.get_data, dataset.get_metadata):
        try:
            got = read(at(2))
        except DatasetDamagedError:
            continue
        if ours:
            assert np.array_equal(got, frame(at(2))) if read == dataset.get_data else got == {"number": 2}


@pytest.mark.parametrize("directory_is_damaged", [False, True])
@pytest.mark.parametrize("shape", [(32, 24), (48, 16), (1, 768)])
def test_a_frame_is_never_returned_with_another_shape_of_as_many_bytes(
    shape, directory_is_damaged, five, opened, frame
):
    end = entries(five)[3].end
    data = bytearray((five / "NDTiff.index").read_bytes())
    struct.pack_into("<II", data, end - 28, shape[1], shape[0])
    (five / "NDTiff.index").write_bytes(data)
    if directory_is_damaged:
        stack = five / "NDTiffStack.tif"
        pixels_at = struct.unpack_from("<I", data, end - 32)[0]
        content = bytearray(stack.read_bytes())
        width_at = content.rindex(struct.pack("<HHII", 256, 4, 1, SHAPE[1]), 0, pixels_at) + 8
        content[width_at + 3] = 0x80
        stack.write_bytes(content)
    dataset = opened(five)
    for number in range(5):
        if number == 3:
            with pytest.raises(DatasetDamagedError):
                dataset[at(number)]
        else:
            assert np.array_equal(dataset[at(number)], frame(at(number)))


def test_a_frame_is_never_returned_with_another_type_of_as_many_bytes(five, opened):
    end = entries(five)[3].end
    data = bytearray((five / "NDTiff.index").read_bytes())
    struct.pack_into("<III", data, end - 28, 2 * SHAPE[1], SHAPE[0], 0)
    (five / "NDTiff.index").write_bytes(data)
    with pytest.raises(DatasetDamagedError):
        opened(five)[at(3)]


def test_a_directory_that_says_another_size_harms_no_pixel(five, opened, frame):
    stack = five / "NDTiffStack.tif"
    data = bytearray(stack.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    assert struct.unpack_from("<HHII", data, first + 2) == (256, 4, 1, SHAPE[1])
    data[first + 10] ^= 1
    stack.write_bytes(data)
    assert np.array_equal(opened(five)[at(0)], frame(at(0)))


def test_frames_with_checksums_are_compared_when_the_manifest_is_missing(foreign, opened, frame):
    stack = foreign / "NDTiffStack.tif"
    data = bytearray(stack.read_bytes())
    pixels = frame(at(0)).tobytes()
    data[data.index(pixels) + 7] ^= 1
    stack.write_bytes(data)
    dataset = opened(foreign)
    assert dataset.has_checksums
    with pytest.raises(DatasetDamagedError):
        dataset[at(0)]
    assert np.array_equal(dataset[at(4)], frame(at(4)))


def test_a_claim_of_16_eib_takes_no_memory_and_harms_no_other_frame(five, opened, others_are_whole):
    end = entries(five)[2].end
    data = bytearray((five / "NDTiff.index").read_bytes())
    struct.pack_into("<II", data, end - 28, 2**32 - 1, 2**32 - 1)
    struct.pack_into("<I", data, end - 8, 2**32 - 1)  # and metadata of 4 GiB
    (five / "NDTiff.index").write_bytes(data)
    dataset = opened()
    assert dataset.status == "damaged"
    with pytest.raises(DatasetDamagedError, match="4294967295 x 4294967295"):
        dataset[at(2)]
    with pytest.raises(DatasetDamagedError, match="longer than the file"):
        dataset.get_metadata(at(2))
    others_are_whole(dataset, [2])


def test_a_changed_byte_of_the_header_is_noticed(tmp_path):
    path = tmp_path / "data"
    with NDTiffStorage(path, summary_metadata={"name": "demo"}) as storage:
        storage.put({"time": 0}, np.ones((4, 4), np.uint16), {})
    (file,) = path.glob("*.tif")
    good = file.read_bytes()
    end = good.index(b'{"name":"demo"}') + len(b'{"name":"demo"}')
    for place in range(end):
        file.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        try:
            dataset = exengine.open_dataset(path)
        except ExEngineError:
            continue
        with dataset:
            assert dataset.status == "damaged", f"byte {place} of the header"
    file.write_bytes(good)
    with exengine.open_dataset(path) as dataset:
        assert dataset.status == "complete" and dataset.summary_metadata == {"name": "demo"}
