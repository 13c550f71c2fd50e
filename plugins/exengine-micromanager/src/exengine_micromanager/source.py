"""The frame source ``micromanager``: life cycle, and the way of a frame from the core to the sink.

Responsible for one core with one config, for running one sequence on it, and for never ending a run
quietly that did not deliver what was planned. Not responsible for where frames go.

Threads: ``prepare``, ``run`` and ``close`` come from one thread at a time. ``cancel`` may come from any
thread; it sets an event that the engine looks at before and after each frame.
"""

import logging
import math
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from exengine.base_classes import FrameSource, Sink, SourcePlan, check_unique
from exengine.errors import OptionError, SourceError
from exengine_micromanager.checks import Needs, PropertyValue, load_config, set_exposure, set_property
from exengine_micromanager.delivery import Delivery
from exengine_micromanager.metadata import summary_json

if TYPE_CHECKING:
    import useq
    from pymmcore_plus import CMMCorePlus

    from exengine_micromanager.engine import CarefulCore

_USEQ_GROUP = "Channel"  # the group of a useq channel that names none


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
            None where the sequence changes settings of the camera on its way.

        Raises
        ------
        SourceError
            When config, properties or sequence ask for something that is not there.
        """
        self.close()
        core = self._core = _new_core(self._adapters())
        # Also when the source is forgotten: a core that lives on at exit aborts the interpreter.
        self._release = weakref.finalize(self, _release_core, core)
        try:
            load_config(core, self._config_file())
            self._apply_options(core)
            sequence = self._adapted(core, sequence)
            needs = Needs()
            events = check_unique(cast("useq.MDASequence", needs.frames_of(_fresh(sequence))))
            if sequence.setup is not None:
                for _ in needs.frames_of([sequence.setup]):
                    pass
            needs.check(core)
            self._sequence, self._frames = sequence, events * core.getNumberOfCameraChannels()
            shape, dtype = (None, None) if needs.changes_image(core) else _image_format(core)
            summary = summary_json(core, sequence, config=self._config)
        except BaseException:
            self.close()
            raise
        return SourcePlan(frames=self._frames, shape=shape, dtype=dtype, summary=summary)

    def run(self, sink: Sink, /) -> None:
        """Run the prepared sequence, and call the sink with each frame on this thread.

        Parameters
        ----------
        sink : callable
            Takes coordinates, pixels (``(Y, X)`` or RGB ``(Y, X, 3)``, C-contiguous, the sink's own) and
            JSON metadata. While it blocks no further image is asked for; a burst goes on into the
            camera's buffer.

        Raises
        ------
        SourceError
            When a device failed, or fewer frames came than planned.
        Exception
            What the sink raised.
        """
        core, sequence = self._core, self._sequence
        if core is None or sequence is None:
            raise SourceError("nothing is prepared: call prepare(sequence) before run(sink)")
        delivery = Delivery(sink, self._cancelled, core)
        failure: Exception | None = None
        try:
            failure = delivery.run(_fresh(sequence))
        finally:
            if core.isSequenceRunning():
                core.stopSequenceAcquisition()
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
                f"the run ended, but only {progress}; the camera gave no image for the others (see the log "
                f"file {core.getPrimaryLogFile()})"
            )

    def cancel(self) -> None:
        """Make the run end after the frame being taken, without an error.

        A run that has not begun will end at once. A wait for the next time point ends within half a
        second, an exposure ends when it ends.
        """
        self._cancelled.set()
        core = self._core
        if core is not None:
            core.mda.cancel()

    def close(self) -> None:
        """Release all devices. Idempotent; the source can be prepared again."""
        self._core, self._sequence, self._frames = None, None, 0
        if self._release is not None:
            self._release()

    # -- preparing ---------------------------------------------------------------------------------

    def _adapters(self) -> str | None:
        if self._adapter_path is not None:
            folder = Path(self._adapter_path).expanduser()
            if not folder.is_dir():
                raise SourceError(
                    f"adapter_path {self._adapter_path!r} is no folder; give the folder of your "
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
            set_exposure(core, self._exposure_ms, "exposure_ms")

    def _adapted(self, core: "CMMCorePlus", sequence: "useq.MDASequence") -> "useq.MDASequence":
        """Return a copy that knows this microscope: its field of view, its group of channels."""
        sequence = _fresh(sequence)
        group = self._channel_group
        if group is None and _USEQ_GROUP not in core.getAvailableConfigGroups():
            group = core.getChannelGroup() or None
        if group is not None:
            sequence = _with_group(sequence, group)
        if pixel_um := core.getPixelSizeUm():
            # The engine does the same; the number of tiles of a grid depends on it.
            *_, width, height = core.getROI()
            if sequence.setup is not None and sequence.setup.roi is not None:
                width, height = sequence.setup.roi.width, sequence.setup.roi.height
            own = [p.sequence for p in sequence.stage_positions if p.sequence is not None]
            for grid in (part.grid_plan for part in (sequence, *own)):
                if grid is not None:
                    grid.fov_width, grid.fov_height = width * pixel_um, height * pixel_um
        return sequence


# -- helpers ---------------------------------------------------------------------------------------


def _new_core(adapters: str | None) -> "CarefulCore":
    """Return a core of our own; the process-wide one belongs to the user."""
    root = logging.getLogger()
    level = root.level
    from exengine_micromanager.engine import CarefulCore

    root.setLevel(level)  # pymmcore-plus, when first imported, sets it to DEBUG for the whole process
    return CarefulCore(adapters, [adapters] if adapters else ())


def _release_core(core: "CMMCorePlus") -> None:
    """Unload all devices, and end the thread on which the core calls into Python."""
    from pymmcore_plus import CMMCorePlus

    try:
        core.unloadAllDevices()
    finally:
        super(CMMCorePlus, core).registerCallback(None)


def _demo_folder() -> str:
    import mm_test_adapters  # type: ignore[import-untyped]

    return str(mm_test_adapters.device_adapter_path())


def _image_format(core: "CMMCorePlus") -> tuple[tuple[int, ...], str]:
    components = core.getNumberOfComponents()
    plane = (core.getImageHeight(), core.getImageWidth())
    shape = plane if components == 1 else (*plane, 3)
    return shape, f"uint{8 * core.getBytesPerPixel() // components}"


def _fresh(sequence: "useq.MDASequence") -> "useq.MDASequence":
    """Return an equal sequence without memory.

    The autofocus plan of a useq sequence remembers the last event that it gave, so that iterating twice
    leaves out the first autofocus step of the second time.
    """
    return type(sequence).model_validate(sequence.model_dump(exclude_unset=True))


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
