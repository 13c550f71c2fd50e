"""The frame source ``micromanager``: its life cycle, from a config to the frames of a sequence.

Responsible for one core with one config, for running one sequence on it, and for an error if a run did not
deliver all planned frames. Not responsible for storing frames.

Threads: ``prepare``, ``run`` and ``close`` are called from one thread at a time. ``cancel`` may be called
from any thread; it sets an event that the engine checks before and after each frame.
"""

import logging
import math
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exengine.base_classes import (
    CompleteEvents,
    DataCoordinates,
    FrameSource,
    Sink,
    SourcePlan,
    check_points,
    check_sequence,
    check_unique,
    private_copy,
    set_field_of_view,
)
from exengine.errors import OptionError, SourceError
from exengine_micromanager.checks import PropertyValue, load_config, set_exposure, set_property
from exengine_micromanager.delivery import Delivery
from exengine_micromanager.metadata import summary_json
from exengine_micromanager.orders import Orders
from exengine_micromanager.plan_checks import (
    Examined,
    Layout,
    check_devices,
    check_field_of_view,
    examine_cameras,
)
from exengine_micromanager.restoring import Before, read_settings, undisturbed

if TYPE_CHECKING:
    import useq
    from pymmcore_plus import CMMCorePlus

    from exengine_micromanager.careful_core import CarefulCore

_USEQ_GROUP = "Channel"  # the group of a useq channel that names none
_CLOSE_TIMEOUT_S = 5.0


