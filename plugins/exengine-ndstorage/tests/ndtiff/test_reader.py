"""Reading a dataset: while it is written, as one array, and when something is wrong with it."""

import json
import os
import pickle
import shutil
import signal
import struct
import sys
import threading
import time

import numpy as np
import pytest

import exengine
from exengine.errors import (
    CoordinatesError,
    CoordinatesNotFoundError,
    DatasetDamagedError,
    DatasetNotFoundError,
    OptionError,
    StorageClosedError,
    StorageFinishedError,
    UnsupportedOperationError,
)
from exengine_ndstorage.ndtiff.index_table import FrameTable

PIXELS_AT = 2  # which of the numbers of an index entry
SHAPE = (24, 32)


def at(number):
    return {"time": number, "channel": "ab"[number % 2]}


@pytest.fixture
def five(path, frame):
    """Write a finished dataset of five frames, and return its path."""
    with exengine.open_storage("ndtiff", path, summary_metadata={"who": "me"}) as storage:
        for number in range(5):
            storage.put(at(number), frame(at(number)), {"number": number})
    return path


@pytest.fixture
def foreign(five):
    """Return a dataset of five frames of which we do not know that we wrote it."""
    (five / "exengine.json").unlink()
    (five / "exengine.lock").unlink()
    return five


def entries(path):
    """Return begin, end, axes, name of the file and the numbers of every index entry."""
    data, position, found = (path / "NDTiff.index").read_bytes(), 0, []
    while position < len(data):
        begin = position
        (length,) = struct.unpack_from("<I", data, position)
        axes = json.loads(data[position + 4 : position + 4 + length])
        position += 4 + length
        (length,) = struct.unpack_from("<I", data, position)
        name = data[position + 4 : position + 4 + length].decode()
        numbers = struct.unpack_from("<8I", data, position + 4 + length)
        position += 4 + length + 32
        found.append((begin, position, axes, name, numbers))
    return found


def change(file, offset, change):
    with open(file, "r+b") as opened:
        opened.seek(offset)
        byte = opened.read(1)[0]
        opened.seek(offset)
        opened.write(bytes([change(byte)]))


def flip(file, offset):
    change(file, offset, lambda byte: byte ^ 0x10)


# -- while another process writes ----------------------------------------------------------------

WRITER = """
import os, sys
import numpy as np
import exengine
storage = exengine.open_storage("ndtiff", sys.argv[1], max_file_bytes=400_000, summary_metadata={"who": "writer"})
os.write(1, b"ready\\n")
for line in sys.stdin.buffer:
    begin, end = map(int, line.split())
    for number in range(begin, end):
        data = np.full((24, 32), number, np.uint16)
        storage.put({"time": number, "channel": "ab"[number % 2]}, data, {"number": number})
    os.write(1, b"done\\n")
storage.finish()
storage.close()
"""


@pytest.fixture
def writer(path, start_python):
    """Start a process that writes; it is told by its stdin which frames, and finishes when that is closed."""
    process = start_python(WRITER, path)
    assert process.stdout.readline() == b"ready\n"
    return process


def tell(process, begin, end, *, wait=True):
    process.stdin.write(b"%d %d\n" % (begin, end))
    process.stdin.flush()
    if wait:
        assert process.stdout.readline() == b"done\n"


def test_r3_only_whole_frames_are_seen_and_never_fewer(writer, opened):
    dataset = opened()
    assert (len(dataset), dataset.status) == (0, "incomplete")
    tell(writer, 0, 6000, wait=False)
    seen, looks = 0, 0
    while seen < 6000:
        count = len(dataset)
        assert count >= seen
        for number in range(seen, count, 7):
            data = dataset[at(number)]
            assert data.shape == SHAPE and (data == number).all()
            assert dataset.get_metadata(at(number)) == {"number": number}
        listed = list(dataset)
        assert len(listed) >= count and listed == [at(number) for number in range(len(listed))]
        looks += count > seen
        seen = count
    assert looks > 1  # it was read while it grew
    assert dataset.status == "incomplete" and dataset.status_reason == "its writer is at work"
    assert not dataset.is_finished()
    writer.stdin.close()
    writer.wait()
    assert dataset.status == "complete" and dataset.is_finished() and len(dataset) == 6000


