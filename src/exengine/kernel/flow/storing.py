"""Passes frames in flight to the storage, in batches, and accounts for each of them.

Threads: one thread runs :meth:`Storing.run`. It holds no lock while it calls the storage, an observer or a
future.
"""

import logging
from collections.abc import Callable, Sequence
from time import perf_counter, sleep, thread_time

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import UnsupportedOperationError, describe, frames_stored_before
from exengine.kernel.flow.flight import Flight
from exengine.kernel.flow.frame_buffers import FrameBuffers
from exengine.kernel.flow.periodic_sync import PeriodicSync
from exengine.kernel.flow.queued_frame import QueuedFrame
from exengine.kernel.storage.ending import end_early, keep_ledger
from exengine.kernel.storage.managed import checked_put_of

OnStored = Callable[[list[DataCoordinates]], None]
"""Called with the coordinates of the frames that were stored, in order."""

_MOST_AT_ONCE = 32  # maximum number of frames taken from the queue and reported to observers at once

MANY = 128
TURN = 32
"""If ``MANY`` frames are waiting, the producer lets the store thread run after every ``TURN`` frames.

Otherwise, each of the two threads would often have to wait 5 ms for the interpreter lock."""

_PAUSE_S = 1e-6  # about 60 us on Linux, which suffices for another thread to take the interpreter lock

_LONG_WAIT_S = 0.004
"""If the store thread has to wait for at least this time during a batch, the next batch is larger, unless the
storage limits its size.

After each write, the store thread waits for the interpreter lock: 5 ms if another Python thread is busy."""

_log = logging.getLogger("exengine")


