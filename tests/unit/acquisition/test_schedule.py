"""Time points that come later than planned: which clock counts, and where it restarts."""

import time

import pytest
import useq

from exengine.acquisition import schedule
from exengine.acquisition.schedule import Schedule, now_awake_or_asleep_s, remaining_plan
from exengine.kernel.frames.ledger import Ledger
from exengine.kernel.source_plan import SourcePlan


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that the test sets."""
    now = [1000.0]
    monkeypatch.setattr(schedule, "now_awake_or_asleep_s", lambda: now[0])
    return now


@pytest.fixture
def seen(clock):
    """Return a function that lets frames arrive, as (seconds, time point), and returns the late ones."""

    def seen(*arrivals, loops=10):
        ledger = Ledger()
        sequence = useq.MDASequence(time_plan={"interval": 10, "loops": loops})
        plan = Schedule(sequence, ledger)
        for at_s, point in arrivals:
            clock[0] = 1000.0 + at_s
            plan.see({"time": point, "channel": "DAPI"})
        return [(where["time"], delay_s) for where, delay_s in ledger.late]

    return seen


def test_the_first_frame_of_a_late_time_point_is_named(seen):
    assert seen((0, 0), (0.5, 0), (10.9, 1), (22, 2), (22.5, 2), (30, 3)) == [(2, 2.0)]


def test_time_points_are_late_after_a_pause_until_the_source_restarts_its_clock(seen):
    assert seen((0, 0), (10, 1), (80, 2), (80.1, 3), (90, 4)) == [(2, 60.0), (3, 50.1), (4, 50.0)]


def test_each_position_may_have_a_time_lapse_of_its_own(seen):
    assert seen((0, 0), (10, 1), (20, 2), (21, 0), (31, 1), (43, 2)) == [(2, 2.0)]


def test_a_run_that_continues_counts_from_its_first_frame(seen):
    assert seen((0, 6), (10, 7), (23, 8)) == [(8, 3.0)]
    # The second position begins with a later time point than the first has reached.
    assert seen((0, 2), (10, 3), (11, 7), (21, 8), (34, 9)) == [(9, 3.0)]


def test_a_time_point_outside_the_plan_is_ignored(seen):
    assert seen((0, 0), (500, 11), (10, "1"), (10, -1), (10, 1)) == []


def test_setting_the_time_of_day_makes_nothing_late(monkeypatch):
    ledger = Ledger()
    plan = Schedule(useq.MDASequence(time_plan={"interval": 10, "loops": 5}), ledger)
    for point in range(3):
        monkeypatch.setattr(time, "time", lambda point=point: 1e9 + 1e6 * point)
        plan.see({"time": point})
    assert ledger.late == []


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has this clock")
def test_the_clock_runs_while_the_computer_sleeps(monkeypatch):
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = now_awake_or_asleep_s()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_the_remaining_frames_have_their_share_of_the_size():
    plan = SourcePlan(frames=10, pixel_bytes=1000)
    assert (remaining_plan(plan, 4).frames, remaining_plan(plan, 4).pixel_bytes) == (6, 600)
    assert remaining_plan(plan, 0) is plan and remaining_plan(SourcePlan(), 3) == SourcePlan()