class MicroManagerSource(FrameSource):
    """Frames from a microscope that Micro-Manager controls.

    Cameras, stages, filter wheels, light sources and shutters of every make that Micro-Manager has a
    device adapter for, through pymmcore-plus; no Java and no running Micro-Manager is needed. Events
    that the hardware can run by itself are triggered as one burst.

    Parameters
    ----------
    config : str, default: "demo"
        Path of a Micro-Manager ``.cfg`` file, or ``demo`` for the simulated microscope that is installed
        with this source.
    adapter_path : str, default: None
        Folder with the device adapters, usually that of a Micro-Manager installation. ``None`` takes the
        one that pymmcore-plus finds, and for ``demo`` the installed demo adapters.
    properties : dict, default: None
        Values for device properties, such as ``{"Camera.Binning": 2}``: label of the device, a dot, name
        of the property. They are set after the config is loaded.
    exposure_ms : float, default: None
        Exposure time in milliseconds, where the sequence states none. ``None`` leaves the camera as the
        config sets it up.
    channel_group : str, default: None
        Config group of the channels that name no group. ``None`` takes ``Channel``, or where the config
        has no such group, the one that it declares as its channel group.
    buffer_mb : int, default: None
        Size of the buffer that holds the frames of a burst until they are taken, in MB. ``None`` leaves
        the size that Micro-Manager chooses.

    Examples
    --------
    >>> import useq
    >>> from exengine_micromanager import MicroManagerSource
    >>> source = MicroManagerSource(properties={"Camera.Binning": 2}, exposure_ms=5)
    >>> plan = source.prepare(useq.MDASequence(channels=["DAPI", "FITC"]))
    >>> plan.frames, plan.shape, plan.dtype
    (2, (256, 256), 'uint16')
    >>> source.run(lambda coordinates, pixels, metadata: print(coordinates, metadata["exposure_ms"]))
    DataCoordinates({'channel': 'DAPI'}) 5.0
    DataCoordinates({'channel': 'FITC'}) 5.0
    >>> source.close()
    """

    def __init__(
        self,
        config: str = "demo",
        adapter_path: str | None = None,
        properties: dict[str, str | int | float | bool] | None = None,
        exposure_ms: float | None = None,
        channel_group: str | None = None,
        buffer_mb: int | None = None,
    ) -> None:
        if exposure_ms is not None and not (exposure_ms > 0 and math.isfinite(exposure_ms)):
            raise OptionError(f"exposure_ms is a time in milliseconds above 0, got {exposure_ms!r}")
        if buffer_mb is not None and buffer_mb < 1:
            raise OptionError(f"buffer_mb is a size of at least 1 MB, got {buffer_mb!r}")
        for name in properties or {}:
            if not all(name.partition(".")):
                raise OptionError(
                    f"properties: {name!r} names no property; write 'Device.Property', as in 'Camera.Binning'"
                )
        self._config = config
        self._adapter_path = adapter_path
        self._properties: dict[str, PropertyValue] = dict(properties or {})
        self._exposure_ms = exposure_ms
        self._channel_group = channel_group
        self._buffer_mb = buffer_mb
        self._core: CarefulCore | None = None
        self._release: weakref.finalize[..., Any] | None = None
        self._sequence: useq.MDASequence | None = None
        self._frames = 0
        self._orders: Orders | None = None
        self._complete: CompleteEvents | None = None
        self._found: Examined | None = None
        self._running = _Running()
        self._cancelled = threading.Event()

    # -- life cycle --------------------------------------------------------------------------------

    def prepare(self, sequence: "useq.MDASequence", /) -> SourcePlan:
        """Load the config, apply the options, and check that the sequence can be run.

        Parameters
        ----------
        sequence : useq.MDASequence
            What to acquire. It is copied, not changed.

        Returns
        -------
        SourcePlan
            Number of frames, their shape and dtype, and the state of the microscope. Shape and dtype are
            None if frames differ; ``layouts`` then has all of them.

        Raises
        ------
        SourceError
            If config, properties or sequence request something that does not exist.
        """
        check_sequence(sequence)
        self.close()
        core = self._core = _new_core(self._adapters())
        # Also without close(): a core that still exists at exit aborts the interpreter.
        self._running = _Running()
        self._release = weakref.finalize(self, _release_core, core, self._running)
        try:
            load_config(core, self._config_file())
            self._apply_options(core)
            plan = self._planned(core, self._grouped(core, private_copy(sequence)))
        except BaseException:
            self.close()
            raise
        return plan

    def _planned(self, core: "CarefulCore", sequence: "useq.MDASequence") -> SourcePlan:
        """Check the sequence against the devices; keep its orders for the run."""
        complete = CompleteEvents(sequence)
        check_devices(core, complete)
        found = examine_cameras(core, complete, self._exposure_ms, laid_out=False)
        if found.field_of_view_um is not None:
            set_field_of_view(sequence, *found.field_of_view_um)
        check_field_of_view(sequence, found.field_of_view_um)
        check_points(sequence)
        self._complete = complete = CompleteEvents(sequence)
        found = self._found = examine_cameras(core, complete, self._exposure_ms)
        orders = self._orders = Orders(core, complete, found.physical, self._exposure_ms)
        check_unique((event for event, _ in orders.events(anchored=False)), complete.repeated)
        frames, total, layouts = 0, 0, dict[Layout, None]()
        for _, order in orders.events(anchored=False):
            facts = found.of(order)
            frames += len(facts.channels)
            shape, dtype = facts.layout
            total += len(facts.channels) * math.prod(shape) * np.dtype(dtype).itemsize
            layouts[facts.layout] = None
        self._sequence, self._frames = sequence, frames
        only = next(iter(layouts)) if len(layouts) == 1 else (None, None)
        return SourcePlan(
            frames=frames,
            shape=only[0],
            dtype=only[1],
            summary=summary_json(core, sequence, config=self._config),
            layouts=tuple(layouts),
            pixel_bytes=total,
            coordinates=lambda: _coordinates(orders, complete, found),
        )

    def run(self, sink: Sink, /) -> None:
        """Run the prepared sequence, and call the sink with each frame on this thread.

        Parameters
        ----------
        sink : callable
            Called with coordinates, pixels (``(Y, X)`` or RGB ``(Y, X, 3)``, C-contiguous, owned by the
            sink) and JSON metadata. While it blocks, no further image is requested; a burst continues into
            the camera's buffer.

        Raises
        ------
        SourceError
            If a device failed, or fewer frames arrived than planned.
        Exception
            The exception of the sink.
        """
        core, sequence = self._core, self._sequence
        if core is None or sequence is None:
            raise SourceError("nothing is prepared: call prepare(sequence) before run(sink)")
        orders = self._orders
        assert orders is not None and self._complete is not None and self._found is not None
        delivery = Delivery(sink, self._cancelled, core, self._coordinates)
        failure: Exception | None = None
        running = self._running
        running.begin(Before(core, self._found.cameras(core)))
        complete = False
        try:
            failure = delivery.run(sequence, orders)
            complete = failure is None and delivery.error is None and not self._cancelled.is_set()
            complete = complete and delivery.count == self._frames
        finally:
            self.unrestored = undisturbed(lambda: running.end(complete=complete))
        if delivery.error is not None:
            raise delivery.error
        if self._cancelled.is_set():
            return
        progress = f"{delivery.count} of {self._frames} frames had been delivered"
        if failure is not None:
            where = f" at {dict(delivery.where)}" if delivery.where else ""
            raise SourceError(f"the microscope failed{where}: {failure}; {progress}") from (
                failure.__cause__ if isinstance(failure, SourceError) and failure.__cause__ else failure
            )
        if delivery.count != self._frames:
            raise SourceError(
                f"the run ended, but only {progress}; the camera delivered no image for the others (see the "
                f"log file {core.getPrimaryLogFile()})"
            )

    def _coordinates(self, event: "useq.MDAEvent", camera: str) -> DataCoordinates:
        assert self._complete is not None
        coordinates = self._complete.coordinates(event)
        return coordinates.replace(camera=camera) if "cam" in event.index and camera else coordinates

    def settings(self) -> Mapping[str, Any]:
        """Return shutters, exposure times, regions of interest, selected devices and stage speeds."""
        core = self._core
        if core is None:
            return {}
        cameras = core.getLoadedDevicesOfType(2)  # DeviceType.Camera
        settings = read_settings(core, cameras)
        return {**settings, "shutter_open": any(settings["shutters"].values())}

    def cancel(self) -> None:
        """End the run after the current frame, without an error.

        A later run ends at once. A wait for the next time point ends within half a second; an exposure is
        not shortened.
        """
        self._cancelled.set()
        core = self._core
        if core is not None:
            core.mda.cancel()

    def close(self) -> None:
        """Release all devices. Idempotent; the source can be prepared again.

        A current run is cancelled first, and its settings are restored.
        """
        running = self._running
        if running.is_active() and self._core is not None:
            self.cancel()
            running.wait(_CLOSE_TIMEOUT_S)
        self._core, self._sequence, self._frames = None, None, 0
        self._orders, self._complete, self._found = None, None, None
        if self._release is not None:
            self._release()

    # -- preparing ---------------------------------------------------------------------------------

    def _adapters(self) -> str | None:
        if self._adapter_path is not None:
            folder = Path(self._adapter_path).expanduser()
            if not folder.is_dir():
                raise SourceError(
                    f"adapter_path {self._adapter_path!r} is not a folder; give the folder of your "
                    "Micro-Manager installation, where the files named like 'mmgr_dal_DemoCamera' are"
                )
            return str(folder.resolve())
        return _demo_folder() if self._config == "demo" else None

    def _config_file(self) -> Path:
        if self._config == "demo":
            return Path(_demo_folder()) / "MMConfig_demo.cfg"
        return Path(self._config).expanduser()

    def _apply_options(self, core: "CMMCorePlus") -> None:
        for name, value in self._properties.items():
            set_property(core, name, value)
        if self._buffer_mb is not None:
            core.setCircularBufferMemoryFootprint(self._buffer_mb)
        if self._exposure_ms is not None:
            set_exposure(core, core.getCameraDevice(), self._exposure_ms, "exposure_ms")

    def _grouped(self, core: "CMMCorePlus", sequence: "useq.MDASequence") -> "useq.MDASequence":
        """Return a copy in which each channel names its group."""
        group = self._channel_group
        if group is None and _USEQ_GROUP not in core.getAvailableConfigGroups():
            group = core.getChannelGroup() or None
        return sequence if group is None else _with_group(sequence, group)