def test_r3_many_threads_may_read_what_grows(writer, opened):
    dataset = opened()
    wrong, ended = [], threading.Event()
    everything = 3000

    def read(step):
        number = 0
        try:
            while number < everything and not ended.is_set():
                if at(number) in dataset:
                    if (
                        not (dataset[at(number)] == number).all()
                        or dataset.get_metadata(at(number))["number"] != number
                    ):
                        wrong.append(number)
                    number += step
                elif number % 5 == 0:
                    for c in dataset:
                        assert "time" in c
                    assert dataset.axes.keys() <= {"time", "channel"}
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(step,), name=f"reader {step}") for step in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for begin in range(0, everything + 3, 100):
        tell(writer, begin, begin + 100)
    for thread in threads:
        thread.join(60)
    ended.set()
    assert not wrong


def test_r3_nobody_looks_into_the_index_while_it_is_read_on(writer, opened, monkeypatch):
    dataset, looking = opened(), []
    tell(writer, 0, 10)
    feed = FrameTable.feed

    def feed_while_another_looks(self, *arguments, **options):
        if not looking:
            looking.append(threading.Thread(target=lambda: found.append(at(3) in dataset), name="looking"))
            looking[0].start()
            looking[0].join(0.2)
            assert looking[0].is_alive() and not found
        return feed(self, *arguments, **options)

    found = []
    monkeypatch.setattr(FrameTable, "feed", feed_while_another_looks)
    assert at(5) in dataset
    looking[0].join(30)
    assert found == [True]


def test_await_new_data_returns_when_frames_come_and_when_the_dataset_is_finished(writer, opened):
    dataset = opened()
    assert dataset.await_new_data(0) is False
    began = time.monotonic()
    assert dataset.await_new_data(0.05) is False
    assert time.monotonic() - began >= 0.05
    tell(writer, 0, 1, wait=False)
    assert dataset.await_new_data(30) is True
    assert at(0) in dataset
    writer.stdin.close()
    writer.wait()
    assert dataset.await_new_data(30) is True
    assert dataset.is_finished() and len(dataset) == 1


def test_await_new_data_without_a_limit_ends_when_the_writer_dies(writer, opened):
    dataset = opened()
    tell(writer, 0, 3)
    assert dataset.await_new_data() is True
    waiting = threading.Thread(target=dataset.await_new_data, name="waiting")
    waiting.start()
    writer.send_signal(signal.SIGKILL)
    waiting.join(30)
    assert not waiting.is_alive()
    assert dataset.status == "incomplete" and dataset.is_finished()
    assert len(dataset) == 3


def test_reading_on_in_a_loop_sees_every_frame_and_ends(writer, opened):
    dataset, seen = opened(), 0
    tell(writer, 0, 2000, wait=False)
    writer.stdin.close()
    while not dataset.is_finished() or seen < len(dataset):
        dataset.await_new_data(30)
        for number in range(seen, len(dataset)):
            assert (dataset[at(number)] == number).all()
            seen += 1
    assert seen == 2000 and dataset.status == "complete"


def test_summary_metadata_are_there_from_the_beginning(writer, opened):
    assert opened().summary_metadata == {"who": "writer"}


def test_a_folder_in_which_the_writer_has_made_no_file_yet_opens_as_empty(path, opened):
    storage = exengine.open_storage("ndtiff", path, summary_metadata={"a": 1})
    for name in ("NDTiff.index", "NDTiffStack.tif"):
        (path / name).rename(path / f"{name}.later")
    dataset = opened()
    assert (len(dataset), dataset.status, dataset.summary_metadata) == (0, "incomplete", None)
    (path / "NDTiffStack.tif").touch()
    assert dataset.summary_metadata is None and dataset.status == "incomplete"
    (path / "NDTiffStack.tif").unlink()
    for name in ("NDTiff.index", "NDTiffStack.tif"):
        (path / f"{name}.later").rename(path / name)
    storage.put(at(0), np.ones((3, 3), np.uint8), None)
    assert at(0) in dataset and dataset.summary_metadata == {"a": 1}
    storage.close()


# -- as one array --------------------------------------------------------------------------------


@pytest.fixture
def cube(path, frame):
    """Write 3 channels x 4 times x 2 z in an odd order, without the frame at (2, FITC, 1)."""
    with exengine.open_storage("ndtiff", path) as storage:
        for channel in ("FITC", "DAPI", "Cy5"):
            for t in (3, 0, 1, 2):
                for z in (-1, 1):
                    where = {"time": t, "channel": channel, "z": z}
                    if (t, channel, z) != (2, "FITC", 1):
                        storage.put(where, frame(where), None)
    return path


