"""The acquisition engine: the pymmcore-plus engine, with complete events and without silent failures.

The pymmcore-plus engine applies only the fields that an event specifies. Everything else keeps the state that
the previous event left behind. If the engine cannot set a channel, move a stage or expose a camera, it logs a
warning and continues. In this subclass, every event sets the channel, properties, camera, exposure times,
position and shutter (see orders.py), and every failure raises an exception before the camera takes the frame.
A separate loop reads hardware-triggered bursts, because the original loop

- treats the time that the receiver spends on a frame as silence from the camera, and gives up after 5 s;
- gives up after 20 s, even if the exposure takes longer;
- does not notice a cancellation while it waits for the camera;
- assigns frames to events in order of arrival, even if the camera reports that it skipped a frame.

pymmcore-plus documents the overridden methods as extension points for subclasses. This module imports
pymmcore-plus, so import it only inside functions.
"""

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pymmcore_plus import DeviceType
from pymmcore_plus.core._sequencing import SequencedEvent
from pymmcore_plus.mda import MDAEngine

from exengine.errors import SourceError
from exengine_micromanager.burst_tags import camera_number, next_number
from exengine_micromanager.careful_core import CarefulCore, CoreView
from exengine_micromanager.checks import ROLES, role_of, set_role
from exengine_micromanager.orders import CORE, Order, Orders

if TYPE_CHECKING:
    import useq

_NEXT_FRAME_S = 5.0
_FIRST_FRAME_S = 20.0
_EXPOSURES = 5.0
_LONGEST_STEP_S = 1.0
_POLL_S = 0.001  # the core sends no notification when a frame arrives

__all__ = ["CarefulCore", "CarefulEngine"]

_UNKNOWN = object()


