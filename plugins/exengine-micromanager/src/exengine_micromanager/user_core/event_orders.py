"""The orders of events that are not known in advance, such as those of a generator.

Each event is checked just before it runs, before any of its settings is applied. A setting that an event does
not specify is reset to its value at the start of the run, so no setting carries over from the previous event.
Drives are an exception: an event without a position leaves them where they are.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import useq

from exengine.base_classes import CompleteEvents, sequence_error
from exengine_micromanager.checks import check_channel, check_property
from exengine_micromanager.orders import Order, Orders, Setting
from exengine_micromanager.role_checks import need_device

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus


class EventOrders(Orders):
    """Creates the orders of single events.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    physical : mapping
        The physical cameras of each camera device.
    exposure_ms : float or None
        Exposure time for events without one.
    group : str or None
        Config group for channels that do not specify a group.
    """

    def __init__(
        self,
        core: "CMMCorePlus",
        physical: Mapping[str, tuple[str, ...]],
        exposure_ms: float | None,
        group: str | None,
    ) -> None:
        super().__init__(core, CompleteEvents(useq.MDASequence()), physical, exposure_ms)
        self.source: Iterable[useq.MDAEvent] = ()
        self._group = group
        self._checked: set[tuple[str, ...]] = set()

    focuses = True  # any event may be an autofocus step

    def events(self, *, anchored: bool) -> "Iterator[tuple[useq.MDAEvent, Order]]":
        """Fill in the exposure time of each event of ``source``, and yield the event and its order."""
        for event in self.source:
            yield self.with_exposure(self.grouped(event))

    def order(self, event: "useq.MDAEvent") -> Order:
        """Return the order for an event, after checking that the devices can carry it out.

        Raises
        ------
        SourceError
            If the event requests something that does not exist or is not possible.
        """
        event = self.grouped(event)
        self._check(event)
        for setting in self._stated(event):
            if setting not in self._base:  # no event has changed this setting yet
                self._base[setting] = self.value_of(setting)
        return self._order(event, None, self._base)

    def grouped(self, event: "useq.MDAEvent") -> "useq.MDAEvent":
        """Return the event with the config group of its channel."""
        channel = event.channel
        if channel is None or self._group is None or "group" in channel.model_fields_set:
            return event
        named = channel.model_copy(update={"group": self._group})
        return event.model_copy(update={"channel": named})

    def _stated(self, event: "useq.MDAEvent") -> Iterator[Setting]:
        if event.channel is not None:
            yield from self.preset(event.channel.group, event.channel.config)
        for device, prop, _ in event.properties or ():
            yield device, prop

    def _check(self, event: "useq.MDAEvent") -> None:
        core, action = self._core, event.action
        if action is not None and action.type not in ("acquire_image", "hardware_autofocus"):
            raise sequence_error(
                "events", f"an event has the action {action.type!r}, which this engine cannot carry out"
            )
        if event.roi is not None:
            raise sequence_error(
                "events",
                "an event has a region of interest, which would change the frames; set it before the run",
            )
        if event.channel is not None:
            self._once(check_channel, event.channel.group, event.channel.config)
        for device, prop, value in event.properties or ():
            check_property(core, device, prop, value, "an event")
        need_device(core, {}, event.z_pos is not None, "Focus", "focus drive", "a z position")
        moves = event.x_pos is not None or event.y_pos is not None
        need_device(core, {}, moves, "XYStage", "XY stage", "an XY position")
        if action is not None and action.type == "hardware_autofocus":
            need_device(core, {}, True, "AutoFocus", "autofocus device", "an autofocus step")

    def _once(self, check: Any, *arguments: str) -> None:
        if arguments not in self._checked:
            check(self._core, *arguments)
            self._checked.add(arguments)