def test_as_array_has_the_axes_in_a_stable_order_and_reads_lazily(cube, opened, frame, monkeypatch):
    dataset = opened()
    read = []
    read_frame = type(dataset).read_frame
    monkeypatch.setattr(type(dataset), "read_frame", lambda self, n: read.append(n) or read_frame(self, n))
    array = dataset.as_array(missing=0)
    assert array.shape == (4, 3, 2, *SHAPE) and array.dtype == np.uint16
    assert array.chunks[-2:] == ((24,), (32,))
    assert len(read) <= 1
    where = {"time": 1, "channel": "DAPI", "z": -1}
    np.testing.assert_array_equal(array[1, 1, 0].compute(), frame(where))
    assert len(read) <= 3
    whole = array.compute()
    for t in range(4):
        for c, channel in enumerate(("FITC", "DAPI", "Cy5")):
            for k, z in enumerate((-1, 1)):
                where = {"time": t, "channel": channel, "z": z}
                expected = frame(where) if where in dataset else np.zeros(SHAPE, np.uint16)
                np.testing.assert_array_equal(whole[t, c, k], expected)


def test_as_array_takes_another_order_of_axes(cube, opened, frame):
    array = opened().as_array(["z", "channel", "time"], missing=0)
    assert array.shape == (2, 3, 4, *SHAPE)
    expected = frame({"time": 3, "channel": "Cy5", "z": 1})
    np.testing.assert_array_equal(array[1, 2, 3].compute(), expected)
    with pytest.raises(CoordinatesError, match="axes are time, channel, z in any order; got time"):
        opened().as_array(["time"])


def test_missing_frames_raise_or_are_masked_or_stand_as_a_number(cube, opened):
    dataset = opened()
    with pytest.raises(CoordinatesNotFoundError, match="1 frames are missing, the first at .*'FITC'"):
        dataset.as_array()
    masked = dataset.as_array(missing="mask").compute()
    assert masked.mask[2, 0, 1].all() and masked.mask.sum() == SHAPE[0] * SHAPE[1]
    filled = dataset.as_array(missing=77).compute()
    assert (filled[2, 0, 1] == 77).all()
    np.testing.assert_array_equal(filled[~masked.mask], masked.compressed())


def test_a_dataset_and_its_array_can_be_pickled(cube, opened, run_python, tmp_path):
    array = opened().as_array(missing=0)
    (tmp_path / "array").write_bytes(pickle.dumps(array))
    program = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).sum().compute())"
    assert int(run_python(program, tmp_path / "array")) == int(array.sum().compute()) > 0


def test_frames_that_differ_are_no_one_array(path, opened):
    with exengine.open_storage("ndtiff", path) as storage:
        storage.put({"time": 0}, np.ones((3, 3), np.uint8), None)
        storage.put({"time": 1}, np.ones((3, 4), np.uint8), None)
    with pytest.raises(UnsupportedOperationError, match="no one array holds both"):
        opened().as_array().compute()


# -- status --------------------------------------------------------------------------------------


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
    with pytest.raises(StorageFinishedError, match="opened to read"):
        dataset.put(at(9), np.ones((3, 3), np.uint8), None)
    with pytest.raises(ValueError, match="read-only"):
        dataset[at(0)][:] = 0
    dataset.close()
    dataset.close()
    with pytest.raises(StorageClosedError):
        dataset[at(0)]


def test_opening_and_reading_writes_nothing(five, opened, digest):
    whole_entry = (five / "NDTiff.index").read_bytes()[: entries(five)[0][1]]
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


def others_are_whole(dataset, frame, broken):
    """Check that the frames that nobody touched are what they were."""
    for number in set(range(5)) - set(broken):
        np.testing.assert_array_equal(dataset[at(number)], frame(at(number)))
        assert dataset.get_metadata(at(number)) == {"number": number}


@pytest.mark.parametrize("ours", [True, False])
def test_a_tiff_file_that_is_cut_off_is_damaged(ours, five, opened, frame):
    if not ours:
        (five / "exengine.json").unlink()
    size = (five / "NDTiffStack.tif").stat().st_size
    os.truncate(five / "NDTiffStack.tif", size - 200)
    dataset = opened()
    assert dataset.status == "damaged" and f"has {size - 200} bytes" in dataset.status_reason
    with pytest.raises(DatasetDamagedError):
        dataset[at(4)]
    with pytest.raises(DatasetDamagedError):
        dataset.get_metadata(at(4))
    others_are_whole(dataset, frame, [4])