class Storing:
    """Stores frames on the store thread.

    Parameters
    ----------
    storage : DataStorage
        The storage that receives the frames. It is finished or aborted at the end.
    flight : Flight
    observers : sequence of callable
        Called after each batch.
    on_error : callable or None
        Called once, with the first error.
    buffers : FrameBuffers
        The memory that holds the frames.
    sync_every_s : float or None
        The interval at which the storage is synced, in seconds; see :class:`PeriodicSync`.
    """

    def __init__(
        self,
        storage: DataStorage,
        flight: Flight,
        observers: Sequence[OnStored],
        on_error: Callable[[BaseException], None] | None,
        buffers: FrameBuffers,
        sync_every_s: float | None = None,
    ) -> None:
        self._storage = storage
        self._flight = flight
        self._observers = observers
        self._on_error = on_error
        self._buffers = buffers
        self._sync = PeriodicSync(storage, sync_every_s)
        self._put_checked = checked_put_of(storage)
        batches = isinstance(storage, DataStorage) and storage.batch_frames > 1
        self._most_put = max(_MOST_AT_ONCE, storage.batch_frames) if batches else 1
        capabilities = getattr(storage, "capabilities", None)
        self._in_memory = getattr(capabilities, "persistent", True) is False
        self._producer_pauses = False
        self._most = _MOST_AT_ONCE
        self.abort: tuple[str, bool] | None = None  # the reason, and whether the dataset has failed

    def run(self) -> None:
        """Store frames until the queue ends, and then finish or abort the storage."""
        while (batch := self._flight.wait_to_store(self._most, self._sync.due)) != []:
            if batch is None:
                self._sync_if_due()
                continue
            begin, cpu, is_full = perf_counter(), thread_time(), len(batch) == self._most
            while batch:
                stored, error = self._put(batch)
                if stored:
                    self._settle(batch[:stored])
                if error is not None:
                    self.lose(batch[stored], error, out=True)
                    stored += 1
                batch = batch[stored:]
                self._sync_if_due()
            if is_full and self._most_put > _MOST_AT_ONCE:
                waits = perf_counter() - begin > thread_time() - cpu + _LONG_WAIT_S
                self._most = min(2 * self._most, self._most_put) if waits else _MOST_AT_ONCE
            if not self._flight.frames:
                self._buffers.trim()  # the next frame may arrive much later
            # Only a storage in memory needs this; a storage on disk lets the producer run while it writes.
            if self._in_memory and not self._buffers.prepare() and self._producer_pauses:
                sleep(_PAUSE_S)
        self._buffers.release()
        self._conclude()

    def _sync_if_due(self) -> None:
        try:
            self._sync.sync_if_due()
        except BaseException as error:
            self.keep(error)

    def take_turn(self) -> None:
        """Let the store thread run. A producer calls this when many frames are waiting."""
        self._producer_pauses = True
        sleep(_PAUSE_S)
        self._producer_pauses = False

    def _put(self, batch: list[QueuedFrame]) -> tuple[int, BaseException | None]:
        """Pass frames to the storage; return how many were stored and, if one failed, the error."""
        most = len(batch) - 1
        try:
            if self._put_checked is not None:
                self._put_checked(batch)
            elif self._most_put > 1 and most:
                self._storage.put_many([(item.coordinates, item.data, item.metadata) for item in batch])
            else:
                most = 0
                self._storage.put(batch[0].coordinates, batch[0].data, batch[0].metadata)
                return 1, None
        except BaseException as error:  # at most ``most``: the error may count the frames of an inner storage
            return min(frames_stored_before(error), most), error
        return len(batch), None

    def _settle(self, stored: list[QueuedFrame]) -> None:
        """Count the frames that the storage has stored, and notify the observers."""
        flight, ledger = self._flight, self._flight.ledger
        size = sum([item.size for item in stored])
        with flight.lock:
            ledger.stored += len(stored)
            ledger.stored_bytes += size
            # The first frame has been waiting longest, so its latency is an upper bound for the whole batch.
            ledger.latencies.add(perf_counter() - stored[0].since, len(stored))
            flight.leave(stored, size)
        self._sync.note_stored()
        for observer in self._observers:
            try:
                observer([item.coordinates for item in stored])
            except BaseException:
                _log.exception("the observer %r failed for a batch of frames", observer)
        for item in stored:
            if item.future is not None:
                item.notify(processed=True, stored=True)

    def lose(
        self,
        item: QueuedFrame,
        error: BaseException,
        *,
        out: bool,
        stop: bool = True,
        in_flight: bool = True,
    ) -> None:
        """Account for a frame that cannot be stored.

        Parameters
        ----------
        item : QueuedFrame
        error : BaseException
        out : bool
            Whether the frame was lost in the storage rather than in the process function.
        stop : bool
            Whether to record the error and accept no more frames.
        in_flight : bool
            Whether the frame is still counted as being in flight.
        """
        flight, ledger = self._flight, self._flight.ledger
        with flight.lock:
            if out:
                ledger.failed_out += 1
            else:
                ledger.failed_in += 1
            ledger.name_loss(item.coordinates.__dict__, describe(error))
            first = stop and flight.fail(error)
            if in_flight:
                flight.leave([item], item.size)
            flight.news.wake_all()
        if first:
            self._report(error)
        if item.future is not None:
            item.notify_of_loss(error)

    def _report(self, error: BaseException) -> None:
        if self._on_error is None:
            return
        try:
            self._on_error(error)
        except BaseException:
            _log.exception("the callback on_error raised an exception after %s", describe(error))

    def keep(self, error: BaseException) -> None:
        """Record and report the error if it is the first one."""
        with self._flight.lock:
            first = self._flight.fail(error)
        if first:
            self._report(error)

    def _conclude(self) -> None:
        flight = self._flight
        try:
            try:
                keep_ledger(self._storage, flight.ledger)
            except UnsupportedOperationError:
                pass  # the storage cannot store annotations
            except BaseException as error:  # the dataset must still be ended
                self.keep(error)
            if flight.error is not None or not flight.ledger.complete:
                end_early(self._storage, str(flight.error or "some frames were not stored"), failed=True)
            elif self.abort is not None:
                end_early(self._storage, self.abort[0], failed=self.abort[1])
            else:
                self._storage.finish()
        except BaseException as error:
            self.keep(error)
        with flight.lock:
            flight.concluded = True
            flight.news.wake_all()
            flight.room.wake_all()
