"""The state that producers, process threads and the store thread share: the frames in flight and their ends.

Threads: :attr:`Flight.lock` guards every attribute. No method calls user code. A method whose name begins
with ``wait_`` acquires and releases the lock itself; all others are called with the lock held.
"""

import threading
import time
from collections import deque

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import HandlerError
from exengine.kernel.flow.queued_frame import QueuedFrame
from exengine.kernel.flow.waiters import Waiters, wait
from exengine.kernel.frames.ledger import Ledger

_BATCH_BYTES = 4 * 2**20  # pixel data that is taken at once, unless a single frame is larger
_NAP_S = 0.001


class Flight:
    """The frames in flight, in two queues: those that arrived, and those that can be stored.

    Parameters
    ----------
    max_bytes, max_frames : int
        The bounds on the pixel data, in bytes, and on the number of frames in flight. A single frame may
        exceed the bounds if no other frame is in flight.
    processing : bool
        Whether frames are processed between the two queues. Otherwise, both are the same queue.
    """

    def __init__(self, *, max_bytes: int, max_frames: int, processing: bool) -> None:
        self.lock = threading.Lock()
        self.max_bytes, self.max_frames = max_bytes, max_frames
        self.bytes = self.frames = 0  # in flight
        self.ledger = Ledger()
        self.error: BaseException | None = None
        self.closed = False  # whether producers are refused, because of an error or the end
        self.intake: deque[QueuedFrame] = deque()
        self.ready: deque[QueuedFrame] = deque() if processing else self.intake
        self.intake_ended = self.ready_ended = self.concluded = False
        self.results_waiting = 0  # process threads that wait for room; they have priority over producers
        self.arrivals = Waiters()  # threads that wait for a frame in `intake`
        self.results = Waiters() if processing else self.arrivals  # the store thread
        self.room = Waiters()  # producers and process threads
        self.hurry = Waiters()  # the store thread while it naps
        self.news = Waiters()  # callers of `await_data` and `await_completion`
        self.index: dict[DataCoordinates, QueuedFrame] | None = None  # made when it is first needed
        self._processing: dict[int, QueuedFrame] = {}  # id -> frame
        self._storing: list[QueuedFrame] = []  # the batch that is being stored

    # -- arriving --------------------------------------------------------------------------------

    def handler_error(self, what: str) -> HandlerError:
        """Return the error that a caller receives, with the first error as its cause."""
        error = HandlerError(f"{self.error}; {what}")
        error.__cause__ = self.error
        return error

    def fail(self, error: BaseException) -> bool:
        """Keep the first error; return whether this is it."""
        if self.error is not None:
            return False
        self.error = error
        self.closed = True
        self.room.wake_all()
        self.news.wake_all()
        return True

    def end_intake(self) -> None:
        """Accept no more frames."""
        self.intake_ended = self.closed = True
        if self.ready is self.intake:
            self.ready_ended = True
        self.arrivals.wake_all()
        self.room.wake_all()
        self.hurry.wake_all()

    # -- looking up ------------------------------------------------------------------------------

    def find(self, coordinates: DataCoordinates) -> QueuedFrame | None:
        """Return the frame in flight at these coordinates; the latest, if there are several."""
        if self.index is None:
            processing = sorted(self._processing.values(), key=lambda item: item.since)
            queued = self.intake if self.ready is self.intake else [*self.ready, *processing, *self.intake]
            self.index = {item.coordinates: item for item in (*self._storing, *queued)}
        return self.index.get(coordinates)

    # -- leaving ---------------------------------------------------------------------------------

    def leave(self, items: list[QueuedFrame], size: int) -> None:
        """Remove frames from the count, and wake the threads that wait for room or for news.

        Parameters
        ----------
        items : list of QueuedFrame
            The first frames of the batch that is being stored, or a frame that was processed.
        size : int
            The total size of their pixel data, in bytes.
        """
        self.bytes -= size
        self.frames -= len(items)
        if self._processing.pop(id(items[0]), None) is None:
            del self._storing[: len(items)]
        if self.index is not None:
            for item in items:
                if self.index.get(item.coordinates) is item:
                    del self.index[item.coordinates]
        if self.room.tickets:
            self.room.wake_all()
        if self.news.tickets:
            self.news.wake_all()

    # -- waiting for frames ----------------------------------------------------------------------

    def wait_to_store(self, most: int) -> list[QueuedFrame]:
        """Wait for frames that can be stored; return at most ``most`` of them, and none at the end."""
        slept = False
        while True:
            with self.lock:
                queue = self.ready
                if queue:
                    if not slept or len(queue) >= most or self.ready_ended or self.room.tickets:
                        return self._take(queue, most)
                    ticket = self.hurry.enlist()
                elif self.ready_ended:
                    return []
                else:
                    ticket = self.results.enlist()
            if queue:
                # The first frame after a pause wakes this thread. It naps, so that more frames arrive.
                ticket.acquire(timeout=_NAP_S)
                with self.lock:
                    self.hurry.withdraw(ticket)
                slept = False
            else:
                slept = True
                if not wait(ticket):
                    with self.lock:
                        self.results.withdraw(ticket)

    def _take(self, queue: deque[QueuedFrame], most: int) -> list[QueuedFrame]:
        count = min(most, len(queue), max(1, _BATCH_BYTES // max(1, queue[0].size)))
        items = self._storing = [queue.popleft() for _ in range(count)]
        return items.copy()

    def wait_to_process(self) -> QueuedFrame | None:
        """Wait for a frame that arrived, and return it; return None at the end."""
        while True:
            with self.lock:
                if self.intake:
                    item = self.intake.popleft()
                    self._processing[id(item)] = item
                    return item
                if self.intake_ended:
                    return None
                ticket = self.arrivals.enlist()
            if not wait(ticket):
                with self.lock:
                    self.arrivals.withdraw(ticket)

    def wait_for_end(self, timeout: float | None) -> bool:
        """Wait until the storage has been ended; return False if the wait timed out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self.lock:
                if self.concluded:
                    return True
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                ticket = self.news.enlist()
            if not wait(ticket, deadline):
                with self.lock:
                    self.news.withdraw(ticket)

    def disown(self) -> None:
        """Refuse everything: this is a forked process, and the threads exist only in its parent."""
        self.lock = threading.Lock()
        self.error = RuntimeError("this handler belongs to the process that forked this one")
        self.closed = self.concluded = True
