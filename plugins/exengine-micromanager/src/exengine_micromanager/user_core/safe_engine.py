"""The acquisition engine of this package for a user's own core.

This module imports pymmcore-plus, so import it only inside functions.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import useq
from pymmcore_plus import DeviceType
from pymmcore_plus.mda._generator_sequence import GeneratorMDASequence

from exengine.base_classes import CompleteEvents
from exengine.errors import OptionError
from exengine_micromanager.careful_core import CoreView
from exengine_micromanager.checks import set_exposure
from exengine_micromanager.engine import CarefulEngine
from exengine_micromanager.orders import Order, Orders
from exengine_micromanager.plan_checks import examine_cameras
from exengine_micromanager.prepared import Prepared, group_of, prepare_sequence
from exengine_micromanager.restoring import Before, undisturbed
from exengine_micromanager.user_core.event_orders import EventOrders

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus

_log = logging.getLogger("exengine")


class MicroManagerEngine(CarefulEngine):
    """The engine of the frame source ``micromanager``, to be set on a user's own core.

    Before anything moves, the sequence is checked: each of its fields is either applied or rejected. Every
    event sets the channel, properties, camera, exposure time, position and shutter, so no setting carries
    over from the previous event. If a device fails, the run ends with an error. After a complete run, the
    shutters are restored; after any other run, they are closed. Autoshutter, exposure times, regions of
    interest, the selected devices and the speeds of stages are restored after every run.

    The events of a generator are not known in advance. Each event is checked just before it runs. An event
    without a position leaves the drives where they are.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
        A core with its config loaded. The engine does not keep it alive.
    exposure_ms : float, optional
        Exposure time in milliseconds for events without one. By default, the exposure time at the start of
        the run.
    channel_group : str, optional
        Config group for channels that do not specify a group; see :class:`MicroManagerSource`.

    Attributes
    ----------
    unrestored : tuple of str
        One line for each setting that could not be restored after the last run.

    Examples
    --------
    >>> import useq
    >>> from pymmcore_plus import CMMCorePlus
    >>> core = CMMCorePlus()
    >>> core.loadSystemConfiguration()
    >>> _ = core.mda.set_engine(MicroManagerEngine(core, exposure_ms=5))
    >>> core.mda.run(useq.MDASequence(channels=["DAPI"]))
    >>> core.mda.run(useq.MDASequence(channels=["DAPY"]))
    Traceback (most recent call last):
        ...
    exengine.kernel.errors.SourceError: group 'Channel' has no channel 'DAPY'...
    """

    def __init__(
        self, core: "CMMCorePlus", *, exposure_ms: float | None = None, channel_group: str | None = None
    ) -> None:
        if exposure_ms is not None and not 0 < exposure_ms < float("inf"):
            raise OptionError(f"exposure_ms must be a time in milliseconds above 0, got {exposure_ms!r}")
        self._view = CoreView(core)
        self._exposure_ms = exposure_ms
        self._channel_group = channel_group
        self._before: Before | None = None
        self._checked_times: set[tuple[str, float]] = set()
        self.unrestored: tuple[str, ...] = ()
        orders = Orders(self._view, CompleteEvents(useq.MDASequence()), {}, exposure_ms)  # type: ignore[arg-type]
        super().__init__(self._view, orders, self._is_stopped)

    @property
    def mmcore(self) -> "CMMCorePlus":
        """The user's core, in a wrapper that records the first failure for this engine."""
        return self._view  # type: ignore[return-value]  # it has all attributes of the core

    def _is_stopped(self) -> bool:
        status = self.mmcore.mda.status
        return status.cancel_requested or str(status.phase) == "finishing"

    # -- the sequence --------------------------------------------------------------------------------

    def prepare(self, sequence: "useq.MDASequence") -> Prepared:
        """Check that a sequence can be run, and plan its frames. Nothing is moved.

        Parameters
        ----------
        sequence : useq.MDASequence
            The sequence, which is not changed.

        Raises
        ------
        SourceError
            If the sequence requests something that does not exist or is not possible.
        """
        core = self.mmcore
        return prepare_sequence(
            core,
            sequence,
            exposure_ms=self._exposure_ms,
            channel_group=self._channel_group,
            config=core.systemConfigurationFile() or "",
        )

    def setup_sequence(self, sequence: "useq.MDASequence") -> Any:
        """Check the sequence, record the settings to restore, and apply the sequence's setup.

        Returns
        -------
        dict
            The summary metadata of pymmcore-plus.
        """
        core = self.mmcore
        self._before, self.unrestored = None, ()
        if core.isSequenceRunning():  # live mode may be active
            core.stopSequenceAcquisition()
        if isinstance(sequence, GeneratorMDASequence):
            empty = CompleteEvents(useq.MDASequence())
            physical = examine_cameras(core, empty, self._exposure_ms, laid_out=False).physical
            group = group_of(core, self._channel_group)
            self._begin_run(EventOrders(core, physical, self._exposure_ms, group))
            cameras: Iterable[str] = core.getLoadedDevicesOfType(DeviceType.Camera)
        else:
            prepared = self.prepare(sequence)
            self._begin_run(prepared.orders)
            cameras, sequence = prepared.found.cameras(core), prepared.sequence
        self._checked_times.clear()
        self._before = Before(core, cameras)
        super().setup_sequence(sequence)
        return self.get_summary_metadata(mda_sequence=sequence)

    def event_iterator(self, events: "Iterable[useq.MDAEvent]") -> "Iterator[useq.MDAEvent]":
        """Return the events to carry out, merged into bursts where the hardware can run them."""
        if isinstance(self._orders, EventOrders):
            self._orders.source = events
        yield from super().event_iterator(events)

    def teardown_sequence(self, sequence: "useq.MDASequence") -> None:
        """Restore the settings from before the run. The shutters are closed unless the run was complete."""
        before = self._before
        if before is None:
            return
        complete = str(self.mmcore.mda.status.finish_reason) == "completed"
        self.unrestored = undisturbed(lambda: before.restore(complete=complete))
        for problem in self.unrestored:
            _log.error("%s", problem)

    # -- events of a generator -------------------------------------------------------------------------

    def setup_event(self, event: "useq.MDAEvent") -> None:
        """Set the complete state and wait for the devices. Raise an exception if anything fails."""
        super().setup_event(event)
        if event.slm_image is not None:
            self._set_event_slm_image(event)
            self._raise_failure()

    def _set(self, event: "useq.MDAEvent", order: Order) -> None:
        super()._set(event, order)
        if isinstance(self._orders, EventOrders):
            for time_ms in set(order.exposures_ms.items()) - self._checked_times:
                set_exposure(self.mmcore, *time_ms, "an event")
                self._checked_times.add(time_ms)

    def exec_single_event(self, event: "useq.MDAEvent") -> "Iterator[Any]":
        """Take one image with each camera. Raise an exception if a device fails."""
        if event.slm_image is not None:
            self._exec_event_slm_image(event.slm_image)
            self._raise_failure()
        yield from super().exec_single_event(event)
