"""The list of frames that the page gets: every frame once, with its coordinates, also while it grows."""

import json

import numpy as np
import pytest

from exengine.viewer import frame_list
from exengine.viewer.frame_list import FrameList


@pytest.fixture
def storage(disk_storage, tmp_path):
    with disk_storage(tmp_path / "data") as storage:
        yield storage


def fill(storage, *frames):
    for frame in frames:
        storage.put(frame, np.zeros((3, 4), np.uint8), None)


class Page:
    """Reads messages as the page does."""

    def __init__(self):
        self.frames, self.axes = [], []

    def read(self, message):
        text, _, _ = message.partition(b"\0")
        head = json.loads(text)
        assert head["from"] == len(self.frames)
        start = -(-(len(text) + 1) // 4) * 4
        count = head["to"] - head["from"]
        columns = np.frombuffer(message, "<i4", offset=start).reshape(len(head["axes"]), count)
        for number, axis in enumerate(head["axes"]):
            if number == len(self.axes):
                self.axes.append((axis["name"], []))
            self.axes[number][1].extend(int(p[0]) if isinstance(p, list) else p for p in axis["positions"])
        for row in columns.T:
            places = zip(self.axes, row, strict=True)
            self.frames.append({name: known[place] for (name, known), place in places if place >= 0})
        return head


FRAMES = [
    {"time": 0, "channel": "DAPI"},
    {"time": 0, "channel": "FITC"},
    {"time": 2**62 + 1, "channel": "FITC"},
    {"time": -1},
    {"time": 0, "channel": "7", "z": 7},
    {"z": 7},
]


def test_the_page_gets_every_frame_with_its_coordinates(storage):
    fill(storage, *FRAMES)
    page = Page()
    head = page.read(FrameList(storage).message(0, {"status": "complete"}))
    assert page.frames == FRAMES
    assert (head["status"], head["frames"], head["to"]) == ("complete", len(FRAMES), len(FRAMES))


def test_a_number_and_a_name_that_looks_like_it_are_different_positions(storage):
    fill(storage, {"a": 7}, {"a": "7"})
    page = Page()
    page.read(FrameList(storage).message(0, {}))
    assert page.axes == [("a", [7, "7"])]


def test_frames_that_arrive_later_are_added_and_nothing_is_sent_twice(storage):
    fill(storage, *FRAMES[:1])
    listed, page = FrameList(storage), Page()
    page.read(listed.message(0, {}))
    for number in range(1, len(FRAMES)):
        fill(storage, FRAMES[number])
        assert listed.refresh() == number + 1
        page.read(listed.message(number, {}))
    assert page.frames == FRAMES
    head = page.read(listed.message(len(FRAMES), {}))
    assert head["from"] == head["to"] and all(axis["positions"] == [] for axis in head["axes"])


def test_many_frames_are_sent_in_several_messages(storage, monkeypatch):
    monkeypatch.setattr(frame_list, "MOST_FRAMES", 2)
    fill(storage, *FRAMES)
    listed, page = FrameList(storage), Page()
    while len(page.frames) < len(FRAMES):
        assert page.read(listed.message(len(page.frames), {}))["frames"] == len(FRAMES)
    assert page.frames == FRAMES


@pytest.mark.parametrize("number", [-1, 6, 10**11])
def test_a_number_without_a_frame_has_no_coordinates(storage, number):
    fill(storage, *FRAMES)
    assert FrameList(storage).coordinates(number) is None
    assert FrameList(storage).coordinates(4) == FRAMES[4]


def test_a_message_from_beyond_the_end_is_empty(storage):
    fill(storage, *FRAMES[:2])
    text = FrameList(storage).message(10**6, {}).partition(b"\0")[0]
    assert json.loads(text)["from"] == json.loads(text)["to"] == 2
