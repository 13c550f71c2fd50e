"""What the ledger says beside the balance: gaps, late frames, waiting times; and what is printed of it."""

import copy
import itertools
import json
import time

import numpy as np
import pytest
import useq

from exengine.acquisition.schedule import Schedule, skipped_frames
from exengine.cli.ledger_text import ledger_lines
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_handler import DataHandler
from exengine.kernel.frames.latencies import Latencies
from exengine.kernel.frames.ledger import MAX_NAMED, Ledger
from exengine.kernel.source_plan import PlannedAxis, SourcePlan

PATIENCE_S = 10


def tags(number, **more):
    return {"camera_metadata": {"ImageNumber": str(number), "Camera": "Left", **more}}


def test_gaps_in_the_image_numbers_of_a_camera_are_named_with_the_frames_around_them(held_storage):
    handler = DataHandler(held_storage)
    numbers = [0, 1, 2, 5, 6, 0, 1, 3]  # a new sequence begins at the sixth frame
    for frame, number in enumerate(numbers):
        handler.put({"time": frame}, np.zeros((2, 2)), tags(number))
    handler.finish()
    handler.await_completion(PATIENCE_S)
    assert handler.ledger.to_dict()["gaps"] == [
        {"camera": "Left", "after": {"time": 2}, "before": {"time": 3}, "missing": 2},
        {"camera": "Left", "after": {"time": 6}, "before": {"time": 7}, "missing": 1},
    ]


def test_each_camera_has_its_own_count_and_what_is_no_number_is_not_counted(held_storage):
    handler = DataHandler(held_storage)
    for frame, metadata in enumerate(
        [
            tags(0),
            tags(0, Camera="Right"),
            tags(1),
            tags(1, Camera="Right"),
            tags("five"),
            {"camera_metadata": 3},
            {"ImageNumber": None},
            {"camera_metadata": {}},
            tags(2),
        ]
    ):
        handler.put({"time": frame}, np.zeros((2, 2)), metadata)
    handler.finish()
    handler.await_completion(PATIENCE_S)
    assert handler.ledger.gaps == [] and handler.ledger.stored == 9


def test_a_frame_that_the_handler_dropped_is_not_a_gap_of_the_camera(held_storage):
    held_storage.gate.clear()
    handler = DataHandler(held_storage, max_frames=2, when_full="drop")
    for number in range(10):
        handler.put({"time": number}, np.zeros((2, 2)), tags(number))
    held_storage.gate.set()
    handler.finish()
    handler.await_completion(PATIENCE_S)
    assert handler.ledger.dropped == 8 and handler.ledger.gaps == []


def test_the_ledger_has_waiting_times_and_the_largest_queue(held_storage):
    held_storage.gate.clear()
    handler = DataHandler(held_storage, max_frames=3)
    for number in range(3):
        handler.put({"time": number}, np.zeros((2, 2), np.uint8), None)
    time.sleep(0.05)
    held_storage.gate.set()
    handler.put({"time": 3}, np.zeros((2, 2), np.uint8), None)
    handler.finish()
    handler.await_completion(PATIENCE_S)
    content = json.loads(json.dumps(handler.ledger.to_dict()))
    assert content["high_water"] == {"frames": 3, "bytes": 12}
    assert set(content["latency_us"]) == {"p50", "p99", "p99.9", "max"}
    assert 50_000 <= content["latency_us"]["max"] < PATIENCE_S * 1e6
    assert content["stalled"]["frames"] in (0, 1) and content["stalled"]["seconds"] >= 0


@pytest.mark.parametrize("seed", range(3))
def test_percentiles_of_latencies_are_at_most_a_tenth_too_high(seed):
    values = np.sort(np.random.default_rng(seed).lognormal(-8, 2, 5000))
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    found = latencies.summary_us()
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
        true = max(1, values[int(np.ceil(share * 5000)) - 1] * 1e6)
        assert true - 1 <= found[name] <= true * 1.1 + 1
    assert found["max"] == int(np.ceil(values[-1] * 1e6)) and Latencies().summary_us() == {}


