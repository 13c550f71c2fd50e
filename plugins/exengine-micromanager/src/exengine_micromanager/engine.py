"""The acquisition engine: that of pymmcore-plus, with its silent failures made loud.

The engine of pymmcore-plus logs a warning and goes on when a channel cannot be set, a stage does not
move, or a camera does not expose: the frames that follow are of something else than they say, or
missing. Here each of these raises, before the camera is asked for the frame. Hardware-triggered
bursts are read by a loop of our own, because the original one

- counts the time that the receiver of a frame takes as silence of the camera, and gives up after 5 s;
- gives up after 20 s when the exposure is longer than that;
- does not notice a cancel while it waits for the camera;
- names frames by their order of arrival, even where the camera says that it skipped one.

Only what pymmcore-plus documents for subclasses is overridden. This module imports pymmcore-plus:
import it only inside functions.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDAEngine

from exengine.errors import SourceError

if TYPE_CHECKING:
    import useq
    from pymmcore_plus.core._sequencing import SequencedEvent

_NEXT_FRAME_S = 5.0
_FIRST_FRAME_S = 20.0
_EXPOSURES = 5.0
_POLL_S = 0.001  # the core tells nobody when a frame has come

_TOLD_BY_US = ("Failed to set", "Failed to snap", "Unexpected number of images", "MDA Canceled")


def _remembering(name: str, what: str) -> Callable[..., Any]:
    original = getattr(CMMCorePlus, name)

    @functools.wraps(original)
    def method(self: "CarefulCore", *args: Any, **options: Any) -> Any:
        try:
            return original(self, *args, **options)
        except Exception as error:
            if self.failure is None:
                self.failure = SourceError(f"{what}: {error}")
                self.failure.__cause__ = error
            raise

    return method


class CarefulCore(CMMCorePlus):
    """A core that remembers the first of its failures, for an engine that catches them.

    Attributes
    ----------
    failure : SourceError or None
        What failed first; its ``__cause__`` is what the core raised.
    """

    failure: SourceError | None = None

    def setShutterOpen(self, *args: Any) -> None:
        """Open or close a shutter; closing none is nothing, not an error.

        The engine closes the shutter after each image, also where the microscope has none.
        """
        if len(args) > 1 or args[0] or self.getShutterDevice():
            super().setShutterOpen(*args)

    setConfig = _remembering("setConfig", "the channel could not be set")
    setExposure = _remembering("setExposure", "the exposure time could not be set")
    setXYPosition = _remembering("setXYPosition", "the XY stage could not be moved")
    setPosition = _remembering("setPosition", "a stage could not be moved")
    setProperty = _remembering("setProperty", "a device property could not be set")
    setROI = _remembering("setROI", "the region of interest could not be set")
    clearROI = _remembering("clearROI", "the region of interest could not be set")
    setSLMImage = _remembering("setSLMImage", "the SLM could not be set")
    setSLMPixelsTo = _remembering("setSLMPixelsTo", "the SLM could not be set")
    setSLMExposure = _remembering("setSLMExposure", "the SLM could not be set")
    displaySLMImage = _remembering("displaySLMImage", "the SLM could not be set")
    snapImage = _remembering("snapImage", "the camera could not take the image")


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """Keep what we raise ourselves off the terminal, where pymmcore-plus logs it as well.

    Its log file still gets every record; records of other threads, and those that are no failure of
    ours, go where they always go.
    """
    thread = threading.get_ident()

    def quiet(record: logging.LogRecord) -> bool:
        return record.thread != thread or not record.getMessage().startswith(_TOLD_BY_US)

    handlers = logging.getLogger("pymmcore-plus").handlers
    terminals = [handler for handler in handlers if not isinstance(handler, logging.FileHandler)]
    for handler in terminals:
        handler.addFilter(quiet)
    try:
        yield
    finally:
        for handler in terminals:
            handler.removeFilter(quiet)


class CarefulEngine(MDAEngine):
    """Runs events on the hardware, and raises when one could not be done as it was asked.

    Parameters
    ----------
    core : CarefulCore
    stopped : callable
        Whether the run was cancelled or failed.
    """

    def __init__(self, core: CarefulCore, stopped: Callable[[], bool]) -> None:
        super().__init__(core)
        core.failure = None
        self._careful_core = core
        self._stopped = stopped
        self._start = _start_position(core)

    def event_iterator(self, events: "Iterable[useq.MDAEvent]") -> "Iterator[useq.MDAEvent]":
        """Merge events into bursts, relative z-stacks and grids starting where the stages are now."""
        return super().event_iterator(anchored(event, self._start) for event in events)

    def setup_event(self, event: "useq.MDAEvent") -> None:
        """Move, switch and wait; raise when one of these failed."""
        super().setup_event(event)
        self._raise_failure()

    def exec_single_event(self, event: "useq.MDAEvent") -> "Iterator[Any]":
        """Take one image; raise when the camera could not."""
        yield from super().exec_single_event(event)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._careful_core.failure is not None:
            raise self._careful_core.failure

    def exec_sequenced_event(self, event: "SequencedEvent") -> Generator[Any, Any, None]:
        """Run a burst and hand over each frame as it comes."""
        core = self.mmcore
        if event.slm_image is not None or core.getNumberOfCameraChannels() != 1:
            yield from super().exec_sequenced_event(event)
            return
        run_start = event.metadata.get("runner_t0") or time.perf_counter()
        burst_start_ms = (time.perf_counter() - run_start) * 1000
        exposure_s = max((core.getExposure(), *event.exposure_sequence)) / 1000
        patience_s = max(_NEXT_FRAME_S, exposure_s * _EXPOSURES)
        core.startSequenceAcquisition(len(event.events), 0, True)
        self.post_sequence_started(event)
        number: int | None = None
        for count, single in enumerate(event.events):
            waiting_s = patience_s if count else max(_FIRST_FRAME_S, patience_s)
            if not self._wait_for_frame(waiting_s, f"frame {count + 1} of a burst of {len(event.events)}"):
                return
            image, popped = core.popNextImageAndMD()
            tags = dict(popped)
            number = _next_number(tags, number)
            yield image, single, self._burst_metadata(single, tags, burst_start_ms)
            if self._stopped():
                core.stopSequenceAcquisition()
                return
        self._wait_until_idle(patience_s)

    def _wait_for_frame(self, patience_s: float, what: str) -> bool:
        """Return True when a frame is there, False when the run was stopped."""
        core = self.mmcore
        deadline = time.monotonic() + patience_s
        while not core.getRemainingImageCount():
            if self._stopped():
                core.stopSequenceAcquisition()
                return False
            # The last frame may have come between the two questions: ask for frames once more.
            if not core.isSequenceRunning() and not core.getRemainingImageCount():
                if core.isBufferOverflowed():
                    raise SourceError(
                        f"the camera was faster than the frames could be taken away: its buffer of "
                        f"{core.getCircularBufferMemoryFootprint()} MB was full before {what}; set the "
                        "option buffer_mb higher, use a smaller image, or store to a faster disk"
                    )
                raise SourceError(f"the camera stopped before {what}")
            if time.monotonic() > deadline:
                core.stopSequenceAcquisition()
                raise SourceError(f"the camera was silent for {patience_s:g} s while we waited for {what}")
            time.sleep(_POLL_S)
        return True

    def _wait_until_idle(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while self.mmcore.isSequenceRunning():
            if time.monotonic() > deadline:
                self.mmcore.stopSequenceAcquisition()
                return
            time.sleep(_POLL_S)

    def _burst_metadata(self, event: "useq.MDAEvent", tags: dict[str, Any], start_ms: float) -> Any:
        core = self.mmcore
        try:
            elapsed_ms = float(tags.get("ElapsedTime-ms", 0.0))
        except ValueError:
            elapsed_ms = 0.0
        meta = self.get_frame_metadata(
            event,
            prop_values=(),
            runner_time_ms=start_ms + elapsed_ms,
            camera_device=tags.get("Camera") or core.getCameraDevice(),
            include_position=self.include_frame_position_metadata is True,
        )
        meta["hardware_triggered"] = True
        meta["images_remaining_in_buffer"] = core.getRemainingImageCount()
        meta["camera_metadata"] = tags
        return meta


def _next_number(tags: Mapping[str, Any], last: int | None) -> int | None:
    """Return the number that the camera gave to a frame, having checked that none is missing."""
    try:
        number = int(tags.get("ImageNumber", ""))
    except ValueError:
        return None
    if last is not None and number > last + 1:
        raise SourceError(
            f"the camera skipped {number - last - 1} of its frames in a burst (image number {number} came "
            f"after {last}), so that the later ones would be stored at wrong coordinates; use a longer "
            "exposure or interval, or a smaller image"
        )
    return number


def _start_position(core: CMMCorePlus) -> tuple[float, float, float]:
    x, y = core.getXYPosition() if core.getXYStageDevice() else (0.0, 0.0)
    return x, y, core.getZPosition() if core.getFocusDevice() else 0.0


def anchored(event: "useq.MDAEvent", start: tuple[float, float, float]) -> "useq.MDAEvent":
    """Return the event with relative positions made absolute.

    useq gives a relative z-stack or grid whose stage position is not stated as if it were around
    zero. At the microscope it means: around where the stages are when the run starts.

    Parameters
    ----------
    event : useq.MDAEvent
    start : tuple of float
        x, y and z when the run started, in micrometres.
    """
    sequence = event.sequence
    if sequence is None:
        return event
    z_plan, grid_plan = sequence.z_plan, sequence.grid_plan
    position = None
    if "p" in event.index and sequence.stage_positions:
        position = sequence.stage_positions[event.index["p"]]
        own = position.sequence
        if own is not None:
            z_plan, grid_plan = own.z_plan or z_plan, own.grid_plan or grid_plan
    moved: dict[str, float] = {}
    if z_plan is not None and z_plan.is_relative and getattr(position, "z", None) is None:
        moved["z_pos"] = start[2] + (event.z_pos or 0.0)
    if grid_plan is not None and grid_plan.is_relative:
        if getattr(position, "x", None) is None:
            moved["x_pos"] = start[0] + (event.x_pos or 0.0)
        if getattr(position, "y", None) is None:
            moved["y_pos"] = start[1] + (event.y_pos or 0.0)
    return event.model_copy(update=moved) if moved else event
