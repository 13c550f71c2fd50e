"""The frame source ``micromanager``: its life cycle, from loading a config to delivering frames.

This module manages one core with one config, runs one sequence on it, and raises an error if a run does not
deliver every planned frame. It does not store frames.

Threads: ``prepare``, ``run`` and ``close`` are called from one thread at a time. ``cancel`` can be called
from any thread; it sets an event that the engine checks before and after each frame.
"""

import logging
import math
import threading
import weakref
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exengine.base_classes import DataCoordinates, FrameSource, Sink, SourcePlan, check_sequence
from exengine.errors import OptionError, SourceError
from exengine_micromanager.checks import PropertyValue, load_config, set_exposure, set_property
from exengine_micromanager.delivery import Delivery
from exengine_micromanager.prepared import Prepared, prepare_sequence
from exengine_micromanager.restoring import Before, read_settings, undisturbed

if TYPE_CHECKING:
    import useq
    from pymmcore_plus import CMMCorePlus

    from exengine_micromanager.careful_core import CarefulCore

_CLOSE_TIMEOUT_S = 5.0


class MicroManagerSource(FrameSource):
    """Frames from a microscope that Micro-Manager controls.

    Controls cameras, stages, filter wheels, light sources and shutters from any manufacturer for which
    Micro-Manager has a device adapter. The source uses pymmcore-plus, so it needs neither Java nor a running
    Micro-Manager. Consecutive events that the hardware can run by itself are triggered as one burst.

    Parameters
    ----------
    config : str, default: "demo"
        Path to a Micro-Manager ``.cfg`` file, or ``demo`` for the simulated microscope that is installed
        with this source.
    adapter_path : str, default: None
        Folder that contains the device adapters, usually the folder of a Micro-Manager installation. With
        ``None``, the source uses the folder that pymmcore-plus finds, or, for ``demo``, the demo adapters
        that are installed with the source.
    properties : dict, default: None
        Values for device properties, such as ``{"Camera.Binning": 2}``. Each key is a device label, a dot
        and a property name. The values are set after the config is loaded.
    exposure_ms : float, default: None
        Exposure time in milliseconds for events without an exposure time in the sequence. With
        ``None``, those events use the exposure time that the config sets.
    channel_group : str, default: None
        Config group for channels that do not specify a group. With ``None``, the source uses the group
        ``Channel`` or, if the config has no such group, the channel group that the config declares.
    buffer_mb : int, default: None
        Size in MB of the buffer that stores the frames of a burst until they are read. With ``None``,
        Micro-Manager chooses the size.

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
            raise OptionError(f"exposure_ms must be a time in milliseconds above 0, got {exposure_ms!r}")
        if buffer_mb is not None and buffer_mb < 1:
            raise OptionError(f"buffer_mb must be at least 1 MB, got {buffer_mb!r}")
        for name in properties or {}:
            if not all(name.partition(".")):
                raise OptionError(
                    f"properties: {name!r} is not the name of a property; write 'Device.Property', such as "
                    "'Camera.Binning'"
                )
        self._config = config
        self._adapter_path = adapter_path
        self._properties: dict[str, PropertyValue] = dict(properties or {})
        self._exposure_ms = exposure_ms
        self._channel_group = channel_group
        self._buffer_mb = buffer_mb
        self._core: CarefulCore | None = None
        self._release: weakref.finalize[..., Any] | None = None
        self._prepared: Prepared | None = None
        self._frames: int | None = 0  # the number of frames in the events that are not left out
        self._running = _Running()
        self._cancelled = threading.Event()

    # -- life cycle --------------------------------------------------------------------------------

    def prepare(self, sequence: "useq.MDASequence", /) -> SourcePlan:
        """Load the config, apply the options, and check that the sequence can be run.

        Parameters
        ----------
        sequence : useq.MDASequence
            The sequence to acquire. The source works on a copy and does not change the original.

        Returns
        -------
        SourcePlan
            The number of frames, their shape and dtype, and the state of the microscope. If the frames do not
            all have the same layout, shape and dtype are None; ``layouts`` lists every layout.

        Raises
        ------
        SourceError
            If the config, the properties or the sequence request something that does not exist.
        """
        check_sequence(sequence)  # before any device starts
        self.close()
        core = self._core = _new_core(self._adapters())
        # Release the core even if close() is never called: the interpreter aborts if a core still exists when
        # it exits.
        self._running = _Running()
        self._release = weakref.finalize(self, _release_core, core, self._running)
        try:
            load_config(core, self._config_file())
            self._apply_options(core)
            self._prepared = prepare_sequence(
                core,
                sequence,
                exposure_ms=self._exposure_ms,
                channel_group=self._channel_group,
                config=self._config,
            )
        except BaseException:
            self.close()
            raise
        self._frames = self._prepared.plan.frames
        return self._prepared.plan

    def skip(self, existing: Container[DataCoordinates], /) -> None:
        """Leave out every event for which all frames exist; see :meth:`exengine.FrameSource.skip`.

        Parameters
        ----------
        existing : container of DataCoordinates
            The frames of the dataset that the run continues.

        Raises
        ------
        SourceError
            If no sequence was prepared.
        """
        if self._prepared is None:
            raise SourceError("no sequence was prepared; call prepare(sequence) before skip(existing)")
        self._frames = self._prepared.skip(existing)

    def run(self, sink: Sink, /) -> None:
        """Run the prepared sequence, and call the sink on this thread for each frame.

        Parameters
        ----------
        sink : callable
            Called with the coordinates, the pixels and the JSON metadata of each frame. The pixels are a
            C-contiguous array of shape ``(Y, X)``, or ``(Y, X, 3)`` for RGB. The array belongs to the sink.
            While the sink blocks, the source requests no further image, but a burst that is already running
            continues to fill the camera's buffer.

        Raises
        ------
        SourceError
            If a device fails, or if fewer frames than planned arrive.
        Exception
            Any exception that the sink raises.
        """
        core, prepared = self._core, self._prepared
        if core is None or prepared is None:
            raise SourceError("no sequence was prepared; call prepare(sequence) before run(sink)")
        frames = self._frames
        delivery = Delivery(sink, self._cancelled, core, prepared.coordinates)
        failure: Exception | None = None
        running = self._running
        running.begin(Before(core, prepared.found.cameras(core)))
        complete = False
        try:
            failure = delivery.run(prepared.sequence, prepared.orders)
            complete = failure is None and delivery.error is None and not self._cancelled.is_set()
            complete = complete and delivery.count == frames
        finally:
            self.unrestored = undisturbed(lambda: running.end(complete=complete))
        if delivery.error is not None:
            raise delivery.error
        if self._cancelled.is_set():
            return
        progress = f"{delivery.count} of {frames} frames had been delivered"
        if failure is not None:
            where = f" at {dict(delivery.where)}" if delivery.where else ""
            raise SourceError(f"the microscope failed{where}: {failure}; {progress}") from (
                failure.__cause__ if isinstance(failure, SourceError) and failure.__cause__ else failure
            )
        if delivery.count != frames:
            raise SourceError(
                f"the run ended, but only {progress}; the camera did not deliver the other images (see the "
                f"log file {core.getPrimaryLogFile()})"
            )

    def settings(self) -> Mapping[str, Any]:
        """Return shutter states, exposure times, regions of interest, selected devices and stage speeds."""
        core = self._core
        if core is None:
            return {}
        cameras = core.getLoadedDevicesOfType(2)  # DeviceType.Camera
        settings = read_settings(core, cameras)
        return {**settings, "shutter_open": any(settings["shutters"].values())}

    def cancel(self) -> None:
        """End the run after the current frame, without an error.

        Any later run ends immediately. A run that is waiting for the next time point ends within half a
        second. An exposure in progress is not cut short.
        """
        self._cancelled.set()
        core = self._core
        if core is not None:
            core.mda.cancel()

    def close(self) -> None:
        """Release all devices. The method is idempotent. Afterwards, the source can be prepared again.

        A run in progress is cancelled first, and the settings from before that run are restored.
        """
        running = self._running
        if running.is_active() and self._core is not None:
            self.cancel()
            running.wait(_CLOSE_TIMEOUT_S)
        self._core, self._prepared = None, None
        if self._release is not None:
            self._release()

    # -- preparing ---------------------------------------------------------------------------------

    def _adapters(self) -> str | None:
        if self._adapter_path is not None:
            folder = Path(self._adapter_path).expanduser()
            if not folder.is_dir():
                raise SourceError(
                    f"adapter_path {self._adapter_path!r} is not a folder; give the folder of your "
                    "Micro-Manager installation, which contains files with names such as "
                    "'mmgr_dal_DemoCamera'"
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


# -- helpers ---------------------------------------------------------------------------------------


def _new_core(adapters: str | None) -> "CarefulCore":
    """Return a new core. The process-wide core belongs to the user and is not used."""
    root = logging.getLogger()
    level = root.level
    from exengine_micromanager import engine

    root.setLevel(level)  # the first import of pymmcore-plus sets the root logger's level to DEBUG
    return engine.CarefulCore(adapters, [adapters] if adapters else ())


class _Running:
    """The state of a run, and the settings to restore when it ends."""

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
    """Restore the settings after a run, unload all devices, and stop the core's callback thread."""
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