# -- helpers ---------------------------------------------------------------------------------------


def _new_core(adapters: str | None) -> "CarefulCore":
    """Return a new core; the process-wide one belongs to the user."""
    root = logging.getLogger()
    level = root.level
    from exengine_micromanager import engine

    root.setLevel(level)  # pymmcore-plus, when first imported, sets it to DEBUG for the whole process
    return engine.CarefulCore(adapters, [adapters] if adapters else ())


class _Running:
    """The state of a run, and the settings to restore at its end."""

    def __init__(self) -> None:
        self._before: Before | None = None
        self._ended = threading.Event()
        self._ended.set()

    def begin(self, before: Before) -> None:
        self._before = before
        self._ended.clear()

    def end(self, *, complete: bool) -> tuple[str, ...]:
        before = self._before
        problems = () if before is None else before.restore(complete=complete)
        self._ended.set()
        return problems

    def is_active(self) -> bool:
        return not self._ended.is_set()

    def wait(self, seconds: float) -> None:
        self._ended.wait(seconds)


def _release_core(core: "CMMCorePlus", running: _Running) -> None:
    """Restore the settings of a run, unload all devices, and end the thread of the core's callbacks."""
    from pymmcore_plus import CMMCorePlus

    try:
        if running.is_active():
            for problem in undisturbed(lambda: running.end(complete=False)) or ():
                logging.getLogger("exengine").warning("%s", problem)
    finally:
        try:
            core.unloadAllDevices()
        finally:
            super(CMMCorePlus, core).registerCallback(None)


def _demo_folder() -> str:
    import mm_test_adapters  # type: ignore[import-untyped]

    return str(mm_test_adapters.device_adapter_path())


def _coordinates(orders: Orders, complete: CompleteEvents, found: Examined) -> Iterator[DataCoordinates]:
    for event, order in orders.events(anchored=False):
        coordinates = complete.coordinates(event)
        names = found.of(order).channels
        if len(names) == 1:
            yield coordinates
        else:
            yield from (coordinates.replace(camera=name) for name in names)


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
