"""What a second thread does meanwhile: checksums of large frames, and the beginning of writing to the disk.

CRC-32C of a large frame is computed while the first thread copies it to or from the disk. Both let go of the
interpreter's lock, so that on two processors the checksum costs nothing. Handing over takes about 20 us:
smaller buffers are better checked in place.

Small frames keep the processor busy and the disk idle, until ``finish`` or a durable flush waits for all of
them at once. So the second thread tells the system every few megabytes to begin with what is there. Nothing
is safer by that: errors are told by the sync that follows.

Threads: a ``SecondThread`` belongs to one storage, which ends it. At most one checksum is computed at a
time; who comes second computes its own. Only the owner of the running checksum waits for it, and the buffers
that were added are kept alive until then.
"""

import os
import threading
from queue import SimpleQueue
from typing import Any

import crc32c

from exengine.kernel import platform
from exengine_ndstorage.files import OpenFile

WORTH_BYTES = 2**20
"""From this size on the second thread gains more than it costs."""


class RunningChecksum:
    """A checksum that is being computed; made by :meth:`SecondThread.begin`."""

    __slots__ = ("_complete", "_done", "_error", "_free", "_jobs", "value")

    def __init__(self, worker: "_Worker", value: int) -> None:
        self._free, self._jobs = worker.free, worker.jobs
        self._done = threading.Lock()
        self._done.acquire()
        self._complete = False
        self._error: BaseException | None = None
        self.value = value

    def add(self, data: Any, *, last: bool = False) -> None:
        """Go on with a contiguous buffer, which nobody may change until :meth:`end`.

        After the last one the other thread need not be woken again.
        """
        self._complete = last
        self._jobs.put((self.proceed, data, last))

    def end(self) -> int:
        """Wait, and return the checksum of all that was added."""
        try:
            if not self._complete:
                self.add(b"", last=True)
            self._done.acquire()
        finally:
            self._free.release()
        if self._error is not None:
            raise self._error
        return self.value

    def proceed(self, data: Any, last: bool) -> None:
        """Do the next step. Called on the other thread; what it raises is raised by :meth:`end`."""
        try:
            self.value = crc32c.crc32c(data, self.value)
        except BaseException as error:
            self._error = error
        if last:
            self._done.release()


class _Worker:
    """The thread of one process, and how it is reached."""

    def __init__(self) -> None:
        self.free = threading.Lock()  # held by the checksum that is being computed
        self.jobs: SimpleQueue[Any] = SimpleQueue()
        self.thread = threading.Thread(target=_work, args=(self.jobs,), name="exengine-second", daemon=True)

    def end(self) -> None:
        self.jobs.put(None)
        self.thread.join()


class SecondThread:
    """The second thread of a storage; it begins with the first job that there is for it."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}  # by process: a fork has the object, and no thread

    def begin(self, value: int) -> RunningChecksum | None:
        """Begin a checksum, unless another one is being computed, or the system gives no thread.

        Parameters
        ----------
        value : int
            CRC-32C of what comes before; 0 at the beginning.
        """
        worker = self._workers.get(os.getpid()) or self._start()
        if worker is None or not worker.free.acquire(blocking=False):
            return None
        return RunningChecksum(worker, value)

    def begin_writing(self, file: OpenFile, offset: int, size: int) -> None:
        """Let the system begin to write a part of a file to the disk; waits for nothing."""
        worker = self._workers.get(os.getpid()) or self._start()
        if worker is not None:
            worker.jobs.put((_begin_writing, file, (offset, size)))

    def _start(self) -> _Worker | None:
        mine = _Worker()
        try:
            mine.thread.start()
        except RuntimeError:  # of threads or of memory there are no more
            return None
        # Of two readers that come first at once, one is served; no lock, which a fork could inherit.
        worker = self._workers.setdefault(os.getpid(), mine)
        if worker is not mine:
            mine.end()
        return worker

    def end(self) -> None:
        """Let the thread end, and wait until it has. Idempotent; :meth:`begin` starts another.

        Nobody may begin anything meanwhile.
        """
        worker = self._workers.pop(os.getpid(), None)
        if worker is not None:
            worker.end()


def _begin_writing(file: OpenFile, part: tuple[int, int]) -> None:
    platform.begin_writing(file.descriptor, *part)


def _work(jobs: "SimpleQueue[Any]") -> None:
    while (job := jobs.get()) is not None:
        call, what, how = job
        call(what, how)
        del job, call, what, how  # until the next one comes, which may be never
