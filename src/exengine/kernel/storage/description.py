"""Facts about a dataset: its axes, channels, pixel size and missing frames.

Some formats record these facts. Otherwise, the facts are taken from the plan that an acquisition or a
conversion stored with the dataset, or from metadata with the keys that Micro-Manager and ExEngine use.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import ExEngineError, UnsupportedOperationError
from exengine.kernel.source_plan import PlannedChannel, PlannedPlate, PlannedPosition, SourcePlan

CONVERSION = "conversion"
"""The name of the annotation that records the source of a converted dataset."""
PLAN = "plan"
"""The name of the annotation that records facts from the plan of an acquisition."""
UNITS = {"time": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
"""Maps each axis to the unit of the distance between its positions."""
_PIXEL_SIZE_KEYS = ("pixel_size_um", "PixelSizeUm", "PixelSize_um")
_Z_STEP_KEYS = ("z_step_um", "z-step_um")


def plan_of(dataset: DataStorage) -> SourcePlan:
    """Return the known facts about the acquisition of a dataset.

    The facts come from the format, or else from the dataset's annotations and metadata.

    Parameters
    ----------
    dataset : DataStorage
        An open dataset, or a storage that is being written.

    Returns
    -------
    SourcePlan
        The pixel size, the z step, the interval, the channels, the stage positions and the plate. Other
        fields of the plan are unknown.
    """
    plan = dataset.recorded_plan
    metadata = _metadata(dataset)
    note = dataset.annotations.get(CONVERSION)
    converted = note.get("plan") if isinstance(note, dict) else None
    earlier = plan_from_json(converted or dataset.annotations.get(PLAN))
    interval_ms = _number(metadata, ("Interval_ms",))
    return replace(
        plan,
        pixel_size_um=plan.pixel_size_um or earlier.pixel_size_um or _pixel_size_um(metadata),
        z_step_um=plan.z_step_um or earlier.z_step_um or _number(metadata, _Z_STEP_KEYS),
        interval_s=plan.interval_s
        or earlier.interval_s
        or (None if interval_ms is None else interval_ms / 1000),
        channels=_channels(dataset, plan.channels or earlier.channels, metadata),
        stage_positions=plan.stage_positions or earlier.stage_positions,
        plate=plan.plate or earlier.plate,
    )


def _metadata(dataset: DataStorage) -> dict[str, Any]:
    """Return the metadata of the first frame and of the dataset, in one dict."""
    found: dict[str, Any] = {}
    with contextlib.suppress(ExEngineError, StopIteration):
        first = dataset.get_metadata(next(iter(dataset)))
        found.update(first if isinstance(first, dict) else {})
    with contextlib.suppress(UnsupportedOperationError):
        summary = dataset.summary_metadata
        found.update(summary if isinstance(summary, dict) else {})
    return found


def _number(metadata: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    """Return the first positive number that is found under any of the keys."""
    for key in keys:
        value = metadata.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
            return float(value)
    return None


def _pixel_size_um(metadata: Mapping[str, Any]) -> tuple[float, float] | None:
    for key in _PIXEL_SIZE_KEYS:
        value = metadata.get(key)
        each = value if isinstance(value, list) and len(value) == 2 else [value, value]
        y, x = (_number({key: number}, (key,)) for number in each)
        if y is not None and x is not None:
            return y, x
    return None


def _channels(
    dataset: DataStorage, known: tuple[PlannedChannel, ...], metadata: Mapping[str, Any]
) -> tuple[PlannedChannel, ...]:
    """Return the channels in the order of the axis, with their colors where known."""
    colors = {channel.name: channel.color for channel in known}
    axes: Mapping[str, list[int | str]] = {}
    with contextlib.suppress(ExEngineError):
        axes = dataset.axes
    names = metadata.get("ChNames")
    found = []
    for position in axes.get("channel", ()):
        name = str(position)
        if isinstance(position, int) and isinstance(names, list) and 0 <= position < len(names):
            name = str(names[position])
        found.append(PlannedChannel(name, colors.get(name)))
    return tuple(found)


def missing_frames(dataset: DataStorage) -> int | None:
    """Return how many combinations of positions have no frame; None if frames have different axes."""
    try:
        lengths = [len(positions) for positions in dataset.axes.values()]
        count = len(dataset)
        first = next(iter(dataset), None)
    except ExEngineError:
        return None
    if first is None or len(first) != len(lengths) or not dataset.capabilities.same_axes:
        if first is None or any(len(each) != len(lengths) for each in dataset):
            return None
    return math.prod(lengths) - count


# -- as JSON -------------------------------------------------------------------------------------


def plan_to_json(plan: SourcePlan) -> dict[str, Any]:
    """Return the known facts from :func:`plan_of` as a JSON object."""
    facts: dict[str, Any] = {
        "pixel_size_um": None if plan.pixel_size_um is None else list(plan.pixel_size_um),
        "z_step_um": plan.z_step_um,
        "interval_s": plan.interval_s,
        "channels": [asdict(channel) for channel in plan.channels],
        "stage_positions": [asdict(place) for place in plan.stage_positions],
        "plate": None if plan.plate is None else asdict(plan.plate),
    }
    return {name: value for name, value in facts.items() if value}


def plan_from_json(value: Any) -> SourcePlan:
    """Return a plan that contains the facts from a JSON object; an empty plan if the object is not valid."""
    if not isinstance(value, dict):
        return SourcePlan()
    try:
        size, plate = value.get("pixel_size_um"), value.get("plate")
        return SourcePlan(
            pixel_size_um=None if size is None else (float(size[0]), float(size[1])),
            z_step_um=value.get("z_step_um"),
            interval_s=value.get("interval_s"),
            channels=tuple(PlannedChannel(**each) for each in value.get("channels", ())),
            stage_positions=tuple(PlannedPosition(**each) for each in value.get("stage_positions", ())),
            plate=None
            if plate is None
            else PlannedPlate(name=plate["name"], rows=tuple(plate["rows"]), columns=tuple(plate["columns"])),
        )
    except (TypeError, ValueError, KeyError, IndexError):  # another program may have written the value
        return SourcePlan()
