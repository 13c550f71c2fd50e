"""Copies frames from one storage to another in a separate thread, so that an interrupt cannot damage frames.

Guarantees: a Ctrl-C reaches only the main thread, which asks the copying thread to stop after its current
batch. The storage is therefore never interrupted while it writes, and can be continued later.

Assumptions: only the copying thread uses the storage. Other threads can safely read the source.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice

from exengine.datasets.conversion.frame_work import Pair, read
from exengine.datasets.conversion.source import SourceFrames
from exengine.datasets.verification import OnProgress
from exengine.kernel.data_storage_base import DataStorage, Frame
from exengine.kernel.errors import UnsupportedOperationError

_MOST_FRAMES, _MOST_BYTES = 64, 16 * 2**20  # maximum size of a batch
_MOST_AHEAD_BYTES = 96 * 2**20  # maximum total size of the batches that are read ahead
_SYNC_S = 20.0
_POLL_S = 0.1


class FrameCopy:
    """Copies the frames that a storage lacks.

    Parameters
    ----------
    source : SourceFrames
    storage : DataStorage
        A storage that contains the first frames of the source.
    on_synced : callable
        Called with the number of frames in the storage that survive power loss.
    """

    def __init__(self, source: SourceFrames, storage: DataStorage, on_synced: Callable[[int], None]) -> None:
        self._source = source
        self._storage = storage
        self._on_synced = on_synced
        self._stop = threading.Event()
        self.done = len(storage)
        """The number of frames in the storage."""

    def run(self, finish: Callable[[], None], on_progress: OnProgress) -> None:
        """Copy the frames, and then call ``finish`` in the same thread.

        Raises
        ------
        ExEngineError
            If the source or the storage raised this error.
        UnexpectedFrameError
            If an unchecked frame is not as assumed, so that all frames must be checked first.
        KeyboardInterrupt
            If the copy was interrupted. The storage is still open, and contains only complete frames.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="exengine-convert-write") as pool:
            running = pool.submit(self._work, finish)
            try:
                while not running.done():
                    self._wait(running)
                    on_progress(self.done, self._source.count)
            finally:
                self._stop.set()
            running.result()

    @staticmethod
    def _wait(running: "Future[None]") -> None:
        ended = threading.Event()
        running.add_done_callback(lambda _: ended.set())
        ended.wait(_POLL_S)

    def _work(self, finish: Callable[[], None]) -> None:
        synced_at = time.monotonic()
        with ThreadPoolExecutor(1, thread_name_prefix="exengine-convert-read") as reading:
            batches = self._batches()
            ahead = deque(reading.submit(next, batches, None) for _ in range(self._most_ahead()))
            while (batch := ahead.popleft().result()) is not None:
                ahead.append(reading.submit(next, batches, None))
                self._storage.put_many(batch)
                self.done += len(batch)
                if self._stop.is_set():
                    return
                if time.monotonic() - synced_at > _SYNC_S:
                    self._sync()
                    synced_at = time.monotonic()
        if not self._stop.is_set():
            finish()

    def _most_ahead(self) -> int:
        """Return the number of batches to read ahead; a large frame is a batch of its own."""
        return max(1, _MOST_AHEAD_BYTES // max(_MOST_BYTES, self._source.largest_bytes))

    def _sync(self) -> None:
        try:
            self._storage.flush(True)
        except UnsupportedOperationError:  # nothing is recorded, so a second attempt compares all frames
            return
        self._on_synced(self.done)

    def _batches(self) -> Iterator[list[Frame]]:
        batch: list[Frame] = []
        size = 0
        for frame in self._frames():
            batch.append(frame)
            size += frame[1].nbytes
            if len(batch) == _MOST_FRAMES or size >= _MOST_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _frames(self) -> Iterator[Frame]:
        source = self._source
        pairs = self._until_stopped(islice(source.pairs(), self.done, None))
        assumed = source.layouts[0] if source.is_assumed else None
        work = partial(read, assumed=assumed, without_metadata=source.without_metadata)
        yield from source.each(work, pairs, is_stopped=self._stop.is_set)

    def _until_stopped(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        for pair in pairs:
            if self._stop.is_set():
                return
            yield pair
