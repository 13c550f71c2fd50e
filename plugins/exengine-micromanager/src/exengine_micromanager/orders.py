"""The complete state of the devices for each event, independent of the previous event.

An :class:`Order` describes this state: channel, properties, selected devices, camera and exposure times. If
any event of the sequence sets a property, the events that do not specify it use the value that the property
had at the start of the run. This module does not set any devices; engine.py does.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from exengine.base_classes import CompleteEvents, Reference, sub_sequences
from exengine_micromanager.checks import ROLES, role_of

if TYPE_CHECKING:
    import useq
    from pymmcore_plus import CMMCorePlus

Setting = tuple[str, str]
"""A device label and a property name."""

CORE = "Core"


@dataclass(frozen=True)
class Order:
    """The complete state of the devices for one event.

    Attributes
    ----------
    channel : tuple of str or None
        The config group and the preset.
    preset : mapping
        The properties that the preset sets.
    settings : mapping
        Every property that any event of the sequence sets, with its value for this event. The value of
        ``Position`` is a number or, for an XY stage, a pair of numbers.
    camera : str
        The label of the camera device.
    exposures_ms : mapping
        The exposure time of each physical camera that belongs to the camera device.
    """

    channel: tuple[str, str] | None
    preset: Mapping[Setting, str]
    settings: Mapping[Setting, Any]
    camera: str
    exposures_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def burst_key(self) -> tuple[Any, ...]:
        """A key that must be equal for all events of a burst.

        pymmcore-plus makes further checks, but it assumes that a property keeps its value if the next event
        does not specify the property.
        """
        own = sorted(
            (name, repr(value)) for name, value in self.settings.items() if self.preset.get(name) != value
        )
        roles = sorted((name, value) for name, value in self.settings.items() if name[0] == CORE)
        times = sorted(self.exposures_ms.items()) if len(self.exposures_ms) > 1 else None
        return self.camera, repr(own), repr(roles), repr(times)


class Orders:
    """Creates the orders for one sequence.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    complete : CompleteEvents
    physical : mapping
        The physical cameras of each camera device.
    exposure_ms : float or None
        The source's option of the same name.
    """

    def __init__(
        self,
        core: "CMMCorePlus",
        complete: CompleteEvents,
        physical: Mapping[str, tuple[str, ...]],
        exposure_ms: float | None,
    ) -> None:
        self._core = core
        self._complete = complete
        self._physical = physical
        self._exposure_ms = exposure_ms
        self._presets: dict[tuple[str, str], dict[Setting, str]] = {}
        self._touched = set(self.stated_settings())
        self._base: dict[Setting, Any] = {}
        self._base_exposures_ms: dict[str, float] = {}
        self.reference = Reference()
        self.begin()

    @cached_property
    def focuses(self) -> bool:
        """Whether the sequence has autofocus steps."""
        whole = self._complete.sequence
        parts = [whole, *(own for _, own in sub_sequences(whole))]
        return any(part.autofocus_plan is not None for part in parts)

    def begin(self) -> None:
        """Record the current state as the state at the start of the run."""
        core = self._core
        self._camera = role_of(core, "Camera")
        self._base = {name: _value(core, *name) for name in self._touched}
        cameras = {camera for several in self._physical.values() for camera in several}
        self._base_exposures_ms = {}
        for camera in cameras:
            with contextlib.suppress(RuntimeError):
                self._base_exposures_ms[camera] = core.getExposure(camera)
        self.reference = start_position(core)

    def stated_settings(self) -> Iterator[Setting]:
        """Yield each property that the sequence sets through a preset, a channel's camera or a position."""
        whole = self._complete.sequence
        parts = [whole, *(own for _, own in sub_sequences(whole))]
        for part in parts:
            for channel in part.channels:
                yield from self.preset(channel.group, channel.config)
                if channel.camera is not None:
                    yield CORE, "Camera"
        if isinstance(whole.stage_positions, tuple):
            for position in whole.stage_positions:
                for device, prop, _ in position.properties or ():
                    yield device, prop

    def preset(self, group: str, config: str) -> dict[Setting, str]:
        """Return the properties that a preset sets."""
        name = group, config
        if name not in self._presets:
            data = self._core.getConfigData(group, config)
            self._presets[name] = {(device, prop): value for device, prop, value in data}
        return self._presets[name]

    def order(self, event: "useq.MDAEvent") -> Order:
        """Return the order for an event of the sequence."""
        channel = self._complete.in_effect(event).channel
        return self._order(event, None if channel is None else channel.camera, self._base)

    def setup_order(self, setup: "useq.MDAEvent") -> Order:
        """Return the order for the setup. The order changes only the settings that the setup specifies."""
        return self._order(setup, None, {})

    def _order(self, event: "useq.MDAEvent", camera: str | None, base: Mapping[Setting, Any]) -> Order:
        channel = None if event.channel is None else (event.channel.group, event.channel.config)
        preset = {} if channel is None else self.preset(*channel)
        stated: dict[Setting, Any] = dict(preset)
        if camera is not None:
            stated[CORE, "Camera"] = camera
        stated.update({(device, prop): value for device, prop, value in event.properties or ()})
        settings = {**base, **stated}
        used = str(settings.get((CORE, "Camera")) or self._camera)
        exposures: dict[str, float] = {}
        for physical in self._physical.get(used, (used,)):
            exposure = event.exposure or _exposure(stated, physical) or _exposure(stated, used)
            if exposure is None and base is self._base:
                exposure = self._exposure_ms or self._base_exposures_ms.get(physical)
            if exposure:
                exposures[physical] = exposure
        for name in [
            name for name in settings if name[1] == "Exposure" and name[0] in self._base_exposures_ms
        ]:
            del settings[name]
        return Order(channel, preset, settings, used, exposures)

    def events(self, *, anchored: bool) -> "Iterator[tuple[useq.MDAEvent, Order]]":
        """Fill in the exposure time of each event, and yield the event and its order.

        Parameters
        ----------
        anchored : bool
            If True, relative positions start from the position at the start of the run, and autofocus steps
            are included. If False, relative positions start from 0, and autofocus steps are omitted.
        """
        source: Iterable[useq.MDAEvent]
        source = (
            self._complete.events(lambda _: self.reference) if anchored else self._complete.image_events()
        )
        for event in source:
            yield self.with_exposure(event)

    def with_exposure(self, event: "useq.MDAEvent") -> "tuple[useq.MDAEvent, Order]":
        """Fill in the exposure time of an event, and return the event and its order."""
        order = self.order(event)
        exposure = next(iter(order.exposures_ms.values()), None)
        if exposure is not None and event.exposure is None:
            event = event.model_copy(update={"exposure": exposure})
        return event, order

    def value_of(self, setting: Setting) -> Any:
        """Return the current value of a property, of a drive's position or of a device selection."""
        return _value(self._core, *setting)


def _exposure(stated: Mapping[Setting, Any], camera: str) -> float | None:
    value = stated.get((camera, "Exposure"))
    return None if value is None else float(value)


def _value(core: "CMMCorePlus", device: str, prop: str) -> Any:
    if device == CORE and prop in ROLES:
        return role_of(core, prop)
    if prop == "Position":
        from pymmcore_plus import DeviceType

        kind = core.getDeviceType(device)
        if kind == DeviceType.XYStage:
            return tuple(core.getXYPosition(device))
        if kind == DeviceType.Stage:
            return core.getPosition(device)
    return core.getProperty(device, prop)


def start_position(core: "CMMCorePlus") -> Reference:
    """Return the current positions of the selected stages, in micrometers."""
    x = y = z = None
    with contextlib.suppress(RuntimeError):
        x, y = core.getXYPosition() if core.getXYStageDevice() else (None, None)
    with contextlib.suppress(RuntimeError):
        z = core.getZPosition() if core.getFocusDevice() else None
    return Reference(x, y, z)
