"""Measures the speed of a disk, and compares it with the requirements of an acquisition.

The measurement writes frames to an unnamed temporary file. On systems without unnamed files, it uses a
temporary file that the system deletes. In both cases, no file remains, no matter how the program ends.
"""

import contextlib
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from exengine.kernel.errors import DatasetAccessError
from exengine.kernel.wording import human_bytes, human_time

if TYPE_CHECKING:
    import useq

    from exengine.acquisition.run import Acquisition

LIMIT_BYTES = 512 * 2**20
LIMIT_S = 3.0
FRAME_SHAPE = (512, 512)
_SMALL_BYTES = 4096
_SMALL_SYNCS = 10


@dataclass(frozen=True)
class DiskSpeed:
    """The measured speed of a disk.

    Attributes
    ----------
    folder : str
        The folder in which the speed was measured.
    free_bytes : int
        Disk space available to this user.
    write_bytes_per_s : float
        Sustained rate of writing frames one after another, including the sync at the end.
    sync_ms : float
        Median time to write and sync 4 kB.
    measured_bytes : int
        Total size of the frames written for the measurement.
    """

    folder: str
    free_bytes: int
    write_bytes_per_s: float
    sync_ms: float
    measured_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the measured values as a JSON-serializable dict."""
        return asdict(self)


def measure_disk(folder: str, *, limit_bytes: int = LIMIT_BYTES, limit_s: float = LIMIT_S) -> DiskSpeed:
    """Write frames of 512 x 512 uint16 pixels until a limit is reached, sync them, and measure the speed.

    Parameters
    ----------
    folder : str
        An existing folder in which this user can write.
    limit_bytes : int
        Largest number of bytes to write. In any case, at most half of the free space is used.
    limit_s : float
        Longest time spent writing, in seconds. The sync at the end has no time limit.

    Raises
    ------
    DatasetAccessError
        If the folder is not writable, or if the disk has too little space.
    """
    import numpy as np

    # Use camera-like noise, so that compression by the disk has no effect. Each frame starts with its
    # own number.
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 2**16, FRAME_SHAPE, dtype=np.uint16) for _ in range(4)]
    try:
        free = shutil.disk_usage(folder).free
        limit = min(limit_bytes, free // 2)
        if limit < frames[0].nbytes:
            raise DatasetAccessError(
                f"{folder} has only {human_bytes(free)} free, which is too little to measure the disk"
            )
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            return _measure(file.fileno(), folder, free, frames, limit, limit_s)
    except DatasetAccessError:
        raise
    except OSError as error:
        raise DatasetAccessError(
            f"the disk of {folder} cannot be measured: {error.strerror or error}"
        ) from error


def _measure(
    descriptor: int, folder: str, free: int, frames: list[Any], limit_bytes: int, limit_s: float
) -> DiskSpeed:
    written = number = 0
    begin = time.perf_counter()
    while written + frames[0].nbytes <= limit_bytes and time.perf_counter() - begin < limit_s:
        frame = frames[number % len(frames)]
        frame.flat[:2] = (number & 0xFFFF, number >> 16)
        rest = memoryview(frame).cast("B")
        while rest:
            done = os.write(descriptor, rest)
            written, rest = written + done, rest[done:]
        number += 1
    os.fsync(descriptor)
    seconds = time.perf_counter() - begin
    syncs = []
    for _ in range(_SMALL_SYNCS):
        begin = time.perf_counter()
        os.write(descriptor, memoryview(frames[0]).cast("B")[:_SMALL_BYTES])
        os.fsync(descriptor)
        syncs.append((time.perf_counter() - begin) * 1e3)
    return DiskSpeed(folder, free, written / seconds, statistics.median(syncs), written)


# -- needs of an acquisition ---------------------------------------------------------------------


@dataclass(frozen=True)
class Needs:
    """Size and rate of an acquisition. Unknown values are None.

    Attributes
    ----------
    frames, frame_bytes : int or None
    total_bytes : int or None
        Size on disk, including metadata and index.
    frames_per_s : float or None
    rate_from : str
        The origin of the rate, or the reason why it is unknown.
    """

    frames: int | None
    frame_bytes: int | None
    total_bytes: int | None
    frames_per_s: float | None
    rate_from: str

    @property
    def bytes_per_s(self) -> float | None:
        """Data rate of the pixels, in bytes per second."""
        known = self.frames_per_s is not None and self.frame_bytes is not None
        return self.frames_per_s * self.frame_bytes if known else None  # type: ignore[operator]

    def to_dict(self) -> dict[str, Any]:
        """Return the requirements as a JSON-serializable dict."""
        return {**asdict(self), "bytes_per_s": self.bytes_per_s}


def needs_of(acquisition: "Acquisition") -> Needs:
    """Return the requirements of a prepared acquisition."""
    from exengine.frame_sources.sequence import parse_sequence

    plan = acquisition.plan
    summary = plan.summary or {}
    # Use the rate that the source specifies. If a dataset is replayed, its summary is ignored, because it
    # describes the source that recorded the dataset.
    if "rate_hz" in summary and acquisition.source.needs_sequence:
        rate = summary["rate_hz"]
        why = "the source's rate_hz" if rate else "the source delivers frames as fast as they are stored"
    else:
        rate, why = _rate_of(parse_sequence(acquisition.config.section("sequence")), plan.frames)
    return Needs(plan.frames, plan.frame_bytes, acquisition.bytes_on_disk, float(rate) if rate else None, why)


def _rate_of(sequence: "useq.MDASequence", frames: int | None) -> tuple[float | None, str]:
    """Return the frame rate that follows from the shortest interval of the time plan, and an explanation."""
    if sequence.time_plan is None:
        return None, "the sequence has no time plan"
    with contextlib.suppress(TypeError, ValueError):
        times = list(islice(sequence.time_plan, 10_000))
        gaps = [float(after - before) for before, after in pairwise(times)]
        points = sequence.sizes.get("t") or len(times)
        if frames and gaps and min(gaps) > 0:
            return frames / points / min(gaps), f"frames per {min(gaps):g} s: {frames / points:g}"
    return None, "the time plan has no interval, so frames arrive as fast as the devices deliver them"


def compare(speed: DiskSpeed, needs: Needs | None) -> tuple[str, list[str]]:
    """Compare the disk with the acquisition. Return the result as a sentence, and the list of problems."""
    text = f"this disk sustains {human_bytes(speed.write_bytes_per_s)}/s"
    if needs is None:
        return f"{text}, with {human_bytes(speed.free_bytes)} free", []
    problems = []
    rate = needs.bytes_per_s
    if rate:
        room_s = speed.free_bytes / rate
        text += f"; the acquisition needs {human_bytes(rate)}/s, so the free space lasts {human_time(room_s)}"
        if rate > speed.write_bytes_per_s:
            problems.append(
                f"the disk of {speed.folder} is too slow; it sustains "
                f"{human_bytes(speed.write_bytes_per_s)}/s, but the acquisition needs "
                f"{human_bytes(rate)}/s; choose another disk with storage.path, increase the interval, "
                "or acquire smaller frames"
            )
    else:
        text += f"; the rate of the acquisition is unknown ({needs.rate_from})"
        if needs.frame_bytes:
            text += f"; there is space for {speed.free_bytes // needs.frame_bytes:,} frames"
    if needs.total_bytes is not None and needs.total_bytes > speed.free_bytes:
        problems.append(
            f"{speed.folder} has only {human_bytes(speed.free_bytes)} free, but the acquisition needs "
            f"{human_bytes(needs.total_bytes)}; choose another disk with storage.path, or acquire "
            "fewer frames"
        )
    return text, problems
