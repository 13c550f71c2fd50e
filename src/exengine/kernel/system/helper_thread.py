"""A helper thread that reads half of a large frame, computes checksums, and starts early writes to disk.

Copying data to and from the disk cache releases the interpreter lock, and so does computing CRC-32C. With two
processors, the checksum of a large frame can therefore be computed while the frame is written, and the two
halves of a frame can be read and checked at the same time. Passing a job to the thread takes about 20 us, so
smaller frames are faster without it.

Small frames keep the processor busy and leave the disk idle, until ``finish`` or a durable flush has to wait
for all of them. Every few megabytes, the helper thread therefore tells the operating system to start writing
these frames to disk. This does not make the data any safer. The sync that follows reports any errors.

Threads: a ``HelperThread`` belongs to one storage, which stops it. The thread runs one job at a time. If it
is busy, the caller does the work itself. The arguments of a job stay alive until the job is done, even if its
caller was interrupted and no longer waits for it.
"""

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from exengine.kernel.system.files import begin_writing
from exengine.kernel.system.open_files import OpenFile

Result = TypeVar("Result")


class Job(Generic[Result]):
    """A call that runs on the helper thread. :meth:`HelperThread.begin` creates it."""

    __slots__ = ("_arguments", "_call", "_done", "_error", "_value")

    def __init__(self, call: Callable[..., Result], arguments: tuple[Any, ...]) -> None:
        self._call, self._arguments = call, arguments
        self._done = threading.Lock()
        self._done.acquire()
        self._error: BaseException | None = None
        self._value: Result | None = None

    def run(self) -> None:
        """Make the call on the helper thread. If it raises an exception, :meth:`end` raises it again."""
        try:
            self._value = self._call(*self._arguments)
        except BaseException as error:
            self._error = error

    def notify(self) -> None:
        """Signal that the job is done, so that :meth:`end` can return."""
        self._done.release()

    def end(self) -> Result:
        """Wait for the call to end, and return its result. This method can be called only once."""
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class _Worker:
    """The helper thread of one process, with its job queue."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name="exengine-helper", daemon=True)
        self._at_work = False

    def is_busy(self) -> bool:
        """Return whether a new job would have to wait.

        This method does not use a lock, so its result is wrong in rare cases. With a lock, an interrupt
        between acquiring it and submitting the job would leave it held forever.
        """
        return self._at_work or not self.jobs.empty()

    def submit(self, call: Callable[..., Result], arguments: tuple[Any, ...]) -> Job[Result]:
        job = Job(call, arguments)
        self.jobs.put(job)
        return job

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            self._at_work = True
            job.run()
            self._at_work = False  # set before notifying, so that the waiting caller finds the thread free
            job.notify()
            del job  # free the job's arguments now, because there may never be another job

    def end(self) -> None:
        self.jobs.put(None)
        self.thread.join()


class HelperThread:
    """The helper thread of a storage. The thread starts when the first job is submitted."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}  # by process ID, because a fork does not copy threads

    def begin(self, call: Callable[..., Result], *arguments: Any) -> Job[Result] | None:
        """Start a call. The arguments must not change until :meth:`Job.end` returns.

        Returns
        -------
        Job or None
            The job, or None if another call is running or the system cannot start a thread.
        """
        worker = self._workers.get(os.getpid()) or self._start()
        if worker is None or worker.is_busy():
            return None
        return worker.submit(call, arguments)

    def submit(self, call: Callable[..., Result], *arguments: Any) -> Job[Result] | None:
        """Queue a call, which starts as soon as the thread is free.

        Unlike :meth:`begin`, this method suits calls that take longer than the wait, such as compression.
        It returns None if the system cannot start a thread.
        """
        worker = self._workers.get(os.getpid()) or self._start()
        return None if worker is None else worker.submit(call, arguments)

    def begin_writing(self, file: OpenFile, offset: int, size: int) -> None:
        """Tell the operating system to start writing part of a file to disk, without waiting for it."""
        worker = self._workers.get(os.getpid()) or self._start()
        if worker is not None:
            worker.jobs.put(Job(_begin_writing, (file, offset, size)))

    def _start(self) -> _Worker | None:
        started = _Worker()
        try:
            started.thread.start()
        except RuntimeError:  # the system cannot create another thread
            return None
        # If two readers start a worker at the same time, only one worker is kept. A lock is not used
        # here, because a forked process could inherit it in the locked state.
        worker = self._workers.setdefault(os.getpid(), started)
        if worker is not started:
            started.end()
        return worker

    # A reader that was left open may call this after the interpreter has emptied this module.
    def end(self, *, _getpid: Callable[[], int] = os.getpid) -> None:
        """Stop the thread, and wait until it has ended. The method is idempotent.

        A later call to :meth:`begin` starts a new thread. No other thread may start a job during this call.
        """
        worker = self._workers.pop(_getpid(), None)
        if worker is not None:
            worker.end()


def _begin_writing(file: OpenFile, offset: int, size: int) -> None:
    begin_writing(file.descriptor, offset, size)
