"""One run: passes each frame from the engine to the sink, on one thread.

Guarantees: the sink is called on the thread that called :meth:`Delivery.run`, once per frame, in the order of
the engine; after its first error, and after a cancel, it is not called again.
Assumes that pymmcore-plus calls its listeners on the thread that runs the engine.
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
    """Hide log records of pymmcore-plus about failures that are raised here anyway.

    Its log file still gets every record. Records of other threads and about other problems stay visible.
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
    """One run: passes frames to the sink on the engine's thread, and keeps the first error.

    pymmcore-plus discards the exceptions of callbacks. The first one is therefore kept in ``error``;
    after it, as after a cancel, the sink gets no more frames.
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
        """Run the engine; return its exception, if any."""
        from exengine_micromanager.engine import CarefulEngine

        core, events = self._core, self._core.mda.events
        with quiet_terminal(core):
            core.mda.set_engine(CarefulEngine(core, orders, self._stopped))
            # Callbacks that are connected on this thread are called on it, also with the signals of Qt.
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
        # The runner loses a cancel that arrived before it started.
        if self._stopped():
            self._core.mda.cancel()

    def _event_started(self, event: "useq.MDAEvent") -> None:
        # ... and one that arrived between the wait for an event and its start.
        self._started()
        first = getattr(event, "events", (event,))[0]
        self.where = self._coordinates(first, "")

    def _frame_ready(self, image: npt.NDArray[Any], event: "useq.MDAEvent", meta: Mapping[str, Any]) -> None:
        if self._stopped():
            return
        try:
            received = datetime.datetime.now(datetime.UTC)
            coordinates = self.where = self._coordinates(event, meta.get("camera_device") or "")
            # An RGB image is a reversed view of the camera's BGRA.
            pixels = np.ascontiguousarray(image)
            self._sink(coordinates, pixels, frame_json(meta, received_at=received))
            self.count += 1
        except BaseException as error:  # the source raises it after the run
            self.error = error
            self._core.mda.cancel()
