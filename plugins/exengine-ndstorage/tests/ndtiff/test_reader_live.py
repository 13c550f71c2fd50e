"""Reading a dataset while another process writes it."""

import signal
import threading
import time

import numpy as np
import pytest
from ndtiff_bytes import SHAPE

import exengine
from exengine_ndstorage.ndtiff.index_table import FrameTable


def at(number):
    return {"time": number, "channel": "ab"[number % 2]}


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
    assert dataset.status == "incomplete" and dataset.status_reason == "the writer is still active"
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
