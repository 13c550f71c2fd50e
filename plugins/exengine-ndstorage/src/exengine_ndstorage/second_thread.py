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

    __slots__ = ("_complete", "_done", "_error", "_jobs", "_thread", "value")

    def __init__(self, thread: "SecondThread", jobs: "SimpleQueue[Any]", value: int) -> None:
        self._thread = thread
        self._jobs = jobs
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
            self._thread.free.release()
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


class SecondThread:
    """The second thread of a storage; it begins with the first job that there is for it."""

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

    def begin_writing(self, file: OpenFile, offset: int, size: int) -> None:
        """Let the system begin to write a part of a file to the disk; waits for nothing."""
        if self._process != os.getpid():
            self._start()
        self._jobs.put((_begin_writing, file, (offset, size)))

    def _start(self) -> None:
        self.free, self._jobs, self._process = threading.Lock(), SimpleQueue(), os.getpid()
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name="exengine-second", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Let the thread end, and wait until it has. Idempotent; :meth:`begin` starts another."""
        thread, process = self._thread, self._process
        self._thread, self._process = None, 0
        if thread is not None and process == os.getpid():
            self._jobs.put(None)
            thread.join()


def _begin_writing(file: OpenFile, part: tuple[int, int]) -> None:
    platform.begin_writing(file.descriptor, *part)


def _work(jobs: "SimpleQueue[Any]") -> None:
    while (job := jobs.get()) is not None:
        call, what, how = job
        call(what, how)
        del job, call, what, how  # until the next one comes, which may be never
