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
)
from exengine.kernel.flow.flight import Flight
from exengine.kernel.flow.frame_buffers import LARGE_BYTES, FrameBuffers
from exengine.kernel.flow.queued_frame import QueuedFrame, frames_of
from exengine.kernel.flow.storing import OnStored, Storing
from exengine.kernel.flow.waiters import wait
from exengine.kernel.frames.ledger import MAX_NAMED, Ledger
from exengine.kernel.frames.metadata import clean_metadata
from exengine.kernel.notifications import notifications_to
from exengine.kernel.system import at_exit

ProcessFunction = Callable[[DataCoordinates, npt.NDArray[Any], JsonValue], Any]

_log = logging.getLogger("exengine")


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
        self._process_function = process_function
        self._copies = FrameBuffers()
        self._when_full = when_full
        self._refused: set[DataCoordinates] = set()  # rejected when offered; they may be put again
        flight = Flight(max_bytes=max_pending, max_frames=2**63, processing=process_function is not None)
        observers = [one for one in (on_stored, notifications_to(_executor)) if one is not None]
        self._flight = flight
        self._storing = Storing(storage, flight, observers, None)
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
        flight = self._flight
        where = ticket = None
        taken = False
        try:
            where = snapshot(coordinates)
            metadata = clean_metadata(metadata)
            if not isinstance(image, np.ndarray):
                raise UnsupportedDataError(f"data must be a numpy array, got {type(image).__name__}")
            item = QueuedFrame(where, image, metadata, execution_future, False)
            size = item.size
            if copy and size >= LARGE_BYTES:
                item.data = self._copies.copy_large(image)
                copy = False
            while True:
                with flight.lock:
                    if (
                        not flight.closed
                        and not flight.results_waiting
                        and (
                            not flight.frames
                            or (flight.bytes + size <= flight.max_bytes and flight.frames < flight.max_frames)
                        )
                    ):
                        if copy:
                            item.data = self._copies.copy(image)
                        if self._refused:
                            self._forget_refusal(where)
                        if flight.index is not None:
                            flight.index[where] = item
                        # No function is called before append, so an interrupted frame is both counted and
                        # queued, or neither.
                        ledger = flight.ledger
                        ledger.offered += 1
                        if self._process_function is None:
                            ledger.passed_on += 1
                            ledger.produced += 1
                        flight.bytes += size
                        flight.frames += 1
                        taken = True
                        flight.intake.append(item)
                        if flight.arrivals.tickets:
                            flight.arrivals.wake_one()
                        break
                    self._refuse()
                    ticket = flight.room.enlist()
                    flight.hurry.wake_all()
                wait(ticket)
        except BaseException as error:
            with flight.lock:
                if ticket is not None:
                    flight.room.withdraw(ticket)
                if taken:
                    flight.arrivals.wake_all()
                else:
                    self._count_refusal(coordinates, where, error)
            raise
        if execution_future is not None:
            item.notify(processed=False, stored=False)

    def _refuse(self) -> None:
        """Raise an error if a frame must not wait for space. Called with the lock held."""
        flight = self._flight
        if flight.error is not None:
            raise flight.handler_error("this frame was not accepted")
        if flight.closed:
            raise HandlerError("the handler is finished and accepts no more frames")
        if self._when_full == "error":
            raise HandlerFullError(
                f"{flight.bytes} of {flight.max_bytes} bytes are queued, because the storage is "
                "slower than the source; raise max_pending, or let the source wait with when_full='block'"
            )

    def _forget_refusal(self, where: DataCoordinates) -> None:
        if where in self._refused:  # accepted this time, so it is counted only once
            self._refused.discard(where)
            self._flight.ledger.forget_refusals(where.__dict__)

    def _count_refusal(self, given: object, where: DataCoordinates | None, error: BaseException) -> None:
        ledger = self._flight.ledger
        if where is not None and len(self._refused) < MAX_NAMED:
            self._refused.add(where)
        ledger.offered += 1
        ledger.failed_in += 1
        ledger.name_loss(given, str(error))

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
                item.shared = True
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
                f"{lost} frames were not stored" if lost else "the dataset was not finished correctly"
            )

    # -- threads ---------------------------------------------------------------------------------

    def _store_all(self) -> None:
        try:
            self._storing.run()
        finally:
            at_exit.release(self)

    def _process_all(self) -> None:
        flight = self._flight
        while (item := flight.wait_to_process()) is not None:
            try:
                assert self._process_function is not None
                # A copy, because the coordinates of a frame in flight are dict keys, which cannot be changed.
                coordinates = of_checked_axes(dict(item.coordinates.__dict__))
                results = list(frames_of(self._process_function(coordinates, item.data, item.metadata), item))
            except BaseException as error:
                self._storing.lose(item, error, out=False)
                continue
            with flight.lock:
                flight.leave([item], item.size)
                if results:
                    flight.ledger.passed_on += 1
                    flight.ledger.produced += len(results)
                else:
                    flight.ledger.discarded += 1
                for result in results:
                    flight.ready.append(result)
                    flight.bytes += result.size
                    flight.frames += 1
                    if flight.index is not None:
                        flight.index[result.coordinates] = result
                flight.results.wake_all()
            for result in results:
                if result.future is not None:
                    result.notify(processed=True, stored=False)
        with flight.lock:
            flight.ready_ended = True
            flight.results.wake_all()

    # -- the end of the process ------------------------------------------------------------------

    def conclude_at_exit(self) -> None:
        """Drain the handler; if the program did not finish it, mark the dataset as aborted and warn."""
        forgotten = not self._flight.intake_ended
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
        self._flight.disown()
