"""One run: the way of each frame from the engine to the sink, on one thread.

Guarantees: the sink is called on the thread that called :meth:`Delivery.run`, once per frame, in the
order in which the engine gives them; after its first error, and after a cancel, it is not called again.
Assumes that pymmcore-plus calls its listeners on the thread that runs the engine.
"""

import datetime
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exengine.base_classes import DataCoordinates, Sink, event_coordinates
from exengine_micromanager.metadata import frame_json

if TYPE_CHECKING:
    import useq

    from exengine_micromanager.engine import CarefulCore


class Delivery:
    """One run: hands frames to the sink on the engine's thread, and keeps the first error.

    pymmcore-plus swallows what a callback raises; so it is kept in ``error``, and from then on, as after
    a cancel, no frame reaches the sink.
    """

    def __init__(self, sink: Sink, cancelled: threading.Event, core: "CarefulCore") -> None:
        self.count = 0
        self.error: BaseException | None = None
        self.where: DataCoordinates | None = None
        self._sink = sink
        self._cancelled = cancelled
        self._core = core

    def run(self, sequence: "useq.MDASequence") -> Exception | None:
        """Run the engine; return what it raised."""
        from exengine_micromanager.engine import CarefulEngine, quiet_terminal

        core, events = self._core, self._core.mda.events
        with quiet_terminal():
            core.mda.set_engine(CarefulEngine(core, self._stopped))
            # Connected on this thread, they are called on this thread, with Qt's signals too.
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
        # The runner forgets a cancel that came before it got ready.
        if self._stopped():
            self._core.mda.cancel()

    def _event_started(self, event: "useq.MDAEvent") -> None:
        # ... and one that came between the wait for an event and its start.
        self._started()
        first = getattr(event, "events", (event,))[0]
        self.where = event_coordinates(first)

    def _frame_ready(self, image: npt.NDArray[Any], event: "useq.MDAEvent", meta: Mapping[str, Any]) -> None:
        if self._stopped():
            return
        try:
            received = datetime.datetime.now(datetime.UTC)
            self.where = event_coordinates(event)
            # RGB comes as a reversed view of the camera's BGRA.
            pixels = np.ascontiguousarray(image)
            self._sink(event_coordinates(event), pixels, frame_json(meta, received_at=received))
            self.count += 1
        except BaseException as error:  # the source raises it when the run has ended
            self.error = error
            self._core.mda.cancel()
