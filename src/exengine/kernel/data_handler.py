"""Moves frames from a producer to a storage on its own threads, and never loses a frame silently.

This module is responsible for the bounded queue, the process function, the ledger, and reporting every error
to the caller. It is not responsible for the storage promises.

Threads: ``exengine-process`` (only with a process function) and ``exengine-store``. Both are daemon threads,
so that a forgotten handler does not keep the interpreter alive; it is drained at exit
(:mod:`exengine.kernel.system.at_exit`). A single condition variable guards all state below. User code
(process function, storage, futures) is called without holding its lock.

The first error is kept, and the next ``put`` and ``await_completion`` raise it. Frames that were accepted
before the error are still passed to the storage.
"""

import logging
import threading
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates, of_checked_axes, snapshot
from exengine.kernel.data_storage_base import CoordinatesLike, DataStorage, JsonValue
from exengine.kernel.errors import (
    CoordinatesNotFoundError,
    HandlerError,
    HandlerFullError,
    OptionError,
    UnsupportedDataError,
    UnsupportedOperationError,
    describe,
    frames_stored_before,
)
from exengine.kernel.frames.ledger import MAX_NAMED, Ledger
from exengine.kernel.frames.metadata import clean_metadata
from exengine.kernel.notifications import notifications_to
from exengine.kernel.queued_frame import QueuedFrame, frames_of
from exengine.kernel.storage.ending import end_early, keep_ledger
from exengine.kernel.system import at_exit

OnStored = Callable[[list[DataCoordinates]], None]
"""Called with the coordinates of the frames that were stored, in order."""

ProcessFunction = Callable[[DataCoordinates, npt.NDArray[Any], JsonValue], Any]

_log = logging.getLogger("exengine")
_MOST_AT_ONCE = 64  # maximum number of frames taken from the queue, and reported to observers, at once


