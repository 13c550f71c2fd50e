"""The writer of every campaign: frames contain their coordinates, and are acknowledged when ``put`` returns.

``python writer.py JOB`` is a separate process; JOB is JSON with the fields of :class:`Job`. It reports on its
standard output. Each line is sent with a single unbuffered ``write(2)``, so that no line is lost in a buffer:

``ready``
    Everything is imported, and nothing has been written.
``created``
    The dataset exists and accepts frames.
``put N``
    ``put`` has returned for frames 0 to N.
``synced N``
    ``flush(durable=True)`` has returned after frames 0 to N.
``finished``
    ``finish`` has returned.
``error CALL TYPE ERRNO MESSAGE``
    CALL raised this error; ERRNO is 0 if there is none.
``closed``
    ``close`` has returned; the writer ends.
"""

import errno
import functools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from exengine.testing.frames import frame_of

CHANNELS = ("DAPI", "FITC")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """The job of one writer.

    Attributes
    ----------
    path : str
        Of the dataset.
    backend : str
        The name of a backend; ``ndstorage`` is the control, which uses only the library and must lose frames.
    size : int
        The width of a square uint16 frame, in pixels.
    count : int
        The number of frames.
    batch : int
        The number of frames in each ``put_many`` call; 1 to use ``put``.
    durable_every : int
        The number of frames after which ``flush(durable=True)`` is called; 0 for never.
    handler : bool
        Whether to use a ``DataHandler``; the frames that it has stored are acknowledged.
    max_pending : int
        The number of bytes that may be queued in the handler; 0 for four frames, 1 for single frames.
    finish : bool
        Whether to finish at the end.
    options : dict
        The options of the backend, such as a small ``max_file_bytes`` that makes it begin new files.
    positions : int
        The number of stage positions; with more than one, frames have the axis ``position``.
    planned : bool
        Whether the storage receives a plan.
    """

    path: str
    backend: str = "ndtiff"
    size: int = 64
    count: int = 40
    batch: int = 1
    durable_every: int = 0
    handler: bool = False
    max_pending: int = 0
    finish: bool = True
    options: dict[str, Any] | None = None
    positions: int = 1
    planned: bool = False

    def axes(self, number: int) -> dict[str, int | str]:
        """Return the coordinates of frame ``number``."""
        return axes_of(number, self.positions)

    def pixels(self, number: int) -> "np.ndarray[Any, Any]":
        """Return the pixels of frame ``number``. Read only."""
        return pixels_of(number, self.size, self.positions)

    def frame(self, number: int) -> tuple[Any, Any, Any]:
        """Return the arguments of ``put`` for frame ``number``."""
        return self.axes(number), self.pixels(number), metadata_of(number)

    @property
    def plan(self) -> Any:
        """The plan of the frames."""
        from exengine.base_classes import PlannedAxis, SourcePlan

        axes = [
            PlannedAxis("time", tuple(range(-(-self.count // (4 * self.positions))))),
            PlannedAxis("z", (0, 1)),
            PlannedAxis("channel", CHANNELS),
        ]
        if self.positions > 1:
            axes.append(PlannedAxis("position", tuple(range(self.positions))))
        return SourcePlan(axes=tuple(axes))

    def to_json(self) -> str:
        """Return the argument of a writer process."""
        return json.dumps(asdict(self))


def axes_of(number: int, positions: int = 1) -> dict[str, int | str]:
    """Return the coordinates of frame ``number``."""
    if positions > 1:
        number, position = divmod(number, positions)
        return {**axes_of(number), "position": position}
    return {"time": number // 4, "channel": CHANNELS[number % 2], "z": number // 2 % 2}


@functools.lru_cache(maxsize=512)
def pixels_of(number: int, size: int, positions: int = 1) -> "np.ndarray[Any, Any]":
    """Return the pixels of frame ``number``, read-only: its coordinates, then noise derived from them."""
    pixels = frame_of(axes_of(number, positions), (size, size), np.uint16)
    pixels.setflags(write=False)
    return pixels


def metadata_of(number: int) -> dict[str, Any]:
    """Return the metadata of frame ``number``."""
    return {"number": number, "exposure_ms": 10, "stage": {"x_um": number / 8}}


def write(job: Job, say: Say) -> None:
    """Do a job until its end or the first error, then finish and close in either case."""
    storage = _attempt(say, "create", lambda: _create(job))
    if storage is None:
        return
    say("created")
    if job.handler:
        good = _attempt(say, "handler", lambda: _through_handler(job, storage, say)) is not None
    else:
        good = _put_all(job, storage, say)
        # A failure is permanent (P7), so the frame after the last one must also be refused.
        if not good and _attempt(say, "put", lambda: storage.put(*job.frame(job.count))) is not None:
            say(f"put {job.count}")
    if not job.handler and (job.finish or not good) and _attempt(say, "finish", storage.finish) is not None:
        say("finished")
    if _attempt(say, "close", storage.close) is not None:
        say("closed")


def _put_all(job: Job, storage: Any, say: Say) -> bool:
    for first in range(0, job.count, job.batch):
        numbers = range(first, min(first + job.batch, job.count))
        frames = [job.frame(number) for number in numbers]
        if job.batch == 1:
            done = _attempt(say, "put", lambda one=frames[0]: storage.put(*one))
        else:
            done = _attempt(say, "put_many", lambda all_=frames: storage.put_many(all_))
        if done is None:
            return False
        say(f"put {numbers[-1]}")
        if job.durable_every and (numbers[-1] + 1) % job.durable_every == 0:
            if _attempt(say, "flush", lambda: storage.flush(True)) is None:
                return False
            say(f"synced {numbers[-1]}")
    return True


def _through_handler(job: Job, storage: Any, say: Say) -> None:
    from exengine import DataHandler

    stored = -1

    class Acknowledge:
        def publish_notification(self, notification: Any) -> None:
            nonlocal stored
            stored += 1
            say(f"put {stored}")

    handler = DataHandler(
        storage, None, Acknowledge(), max_pending=job.max_pending or 8 * job.size * job.size
    )
    try:
        for number in range(job.count):
            handler.put(*job.frame(number), None)
    finally:
        handler.finish()
        handler.await_completion()
    say("finished")


def _create(job: Job) -> Any:
    if job.backend == "ndstorage":
        return _Ndstorage(job.path)
    import exengine

    storage = exengine.open_storage(job.backend, job.path, **(job.options or {}))
    if job.planned:
        storage.expect(job.plan)
    return storage


class _Ndstorage:
    """The plain ``ndstorage`` library, under the method names of ``DataStorage``."""

    def __init__(self, path: str) -> None:
        import ndstorage

        # If a name were given, the library would choose its own folder, such as path_1.
        os.mkdir(path)
        self._dataset = ndstorage.NDTiffDataset(path, name=None, summary_metadata={}, writable=True)

    def put(self, axes: Any, pixels: Any, metadata: Any) -> None:
        self._dataset.put_image(axes, pixels, metadata)

    def put_many(self, frames: Any) -> None:
        for frame in frames:
            self.put(*frame)

    def flush(self, durable: bool = False) -> None:
        """Do nothing, because the library has no such method."""

    def finish(self) -> None:
        self._dataset.finish()

    def close(self) -> None:
        self._dataset.close()


def _attempt(say: Say, what: str, call: Callable[[], Any]) -> Any:
    """Return the result of a call (True for None), or report its error and return None."""
    try:
        result = call()
    except Exception as error:
        number = getattr(error, "errno", None) or 0
        text = " ".join(str(error).split())
        say(f"error {what} {type(error).__name__} {errno.errorcode.get(number, number)} {text}")
        return None
    return True if result is None else result


def say_to(descriptor: int) -> Say:
    """Return a function that sends each line with one ``write(2)``."""

    def say(line: str) -> None:
        os.write(descriptor, line.encode() + b"\n")

    return say


def main() -> None:
    """Do the job on the command line; report to the original standard output."""
    own = os.dup(1)
    os.dup2(2, 1)  # output of a library must not be mistaken for that of the writer
    job = Job(**json.loads(sys.argv[1]))
    # Import all modules that are imported on first use now, so that faults occur during writing.
    import exengine
    import exengine.data

    _ = exengine.open_storage, exengine.DataHandler
    exengine.backends()
    say = say_to(own)
    say("ready")
    write(job, say)


if __name__ == "__main__":
    main()
