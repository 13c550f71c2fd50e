"""Device-independent rules for useq sequences (promises S1 and S3 of frame sources).

useq accepts input that has no effect or an unexpected effect, such as a plan without values, an axis that is
not in ``axis_order``, or a field that useq never reads. This module rejects such input, and its messages
explain the fix. Every rule has a name, which is listed in a table on each source's page. Rules about devices
belong to the individual sources.
"""

import datetime
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from exengine.frame_sources.sequence import axis_name
from exengine.frame_sources.sequence_events import plans_of, point_plans, sub_sequences, used_axes
from exengine.kernel.errors import SourceError

if TYPE_CHECKING:
    import useq

SEQUENCE_RULES = {
    "numbers": "Every number is finite.",
    "values": "Every plan has values; its limits are not swapped, and its step is above 0.",
    "axis order": "axis_order contains the axis of every plan.",
    "axes": "keep_shutter_open_across and autofocus_plan.axes contain only axes of the sequence.",
    "times": "Intervals and durations are not negative, and determine the number of time points.",
    "points": "A single point specifies only x and y as a grid_plan, and only x, y and z in a well.",
    "own sequences": "A position's own sequence has an axis or an autofocus plan, but no setup.",
    "channels": "do_stack and acquire_every are set in the same sequence as the plan to which they apply.",
    "setup": "setup specifies only channel, exposure, x, y, z, properties, roi, slm_image and metadata.",
    "frames": "The sequence has at least one frame.",
    "coordinates": "No two frames have the same coordinates.",
}

_EXAMPLE = {
    "z_plan": "write it like {range: 4, step: 1} or {bottom: 0, top: 10, step: 1}",
    "time_plan": "write it like {interval: 0.5, loops: 10}",
    "stage_positions": "write it like [{x: 0, y: 0, name: A1}]; a plate needs selected_wells",
    "channels": "write it like [DAPI, FITC]",
    "grid_plan": "write it like {rows: 2, columns: 2}",
}
_SETUP_FIELDS = {
    "channel", "exposure", "x_pos", "y_pos", "z_pos", "properties", "roi", "slm_image", "metadata", "action",
}  # fmt: skip


def sequence_error(rule: str, message: str) -> SourceError:
    """Return the error for a sequence that violates a rule."""
    error = SourceError(message)
    error.rule = rule
    return error


def check_sequence(sequence: "useq.MDASequence") -> None:
    """Reject a sequence that violates one of the :data:`SEQUENCE_RULES`.

    Parameters
    ----------
    sequence : useq.MDASequence
        The user's sequence, which is not changed.

    Raises
    ------
    SourceError
        If a rule is violated. The error's ``rule`` attribute is the name of the rule. The message states the
        field, its value and the fix.
    """
    _check_numbers(sequence)
    _check_part(sequence, "")
    _check_setup(sequence.setup)
    for position, own in sub_sequences(sequence):
        _check_own(sequence, position, own)
    axes = used_axes(sequence)
    if not axes:
        raise sequence_error(
            "frames",
            "the sequence has no frames, because it has no channels, positions, time points or planes; add "
            "an axis, such as channels: [DAPI] or time_plan: {interval: 0, loops: 1}",
        )
    plans = [
        ("", sequence),
        *((f"stage_positions[{_named(at)}].sequence.", own) for at, own in sub_sequences(sequence)),
    ]
    for place, part in plans:
        if part.autofocus_plan is not None:
            _check_axes(f"{place}autofocus_plan.axes", part.autofocus_plan.axes, axes)
    _check_axes("keep_shutter_open_across", sequence.keep_shutter_open_across, axes)


# -- numbers ----------------------------------------------------------------------------------------


def _check_numbers(sequence: "useq.MDASequence") -> None:
    for path, value in _numbers(sequence, ""):
        raise sequence_error(
            "numbers",
            f"sequence.{path} is {value}, but must be finite; write a finite number, or leave the field out",
        )


