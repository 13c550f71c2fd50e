"""The state shared by producers, process threads and the store thread: the frames in flight and the ledger.

Threads: :attr:`Flight.lock` guards every attribute. No method calls user code. The ``wait_`` methods
acquire and release the lock themselves; all others are called with the lock held.
"""

import threading
import time
from collections import deque

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import CoordinatesNotFoundError, HandlerError, HandlerFullError
from exengine.kernel.flow.policy import Policy
from exengine.kernel.flow.queued_frame import QueuedFrame
from exengine.kernel.flow.waiters import Waiters, wait
from exengine.kernel.frames.ledger import Ledger

_BATCH_BYTES = 4 * 2**20  # maximum amount of pixel data in a batch, unless a single frame is larger
_NAP_S = 0.001


class Flight:
    """The frames in flight, in two queues: frames that have arrived, and frames that can be stored.

    Parameters
    ----------
    policy : Policy
        The bounds on the pixel data and on the number of frames in flight. A single frame may exceed the
        bounds if no other frame is in flight.
    processing : bool
        Whether frames are processed between the two queues. Otherwise, both are the same queue.
    """

    def __init__(self, policy: Policy, *, processing: bool) -> None:
        self.lock = threading.Lock()
        self._policy = policy
        self.max_bytes, self.max_frames = policy.max_pending, policy.frame_limit
        self.bytes = self.frames = 0  # size and number of the frames in flight
        self.ledger = Ledger()
        self.error: BaseException | None = None
        self.closed = False  # whether new frames are rejected, after an error or after the end
        self.intake: deque[QueuedFrame] = deque()
        self.ready: deque[QueuedFrame] = deque() if processing else self.intake
        self.intake_ended = self.ready_ended = self.concluded = False
        self._arrived = 0  # number of frames passed to process threads
        self.results_waiting = 0  # number of process threads waiting for space; producers wait behind them
        self.arrivals = Waiters()  # threads that wait for a frame in `intake`
        self.results = Waiters() if processing else self.arrivals  # the store thread
        self.room = Waiters()  # producers and process threads waiting for space in a queue
        self.hurry = Waiters()  # the store thread, while it briefly waits for more frames
        self.news = Waiters()  # callers of `await_data` and `await_completion`
        self.index: dict[DataCoordinates, QueuedFrame] | None = None  # built on first use
        self._processing: dict[int, QueuedFrame] = {}  # the frames that are being processed, by id
        self._storing: list[QueuedFrame] = []  # the batch that is being stored
        self._waiting: dict[int, QueuedFrame] = {}  # results waiting for space in the queue, by id

    # -- arriving --------------------------------------------------------------------------------

    def is_full(self, size: int) -> bool:
        """Return whether a frame of this size has to wait for other frames in flight."""
        return self.frames > 0 and (not self._has_room(size) or self.results_waiting > 0)

    def is_dropped(self, left_s: float | None) -> bool:
        """Return whether to drop a frame for which there is no room.

        Parameters
        ----------
        left_s : float or None
            The time for which the producer may still wait, in seconds; None if it has not waited, or if there
            is no limit.

        Raises
        ------
        HandlerError
            If the handler accepts no more frames, or if the producer must not wait any longer.
        """
        if self.error is not None:
            raise self.handler_error("this frame was not accepted")
        if self.closed:
            raise HandlerError("the handler is finished and accepts no more frames")
        policy = self._policy
        if policy.when_full == "drop":
            return True
        bound = "max_frames" if self.frames >= self.max_frames else "max_pending"
        why = f"{self._fill()}%s, because the storage is slower than the source; raise {bound} or %s"
        if policy.when_full == "error":
            raise HandlerFullError(why % ("", "set when_full='block' to make the source wait"))
        if left_s is not None and left_s <= 0:
            raise HandlerFullError(why % (f" after {policy.block_timeout_s:g} s", "block_timeout_s"))
        return False

    def _fill(self) -> str:
        if self.frames >= self.max_frames:
            return f"{self.frames} of {self.max_frames} frames are queued"
        return f"{self.bytes} of {self.max_bytes} bytes are queued"

    def name_dropped(self, item: QueuedFrame) -> None:
        """Add a dropped frame to the ledger's list of frames that were not stored."""
        self.ledger.name_loss(item.coordinates.__dict__, f"dropped, because {self._fill()}")
        self.news.wake_all()

    def handler_error(self, what: str) -> HandlerError:
        """Return the error that a caller receives, with the first error as its cause."""
        error = HandlerError(f"{self.error}; {what}")
        error.__cause__ = self.error
        return error

    def fail(self, error: BaseException) -> bool:
        """Record the error if it is the first one; return whether it was recorded."""
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
        """Return the latest frame in flight at these coordinates, or None."""
        if self.index is None:
            processing = sorted(self._processing.values(), key=lambda item: item.since)
            queued = (
                self.intake
                if self.ready is self.intake
                else [*self.ready, *self._waiting.values(), *processing, *self.intake]
            )
            self.index = {item.coordinates: item for item in (*self._storing, *queued)}
        return self.index.get(coordinates)

    def refusal_of(self, coordinates: DataCoordinates) -> Exception | None:
        """Return the error for an awaited frame that is not in flight; None if the frame may still arrive."""
        for where, reason in self.ledger.not_stored:
            if where == coordinates.__dict__:
                error = HandlerError(f"the frame at {where} was not stored: {reason}")
                error.__cause__ = self.error
                return error
        if self.error is not None:
            return self.handler_error(f"the frame at {coordinates.__dict__} did not arrive")
        if self.concluded:
            return CoordinatesNotFoundError(
                f"the handler has ended without a frame at {coordinates.__dict__}"
            )
        return None

    # -- leaving ---------------------------------------------------------------------------------

    def leave(self, items: list[QueuedFrame], size: int) -> None:
        """Remove frames that were stored, processed or lost, and wake the threads that wait for changes.

        Parameters
        ----------
        items : list of QueuedFrame
            The first frames of the batch that is being stored, or a frame that was processed.
        size : int
            The total size of their pixel data, in bytes.
        """
        ledger = self.ledger
        # The maximum is reached just before frames leave.
        ledger.most_bytes = max(ledger.most_bytes, self.bytes)
        ledger.most_frames = max(ledger.most_frames, self.frames)
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

    def wait_to_store(self, most: int, deadline: float | None = None) -> list[QueuedFrame] | None:
        """Wait for frames that can be stored; return up to ``most`` frames, or an empty list at the end.

        Return None if no frame has arrived at ``deadline``, a value of ``time.monotonic()``.
        """
        slept = False
        while True:
            with self.lock:
                queue = self.ready
                naps = slept and 0 < len(queue) < most and not (self.ready_ended or self.room.tickets)
                if queue and not naps:
                    return self._take(queue, most)
                if not queue and self.ready_ended:
                    return []
                waiters = self.hurry if naps else self.results
                ticket = waiters.enlist()
            # The first frame after a pause wakes this thread, which then briefly waits for more frames.
            if not (ticket.acquire(timeout=_NAP_S) if naps else wait(ticket, deadline)):
                with self.lock:
                    waiters.withdraw(ticket)
                if deadline is not None and time.monotonic() >= deadline:
                    return None
            slept = not naps

    def _take(self, queue: deque[QueuedFrame], most: int) -> list[QueuedFrame]:
        count = min(most, len(queue), max(1, _BATCH_BYTES // max(1, queue[0].size)))
        items = self._storing = [queue.popleft() for _ in range(count)]
        return items.copy()

    def wait_to_process(self) -> tuple[int, QueuedFrame] | None:
        """Wait for a frame to arrive; return it with its number, or None if the intake has ended."""
        while True:
            with self.lock:
                if self.intake:
                    item = self.intake.popleft()
                    self._processing[id(item)] = item
                    self._arrived += 1
                    return self._arrived - 1, item
                if self.intake_ended:
                    return None
                ticket = self.arrivals.enlist()
            if not wait(ticket):
                with self.lock:
                    self.arrivals.withdraw(ticket)

    def wait_to_pass_on(self, result: QueuedFrame, replaced: QueuedFrame | None) -> None:
        """Wait for space, and queue a frame to be stored. Producers cannot add frames in the meantime.

        Parameters
        ----------
        result : QueuedFrame
        replaced : QueuedFrame or None
            The frame that was processed. It is removed first, so that the result can use its room.
        """
        waits = False
        while True:
            with self.lock:
                if replaced is not None:
                    self.leave([replaced], replaced.size)
                    replaced = None
                if self._has_room(result.size) or not (self.ready or self._storing):
                    self.results_waiting -= waits
                    self._waiting.pop(id(result), None)
                    self.bytes += result.size
                    self.frames += 1
                    self.ledger.produced += 1
                    if self.index is not None:
                        self.index[result.coordinates] = result
                    self.ready.append(result)
                    self.results.wake_one()
                    self.news.wake_all()
                    return
                self.results_waiting += not waits
                self._waiting[id(result)] = result
                if self.index is not None:
                    self.index[result.coordinates] = result
                waits = True
                ticket = self.room.enlist()
                self.hurry.wake_all()
            wait(ticket)

    def _has_room(self, size: int) -> bool:
        return self.bytes + size <= self.max_bytes and self.frames < self.max_frames

    def wait_for_end(self, timeout: float | None) -> bool:
        """Wait until the storage is finished or aborted; return False if the wait timed out."""
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
        """Reject all frames, because this is a forked process and the threads exist only in its parent."""
        self.lock = threading.Lock()
        self.error = RuntimeError("this process was forked, and the handler belongs to the parent process")
        self.closed = self.concluded = True
