"""Compares an acquisition with its plan: late time points, and frames that the plan leaves out."""

import dataclasses
import itertools
import math
import time
from typing import TYPE_CHECKING

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.frames.ledger import Ledger
from exengine.kernel.source_plan import SourcePlan

if TYPE_CHECKING:
    import useq

_TOLERANCE = 0.1  # as a fraction of the interval
_LEAST_TOLERANCE_S = 0.1
_MOST_TIME_POINTS = 1_000_000


class Schedule:
    """Records the first frame of each time point that is later than planned.

    A time point is late if its first frame arrives more than a tenth of the interval, and more than 0.1 s,
    after its planned time. Times are measured with a monotonic clock.

    Parameters
    ----------
    sequence : useq.MDASequence
    ledger : Ledger
        Receives the frames that are late.
    """

    def __init__(self, sequence: "useq.MDASequence", ledger: Ledger) -> None:
        self._ledger = ledger
        self._planned_s: list[float] = []
        if sequence.time_plan is not None:
            planned = itertools.islice(iter(sequence.time_plan), _MOST_TIME_POINTS)
            self._planned_s = [float(getattr(at, "total_seconds", lambda at=at: at)()) for at in planned]
        self._last: int | str | None = None
        self._begin_s = 0.0

    def see(self, coordinates: DataCoordinates) -> None:
        """Compare the arrival time of a frame with the plan."""
        point = coordinates.get("time") if self._planned_s else None
        if type(point) is not int or point == self._last:
            return
        now_s = time.monotonic()
        if self._last is None or point == 0:  # each position may have its own time-lapse
            self._begin_s = now_s - (self._planned_s[point] if point < len(self._planned_s) else 0.0)
        self._last = point
        if 0 < point < len(self._planned_s):
            delay_s = now_s - self._begin_s - self._planned_s[point]
            interval_s = self._planned_s[point] - self._planned_s[point - 1]
            if interval_s > 0 and delay_s > max(_LEAST_TOLERANCE_S, _TOLERANCE * interval_s):
                self._ledger.name_late(coordinates.__dict__, delay_s)


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


def skipped_frames(plan: SourcePlan) -> int:
    """Return the number of combinations of planned positions for which the plan has no frame.

    Parameters
    ----------
    plan : SourcePlan
        A plan with unknown axes is assumed to skip no frame.
    """
    if plan.frames is None or plan.axes is None or any(axis.length is None for axis in plan.axes):
        return 0
    return max(0, math.prod(axis.length or 1 for axis in plan.axes) - plan.frames)
