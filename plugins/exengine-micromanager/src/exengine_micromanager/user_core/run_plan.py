"""Plans the frames of a run on a user's core, for any engine.

The plan contains only facts that hold for every engine. If an event may change the layout of the frames, the
plan does not specify a layout. The plan for a generator specifies neither the events nor the layout.
"""

import dataclasses
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Any

from exengine import SourcePlan
from exengine.base_classes import (
    AxisCollector,
    CompleteEvents,
    DataCoordinates,
    check_unique,
    plan_fields,
    point_plans,
    private_copy,
    set_field_of_view,
    sub_sequences,
)
from exengine_micromanager.metadata import plain, summary_json
from exengine_micromanager.plan_checks import camera_channels, camera_settings, image_layout
from exengine_micromanager.user_core.frame_coordinates import FrameCoordinates

if TYPE_CHECKING:
    import useq
    from pymmcore_plus import CMMCorePlus

_SELECTED_CAMERA = ("Core", "Camera")


def plan_of_run(engine: Any, events: Any, *, converted: bool = False) -> tuple[SourcePlan, Container[str]]:
    """Return the plan of a run, and the channels that its sequence contains more than once.

    Parameters
    ----------
    engine : pymmcore_plus.mda.PMDAEngine
        The engine of the run. If it can ``prepare`` sequences, its own plan is returned.
    events : useq.MDASequence or iterable of useq.MDAEvent
        The events of the run, which are not changed.
    converted : bool
        Whether the user's own function derives the coordinates. If so, the plan does not contain them.

    Raises
    ------
    SourceError
        If two frames of a sequence would have the same coordinates, or if the engine rejects the sequence.
    """
    import useq

    core: CMMCorePlus | None = getattr(engine, "mmcore", None)
    if not isinstance(events, useq.MDASequence):
        return SourcePlan(summary=_summary(core, None)), ()
    prepare = getattr(engine, "prepare", None)
    if callable(prepare):
        prepared = prepare(events)
        return _without_places(prepared.plan) if converted else prepared.plan, prepared.complete.repeated
    sequence = private_copy(events)
    pixel_um = None if core is None else core.getPixelSizeUm() or None
    if core is not None and pixel_um is not None:
        _set_field_of_view(sequence, core, pixel_um)
    complete = CompleteEvents(sequence)
    images = [event for event in private_copy(sequence) if _is_image(event)]
    if not converted:
        check_unique(images, complete.repeated)
    summary = _summary(core, events)
    changes = _changed_settings(core, complete) if core is not None else set()
    # Camera settings may change the size of a pixel and therefore the number of tiles in a grid.
    if core is None or _SELECTED_CAMERA in changes or (changes and any(point_plans(sequence))):
        return SourcePlan(summary=summary), complete.repeated
    cameras = camera_channels(core, core.getCameraDevice())
    coordinates = FrameCoordinates(complete.repeated)

    def planned() -> Iterator[DataCoordinates]:
        for number, event in enumerate(images):
            yield from coordinates.expected(event, cameras, number)

    axes = AxisCollector()
    for where in planned():
        axes.add(where)
    shape, dtype = (None, None) if changes else image_layout(core)
    if changes:
        pixel_um = None
    plan = SourcePlan(
        frames=len(images) * len(cameras),
        shape=shape,
        dtype=dtype,
        summary=summary,
        coordinates=planned,
        pixel_size_um=None if pixel_um is None else (pixel_um, pixel_um),
        **plan_fields(complete, axes.axes()),
    )
    return _without_places(plan) if converted else plan, complete.repeated


def _without_places(plan: SourcePlan) -> SourcePlan:
    """Return the plan without the coordinates of the frames."""
    return dataclasses.replace(
        plan, coordinates=None, axes=None, channels=(), stage_positions=(), plate=None, z_step_um=None
    )


def _is_image(event: "useq.MDAEvent") -> bool:
    return event.action is None or event.action.type == "acquire_image"


def _set_field_of_view(sequence: "useq.MDASequence", core: "CMMCorePlus", pixel_um: float) -> None:
    """Set the field of view of each grid, replacing any that the grid specifies, as pymmcore-plus does."""
    for part in (sequence, *(own for _, own in sub_sequences(sequence))):
        grid: Any = part.grid_plan
        if grid is not None:
            grid.fov_width = grid.fov_height = None
    *_, width, height = core.getROI()
    set_field_of_view(sequence, width * pixel_um, height * pixel_um)


def _changed_settings(core: "CMMCorePlus", complete: CompleteEvents) -> set[tuple[str, str]]:
    """Return the settings in a sequence that may change the number of frames per event, or their layout."""
    from pymmcore_plus import DeviceType

    sequence, setup = complete.sequence, complete.sequence.setup
    stated: dict[tuple[str, str], Any] = {}
    channels = [channel for part in _parts(sequence) for channel in part.channels]
    groups = [(channel.group, channel.config) for channel in channels]
    if setup is not None:
        if setup.channel is not None:
            groups.append((setup.channel.group, setup.channel.config))
        stated.update({(device, prop): value for device, prop, value in setup.properties or ()})
    for group, config in groups:
        try:
            data = core.getConfigData(group, config)
        except (RuntimeError, ValueError):
            continue  # the engine reports that the preset does not exist
        stated.update({(device, prop): value for device, prop, value in data})
    for position in sequence.stage_positions:
        stated.update({(device, prop): value for device, prop, value in position.properties or ()})
    cameras = core.getLoadedDevicesOfType(DeviceType.Camera)
    changes = {setting for setting, _ in camera_settings(stated, cameras)}
    if setup is not None and setup.roi is not None:
        changes.add((core.getCameraDevice(), "roi"))
    if _SELECTED_CAMERA in stated or any(channel.camera is not None for channel in channels):
        changes.add(_SELECTED_CAMERA)
    return changes


def _parts(sequence: "useq.MDASequence") -> "list[useq.MDASequence]":
    return [sequence, *(own for _, own in sub_sequences(sequence))]


def _summary(core: "CMMCorePlus | None", sequence: "useq.MDASequence | None") -> dict[str, Any]:
    if core is None:
        return {"source": "pymmcore-plus", "sequence": plain(sequence)}
    return summary_json(core, sequence, config=core.systemConfigurationFile() or "")
