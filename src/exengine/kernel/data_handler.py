"""Uses its own threads to move frames from a producer to a storage, and never loses a frame silently.

This module provides the interface to producers and readers. :mod:`exengine.kernel.flow` contains the bounded
queue, and the threads that process and store the frames. The storage promises are the responsibility of the
storage alone.

Threads: ``exengine-process`` (only with a process function; one or more) and ``exengine-store``. All are
daemon threads, so that a forgotten handler does not keep the interpreter alive; such a handler is drained at
exit (:mod:`exengine.kernel.system.at_exit`). A single lock guards the state that the threads share. The lock
is not held while user code runs (process function, storage, futures).

The next calls to ``put`` and ``await_completion`` raise the first error. Frames that were accepted before it
are still passed to the storage.
"""

import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates, snapshot
from exengine.kernel.data_storage_base import CoordinatesLike, DataStorage, JsonValue
from exengine.kernel.errors import (
    CoordinatesNotFoundError,
    HandlerError,
    HandlerFullError,
    UnsupportedDataError,
)
from exengine.kernel.flow.awaiting import Awaiting
from exengine.kernel.flow.flight import Flight
from exengine.kernel.flow.frame_buffers import LARGE_BYTES, FrameBuffers
from exengine.kernel.flow.gaps import NUMBER, TAGS, GapFinder
from exengine.kernel.flow.policy import Policy
from exengine.kernel.flow.processing import ProcessFunction, Processing
from exengine.kernel.flow.queued_frame import QueuedFrame
from exengine.kernel.flow.storing import MANY, TURN, OnStored, Storing
from exengine.kernel.flow.waiters import wait_while_running
from exengine.kernel.frames.ledger import MAX_NAMED, Ledger, Loss
from exengine.kernel.frames.metadata import clean_metadata
from exengine.kernel.notifications import notifications_to
from exengine.kernel.system import at_exit

_log = logging.getLogger("exengine")


