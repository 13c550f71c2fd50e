"""A helper thread for large frames: half of a read, a checksum during a write, and early writing to the disk.

Copying to and from the disk's cache and CRC-32C both release the interpreter's lock. On two processors a
large frame is therefore checked while it is written, and is read and checked in two halves at once. Passing
a job to the thread takes about 20 us: smaller frames are faster without it.

Small frames keep the processor busy and the disk idle, until ``finish`` or a durable flush waits for all of
them. The helper thread therefore tells the system every few megabytes to start writing them to the disk.
This adds no safety: the sync that follows reports the errors.

Threads: a ``HelperThread`` belongs to one storage, which ends it. It runs one job at a time; if it is busy,
the caller does the work itself. The arguments of a job stay alive until the job is done, also if its caller
was interrupted and no longer waits.
"""

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from exengine.base_classes import begin_writing
from exengine_ndstorage.ndtiff.files import OpenFile

Result = TypeVar("Result")


class Job(Generic[Result]):
    """A call on the helper thread; created by :meth:`HelperThread.begin`."""

    __slots__ = ("_arguments", "_call", "_done", "_error", "_value")

    def __init__(self, call: Callable[..., Result], arguments: tuple[Any, ...]) -> None:
        self._call, self._arguments = call, arguments
        self._done = threading.Lock()
        self._done.acquire()
        self._error: BaseException | None = None
        self._value: Result | None = None

    def run(self) -> None:
        """Make the call, on the helper thread. :meth:`end` raises the exception of the call."""
        try:
            self._value = self._call(*self._arguments)
        except BaseException as error:
            self._error = error

    def notify(self) -> None:
        """Let :meth:`end` return."""
        self._done.release()

    def end(self) -> Result:
        """Wait for the call, and return its result. May be called once."""
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class _Worker:
    """The thread of one process, with its queue of jobs."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="exengine-helper", daemon=True)
        self._at_work = False

    def is_busy(self) -> bool:
        """Return whether a new job would wait. Without a lock, the answer may rarely be wrong.

        A thread that is interrupted between taking a lock and passing the job would never release the lock.
        """
        return self._at_work or not self.jobs.empty()

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            self._at_work = True
            job.run()
            self._at_work = False  # before the notification: the caller that waited finds the thread free
            job.notify()
            del job  # free its arguments now: the next job may never come

    def end(self) -> None:
        self.jobs.put(None)
        self.thread.join()


class HelperThread:
    """The helper thread of a storage; it starts with the first job."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}  # by process: a fork copies the object, but not the thread

    def begin(self, call: Callable[..., Result], *arguments: Any) -> Job[Result] | None:
        """Start a call; the arguments must not change until :meth:`Job.end` returns.

        Returns
        -------
        Job or None
            None if another call is running, or the system cannot start a thread.
        """
        worker = self._workers.get(os.getpid()) or self._start()
        if worker is None or worker.is_busy():
            return None
        job = Job(call, arguments)
        worker.jobs.put(job)
        return job

    def begin_writing(self, file: OpenFile, offset: int, size: int) -> None:
        """Let the system start to write a part of a file to the disk, without waiting."""
        worker = self._workers.get(os.getpid()) or self._start()
        if worker is not None:
            worker.jobs.put(Job(_begin_writing, (file, offset, size)))

    def _start(self) -> _Worker | None:
        started = _Worker()
        try:
            started.thread.start()
        except RuntimeError:  # the system has no more threads or memory
            return None
        # If two readers start a worker at once, one of them is kept. A fork could inherit a lock.
        worker = self._workers.setdefault(os.getpid(), started)
        if worker is not started:
            started.end()
        return worker

    def end(self) -> None:
        """Stop the thread, and wait until it has ended. Idempotent; :meth:`begin` starts another one.

        No other thread may start a job during this call.
        """
        worker = self._workers.pop(os.getpid(), None)
        if worker is not None:
            worker.end()


def _begin_writing(file: OpenFile, offset: int, size: int) -> None:
    begin_writing(file.descriptor, offset, size)