def test_lists_in_the_ledger_are_bounded():
    ledger = Ledger()
    for number in range(MAX_NAMED + 5):
        ledger.name_gap("x" * 1000, {"time": number}, None, 1)
        ledger.name_late({"time": number}, 1.23456)
        ledger.name_raw({"time": number}, "y" * 5000)
    for names in (ledger.gaps, ledger.late, ledger.passed_raw):
        assert len(names) == MAX_NAMED
    assert len(json.dumps(ledger.to_dict()["gaps"][0])) < 400


def test_a_ledger_can_be_copied():
    ledger = Ledger()
    ledger.name_gap("Left", {"time": 0}, {"time": 1}, 3)
    assert copy.deepcopy(ledger).to_dict() == ledger.to_dict()


def test_time_points_that_come_late_are_named(monkeypatch):
    arrivals = [0.0, 0.1, 10.5, 10.6, 22.0, 30.5, 31.6, 41.1]
    points = [0, 0, 1, 1, 2, 3, 3, 4]
    clock = itertools.chain([100.0 + arrivals[k] for k in (0, 2, 4, 5, 7)], itertools.repeat(0.0))
    monkeypatch.setattr("exengine.acquisition.schedule.now_awake_or_asleep_s", lambda: next(clock))
    ledger = Ledger()
    schedule = Schedule(useq.MDASequence(time_plan={"interval": 10, "loops": 5}), ledger)
    for point, channel in zip(points, itertools.cycle(["DAPI", "FITC"])):
        schedule.see(DataCoordinates(time=point, channel=channel))
    assert ledger.late == [({"time": 2, "channel": "DAPI"}, 2.0), ({"time": 4, "channel": "FITC"}, 1.1)]


@pytest.mark.parametrize("plan", [None, {"interval": 0, "loops": 5}])
def test_what_has_no_planned_time_is_never_late(plan):
    ledger = Ledger()
    schedule = Schedule(useq.MDASequence(time_plan=plan), ledger)
    for point in (0, 1, 2, 99, "x"):
        schedule.see(DataCoordinates(time=point))
    assert ledger.late == []


def test_frames_that_the_plan_leaves_out_are_counted():
    axes = (PlannedAxis("channel", ("DAPI", "FITC")), PlannedAxis("z", (0, 1, 2)))
    assert skipped_frames(SourcePlan(frames=4, axes=axes)) == 2
    assert skipped_frames(SourcePlan(frames=6, axes=axes)) == 0
    assert skipped_frames(SourcePlan(frames=4)) == skipped_frames(SourcePlan(axes=axes)) == 0
    assert skipped_frames(SourcePlan(frames=4, axes=(*axes, PlannedAxis("time")))) == 0


def test_the_printed_lines_name_what_went_wrong():
    ledger = Ledger()
    ledger.name_gap("Left", {"time": 1}, {"time": 2}, 3)
    ledger.name_late({"time": 4}, 2.5)
    ledger.name_raw({"time": 5}, "ValueError: no")
    ledger.skipped_by_plan, ledger.stalled, ledger.stalled_s = 7, 2, 0.25
    ledger.latencies.add(0.002)
    ledger.most_frames, ledger.most_bytes = 9, 2048
    assert ledger_lines(ledger.to_dict()) == [
        ("gap", "Left: 3 frames missing between {'time': 1} and {'time': 2}"),
        ("late", "{'time': 4}: 2.5 s later than planned"),
        ("raw", "{'time': 5}: stored unprocessed, ValueError: no"),
        ("skipped", "combinations of positions without a planned frame: 7"),
        ("stalled", "2 frames waited for the storage, 0.25 s in all"),
        ("latency", "until stored: p50 2 ms, p99 2 ms, p99.9 2 ms, max 2 ms"),
        ("queue", "at most 9 frames, 2.0 kB"),
    ]


@pytest.mark.parametrize(
    "ledger", [{}, {"gaps": 5, "late": [1], "stalled": 3, "latency_us": {"p50": "x"}, "high_water": []}]
)
def test_a_ledger_of_another_program_is_printed_as_far_as_it_goes(ledger):
    assert all(isinstance(text, str) for _, text in ledger_lines(ledger))
