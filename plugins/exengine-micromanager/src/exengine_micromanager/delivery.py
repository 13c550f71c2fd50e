"""Passes the frames of one run from the engine to the sink, on a single thread.

Guarantees: the sink is called once per frame, in the order in which the engine delivers the frames, on the
thread that called :meth:`Delivery.run`. After the first error or a cancellation, the sink is not called
again.

Assumption: pymmcore-plus calls its listeners on the thread that runs the engine.
"""

import datetime
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exengine.base_classes import DataCoordinates, Sink
from exengine_micromanager.metadata import frame_json

if TYPE_CHECKING:
    import useq

    from exengine_micromanager.careful_core import CarefulCore
    from exengine_micromanager.orders import Orders


_RAISED_HERE = ("Failed to set", "Failed to snap")


@contextmanager
def quiet_terminal(core: "CarefulCore") -> Iterator[None]:
    """Hide pymmcore-plus's terminal messages about failures that this package raises as exceptions anyway.

    The pymmcore-plus log file still receives every record. Messages from other threads and messages about
    other problems still appear in the terminal.
    """
    thread = threading.get_ident()

    def quiet(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        raised = core.failure is not None and message.startswith(_RAISED_HERE)
        return record.thread != thread or not (raised or message.startswith("MDA Canceled"))

    handlers = logging.getLogger("pymmcore-plus").handlers
    terminals = [handler for handler in handlers if not isinstance(handler, logging.FileHandler)]
    for handler in terminals:
        handler.addFilter(quiet)
    try:
        yield
    finally:
        for handler in terminals:
            handler.removeFilter(quiet)


class Delivery:
    """Passes the frames of one run to the sink on the engine's thread, and stores the first error.

    pymmcore-plus discards exceptions that callbacks raise. The first such exception is therefore stored in
    ``error``. After an error or a cancellation, the sink receives no more frames.
    """

    def __init__(
        self,
        sink: Sink,
        cancelled: threading.Event,
        core: "CarefulCore",
        coordinates: "Callable[[useq.MDAEvent, str], DataCoordinates]",
    ) -> None:
        self.count = 0
        self.error: BaseException | None = None
        self.where: DataCoordinates | None = None
        self._sink = sink
        self._cancelled = cancelled
        self._core = core
        self._coordinates = coordinates

    def run(self, sequence: "useq.MDASequence", orders: "Orders") -> Exception | None:
        """Run the engine, and return the exception that it raised, if any."""
        from exengine_micromanager.engine import CarefulEngine

        core, events = self._core, self._core.mda.events
        with quiet_terminal(core):
            core.mda.set_engine(CarefulEngine(core, orders, self._stopped))
            # Callbacks that are connected on this thread are also called on it, even with Qt signals.
            events.sequenceStarted.connect(self._started)
            events.eventStarted.connect(self._event_started)
            events.frameReady.connect(self._frame_ready)
            try:
                if not self._stopped():
                    core.mda.run(sequence)
            except Exception as error:
                return error
            finally:
                events.frameReady.disconnect(self._frame_ready)
                events.eventStarted.disconnect(self._event_started)
                events.sequenceStarted.disconnect(self._started)
        return None

    def _stopped(self) -> bool:
        return self.error is not None or self._cancelled.is_set()

    def _started(self, *_: object) -> None:
        # The runner forgets a cancellation that arrived before it started, so cancel the run again.
        if self._stopped():
            self._core.mda.cancel()

    def _event_started(self, event: "useq.MDAEvent") -> None:
        # The runner also forgets a cancellation that arrives just before an event starts.
        self._started()
        first = getattr(event, "events", (event,))[0]
        self.where = self._coordinates(first, "")

    def _frame_ready(self, image: npt.NDArray[Any], event: "useq.MDAEvent", meta: Mapping[str, Any]) -> None:
        if self._stopped():
            return
        try:
            received = datetime.datetime.now(datetime.UTC)
            coordinates = self.where = self._coordinates(event, meta.get("camera_device") or "")
            # An RGB image is a reversed view of the camera's BGRA buffer, so it must be copied.
            pixels = np.ascontiguousarray(image)
            self._sink(coordinates, pixels, frame_json(meta, received_at=received))
            self.count += 1
        except BaseException as error:  # the source raises this error after the run
            self.error = error
            self._core.mda.cancel()