@pytest.mark.parametrize("left", range(0, 1600, 53))
def test_a_tiff_file_that_is_cut_off_anywhere_never_gives_wrong_pixels(left, five, opened, frame):
    begin = entries(five)[2][4][0]
    os.truncate(five / "NDTiffStack.tif", begin - 202 + left)
    dataset = opened()
    assert dataset.status == "damaged"
    for read in (dataset.get_data, dataset.get_metadata):
        try:
            got = read(at(2))
        except DatasetDamagedError:
            continue
        assert np.array_equal(got, frame(at(2))) if read == dataset.get_data else got == {"number": 2}
    others_are_whole(dataset, frame, [2, 3, 4])


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("lost", [1, 20, 40, 60])
def test_an_index_that_is_cut_inside_an_entry_is_damaged(lost, ours, five, opened, frame):
    if not ours:
        (five / "exengine.json").unlink()
    os.truncate(five / "NDTiff.index", (five / "NDTiff.index").stat().st_size - lost)
    dataset = opened()
    assert dataset.status == "damaged" and "no whole entry" in dataset.status_reason
    assert len(dataset) == 4 and at(4) not in dataset
    others_are_whole(dataset, frame, [4])


def test_an_index_whose_coordinates_were_changed_is_damaged(five, opened, frame):
    index = five / "NDTiff.index"
    content = index.read_bytes()
    assert content.count(b'"time":3') == 1
    index.write_bytes(content.replace(b'"time":3', b'"time":8'))
    dataset = opened()
    assert dataset.status == "damaged" and "not the one that was written" in dataset.status_reason
    assert len(dataset) == 5 and at(3) not in dataset
    with pytest.raises(DatasetDamagedError, match="not those that were written"):
        dataset[{"time": 8, "channel": "b"}]
    others_are_whole(dataset, frame, [3])


def test_an_index_that_lost_whole_entries_is_damaged(five, opened, frame):
    os.truncate(five / "NDTiff.index", entries(five)[3][0])
    dataset = opened()
    assert dataset.status == "damaged"
    assert dataset.status_reason == "the index has 3 frames, 5 were written"
    others_are_whole(dataset, frame, [3, 4])


def test_an_index_that_cannot_be_understood_is_damaged_from_there_on(five, opened, frame):
    begin = entries(five)[3][0]
    change(five / "NDTiff.index", begin + 4, lambda _: ord("["))
    dataset = opened()
    assert dataset.status == "damaged" and f"from byte {begin}" in dataset.status_reason
    assert len(dataset) == 3
    others_are_whole(dataset, frame, [3, 4])


@pytest.mark.parametrize("offset", [0, 1, 767, 1535])
def test_a_changed_pixel_is_never_returned(offset, five, opened, frame):
    flip(five / "NDTiffStack.tif", entries(five)[2][4][0] + offset)
    dataset = opened()
    with pytest.raises(
        DatasetDamagedError, match=r"pixels or coordinates of the frame at .*2.*not those that were"
    ):
        dataset[at(2)]
    assert dataset.get_metadata(at(2)) == {"number": 2}
    others_are_whole(dataset, frame, [2])


def test_changed_metadata_are_never_returned(five, opened, frame):
    numbers = entries(five)[2][4]
    change(five / "NDTiffStack.tif", numbers[5] + numbers[6] - 2, lambda byte: byte + 1)  # {"number":3}
    dataset = opened()
    with pytest.raises(DatasetDamagedError, match="metadata or coordinates of the frame"):
        dataset.get_metadata(at(2))
    np.testing.assert_array_equal(dataset[at(2)], frame(at(2)))
    others_are_whole(dataset, frame, [2])


def test_a_frame_is_never_returned_at_coordinates_that_were_changed_in_the_index(five, opened, frame):
    begin = entries(five)[2][0]
    place = (five / "NDTiff.index").read_bytes().index(b"2", begin + 4)
    change(five / "NDTiff.index", place, lambda _: ord("8"))
    moved = {"time": 8, "channel": "a"}
    dataset = opened()
    assert moved in dataset and at(2) not in dataset
    for read in (dataset.get_data, dataset.get_metadata):
        with pytest.raises(DatasetDamagedError, match=r"coordinates of the frame at .*8"):
            read(moved)
    others_are_whole(dataset, frame, [2])