class DataHandler:
    """A queue that uses its own threads to pass frames from a producer to a storage.

    Parameters
    ----------
    storage : DataStorage
        The storage that receives the frames. The handler finishes it.
    process_function : callable, optional
        Called as ``process_function(coordinates, data, metadata)``. It returns one such tuple, a list or a
        generator of such tuples, or None to discard the frame. It may modify the array that it receives. Any
        other array that it returns is copied.
    _executor : object, optional
        An ExEngine 0.4.0 executor; its ``publish_notification(notification)`` is called for each stored
        frame.
    max_pending : int
        The maximum amount of pixel data in the queue, in bytes. A frame larger than this limit is accepted
        only if the queue is empty.
    max_frames : int, optional
        The maximum number of frames in the queue. By default, only ``max_pending`` limits the queue.
    when_full : {'block', 'drop', 'error'}
        Whether ``put`` waits for space, drops the new frame, or raises ``HandlerFullError``. The ledger
        counts and lists dropped frames.
    block_timeout_s : float, optional
        The maximum time for which ``put`` waits for space, in seconds. It then raises ``HandlerFullError``.
        The default is unlimited.
    workers : int
        The number of threads that call the process function, 1 to 64. The order of frames is preserved. With
        several threads, several calls run at the same time.
    on_process_error : {'stop', 'skip', 'raw'}
        The reaction to an error in the process function: accept no more frames, lose only this frame, or
        store the frame as it arrived. The ledger lists the frame in each case.
    sync_every_s : float, optional
        The maximum time between storing a frame and the start of the sync that makes it durable, in seconds.
        Frames wait in the queue during a sync. By default, the storage is synced only when it is finished.
    on_stored : callable, optional
        Called on the thread that stores frames, after each batch, with a list of the ``DataCoordinates``
        that were stored. It must return quickly. If it raises an exception, the exception is logged.
    on_error : callable, optional
        Called once, with the first error, on the thread on which it occurred. Use it to stop the producer.

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
        max_frames: int | None = None,
        when_full: Literal["block", "drop", "error"] = "block",
        block_timeout_s: float | None = None,
        workers: int = 1,
        on_process_error: Literal["stop", "skip", "raw"] = "stop",
        sync_every_s: float | None = None,
        on_stored: OnStored | None = None,
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._policy = policy = Policy(
            max_pending=max_pending,
            max_frames=max_frames,
            when_full=when_full,
            block_timeout_s=block_timeout_s,
            workers=workers,
            on_process_error=on_process_error,
            sync_every_s=sync_every_s,
        )
        self._storage = storage
        self._processes = process_function is not None
        self._flight = flight = Flight(policy, processing=self._processes)
        self._copies = FrameBuffers()
        self._gaps = GapFinder(flight.ledger)
        # Maps the coordinates of each rejected frame to how often it was rejected and to its ledger entries.
        self._refused: dict[DataCoordinates, tuple[int, list[Loss]]] = {}
        observers = [one for one in (on_stored, notifications_to(_executor)) if one is not None]
        self._storing = Storing(storage, flight, observers, on_error, self._copies, policy.sync_every_s)
        self._threads = [threading.Thread(target=self._store_all, name="exengine-store", daemon=True)]
        if process_function is not None:
            processing = Processing(process_function, flight, self._storing, policy)
            for number in range(workers):
                name = f"exengine-process-{number}" if number else "exengine-process"
                self._threads.append(threading.Thread(target=processing.run, name=name, daemon=True))
        at_exit.watch_handler(self)
        try:
            for thread in self._threads:
                thread.start()
        except BaseException as error:  # end the threads that have started
            with flight.lock:
                flight.fail(error)
                flight.end_intake()
                flight.ready_ended = True
                flight.results.wake_all()
                flight.concluded = self._threads[0].ident is None
            raise

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
            If the queue is full and ``when_full`` is ``'error'``, or stays full for ``block_timeout_s``.
        CoordinatesError, MetadataError, UnsupportedDataError
            If the frame is invalid.
        """
        flight = self._flight
        where = ticket = began = left_s = None
        taken = is_dropped = False
        try:
            where = snapshot(coordinates)
            metadata = clean_metadata(metadata)
            if not isinstance(image, np.ndarray):
                raise UnsupportedDataError(f"data must be a numpy array, got {type(image).__name__}")
            item = QueuedFrame(where, image, metadata, execution_future, False)
            size = item.size
            if execution_future is not None:
                hash(where)  # the future receives these coordinates, so they must no longer change
            while True:
                if copy and size >= LARGE_BYTES and not (flight.closed or flight.is_full(size)):
                    item.data = self._copies.copy_large(image, flight.bytes)  # without holding the lock
                    copy = False
                with flight.lock:
                    if not flight.closed and (
                        not flight.frames
                        or (
                            flight.bytes + size <= flight.max_bytes
                            and flight.frames < flight.max_frames
                            and not flight.results_waiting
                        )
                    ):
                        if copy:
                            item.data = self._copies.copy(image)
                        if self._refused:
                            self._forget_refusal(where)
                        if type(metadata) is dict and (TAGS in metadata or NUMBER in metadata):
                            self._gaps.see(where, metadata)
                        ledger = flight.ledger
                        if began is not None:
                            ledger.stalled_s += time.monotonic() - began
                            ledger.stalled += 1
                        # No function is called before append, so that an interrupt cannot leave a frame that
                        # is counted but not queued.
                        ledger.offered += 1
                        if not self._processes:
                            ledger.passed_on += 1
                            ledger.produced += 1
                        flight.bytes += size
                        flight.frames += 1
                        taken = True
                        flight.intake.append(item)
                        if flight.index is not None:
                            flight.index[where] = item
                        if flight.arrivals.tickets:
                            flight.arrivals.wake_one()
                        if flight.news.tickets:
                            flight.news.wake_all()
                        break
                    if flight.is_dropped(left_s):
                        taken = is_dropped = True
                        flight.ledger.offered += 1
                        flight.ledger.dropped += 1
                        flight.name_dropped(item)
                        if type(metadata) is dict:
                            self._gaps.see(where, metadata)
                        break
                    if began is None:
                        began, left_s = time.monotonic(), self._policy.block_timeout_s
                    ticket = flight.room.enlist()
                    flight.hurry.wake_all()
                left_s = wait_while_running(ticket, left_s)
        except BaseException as error:
            with flight.lock:
                if taken:
                    flight.index = None  # it may lack this frame, and is rebuilt when needed
                    flight.arrivals.wake_all()
                else:
                    self._count_refusal(coordinates, where, error)
            raise
        if len(flight.intake) >= MANY and not flight.ledger.offered % TURN:
            self._storing.take_turn()
        if execution_future is None:
            return
        if is_dropped:
            item.notify_of_loss(HandlerFullError("the frame was dropped, because the queue was full"))
        else:
            item.notify(processed=False, stored=False)

    def _forget_refusal(self, where: DataCoordinates) -> None:
        refused = self._refused.pop(where, None)
        if refused is not None:  # accepted now, so earlier rejections no longer count
            self._flight.ledger.forget_refusals(*refused)

    def _count_refusal(self, given: object, where: DataCoordinates | None, error: BaseException) -> None:
        ledger = self._flight.ledger
        entry = ledger.name_loss(given, str(error))
        if where is not None and (where in self._refused or len(self._refused) < MAX_NAMED):
            times, entries = self._refused.get(where, (0, []))
            self._refused[where] = times + 1, entries if entry is None else [*entries, entry]
        ledger.offered += 1
        ledger.failed_in += 1

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
        with self._flight.lock:
            item = self._flight.find(where)
        if item is not None:
            if processed and not item.processed and self._processes:
                return None
            return item.copies(return_data, return_metadata)
        data = self._storage.get_data(where) if return_data else None
        if return_data and data is None:
            raise CoordinatesNotFoundError(f"there is no frame at {where.__dict__}")
        return data, self._storage.get_metadata(where) if return_metadata else None

    def await_data(
        self,
        coordinates: CoordinatesLike | Iterable[CoordinatesLike],
        return_data: bool = True,
        return_metadata: bool = True,
        processed: bool = False,
        stored: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Wait until frames have arrived, and return them.

        Parameters
        ----------
        coordinates : DataCoordinates or mapping, or iterable of these
        return_data, return_metadata : bool
            Whether to return the pixels and the metadata. A value that is not requested is None.
        processed, stored : bool
            Whether to wait until the process function has returned the frame, or until it is stored.
        timeout : float, optional
            The maximum time to wait, in seconds, for all frames together.

        Returns
        -------
        tuple of (numpy.ndarray, JSON value), or list of these
            One tuple for each frame; for a single frame, the tuple itself.

        Raises
        ------
        HandlerError
            If the frame was lost, or if an error prevents it from arriving. ``__cause__`` is the reason.
        CoordinatesNotFoundError
            If the handler has ended without this frame.
        TimeoutError
            If the wait timed out.
        """
        waiting = Awaiting(
            self._flight,
            self._storage,
            processed=processed and self._processes,
            stored=stored,
            timeout=timeout,
        )
        if isinstance(coordinates, DataCoordinates | Mapping):
            return waiting.frame(coordinates, return_data, return_metadata)
        return [waiting.frame(one, return_data, return_metadata) for one in coordinates]

    @property
    def ledger(self) -> Ledger:
        """A record of every frame; its counts are updated while the handler runs."""
        return self._flight.ledger

    @property
    def error(self) -> BaseException | None:
        """The first error, or None."""
        return self._flight.error

    @property
    def pending_bytes(self) -> int:
        """The amount of pixel data in the queue, in bytes."""
        return self._flight.bytes

    def finish(self) -> None:
        """Stop accepting frames and return immediately; see :meth:`await_completion`."""
        with self._flight.lock:
            self._flight.end_intake()

    def abort(self, reason: str, *, failed: bool = False) -> None:
        """Finish early: accepted frames are still stored, and the dataset is marked as aborted or failed."""
        with self._flight.lock:
            if self._storing.abort is None:
                self._storing.abort = (reason, failed)
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
        flight = self._flight
        if not flight.wait_for_end(timeout):
            raise TimeoutError(f"frames were still being stored after {timeout} s")
        if flight.error is not None:
            lost = flight.ledger.failed
            raise flight.handler_error(
                f"frames not stored: {lost}" if lost else "the dataset was not finished correctly"
            )

    # -- threads ---------------------------------------------------------------------------------

    def _store_all(self) -> None:
        try:
            self._storing.run()
        finally:
            at_exit.release(self)

    # -- the end of the process ------------------------------------------------------------------

    def conclude_at_exit(self) -> None:
        """Drain the handler; if the program did not finish it, abort the dataset and issue a warning."""
        forgotten = not self._flight.intake_ended
        if forgotten:
            self.abort("the program ended without calling finish()")
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
        self._flight.disown()
