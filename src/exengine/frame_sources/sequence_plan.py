"""Derives fields of a plan from a useq sequence: distances, intervals, channels, positions and the plate."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from exengine.frame_sources.sequence_events import CompleteEvents, is_plate, sub_sequences
from exengine.kernel.source_plan import PlannedAxis, PlannedChannel, PlannedPlate, PlannedPosition

if TYPE_CHECKING:
    import useq

_SAME = 1e-6
"""Relative difference up to which two distances count as equal."""


def plan_fields(complete: CompleteEvents, axes: Sequence[PlannedAxis]) -> dict[str, Any]:
    """Return the fields of a :class:`~exengine.SourcePlan` that follow from a sequence and its axes.

    Parameters
    ----------
    complete : CompleteEvents
        The events of the sequence.
    axes : sequence of PlannedAxis
        The axes of its frames, as :class:`~exengine.base_classes.AxisCollector` derives them.

    Returns
    -------
    dict
        ``axes``, ``z_step_um``, ``interval_s``, ``channels``, ``stage_positions`` and ``plate``.

    Examples
    --------
    >>> import useq
    >>> sequence = useq.MDASequence(channels=["DAPI"], z_plan={"range": 4, "step": 2})
    >>> axes = (PlannedAxis("channel", ("DAPI",)), PlannedAxis("z", (0, 1, 2)))
    >>> fields = plan_fields(CompleteEvents(sequence), axes)
    >>> fields["z_step_um"], fields["channels"]
    (2.0, (PlannedChannel(name='DAPI', color=None),))
    """
    sequence = complete.sequence
    positions = {axis.name: axis.positions or () for axis in axes}
    stage = {place.name: place for place in _stage_positions(complete)}
    return {
        "axes": tuple(axes),
        "z_step_um": _z_step_um(sequence) if "z" in positions else None,
        "interval_s": _interval_s(sequence) if "time" in positions else None,
        "channels": tuple(PlannedChannel(str(name)) for name in positions.get("channel", ())),
        "stage_positions": tuple(
            stage.get(name) or PlannedPosition(name=name) for name in positions.get("position", ())
        ),
        "plate": _plate(sequence),
    }


def _z_step_um(sequence: "useq.MDASequence") -> float | None:
    """Return the distance between planes; None if the distances within a plan or between plans differ."""
    steps: list[float] = []
    for part in (sequence, *(own for _, own in sub_sequences(sequence))):
        if part.z_plan is None:
            continue
        planes = list(part.z_plan)
        found = [abs(after - before) for before, after in itertools.pairwise(planes)]
        steps += found or [step for step in [getattr(part.z_plan, "step", 0)] if step]
    return steps[0] if steps and steps[0] > 0 and _are_equal(steps) else None


def _are_equal(values: list[float]) -> bool:
    return all(math.isclose(value, values[0], rel_tol=_SAME) for value in values)


def _interval_s(sequence: "useq.MDASequence") -> float | None:
    """Return the smallest interval in the time plan; None if no phase has an interval."""
    plan: Any = sequence.time_plan
    intervals = [phase.interval.total_seconds() for phase in getattr(plan, "phases", (plan,)) if phase]
    return min((interval for interval in intervals if interval > 0), default=None)


def _stage_positions(complete: CompleteEvents) -> Iterator[PlannedPosition]:
    sequence = complete.sequence
    wells = list(_wells(sequence))
    for number, position in enumerate(sequence.stage_positions):
        row, column, field = wells[number] if wells else (None, None, None)
        yield PlannedPosition(
            name=position.name or number,
            x_um=position.x,
            y_um=position.y,
            z_um=_first_plane_um(complete, position),
            row=row,
            column=column,
            field=field,
        )


def _first_plane_um(complete: CompleteEvents, position: Any) -> float | None:
    """Return the absolute height of the first plane at a position; None if no height is specified."""
    own = position.sequence
    plan = (own.z_plan if own is not None else None) or complete.sequence.z_plan
    stated = complete.stated_z(position)
    first = next(iter(plan), 0.0) if plan is not None else 0.0
    if plan is not None and not plan.is_relative:
        return float(first)
    return None if stated is None else stated + float(first)


def _wells(sequence: "useq.MDASequence") -> "Iterator[tuple[str, str, int]]":
    """Yield the row, column and field of each position on a plate."""
    plan: Any = sequence.stage_positions
    if is_plate(sequence):
        rows, columns = _names(plan.plate)
        for row, column in plan.selected_well_indices:
            for field in range(plan.num_points_per_well):
                yield rows[int(row)], columns[int(column)], field


def _plate(sequence: "useq.MDASequence") -> PlannedPlate | None:
    if not is_plate(sequence):
        return None
    plate: Any = sequence.stage_positions.plate  # type: ignore[union-attr]
    rows, columns = _names(plate)
    return PlannedPlate(name=plate.name or "plate", rows=rows, columns=columns)


def _names(plate: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a plate's rows and columns, such as ``A`` and ``1``."""
    rows = tuple(str(name).rstrip("0123456789") for name in plate.all_well_names[:, 0])
    return rows, tuple(str(number + 1) for number in range(plate.columns))
