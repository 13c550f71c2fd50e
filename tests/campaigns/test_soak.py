"""A short soak and a time-lapse with a clock that is set, and the proof that both see what they must see."""

import sys

import pytest
from clock_steps import time_lapse

from exengine.kernel.storage.reading import IndexedStorage


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_memory_descriptors_and_threads_stay_and_every_frame_is_there(campaign):
    code, text = campaign("--cycle-mb", 20, "--minutes", "0.08")
    assert code == 0, text
    assert "frames lost: 0" in text


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_a_leak_is_found(campaign):
    code, text = campaign("--cycle-mb", 20, "--minutes", "0.01", "--leak")
    assert code == 1
    for what in ("descriptors after each cycle", "threads after each cycle", "memory rises"):
        assert f"BROKEN {what}" in text


def test_frames_keep_their_order_while_the_clock_is_set_during_72_hours(tmp_path):
    figures, found = time_lapse(str(tmp_path))
    assert not found
    assert figures["frames"] == 2592 and figures["time of day went back"] == 4


def test_a_source_that_goes_by_the_time_of_day_is_found(tmp_path):
    _, found = time_lapse(str(tmp_path), wrong=True)
    assert "the elapsed times go back" in found


def test_another_order_is_found(tmp_path, monkeypatch):
    forward = IndexedStorage.__iter__
    monkeypatch.setattr(IndexedStorage, "__iter__", lambda self: reversed(list(forward(self))))
    _, found = time_lapse(str(tmp_path), hours=2)
    assert "the order after reopening is another one" in found
