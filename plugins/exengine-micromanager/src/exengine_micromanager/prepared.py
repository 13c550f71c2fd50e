"""Prepares a sequence for a run on a core: checks it, plans its frames, and creates an order per event.

Nothing is moved. The frame source and the engine for a user's own core share this module.
"""

import math
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exengine.base_classes import (
    AxisCollector,
    CompleteEvents,
    DataCoordinates,
    SourcePlan,
    check_points,
    check_sequence,
    check_unique,
    plan_fields,
    private_copy,
    set_field_of_view,
)
from exengine_micromanager.metadata import summary_json
from exengine_micromanager.orders import Orders
from exengine_micromanager.plan_checks import (
    CameraFacts,
    Examined,
    Layout,
    check_devices,
    check_field_of_view,
    examine_cameras,
)

if TYPE_CHECKING:
    import useq
    from pymmcore_plus import CMMCorePlus

_USEQ_GROUP = "Channel"  # the group that useq assumes for a channel without a group


@dataclass(frozen=True)
class Prepared:
    """A sequence that can be run.

    Attributes
    ----------
    sequence : useq.MDASequence
        A private copy, in which each channel specifies its group and each grid its field of view.
    complete : CompleteEvents
    found : Examined
        Facts about the cameras.
    orders : Orders
    plan : SourcePlan
    """

    sequence: "useq.MDASequence"
    complete: CompleteEvents
    found: Examined
    orders: Orders
    plan: SourcePlan

    def coordinates(self, event: "useq.MDAEvent", camera: str) -> DataCoordinates:
        """Return the coordinates of the frame that a camera took for an event."""
        coordinates = self.complete.coordinates(event)
        return coordinates.replace(camera=camera) if "cam" in event.index and camera else coordinates

    def skip(self, existing: Container[DataCoordinates]) -> int:
        """Leave out every event for which all frames exist. Return the number of frames that remain."""

        def frames_of(event: "useq.MDAEvent") -> list[DataCoordinates]:
            exposed, order = self.orders.with_exposure(event)
            return list(_coordinates_of(exposed, self.complete, self.found.of(order)))

        def is_taken(event: "useq.MDAEvent") -> bool:
            return all(coordinates in existing for coordinates in frames_of(event))

        self.complete.skips = is_taken
        events = self.complete.image_events()
        return sum(len(frames_of(event)) for event in events if not is_taken(event))


def prepare_sequence(
    core: "CMMCorePlus",
    sequence: "useq.MDASequence",
    *,
    exposure_ms: float | None,
    channel_group: str | None,
    config: str,
) -> Prepared:
    """Check a sequence against the devices, and plan its frames.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
        A core with its config loaded.
    sequence : useq.MDASequence
        The sequence, which is not changed.
    exposure_ms : float or None
        Exposure time for events without one.
    channel_group : str or None
        Config group for channels that do not specify a group.
    config : str
        The name by which the user refers to the config.

    Raises
    ------
    SourceError
        If the sequence requests something that does not exist or is not possible.
    """
    check_sequence(sequence)
    sequence = _grouped(core, private_copy(sequence), channel_group)
    complete = CompleteEvents(sequence)
    check_devices(core, complete)
    found = examine_cameras(core, complete, exposure_ms, laid_out=False)
    if found.field_of_view_um is not None:
        set_field_of_view(sequence, *found.field_of_view_um)
    check_field_of_view(sequence, found.field_of_view_um)
    check_points(sequence)
    complete = CompleteEvents(sequence)
    found = examine_cameras(core, complete, exposure_ms)
    orders = Orders(core, complete, found.physical, exposure_ms)
    check_unique((event for event, _ in orders.events(anchored=False)), complete.repeated)
    summary = summary_json(core, sequence, config=config)
    return Prepared(sequence, complete, found, orders, _plan(complete, found, orders, summary))


def _plan(complete: CompleteEvents, found: Examined, orders: Orders, summary: dict[str, Any]) -> SourcePlan:
    frames, total, layouts, axes = 0, 0, dict[Layout, None](), AxisCollector()
    for event, order in orders.events(anchored=False):
        facts = found.of(order)
        frames += len(facts.channels)
        for coordinates in _coordinates_of(event, complete, facts):
            axes.add(coordinates)
        shape, dtype = facts.layout
        total += len(facts.channels) * math.prod(shape) * np.dtype(dtype).itemsize
        layouts[facts.layout] = None
    pixel_um = found.pixel_size_um
    only = next(iter(layouts)) if len(layouts) == 1 else (None, None)
    return SourcePlan(
        frames=frames,
        shape=only[0],
        dtype=only[1],
        summary=summary,
        layouts=tuple(layouts),
        pixel_bytes=total,
        coordinates=lambda: _coordinates(orders, complete, found),
        pixel_size_um=None if pixel_um is None else (pixel_um, pixel_um),
        **plan_fields(complete, axes.axes()),
    )


def _coordinates(orders: Orders, complete: CompleteEvents, found: Examined) -> Iterator[DataCoordinates]:
    for event, order in orders.events(anchored=False):
        yield from _coordinates_of(event, complete, found.of(order))


def _coordinates_of(
    event: "useq.MDAEvent", complete: CompleteEvents, facts: CameraFacts
) -> Iterator[DataCoordinates]:
    """Yield the coordinates of each frame of one exposure."""
    coordinates = complete.coordinates(event)
    if len(facts.channels) == 1:
        yield coordinates
    else:
        yield from (coordinates.replace(camera=name) for name in facts.channels)


def group_of(core: "CMMCorePlus", channel_group: str | None) -> str | None:
    """Return the config group for channels without a group. None stands for the group that useq assumes."""
    if channel_group is None and _USEQ_GROUP not in core.getAvailableConfigGroups():
        return core.getChannelGroup() or None
    return channel_group


def _grouped(
    core: "CMMCorePlus", sequence: "useq.MDASequence", channel_group: str | None
) -> "useq.MDASequence":
    """Return a copy of the sequence in which each channel specifies its group."""
    group = group_of(core, channel_group)
    return sequence if group is None else _with_group(sequence, group)


def _with_group(sequence: "useq.MDASequence", group: str) -> "useq.MDASequence":
    channels = [
        channel if "group" in channel.model_fields_set else channel.model_copy(update={"group": group})
        for channel in sequence.channels
    ]
    changes: dict[str, Any] = {"channels": channels}
    if isinstance(sequence.stage_positions, tuple):
        changes["stage_positions"] = [
            place if place.sequence is None else place.replace(sequence=_with_group(place.sequence, group))
            for place in sequence.stage_positions
        ]
    return sequence.replace(**{name: value for name, value in changes.items() if value})
