"""Compares an acquisition with its plan: late time points, and frames that the plan leaves out."""

import dataclasses
import itertools
import math
import time
from typing import TYPE_CHECKING

from exengine.kernel.data_storage_base import CoordinatesLike
from exengine.kernel.frames.ledger import Ledger
from exengine.kernel.source_plan import SourcePlan

if TYPE_CHECKING:
    import useq

_TOLERANCE = 0.1  # as a fraction of the interval
_LEAST_TOLERANCE_S = 0.1
_MOST_TIME_POINTS = 1_000_000


class Schedule:
    """Records each time point that starts later than planned.

    A time point is late if its first frame arrives more than a tenth of the interval, and more than 0.1 s,
    after its planned time. A frame that arrives earlier than planned shows that the source has restarted its
    clock, for example for a new position or when a run continues a dataset. Later frames are then compared
    with that frame.

    Times are measured with a monotonic clock that also runs while the computer sleeps.

    Parameters
    ----------
    sequence : useq.MDASequence
    ledger : Ledger
        Receives the late frames.
    """

    def __init__(self, sequence: "useq.MDASequence", ledger: Ledger) -> None:
        self._ledger = ledger
        self._planned_s: list[float] = []
        if sequence.time_plan is not None:
            planned = itertools.islice(iter(sequence.time_plan), _MOST_TIME_POINTS)
            self._planned_s = [float(getattr(at, "total_seconds", lambda at=at: at)()) for at in planned]
        self._last: int | None = None
        self._begin_s = 0.0

    def see(self, coordinates: CoordinatesLike, point: int | None = None) -> None:
        """Record the arrival of a frame.

        Parameters
        ----------
        coordinates : DataCoordinates or mapping
        point : int, optional
            The number of the frame's time point; by default, its position on the axis ``time``.
        """
        if not self._planned_s:
            return
        at: object = coordinates.get("time") if point is None else point
        if type(at) is not int or at == self._last or not 0 <= at < len(self._planned_s):
            return
        now_s, planned_s = now_awake_or_asleep_s(), self._planned_s[at]
        delay_s = now_s - self._begin_s - planned_s
        interval_s = planned_s - self._planned_s[at - 1] if at else 0.0
        tolerance_s = max(_LEAST_TOLERANCE_S, _TOLERANCE * interval_s)
        if self._last is None or at < self._last or delay_s < -tolerance_s:
            self._begin_s = now_s - planned_s  # each position may have its own time-lapse
        elif interval_s > 0 and delay_s > tolerance_s:
            self._ledger.name_late(dict(coordinates), delay_s)
        self._last = at


def now_awake_or_asleep_s() -> float:
    """Return the time in seconds on a monotonic clock that also runs while the computer sleeps."""
    # Python's monotonic clock stops during sleep on Linux and macOS, but not on Windows.
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):
        if hasattr(time, name):
            return time.clock_gettime(getattr(time, name))
    return time.monotonic()


def plan_to_store(plan: SourcePlan, *, is_processed: bool) -> SourcePlan:
    """Return the plan of the stored frames. Most fields are unknown if there is a process function."""
    if not is_processed:
        return plan
    return dataclasses.replace(
        plan,
        frames=None if plan.frames else plan.frames,
        shape=None,
        dtype=None,
        layouts=(),
        pixel_bytes=None,
        coordinates=None,
        axes=None,
    )


def remaining_plan(plan: SourcePlan, existing: int) -> SourcePlan:
    """Return the plan without the frames that already exist. The average frame size stays the same."""
    if not plan.frames or not existing:
        return plan
    left = max(0, plan.frames - existing)
    pixel_bytes = None if plan.pixel_bytes is None else plan.pixel_bytes * left // plan.frames
    return dataclasses.replace(plan, frames=left, pixel_bytes=pixel_bytes)


def skipped_frames(plan: SourcePlan) -> int:
    """Count the combinations of planned positions for which the plan has no frame.

    Parameters
    ----------
    plan : SourcePlan
        A plan with unknown axes is assumed to skip no frames.
    """
    if plan.frames is None or plan.axes is None or any(axis.length is None for axis in plan.axes):
        return 0
    return max(0, math.prod(axis.length or 1 for axis in plan.axes) - plan.frames)
