"""One run of pymmcore-plus's runner, recorded to one dataset.

The runner calls this module on the engine's thread, once per frame. Each frame is queued for the storage. If
the queue is full, the engine waits, so a slow disk slows the camera and does not fill the memory.

Guarantees: each frame that the runner delivers is stored, or the run ends with an error. If the camera does
not deliver a frame that an event requests, the missing frame is reported. Two frames of a run never have the
same coordinates. The dataset is finished exactly once, whatever happens.
"""

import contextlib
import datetime
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import useq

from exengine import Ledger, Recorder
from exengine.base_classes import DataCoordinates
from exengine.errors import HandlerError, SourceError, UnsupportedOperationError
from exengine_micromanager.burst_tags import next_number
from exengine_micromanager.metadata import frame_json, plain
from exengine_micromanager.user_core.frame_coordinates import CAMERA, FrameCoordinates, ToCoordinates
from exengine_micromanager.user_core.run_plan import plan_of_run

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus
    from pymmcore_plus.mda import MDARunner

_INTERRUPTED_TIMEOUT_S = 30.0
_MOST_NAMED = 1000
_MOST_LOGGED = 10
_log = logging.getLogger("exengine")


class RecordedRun:
    """Records the frames of one run.

    Parameters
    ----------
    recorder : Recorder
    runner : MDARunner
    events : useq.MDASequence or iterable of useq.MDAEvent
        The events that the runner was asked to run.
    outcome : concurrent.futures.Future
        Receives the ledger, or the error that ended the run.
    convert : callable, optional
        Returns the coordinates of an event.
    copy : bool
        Whether to copy the pixels of each frame.
    """

    def __init__(
        self,
        recorder: Recorder,
        runner: "MDARunner",
        events: Any,
        outcome: "Future[Ledger]",
        *,
        convert: ToCoordinates | None = None,
        copy: bool = True,
    ) -> None:
        self._recorder = recorder
        self._runner = runner
        self._outcome = outcome
        self._copy = copy
        self._core: CMMCorePlus | None = getattr(runner.engine, "mmcore", None)
        self._event: useq.MDAEvent | None = None  # the event that the engine is carrying out
        self._singles: tuple[useq.MDAEvent, ...] = ()
        self._first = 0  # the number of events before those in _singles
        self._counts: dict[str, int] = {}  # the number of frames that have arrived, by camera
        self._arrived: set[DataCoordinates] = set()
        self._image_number: int | None = None
        self._last: DataCoordinates | None = None  # the coordinates of the frame with the last image number
        self._missing: list[DataCoordinates] = []
        self._missing_count = 0
        plan, repeated = plan_of_run(runner.engine, events, converted=convert is not None)
        self._coordinates = FrameCoordinates(repeated, convert)
        self._ended = False
        recorder.check(plan)
        sequence = events if isinstance(events, useq.MDASequence) else None
        recorder.open(plan, on_error=self._stop, sequence=sequence)
        try:
            recorder.expect(plan)
            runner.events.eventStarted.connect(self._event_started)
        except BaseException as error:
            recorder.finish(error, failed=True)
            recorder.report()
            raise

    # -- called by the runner, on the engine's thread -------------------------------------------------

    def setup(self, sequence: Any, meta: Any) -> None:
        """Store the engine's description of the microscope in the dataset."""
        storage = self._recorder.storage
        assert storage is not None
        with contextlib.suppress(UnsupportedOperationError):  # this backend does not store annotations
            storage.annotate("pymmcore_plus", plain(meta or {}))

    def append(self, image: npt.NDArray[Any], event: "useq.MDAEvent", meta: Mapping[str, Any]) -> None:
        """Pass one frame to the recorder.

        Raises
        ------
        HandlerError
            If an earlier frame could not be stored.
        SourceError
            If the camera skipped frames of a burst.
        """
        received = datetime.datetime.now(datetime.UTC)
        camera = str(meta.get("camera_device") or "")
        count = self._counts.get(camera, 0)
        coordinates = self._coordinates.of(event, camera, self._first + count)
        if CAMERA not in event.index:  # several cameras share one series of image numbers
            self._check_number(camera, coordinates, meta.get("camera_metadata") or {})
        self._counts[camera] = count + 1
        self._arrived.add(coordinates)
        if meta.get("mda_event") is None:
            meta = {**meta, "mda_event": event}
        # An RGB image is a reversed view of the camera's BGRA buffer, so it must be copied.
        pixels = np.ascontiguousarray(image)
        self._recorder.put(
            self._coordinates.unused(coordinates),
            pixels,
            frame_json(meta, received_at=received),
            copy=self._copy and np.may_share_memory(pixels, image),
            time_point=event.index.get("t"),
        )

    def _check_number(self, camera: str, coordinates: DataCoordinates, tags: Mapping[str, Any]) -> None:
        """Raise an error, and record the gap in the ledger, if the camera skipped frames of a burst."""
        last, before = self._image_number, self._last
        try:
            self._image_number = next_number(tags, last)
        except SourceError:
            missing = int(tags["ImageNumber"]) - (last or 0) - 1
            self._recorder.ledger.name_gap(camera, before, coordinates, missing)
            raise
        self._last = coordinates

    def skip(self, *, frames: int = 1) -> None:
        """Record that the engine skipped an event, which therefore has no frames."""
        # The runner sets `runner_t0` when it executes an event. If this key is missing, the engine raised
        # SkipEvent.
        if self._event is not None and not self._counts and "runner_t0" not in self._event.metadata:
            self._singles = ()

    def _event_started(self, event: "useq.MDAEvent") -> None:
        self._settle()
        self._first += len(self._singles)
        self._event = event
        self._singles = tuple(getattr(event, "events", (event,)))
        self._counts.clear()
        self._arrived.clear()
        self._image_number = None

    def _settle(self) -> None:
        """Record which frames of the last event the camera did not deliver."""
        from exengine_micromanager.plan_checks import camera_channels

        core = self._core
        cameras = ("",) if core is None else camera_channels(core, core.getCameraDevice())
        images = [
            (number, event)
            for number, event in enumerate(self._singles, self._first)
            if event.action is None or event.action.type == "acquire_image"
        ]
        if sum(self._counts.values()) >= len(images) * len(cameras):
            return
        for number, event in images:
            for where in self._coordinates.expected(event, cameras, number):
                if where not in self._arrived:
                    self._missing_count += 1
                    if self._missing_count <= _MOST_LOGGED:
                        _log.warning("the camera delivered no image for the frame at %s", dict(where))
                    if len(self._missing) < _MOST_NAMED:
                        self._missing.append(where)
                        self._recorder.ledger.name_loss(where, "the camera delivered no image")

    def _stop(self, error: BaseException) -> None:
        """Cancel the run, because a frame could not be stored and the next time point may be hours away."""
        if not self._ended:
            self._runner.cancel()

    # -- the end --------------------------------------------------------------------------------------

    def end(self, error: BaseException | None) -> BaseException | None:
        """Finish the dataset, and return the error that the run must raise, or None.

        Parameters
        ----------
        error : BaseException or None
            The error that ended the run.
        """
        recorder = self._recorder
        self._ended = True
        try:
            try:
                self._stop_listening(error)
                error = self._finish(error)
            except BaseException as interrupt:  # the dataset must still be finished
                error = error or interrupt
                with contextlib.suppress(BaseException):
                    recorder.finish(interrupt, timeout=_INTERRUPTED_TIMEOUT_S)
            recorder.report()
        except BaseException as interrupt:
            error = error or interrupt
        finally:  # so that no caller of `result` waits forever
            if error is None:
                self._outcome.set_result(recorder.ledger)
            else:
                self._outcome.set_exception(error)
        return error

    def _stop_listening(self, error: BaseException | None) -> None:
        with contextlib.suppress(Exception):
            self._runner.events.eventStarted.disconnect(self._event_started)
        core = self._core
        with contextlib.suppress(Exception):  # pymmcore-plus's engine does not stop a burst after an error
            if error is not None and core is not None and core.isSequenceRunning():
                core.stopSequenceAcquisition()

    def _finish(self, error: BaseException | None) -> BaseException | None:
        recorder = self._recorder
        own: BaseException | None = None  # the error of this recording, which is raised with its ledger
        if error is None and str(self._runner.status.finish_reason) != "completed":
            recorder.finish("cancelled")
        else:
            own = self._missing_frames() if error is None else None
            recorder.finish(error or own, failed=own is not None or recorder.error is not None)
        unrestored = getattr(self._runner.engine, "unrestored", ())
        left = f"after the run, {'; '.join(unrestored)}" if unrestored else ""
        if recorder.error is not None:
            own = recorder.error
            if error is not None and not isinstance(error, HandlerError):
                own.add_note(f"the engine also raised {type(error).__name__}: {error}")
        elif isinstance(error, HandlerError):
            own = error
        elif error is None and own is None and left:
            own, left = SourceError(left), ""
        raised = own or error
        if raised is not None and left:
            raised.add_note(left)
        if own is not None:
            return recorder.failure(own)
        if error is not None:
            stored = recorder.ledger.stored
            kept = "1 frame was stored" if stored == 1 else f"{stored} frames were stored"
            where = f" in {recorder.path}" if recorder.path else ""
            error.add_note(f"{kept}{where}, status {recorder.status}{self._last_event()}")
        return error

    def _last_event(self) -> str:
        """Return the part of the message that describes the last event of a failed run."""
        if not self._singles:
            return ""
        try:
            where = dict(self._coordinates.of(self._singles[0], "", self._first))
        except Exception:  # the user's function can raise any exception
            where = dict(self._singles[0].index)
        if len(self._singles) == 1:
            return f"; the last event was at {where}"
        arrived = max(self._counts.values(), default=0)
        return (
            f"; the last event was a burst starting at {where}; {arrived} of its {len(self._singles)} "
            "frames arrived"
        )

    def _missing_frames(self) -> SourceError | None:
        self._settle()
        if not self._missing:
            return None
        named = ", ".join(str(dict(where)) for where in self._missing[:5])
        more = f" and {self._missing_count - 5} more" if self._missing_count > 5 else ""
        count = "1 frame" if self._missing_count == 1 else f"{self._missing_count} frames"
        return SourceError(f"the camera delivered no image for {count}: {named}{more}")