def _numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    """Yield the path and the value of each infinite or NaN float in a sequence."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path, value
        return
    fields = getattr(type(value), "model_fields", None)
    if fields is not None:
        for name in fields:
            if name not in ("metadata", "slm_image"):
                yield from _numbers(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _numbers(item, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _numbers(item, f"{path}[{number}]")


# -- axes and their plans -----------------------------------------------------------------------------


def _check_part(part: "useq.MDASequence", place: str) -> None:
    order = {str.__str__(axis) for axis in part.axis_order}
    for axis, (name, plan) in plans_of(part).items():
        if axis not in order:
            raise sequence_error(
                "axis order",
                f"sequence.{place}{name} would have no effect, because axis_order "
                f"{''.join(part.axis_order)!r} does not contain its axis {axis!r}; add {axis!r} to "
                f"axis_order, or leave {name} out",
            )
        if name == "time_plan":
            _check_times(plan, f"sequence.{place}time_plan")
        elif name == "z_plan":
            _check_planes(plan, f"sequence.{place}z_plan")
        elif name == "grid_plan":
            _check_point(plan, f"sequence.{place}grid_plan", ("x", "y"))
        elif name == "stage_positions" and not isinstance(plan, tuple):
            _check_point(
                plan.well_points_plan, f"sequence.{place}stage_positions.well_points_plan", ("x", "y", "z")
            )
        # A well plate without selected wells has length 0, but iterates over all wells.
        if name in ("stage_positions", "channels") and not len(plan):
            raise sequence_error(
                "values", f"sequence.{place}{name} is {_text(plan)}, which has no values; {_EXAMPLE[name]}"
            )


def _check_planes(plan: Any, place: str) -> None:
    step = getattr(plan, "step", None)
    size = getattr(plan, "range", None)
    if step is not None and step <= 0 and not (step == 0 and size == 0):
        raise sequence_error(
            "values", f"{place}: the step is {step:g} um; it must be above 0 (use go_up: false to go down)"
        )
    for name in ("range", "above", "below"):
        if getattr(plan, name, 0) < 0:
            raise sequence_error(
                "values", f"{place}: {name} is {getattr(plan, name):g} um; it must not be negative"
            )
    if not list(plan):
        where = ""
        if hasattr(plan, "top"):
            where = (
                f", because bottom {plan.bottom:g} is above top {plan.top:g}; swap them (use go_up: false "
                "to go down)"
            )
        raise sequence_error("values", f"{place} has no positions{where or '; ' + _EXAMPLE['z_plan']}")


def _check_times(plan: Any, place: str) -> None:
    phases = getattr(plan, "phases", None)
    if phases is not None:
        if not phases:
            raise sequence_error("values", f"{place}.phases is empty; {_EXAMPLE['time_plan']}")
        _check_priority(plan, place)
        for number, phase in enumerate(phases):
            _check_times(phase, f"{place}.phases[{number}]")
        return
    _check_priority(plan, place)
    stated = type(plan).model_fields
    zero = datetime.timedelta(0)
    for name in ("interval", "duration"):
        if name in stated and getattr(plan, name) < zero:
            seconds = getattr(plan, name).total_seconds()
            raise sequence_error("times", f"{place}: the {name} is {seconds:g} s; it must not be negative")
    if "interval" in stated and "duration" in stated and plan.interval == zero:
        raise sequence_error(
            "times",
            f"{place}: an interval of 0 s with a duration does not determine the number of time points; "
            "write interval and loops, such as {interval: 0, loops: 10}",
        )
    if "duration" in stated and "loops" in stated and plan.loops == 1:
        raise sequence_error(
            "times", f"{place}: a single loop cannot have a duration; write {{interval: 0, loops: 1}}"
        )


def _check_priority(plan: Any, place: str) -> None:
    if plan.prioritize_duration and "prioritize_duration" in plan.model_fields_set:
        raise sequence_error(
            "times",
            f"{place}: prioritize_duration is not supported, because every time point is acquired, even if "
            "late; leave out prioritize_duration",
        )


def _check_point(plan: Any, place: str, used: tuple[str, ...]) -> None:
    if hasattr(plan, "num_points") or hasattr(plan, "overlap"):
        return  # a plan with many points
    used = (*used, "name", "fov_width", "fov_height", "grid_row", "grid_col", "plate_row", "plate_col")
    unused = sorted(name for name in plan.model_fields_set - set(used) if getattr(plan, name) is not None)
    if unused:
        raise sequence_error(
            "points",
            f"{place}: {' and '.join(unused)} of a single point would have no effect; leave out "
            f"{' and '.join(unused)}, or write a list of stage_positions instead",
        )


def _check_axes(place: str, named: "tuple[str, ...]", axes: set[str]) -> None:
    for axis in named:
        if axis not in axes:
            known = ", ".join(f"{key!r} ({axis_name(key)})" for key in sorted(axes))
            raise sequence_error(
                "axes",
                f"sequence.{place} contains the axis {axis!r}, which the sequence does not have; the "
                f"axes of the sequence are {known}",
            )


def check_points(sequence: "useq.MDASequence") -> None:
    """Reject a grid or a plan of random points that yields fewer points than requested.

    Raises
    ------
    SourceError
        If a plan yields too few points, or if its overlap or field of view is not valid.
    """
    for plan in point_plans(sequence):
        overlap = getattr(plan, "overlap", (0.0, 0.0))
        if max(overlap) >= 100:
            raise sequence_error(
                "values",
                f"{type(plan).__name__}: an overlap of {max(overlap):g} % leaves no distance between points; "
                "the overlap must be below 100 %",
            )
        for name in ("fov_width", "fov_height"):
            size = getattr(plan, name)
            if size is not None and size <= 0:
                raise sequence_error(
                    "values", f"{type(plan).__name__}: {name} is {size:g} um; it must be above 0"
                )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # too few random points are an error below
            points = len(list(plan))
        wanted = getattr(plan, "num_points", None)
        if not points or (wanted is not None and points < wanted):
            raise sequence_error(
                "values",
                f"{type(plan).__name__} yields {points} of the requested {f'{wanted} ' if wanted else ''}"
                "points; make its area larger, or request fewer points",
            )


# -- parts of parts -------------------------------------------------------------------------------------


def _check_own(whole: "useq.MDASequence", position: Any, own: "useq.MDASequence") -> None:
    place = f"stage_positions[{_named(position)}].sequence"
    if own.setup is not None:
        raise sequence_error(
            "own sequences",
            f"sequence.{place}.setup would have no effect; write setup for the whole sequence, or "
            "properties for the position",
        )
    if own.stage_positions:
        raise sequence_error(
            "own sequences",
            f"sequence.{place}.stage_positions is not allowed, because a position cannot have positions "
            "of its own",
        )
    if not plans_of(own) and own.autofocus_plan is None:
        raise sequence_error(
            "own sequences", f"sequence.{place} has neither an axis nor an autofocus_plan; leave it out"
        )
    _check_part(own, f"{place}.")
    if own.channels:
        return
    for channel in whole.channels:
        for name, stated, axis in (
            ("do_stack: false", not channel.do_stack, "z"),
            ("acquire_every", channel.acquire_every > 1, "t"),
        ):
            if stated and axis in plans_of(own) and axis in plans_of(whole):
                raise sequence_error(
                    "channels",
                    f"channel {channel.config!r} sets {name} for the sequence, but {_named(position)} has "
                    f"its own {plans_of(own)[axis][0]}; write the channels in the position's sequence as "
                    "well",
                )


def _check_setup(setup: "useq.MDAEvent | None") -> None:
    if setup is None:
        return
    unused = sorted(
        name
        for name in setup.model_fields_set - _SETUP_FIELDS
        if getattr(setup, name) not in (None, False) and getattr(setup, name) != {}
    )
    if unused:
        raise sequence_error(
            "setup",
            f"sequence.setup: {' and '.join(unused)} would have no effect before the first event; "
            f"leave out {' and '.join(unused)}",
        )
    action: Any = setup.action
    if action.type != "custom" or action.name != "setup" or action.data:
        raise sequence_error(
            "setup",
            f"sequence.setup.action is {action!r:.100}, which is not supported; remove it",
        )


def _named(position: Any) -> str:
    if position.name:
        return f"position {position.name!r}"
    return f"the position at x={position.x}, y={position.y}, z={position.z}"


def _text(plan: Any) -> str:
    return f"{plan!r:.100}"
