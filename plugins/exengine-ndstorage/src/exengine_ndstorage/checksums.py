"""CRC-32C of large frames on a second thread, while the first one copies them to or from the disk.

Both let go of the interpreter's lock, so that on two processors the checksum costs nothing. Handing over
takes about 20 us: smaller buffers are better checked in place.

Threads: a ``ChecksumThread`` belongs to one storage, which ends it. At most one checksum is computed at a
time; who comes second computes its own. Only the owner of the running checksum waits for it, and the buffers
that were added are kept alive until then.
"""

import os
import threading
from queue import SimpleQueue
from typing import Any

import crc32c

WORTH_BYTES = 2**20
"""From this size on the second thread gains more than it costs."""


class RunningChecksum:
    """A checksum that is being computed; made by :meth:`ChecksumThread.begin`."""

    __slots__ = ("_complete", "_done", "_jobs", "_thread", "value")

    def __init__(self, thread: "ChecksumThread", jobs: "SimpleQueue[Any]", value: int) -> None:
        self._thread = thread
        self._jobs = jobs
        self._done = threading.Lock()
        self._done.acquire()
        self._complete = False
        self.value = value

    def add(self, data: Any, *, last: bool = False) -> None:
        """Go on with a contiguous buffer, which nobody may change until :meth:`end`.

        After the last one the other thread need not be woken again.
        """
        self._complete = last
        self._jobs.put((self, data, last))

    def end(self) -> int:
        """Wait, and return the checksum of all that was added."""
        try:
            if not self._complete:
                self.add(b"", last=True)
            self._done.acquire()
        finally:
            self._thread.free.release()
        return self.value

    def proceed(self, data: Any, last: bool) -> None:
        """Do the next step. Called on the other thread."""
        self.value = crc32c.crc32c(data, self.value)
        if last:
            self._done.release()


class ChecksumThread:
    """The second thread of a storage; it begins with the first checksum that needs it."""

    def __init__(self) -> None:
        self.free = threading.Lock()
        self._process = 0  # a fork has the object, and no thread
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, value: int) -> RunningChecksum | None:
        """Begin a checksum, unless another one is being computed.

        Parameters
        ----------
        value : int
            CRC-32C of what comes before; 0 at the beginning.
        """
        if self._process != os.getpid():
            self._start()
        return RunningChecksum(self, self._jobs, value) if self.free.acquire(blocking=False) else None

    def _start(self) -> None:
        self.free, self._jobs, self._process = threading.Lock(), SimpleQueue(), os.getpid()
        self._thread = threading.Thread(
            target=_compute, args=(self._jobs,), name="exengine-checksum", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Let the thread end, and wait until it has. Idempotent; :meth:`begin` starts another."""
        thread, process = self._thread, self._process
        self._thread, self._process = None, 0
        if thread is not None and process == os.getpid():
            self._jobs.put(None)
            thread.join()


def _compute(jobs: "SimpleQueue[Any]") -> None:
    while (job := jobs.get()) is not None:
        running, data, last = job
        running.proceed(data, last)
        del job, running, data  # until the next one comes, which may be never