class DataHandler:
    """A queue, with its threads, between a frame producer and a storage.

    Parameters
    ----------
    storage : DataStorage
        The storage that receives the frames. The handler finishes it.
    process_function : callable, optional
        Called as ``process_function(coordinates, data, metadata)``. It returns one such tuple, a list of such
        tuples, or None to discard the frame. It may modify the array that it receives. Any other array that
        it returns is copied.
    _executor : object, optional
        An ExEngine 0.4.0 executor; its ``publish_notification(notification)`` is called for each frame
        stored.
    max_pending : int
        The maximum amount of pixel data in the queue, in bytes. A frame larger than this is queued alone.
    when_full : {'block', 'error'}
        Whether ``put`` waits for space or raises ``HandlerFullError``.
    on_stored : callable, optional
        Called with a list of ``DataCoordinates`` after each batch of frames is stored, on the thread that
        stores them. It must return quickly. If it raises an exception, the exception is logged.

    Examples
    --------
    >>> import numpy as np, exengine
    >>> storage = exengine.open_storage("ndram")
    >>> handler = DataHandler(storage)
    >>> handler.put({"time": 0}, np.zeros((4, 4)), {})
    >>> handler.finish()
    >>> handler.await_completion()
    >>> handler.ledger.stored
    1
    """

    def __init__(
        self,
        storage: DataStorage,
        process_function: ProcessFunction | None = None,
        _executor: Any = None,
        *,
        max_pending: int = 2**30,
        when_full: Literal["block", "error"] = "block",
        on_stored: OnStored | None = None,
    ) -> None:
        if max_pending <= 0 or when_full not in ("block", "error"):
            raise OptionError("max_pending must be positive, and when_full must be 'block' or 'error'")
        self._storage = storage
        self._writes_batches = isinstance(storage, DataStorage) and storage.batch_frames > 1
        self._process_function = process_function
        self._on_stored = [one for one in (on_stored, notifications_to(_executor)) if one is not None]
        self._max_pending = max_pending
        self._when_full = when_full
        self._changed = threading.Condition()
        self._intake: deque[QueuedFrame] = deque()
        self._ready: deque[QueuedFrame] = deque() if process_function else self._intake
        self._intake_ended = self._ready_ended = self._concluded = False
        self._pending_bytes = 0
        self._in_flight: dict[DataCoordinates, QueuedFrame] = {}
        self._ledger = Ledger()
        self._error: BaseException | None = None
        self._abort: tuple[str, bool] | None = None
        self._refused: set[DataCoordinates] = set()  # rejected when offered; they may be put again
        self._threads = [threading.Thread(target=self._store_all, name="exengine-store", daemon=True)]
        if process_function is not None:
            self._threads.append(
                threading.Thread(target=self._process_all, name="exengine-process", daemon=True)
            )
        at_exit.watch_handler(self)
        for thread in self._threads:
            thread.start()

    # -- for the producer ------------------------------------------------------------------------

    def put(
        self,
        coordinates: CoordinatesLike,
        image: npt.NDArray[Any],
        metadata: JsonValue,
        execution_future: Any = None,
        *,
        copy: bool = True,
    ) -> None:
        """Add one frame to the queue.

        Parameters
        ----------
        coordinates : DataCoordinates or mapping
        image : numpy.ndarray
            The pixels.
        metadata : JSON value
        execution_future : object, optional
            Its ``_notify_data(coordinates, data, metadata, processed=, stored=)`` method is called when the
            frame arrives, when it has been processed, and when it has been stored.
        copy : bool
            Whether to copy the array. Pass False if no code will modify it after this call.

        Raises
        ------
        HandlerError
            If an earlier frame could not be stored; this frame is not accepted. ``__cause__`` is the reason.
        HandlerFullError
            If the queue is full and ``when_full`` is ``'error'``.
        CoordinatesError, MetadataError, UnsupportedDataError
            If the frame is invalid.
        """
        ledger = self._ledger
        taken, where = False, None
        try:
            where = snapshot(coordinates)
            metadata = clean_metadata(metadata)
            if not isinstance(image, np.ndarray):
                raise UnsupportedDataError(f"data must be a numpy array, got {type(image).__name__}")
            item = QueuedFrame(
                where, image.copy() if copy else image, metadata, execution_future, processed=False
            )
            with self._changed:
                self._admit(item)
                if where in self._refused:  # accepted this time, so it is counted only once
                    self._refused.discard(where)
                    ledger.forget_refusals(where.__dict__)
                self._in_flight[where] = item
                # No function is called before append, so an interrupted frame is both counted and queued, or
                # neither.
                ledger.offered += 1
                if self._process_function is None:
                    ledger.passed_on += 1
                    ledger.produced += 1
                self._pending_bytes += item.size
                taken = True
                self._intake.append(item)
                self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                if taken:
                    self._changed.notify_all()
                else:
                    if where is not None and len(self._refused) < MAX_NAMED:
                        self._refused.add(where)
                    ledger.offered += 1
                    ledger.failed_in += 1
                    ledger.name_loss(coordinates, str(error))
            raise
        if execution_future is not None:
            item.notify(processed=False, stored=False)

    def _admit(self, item: QueuedFrame) -> None:
        """Wait for space; raise an error if the frame cannot be accepted. Called with the lock held."""
        while True:
            if self._error is not None:
                raise self._handler_error("this frame was not accepted")
            if self._intake_ended:
                raise HandlerError("the handler is finished and accepts no more frames")
            if not self._pending_bytes or self._pending_bytes + item.size <= self._max_pending:
                return
            if self._when_full == "error":
                raise HandlerFullError(
                    f"{self._pending_bytes} of {self._max_pending} bytes are queued, because the storage is "
                    "slower than the source; raise max_pending, or let the source wait with when_full='block'"
                )
            self._changed.wait()

    def _handler_error(self, what: str) -> HandlerError:
        error = HandlerError(f"{self._error}; {what}")
        error.__cause__ = self._error
        return error

    def get(
        self,
        coordinates: CoordinatesLike,
        return_data: bool = True,
        return_metadata: bool = True,
        processed: bool | None = None,
    ) -> tuple[npt.NDArray[Any] | None, JsonValue] | None:
        """Return a frame that is in flight or stored.

        Parameters
        ----------
        coordinates : DataCoordinates or mapping
        return_data, return_metadata : bool
            Whether to read the pixels and the metadata from the storage. Values not read are None.
        processed : bool, optional
            If True, return None until the process function has returned the frame.

        Returns
        -------
        tuple of (numpy.ndarray, JSON value), or None

        Raises
        ------
        CoordinatesNotFoundError
            If the frame is neither in flight nor stored.
        """
        where = snapshot(coordinates)
        with self._changed:
            item = self._in_flight.get(where)
        if item is not None:
            if processed and not item.processed and self._process_function is not None:
                return None
            return item.data, item.metadata
        data = self._storage.get_data(where) if return_data else None
        if return_data and data is None:
            raise CoordinatesNotFoundError(f"there is no frame at {where.__dict__}")
        return data, self._storage.get_metadata(where) if return_metadata else None

    @property
    def ledger(self) -> Ledger:
        """A record of every frame; its counts are updated while the handler runs."""
        return self._ledger

    @property
    def error(self) -> BaseException | None:
        """The first error, or None."""
        return self._error

    @property
    def pending_bytes(self) -> int:
        """The amount of pixel data in the queue, in bytes."""
        return self._pending_bytes

    def finish(self) -> None:
        """Stop accepting frames and return immediately; see :meth:`await_completion`."""
        with self._changed:
            self._intake_ended = True
            if self._process_function is None:
                self._ready_ended = True
            self._changed.notify_all()

    def abort(self, reason: str, *, failed: bool = False) -> None:
        """Finish early: accepted frames are still stored, and the dataset is marked as aborted or failed."""
        with self._changed:
            if self._abort is None:
                self._abort = (reason, failed)
        self.finish()

    def await_completion(self, timeout: float | None = None) -> None:
        """Wait until every frame has been passed to the storage and the storage is finished.

        Parameters
        ----------
        timeout : float, optional
            The maximum time to wait, in seconds.

        Raises
        ------
        HandlerError
            If a frame was not stored, or if the dataset could not be finished. ``__cause__`` is the reason.
        TimeoutError
            If the wait timed out.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._concluded, timeout):
                raise TimeoutError(f"frames were still being stored after {timeout} s")
            if self._error is not None:
                lost = self._ledger.failed
                raise self._handler_error(
                    f"{lost} frames were not stored" if lost else "the dataset was not finished correctly"
                )

    # -- threads ---------------------------------------------------------------------------------

    def _next(self, queue: deque[QueuedFrame], ended: str, most: int = 1) -> list[QueuedFrame]:
        """Wait for frames and return at most ``most`` of them; return an empty list at the end."""
        with self._changed:
            self._changed.wait_for(lambda: queue or getattr(self, ended))
            return [queue.popleft() for _ in range(min(most, len(queue)))]

    def _process_all(self) -> None:
        while taken := self._next(self._intake, "_intake_ended"):
            item = taken[0]
            try:
                assert self._process_function is not None
                # A copy, because the coordinates of a frame in flight are dict keys, which cannot be changed.
                coordinates = of_checked_axes(dict(item.coordinates.__dict__))
                results = frames_of(self._process_function(coordinates, item.data, item.metadata), item)
            except BaseException as error:
                self._lose(item, error, out=False)
                continue
            with self._changed:
                self._leave(item)
                if results:
                    self._ledger.passed_on += 1
                    self._ledger.produced += len(results)
                else:
                    self._ledger.discarded += 1
                for result in results:
                    self._ready.append(result)
                    self._pending_bytes += result.size
                    self._in_flight[result.coordinates] = result
                self._changed.notify_all()
            for result in results:
                if result.future is not None:
                    result.notify(processed=True, stored=False)
        with self._changed:
            self._ready_ended = True
            self._changed.notify_all()

    def _store_all(self) -> None:
        while batch := self._next(self._ready, "_ready_ended", _MOST_AT_ONCE):
            while batch:
                stored, error = self._put(batch)
                self._settle(batch[:stored])
                if error is not None:
                    self._lose(batch[stored], error, out=True)
                    stored += 1
                batch = batch[stored:]
        self._conclude()

    def _put(self, batch: list[QueuedFrame]) -> tuple[int, BaseException | None]:
        """Pass frames to the storage; return the number stored, and any error for the next frame."""
        most = len(batch) - 1 if self._writes_batches else 0
        try:
            if not most:
                self._storage.put(batch[0].coordinates, batch[0].data, batch[0].metadata)
                return 1, None
            self._storage.put_many([(item.coordinates, item.data, item.metadata) for item in batch])
        except BaseException as error:  # it may carry a count from another storage's `put_many`
            return min(frames_stored_before(error), most), error
        return len(batch), None

    def _settle(self, stored: list[QueuedFrame]) -> None:
        """Count the frames that the storage has stored, and notify the observers."""
        if not stored:
            return
        with self._changed:
            for item in stored:
                self._ledger.stored += 1
                self._ledger.stored_bytes += item.size
                self._leave(item)
            self._changed.notify_all()
        for observer in self._on_stored:
            try:
                observer([item.coordinates for item in stored])
            except BaseException:
                _log.exception("the observer %r raised after %d frames were stored", observer, len(stored))
        for item in stored:
            if item.future is not None:
                item.notify(processed=True, stored=True)

    def _lose(self, item: QueuedFrame, error: BaseException, *, out: bool) -> None:
        with self._changed:
            if out:
                self._ledger.failed_out += 1
            else:
                self._ledger.failed_in += 1
            self._ledger.name_loss(item.coordinates.__dict__, describe(error))
            self._error = self._error or error
            self._leave(item)
            self._changed.notify_all()

    def _leave(self, item: QueuedFrame) -> None:
        self._pending_bytes -= item.size
        if self._in_flight.get(item.coordinates) is item:
            del self._in_flight[item.coordinates]

    def _conclude(self) -> None:
        try:
            try:
                keep_ledger(self._storage, self._ledger)
            except UnsupportedOperationError:
                pass  # the storage cannot store annotations
            except BaseException as error:  # the dataset must be ended in any case
                self._error = self._error or error
            if self._error is not None or not self._ledger.complete:
                end_early(self._storage, str(self._error or "some frames were not stored"), failed=True)
            elif self._abort is not None:
                end_early(self._storage, self._abort[0], failed=self._abort[1])
            else:
                self._storage.finish()
        except BaseException as error:
            self._error = self._error or error
        with self._changed:
            self._concluded = True
            self._changed.notify_all()
        at_exit.release(self)

    # -- the end of the process ------------------------------------------------------------------

    def conclude_at_exit(self) -> None:
        """Drain the handler; if the program did not finish it, mark the dataset as aborted and warn."""
        forgotten = not self._intake_ended
        if forgotten:
            self.abort("the program ended without finish()")
        try:
            self.await_completion()
        except HandlerError as error:
            _log.error("%s", error)
        if forgotten:
            warnings.warn(
                "a DataHandler was not finished before the program ended; its dataset was marked as aborted",
                RuntimeWarning,
                stacklevel=2,
            )

    def disown(self) -> None:
        """Stop working: this is a forked process, and the storing threads exist only in its parent."""
        self._changed = threading.Condition()
        self._error = RuntimeError("this handler belongs to the process that forked this one")
        self._concluded = True
