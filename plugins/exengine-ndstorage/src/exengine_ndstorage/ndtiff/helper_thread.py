"""What a second thread does meanwhile: half of reading a large frame, checksums, an early start of the disk.

Copying to and from the disk's cache and CRC-32C both let go of the interpreter's lock, so that on two
processors a large frame is checked while it is written, and is read and checked in two halves at once.
Handing over takes about 20 us: smaller frames are better done in place.

Small frames keep the processor busy and the disk idle, until ``finish`` or a durable flush waits for all of
them at once. So the second thread tells the system every few megabytes to begin with what is there. Nothing
is safer by that: errors are told by the sync that follows.

Threads: a ``SecondThread`` belongs to one storage, which ends it. It does one job at a time; who
comes while it is at work does the work himself. What a job was given is kept alive until it is
done, also when its owner was interrupted and does not wait any more.
"""

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from exengine.base_classes import begin_writing
from exengine_ndstorage.ndtiff.files import OpenFile

WORTH_BYTES = 2**20
"""From this size on the second thread gains more than it costs."""

Result = TypeVar("Result")


class Job(Generic[Result]):
    """A call that the second thread makes; begun by :meth:`SecondThread.begin`."""

    __slots__ = ("_arguments", "_call", "_done", "_error", "_value")

    def __init__(self, call: Callable[..., Result], arguments: tuple[Any, ...]) -> None:
        self._call, self._arguments = call, arguments
        self._done = threading.Lock()
        self._done.acquire()
        self._error: BaseException | None = None
        self._value: Result | None = None

    def run(self) -> None:
        """Make the call. On the second thread; what it raises is raised by :meth:`end`."""
        try:
            self._value = self._call(*self._arguments)
        except BaseException as error:
            self._error = error

    def tell(self) -> None:
        """Let :meth:`end` return."""
        self._done.release()

    def end(self) -> Result:
        """Wait for the call, and return what it returned. Once only."""
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class _Worker:
    """The thread of one process, and how it is reached."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self.at_work = False
        self.thread = threading.Thread(target=self._work, name="exengine-second", daemon=True)

    def is_busy(self) -> bool:
        """Return whether a new job would wait. Now and then it waits all the same: nothing is locked.

        A lock could be left behind by a thread that is interrupted between taking it and handing over.
        """
        return self.at_work or not self.jobs.empty()

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            self.at_work = True
            job.run()
            self.at_work = False  # before it is told: who has waited finds the thread free
            job.tell()
            del job  # what it holds is free until the next one comes, which may be never

    def end(self) -> None:
        self.jobs.put(None)
        self.thread.join()


class SecondThread:
    """The second thread of a storage; it begins with the first job that there is for it."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}  # by process: a fork has the object, and no thread

    def begin(self, call: Callable[..., Result], *arguments: Any) -> Job[Result] | None:
        """Begin a call, unless there is another one under way, or the system gives no thread.

        Nobody may change its arguments until :meth:`Job.end`.
        """
        worker = self._workers.get(os.getpid()) or self._start()
        if worker is None or worker.is_busy():
            return None
        job = Job(call, arguments)
        worker.jobs.put(job)
        return job

    def begin_writing(self, file: OpenFile, offset: int, size: int) -> None:
        """Let the system begin to write a part of a file to the disk; waits for nothing."""
        worker = self._workers.get(os.getpid()) or self._start()
        if worker is not None:
            worker.jobs.put(Job(_begin_writing, (file, offset, size)))

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


def _begin_writing(file: OpenFile, offset: int, size: int) -> None:
    begin_writing(file.descriptor, offset, size)