def test_frames_that_the_index_confuses_are_never_returned(five, opened):
    first, second = entries(five)[1], entries(five)[3]
    data = bytearray((five / "NDTiff.index").read_bytes())
    data[first[1] - 32 : first[1]], data[second[1] - 32 : second[1]] = (
        data[second[1] - 32 : second[1]],
        data[first[1] - 32 : first[1]],
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
def test_a_changed_number_in_the_index_harms_at_most_its_frame(number, byte, ours, five, opened, frame):
    if not ours:
        (five / "exengine.json").unlink()
    end = entries(five)[2][1]
    change(five / "NDTiff.index", end - 32 + 4 * number + byte, lambda value: value ^ 0xC1)
    dataset = opened()
    others_are_whole(dataset, frame, [2])
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
    _, end, *_ = entries(five)[3]
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
    _, end, *_ = entries(five)[3]
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


def test_a_claim_of_16_eib_takes_no_memory_and_harms_no_other_frame(five, opened, frame):
    end = entries(five)[2][1]
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
    others_are_whole(dataset, frame, [2])


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
        with pytest.raises(DatasetDamagedError, match="no file of the dataset"):
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
    assert dataset.status == "damaged" and "'NDTiffStack.tif', which is not there" in dataset.status_reason
    with pytest.raises(DatasetDamagedError, match=r"'NDTiffStack\.tif' cannot be read: No such file"):
        dataset[at(0)]


HEADERS = {
    "summary longer than the file": (24, struct.pack("<I", 2**31), "longer than the file"),
    "summary that is no JSON": (28, b"[[[[", "cannot be understood"),
    "another magic": (8, b"\0\0\0\0", "no NDTiff"),
    "big-endian": (0, b"MM", "little-endian"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_is_damaged_is_told_and_the_frames_are_read(kind, five, opened, frame):
    offset, content, message = HEADERS[kind]
    with open(five / "NDTiffStack.tif", "r+b") as file:
        file.seek(offset)
        file.write(content)
    dataset = opened()
    assert dataset.status == "damaged" and message in dataset.status_reason
    assert dataset.summary_metadata is None
    others_are_whole(dataset, frame, [])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "other"}', b"\xff\xfe"])
def test_a_manifest_that_cannot_be_understood_is_an_error_of_ours(content, five):
    (five / "exengine.json").write_bytes(content)
    with pytest.raises(DatasetDamagedError, match=r"exengine\.json cannot be understood"):
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


@pytest.mark.parametrize("missing", [0, 65535, "mask", "raise"])
def test_an_array_of_a_dataset_that_was_closed_is_an_error_and_no_filler(missing, path, new, frame):
    with new() as storage:
        for number in range(3):
            storage.put({"time": number}, frame({"time": number}), None)
    with exengine.open_dataset(path) as dataset:
        array = dataset.as_array(missing=missing)
    with pytest.raises(StorageClosedError):
        array.compute()


def test_an_array_whose_dataset_has_gone_is_an_error_and_no_filler(path, new, frame, monkeypatch):
    with new() as storage:
        storage.put({"time": 0}, frame({"time": 0}), None)
    monkeypatch.chdir(path.parent)
    with exengine.open_dataset(path.name) as dataset:
        pickled = pickle.dumps(dataset.as_array(missing=0))
        monkeypatch.chdir(path.parent.parent)
        assert np.array_equal(pickle.loads(pickled).compute()[0], frame({"time": 0}))
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(DatasetNotFoundError):
        pickle.loads(pickled).compute()


@pytest.mark.parametrize("missing", [float("nan"), 1.5, 70_000, -1, "zero", None, [0], 1j])
def test_a_filler_that_the_frames_cannot_hold_is_refused_at_once(missing, path, new, opened, frame):
    with new() as storage:
        storage.put({"time": 0}, frame({"time": 0}), None)
    with pytest.raises(OptionError, match="a number that uint16 holds"):
        opened().as_array(missing=missing)


def test_a_reader_that_was_opened_by_a_relative_path_sees_what_comes_from_any_folder(
    path, new, frame, monkeypatch
):
    storage = new(max_file_bytes=6_000)
    storage.put({"time": 0}, frame({"time": 0}), None)
    monkeypatch.chdir(path.parent)
    dataset = exengine.open_dataset(path.name)
    monkeypatch.chdir(path.anchor)
    assert not dataset.is_finished()
    for number in range(1, 5):
        storage.put({"time": number}, frame({"time": number}), None)
    storage.finish()
    storage.close()
    assert dataset.is_finished() and len(dataset) == 5 and dataset.status == "complete"
    assert np.array_equal(dataset[{"time": 4}], frame({"time": 4}))


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


def test_coordinates_of_a_frame_are_those_of_its_time_while_an_axis_is_added(path, new, opened, frame):
    storage = new()
    storage.put({"time": 0}, frame({"time": 0}), None)
    dataset = opened()
    table = dataset._growing.table

    class Codes:
        """Lets another thread add an axis, just when a row is taken."""

        def __init__(self, codes):
            self.codes = codes

        def __getitem__(self, number):
            row = self.codes[number]
            storage.put({"time": 1, "channel": "DAPI"}, frame({"time": 1}), None)
            table._codes = self.codes
            assert len(dataset) == 2
            return row

    table._codes = Codes(table._codes)
    assert table.coordinates(0) == {"time": 0}
    storage.finish()