class CarefulEngine(MDAEngine):
    """An engine that sets the complete state for each event, and raises an exception if that fails.

    Parameters
    ----------
    core : CarefulCore or CoreView
    orders : Orders
        Provides the complete state for each event.
    stopped : callable
        Returns whether the run was cancelled or has failed.
    """

    def __init__(self, core: CarefulCore | CoreView, orders: Orders, stopped: Callable[[], bool]) -> None:
        # After every run, the source itself restores the settings. Positions are not restored.
        super().__init__(core, restore_initial_state=False)  # type: ignore[arg-type]  # a view is one as well
        self._careful_core = core
        self._stopped = stopped
        self._begin_run(orders)

    def _begin_run(self, orders: Orders) -> None:
        """Reset all state that an earlier run has left behind."""
        self._careful_core.failure = None
        self._orders = orders
        self._applied: dict[tuple[str, str], Any] = {}
        self._channel: tuple[str, str] | None = None
        self._exposures_ms: dict[str, float] = {}
        self._held_open = ""  # the shutter that is held open between events
        self._missed_focus: set[int | None] = set()

    # -- the sequence --------------------------------------------------------------------------------

    def setup_sequence(self, sequence: "useq.MDASequence") -> None:
        """Apply the sequence's setup, then record the result as the state at the start of the run."""
        core = self.mmcore
        self._z_correction.clear()
        core._last_config = ("", "")
        core._last_xy_position.clear()
        self._update_config_device_props()
        self._af_was_engaged = core.isContinuousFocusLocked()
        self._autoshutter_was_set = core.getAutoShutter()
        setup = sequence.setup
        if setup is not None:
            order = self._orders.setup_order(setup)
            self._set(setup, order)
            self._autoshutter_was_set = self._has_autoshutter(order)
            core.setAutoShutter(self._autoshutter_was_set)
            self._set_event_roi(setup)
            self._move(setup)
            if setup.slm_image is not None:
                self._set_event_slm_image(setup)
                self._exec_event_slm_image(setup.slm_image)
            core.waitForSystem()
            self._raise_failure()
        self._orders.begin()
        self._applied.clear()
        self._exposures_ms.clear()
        self._channel = None

    def event_iterator(self, events: "Iterable[useq.MDAEvent]") -> "Iterator[useq.MDAEvent]":
        """Complete the events of the sequence, and merge them into bursts where the hardware can run them."""
        complete = self._orders.events(anchored=True)

        def together(pair: "tuple[useq.MDAEvent, Order]") -> tuple[Any, ...]:
            # Autofocus corrects each position separately, but a burst has a single focus or focus sequence.
            position = pair[0].index.get("p") if self._orders.focuses else None
            alone = None if pair[0].slm_image is None else id(pair[0])
            return position, alone, *pair[1].burst_key

        for _, group in itertools.groupby(complete, key=together):
            yield from super().event_iterator(event for event, _ in group)

    def _update_config_device_props(self) -> None:
        # Same as in pymmcore-plus, except that presets with names that are not UTF-8 are skipped: the core
        # cannot be queried for them.
        core, known = self.mmcore, self._config_device_props
        known.clear()
        for group in core.getAvailableConfigGroups():
            names: dict[tuple[str, str], None] = {}
            for preset in core.getAvailableConfigs(group):
                with suppress(TypeError, RuntimeError):
                    names.update(
                        {(device, prop): None for device, prop, _ in core.getConfigData(group, preset)}
                    )
            known[group] = tuple(names)

    # -- one event -----------------------------------------------------------------------------------

    def setup_event(self, event: "useq.MDAEvent") -> None:
        """Set the complete state and wait for the devices. Raise an exception if anything fails."""
        burst = event if isinstance(event, SequencedEvent) else None
        singles = event.events if isinstance(event, SequencedEvent) else (event,)
        first, last = singles[0], singles[-1]
        try:
            order = self._orders.order(first)
            self._release_shutter_other_than(order)
            if burst is not None:
                corrected = tuple(self._corrected(one) for one in singles) if burst.z_sequence else ()
                self._load_sequenced_event(burst.model_copy(update={"z_sequence": corrected}))
            self._set(first, order)
            if burst is not None:
                self._start_sequences(burst)
            self._move(first, burst)
            self.mmcore.waitForSystem()
            self._raise_failure()
            self._prepare_shutter(order, keep=last.keep_shutter_open, autofocus=_is_autofocus(first))
            self._raise_failure()
        except BaseException:
            with suppress(Exception):
                self.teardown_event(event)
            raise

    def _set(self, event: "useq.MDAEvent", order: Order) -> None:
        """Set the channel, the properties, the selected devices and the exposure times."""
        core, applied = self.mmcore, self._applied
        wanted = {name: value for name, value in order.settings.items() if name != (CORE, "AutoShutter")}
        if order.channel is not None:
            preset = {name: wanted[name] for name in order.preset if name in wanted}
            if order.channel != self._channel or any(
                applied.get(n, _UNKNOWN) != v for n, v in preset.items()
            ):
                self._channel = None
                core.setConfig(*order.channel)
                applied.update(order.preset)
                self._forget_exposures(order.preset)
                self._channel = order.channel
        changed = {name: v for name, v in wanted.items() if applied.get(name, _UNKNOWN) != v}
        for name in sorted(changed, key=lambda name: name[0] != CORE):
            self._set_property(*name, changed[name])
            applied[name] = changed[name]
        self._forget_exposures(changed)
        if role_of(core, "Camera") != order.camera:
            set_role(core, "Camera", order.camera)
        for camera, exposure_ms in order.exposures_ms.items():
            if self._exposures_ms.get(camera) != exposure_ms:
                core.setExposure(camera, exposure_ms)
                self._exposures_ms[camera] = exposure_ms

    def _forget_exposures(self, settings: "Iterable[tuple[str, str]]") -> None:
        # Changing any camera property can change the exposure time.
        for device, _ in settings:
            self._exposures_ms.pop(device, None)

    def _set_property(self, device: str, prop: str, value: Any) -> None:
        core = self.mmcore
        if device == CORE and prop in ROLES:
            set_role(core, prop, value)
        elif prop == "Position" and core.getDeviceType(device) == DeviceType.XYStage:
            core.setXYPosition(device, float(value[0]), float(value[1]))
        elif prop == "Position" and core.getDeviceType(device) == DeviceType.Stage:
            core.setPosition(device, float(value))
        else:
            core.setProperty(device, prop, value)

    def _move(self, event: "useq.MDAEvent", burst: "SequencedEvent | None" = None) -> None:
        if burst is None or not burst.x_sequence:
            self._set_event_xy_position(event)
        if event.z_pos is not None and (burst is None or not burst.z_sequence):
            self._set_event_z(event)

    def _set_event_xy_position(self, event: "useq.MDAEvent") -> None:
        if event.x_pos is not None or event.y_pos is not None:
            x, y = self.mmcore.getXYPosition()
            wanted = (x if event.x_pos is None else event.x_pos, y if event.y_pos is None else event.y_pos)
            self.mmcore.setXYPosition(*wanted)

    def _set_event_roi(self, event: "useq.MDAEvent") -> None:
        if event.roi is not None:
            self.mmcore.clearROI()
            self.mmcore.setROI(event.roi.offset_x, event.roi.offset_y, event.roi.width, event.roi.height)

    def _start_sequences(self, burst: "SequencedEvent") -> None:
        core = self.mmcore
        if core.isSequenceRunning():
            self._await_sequence_acquisition()
        if burst.x_sequence:
            core.startXYStageSequence(core.getXYStageDevice())
        if burst.z_sequence:
            core.startStageSequence(core.getFocusDevice())
        if burst.exposure_sequence:
            core.startExposureSequence(core.getCameraDevice())
            self._exposures_ms.clear()
        for name in burst.property_sequences:
            core.startPropertySequence(*name)
            # The hardware leaves the property at the last value of the sequence, so it must be set again.
            self._applied.pop(name, None)
            self._channel = None

    def _corrected(self, event: "useq.MDAEvent") -> float:
        return (event.z_pos or 0.0) + self._z_correction.get(event.index.get("p"), 0.0)

    # -- the shutter -----------------------------------------------------------------------------------

    def _has_autoshutter(self, order: Order) -> bool:
        wanted = order.settings.get((CORE, "AutoShutter"))
        return self._autoshutter_was_set if wanted is None else wanted not in ("0", 0, False)

    def _release_shutter_other_than(self, order: Order) -> None:
        """If the event uses a different shutter or no autoshutter, close the shutter that was held open."""
        shutter = order.settings.get((CORE, "Shutter"), self._held_open)
        if shutter != self._held_open or not self._has_autoshutter(order):
            self._close_held_shutter()

    def _close_held_shutter(self) -> None:
        if self._held_open:
            self.mmcore.setShutterOpen(self._held_open, False)
            self._held_open = ""

    def _prepare_shutter(self, order: Order, *, keep: bool, autofocus: bool) -> None:
        """Open the shutter if it must stay open after this event. Otherwise, leave it to autoshutter."""
        core, has_autoshutter = self.mmcore, self._has_autoshutter(order)
        if keep and has_autoshutter and not autofocus:
            core.setAutoShutter(False)
            self._held_open = core.getShutterDevice()
            core.setShutterOpen(True)
            core.waitForDevice(self._held_open)
        elif not self._held_open:
            core.setAutoShutter(has_autoshutter)

    def teardown_event(self, event: "useq.MDAEvent") -> None:
        """Stop hardware sequences. If the shutter need not stay open, hand it back to autoshutter."""
        core = self.mmcore
        singles = event.events if isinstance(event, SequencedEvent) else (event,)
        if self._held_open and not singles[-1].keep_shutter_open and not _is_autofocus(singles[-1]):
            self._close_held_shutter()
            core.setAutoShutter(True)
        if isinstance(event, SequencedEvent):
            if event.exposure_sequence:
                core.stopExposureSequence(core.getCameraDevice())
            if event.x_sequence:
                core.stopXYStageSequence(core.getXYStageDevice())
            if event.z_sequence:
                core.stopStageSequence(core.getFocusDevice())
            for device, prop in event.property_sequences:
                core.stopPropertySequence(device, prop)

    # -- images ----------------------------------------------------------------------------------------

    def exec_event(self, event: "useq.MDAEvent") -> "Iterable[Any]":
        """Take the images of an event, or run autofocus.

        If autofocus fails, the failure is logged and recorded in the metadata.
        """
        yield from super().exec_event(event)
        if _is_autofocus(event):
            # After an autofocus failure, the run continues at the last focus position. The frame metadata
            # records the failure. See the documentation of the source.
            self._careful_core.failure = None
            noted = self._missed_focus.discard if self._af_succeeded else self._missed_focus.add
            noted(event.index.get("p"))

    def exec_single_event(self, event: "useq.MDAEvent") -> "Iterator[Any]":
        """Take one image with each camera. Raise an exception if a camera fails."""
        core = self.mmcore
        self._careful_core.snapImage()
        start = event.metadata.get("runner_t0") or time.perf_counter()
        event_time_ms = (time.perf_counter() - start) * 1000
        if self._held_open and not event.keep_shutter_open:
            core.setShutterOpen(self._held_open, False)
        cameras = core.getNumberOfCameraChannels()
        for number in range(cameras):
            meta = self.get_frame_metadata(
                event,
                runner_time_ms=event_time_ms,
                camera_device=core.getPhysicalCameraDevice(number) if cameras > 1 else core.getCameraDevice(),
                include_position=True,
            )
            yield (
                core.getImage(number) if cameras > 1 else core.getImage(),
                _of_camera(event, number, cameras),
                meta,
            )

    def get_frame_metadata(self, event: "useq.MDAEvent", *args: Any, **options: Any) -> Any:
        """Return the metadata for a frame, with the exposure time of the camera that took it."""
        meta: Any = super().get_frame_metadata(event, *args, **options)
        camera = meta.get("camera_device")
        if camera and camera != self.mmcore.getCameraDevice():
            with suppress(RuntimeError):
                meta["exposure_ms"] = self.mmcore.getExposure(camera)
        if event.index.get("p") in self._missed_focus:
            meta["autofocus_failed"] = True
        return meta

    def _raise_failure(self) -> None:
        if self._careful_core.failure is not None:
            raise self._careful_core.failure

    def exec_sequenced_event(self, event: "SequencedEvent") -> Generator[Any, Any, None]:
        """Run a burst, and yield each camera's frames as they arrive."""
        core = self.mmcore
        cameras = core.getNumberOfCameraChannels()
        run_start = event.metadata.get("runner_t0") or time.perf_counter()
        burst_start_ms = (time.perf_counter() - run_start) * 1000
        exposure_s = max((core.getExposure(), *event.exposure_sequence, *self._exposures_ms.values())) / 1000
        patience_s = max(_NEXT_FRAME_S, exposure_s * _EXPOSURES)
        expected = len(event.events) * cameras
        core.startSequenceAcquisition(len(event.events), 0, True)
        self.post_sequence_started(event)
        counts = [0] * cameras
        numbers: list[int | None] = [None] * cameras
        for count in range(expected):
            waiting_s = patience_s if count else max(_FIRST_FRAME_S, patience_s)
            if not self._wait_for_frame(waiting_s, f"frame {count + 1} of a burst of {expected}"):
                return
            image, popped = core.popNextImageAndMD()
            tags = dict(popped)
            camera = camera_number(tags, cameras)
            if counts[camera] == len(event.events):
                raise SourceError(
                    f"camera {camera} delivered more frames than the burst requested ({counts[camera]})"
                )
            if cameras == 1:  # several cameras share one series of image numbers
                numbers[camera] = next_number(tags, numbers[camera])
            single = event.events[counts[camera]]
            counts[camera] += 1
            label = core.getPhysicalCameraDevice(camera) if cameras > 1 else None
            meta = self._burst_metadata(single, tags, burst_start_ms, label)
            yield image, _of_camera(single, camera, cameras), meta
            if self._stopped():
                core.stopSequenceAcquisition()
                return
        self._wait_until_idle(patience_s)

    def _wait_for_frame(self, patience_s: float, what: str) -> bool:
        """Wait for a frame. Return True if a frame is available, or False if the run was stopped."""
        core, patience = self.mmcore, _Patience(patience_s)
        while not core.getRemainingImageCount():
            if self._stopped():
                core.stopSequenceAcquisition()
                return False
            # The last frame can arrive between the two queries, so query the count once more.
            if not core.isSequenceRunning() and not core.getRemainingImageCount():
                if core.isBufferOverflowed():
                    raise SourceError(
                        "the camera was faster than the storage, so the buffer of "
                        f"{core.getCircularBufferMemoryFootprint()} MB was full before {what}; increase the "
                        "option buffer_mb, use a smaller image, or store to a faster disk"
                    )
                raise SourceError(f"the camera stopped before {what}")
            if patience.is_over():
                core.stopSequenceAcquisition()
                raise SourceError(f"the camera sent no frame for {patience_s:g} s before {what}")
            time.sleep(_POLL_S)
        return True

    def _wait_until_idle(self, patience_s: float) -> None:
        patience = _Patience(patience_s)
        while self.mmcore.isSequenceRunning():
            if patience.is_over():
                self.mmcore.stopSequenceAcquisition()
                return
            time.sleep(_POLL_S)

    def _burst_metadata(
        self, event: "useq.MDAEvent", tags: dict[str, Any], start_ms: float, camera: str | None
    ) -> Any:
        core = self.mmcore
        try:
            elapsed_ms = float(tags.get("ElapsedTime-ms", 0.0))
        except ValueError:
            elapsed_ms = 0.0
        meta = self.get_frame_metadata(
            event,
            prop_values=(),
            runner_time_ms=start_ms + elapsed_ms,
            camera_device=camera or tags.get("Camera") or core.getCameraDevice(),
            include_position=self.include_frame_position_metadata is True,
        )
        meta["hardware_triggered"] = True
        meta["images_remaining_in_buffer"] = core.getRemainingImageCount()
        meta["camera_metadata"] = tags
        return meta


class _Patience:
    """A time limit that ignores time during which the process is suspended, for example by Ctrl-Z."""

    def __init__(self, limit_s: float) -> None:
        self._left_s, self._last_s = limit_s, time.monotonic()

    def is_over(self) -> bool:
        """Return whether the limit is exceeded.

        Call this often, because a long pause between two calls counts only in part.
        """
        now_s = time.monotonic()
        self._left_s -= min(now_s - self._last_s, _LONGEST_STEP_S)
        self._last_s = now_s
        return self._left_s < 0


def _of_camera(event: "useq.MDAEvent", number: int, cameras: int) -> "useq.MDAEvent":
    return event if cameras == 1 else event.model_copy(update={"index": {**event.index, "cam": number}})


def _is_autofocus(event: "useq.MDAEvent") -> bool:
    return event.action is not None and event.action.type == "hardware_autofocus"
