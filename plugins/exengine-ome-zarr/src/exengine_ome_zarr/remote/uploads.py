"""Uploads objects on a thread, in the order of submission, and verifies that the store has received them.

Failed uploads are retried, so a restart of the store costs time but loses no frames. Waiting callers give up
when nothing has succeeded for :data:`PATIENCE_S` seconds, or earlier if the store refuses the request.

Threads: each ``Uploader`` belongs to one storage, which stops it. Its thread reads files but never changes
them.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from exengine_ome_zarr.remote.addresses import AccessRefusedError
from exengine_ome_zarr.remote.bucket import Bucket, Content

PATIENCE_S = 60.0
"""The maximum time for which a caller waits while uploads fail for any reason other than a refusal."""
REFUSED_S = 3.0
"""The maximum time for which a caller waits while the store refuses uploads.

A store refuses uploads if, for example, the credentials have expired.
"""
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0


class Upload:
    """An object that is to be uploaded.

    Attributes
    ----------
    name : str
        The name of the object.
    is_done : bool
        Whether the store has the object.
    """

    __slots__ = ("content", "is_done", "name")

    def __init__(self, name: str, content: Callable[[], Content]) -> None:
        self.name = name
        self.content = content
        self.is_done = False


class Uploader:
    """The thread that uploads the objects of one dataset. It starts with the first upload.

    Parameters
    ----------
    bucket : Bucket
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._changed = threading.Condition()
        self._queue: deque[Upload] = deque()
        self._done: list[Upload] = []
        self._error: Exception | None = None
        self._failing_since = 0.0
        self._ending = False
        self._thread: threading.Thread | None = None

    def submit(self, name: str, content: Callable[[], Content]) -> Upload:
        """Add an object to the queue.

        Parameters
        ----------
        name : str
        content : callable
            Returns the content. It is called on the upload thread, and again if the upload is repeated.
        """
        upload = Upload(name, content)
        with self._changed:
            self._queue.append(upload)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="exengine-upload", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return upload

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to upload."""
        return not self._queue

    def take_done(self) -> list[Upload]:
        """Return the uploads that have ended since the last call."""
        if not self._done:
            return []
        with self._changed:
            done, self._done = self._done, []
        return done

    def refuse_if_failed(self, patience_s: float | None = None) -> None:
        """Raise the error of the last upload if the store has refused uploads or failed for too long."""
        error = self._error
        if error is None:
            return
        failing_s = time.monotonic() - self._failing_since
        limit = REFUSED_S if isinstance(error, AccessRefusedError) else patience_s
        if limit is not None and failing_s > limit:
            raise error

    def wait(self, is_over: Callable[[], bool]) -> None:
        """Wait until ``is_over`` returns true, which depends on the progress of the uploads.

        Raises
        ------
        ExEngineError
            If the uploads have failed for too long.
        """
        begin = time.monotonic()
        with self._changed:
            while not is_over():
                waited_s = time.monotonic() - begin
                # Even if the store failed before this call began, the call waits for the full timeout.
                self.refuse_if_failed(PATIENCE_S if waited_s > PATIENCE_S else None)
                self._changed.wait(0.2)

    def finish_queue(self) -> None:
        """Wait until everything is uploaded."""
        self.wait(lambda: not self._queue)

    def _work(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            with self._changed:
                while not self._queue and not self._ending:
                    self._changed.wait()
                if self._ending:
                    return
                upload = self._queue[0]
            try:
                self._bucket.put(upload.name, upload.content())
            except Exception as error:
                with self._changed:
                    if self._error is None:
                        self._failing_since = time.monotonic()
                    self._error = error
                    self._changed.notify_all()
                    if not self._ending:
                        self._changed.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                continue
            pause = _FIRST_PAUSE_S
            with self._changed:
                self._error = None
                upload.is_done = True
                self._queue.popleft()
                self._done.append(upload)
                self._changed.notify_all()

    def end(self) -> None:
        """Stop the thread after its current upload. Further calls have no effect."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
