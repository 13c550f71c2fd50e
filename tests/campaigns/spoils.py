"""Faulty writers, each of which a campaign must detect."""

import contextlib
import os
import time
from typing import Any

from writer import Job, Say, write

from exengine.kernel.registry import plugins


def acknowledge_early() -> None:
    """Make a writer faulty: each write reaches the file only with the next write."""
    real = os.pwritev
    waiting: list[Any] = []

    def late(descriptor: int, parts: list[Any], offset: int) -> int:
        if waiting:
            real(*waiting.pop())
        data = [bytes(memoryview(part).cast("B")) for part in parts]
        waiting.append((descriptor, data, offset))
        return sum(map(len, data))

    os.pwritev = late


def index_first(pause_s: float = 0) -> None:
    """Make a writer faulty: it writes the index entry of a frame before the pixels."""
    from exengine.base_classes import write_at as real
    from exengine_ndstorage.ndtiff import writer

    waiting: list[Any] = []

    def swapped(descriptor: int, parts: list[Any], offset: int, size: int | None = None) -> int:
        whole = sum(memoryview(part).nbytes for part in parts) if size is None else size
        if waiting:
            real(descriptor, parts, offset, size)
            time.sleep(pause_s)
            real(*waiting.pop())
        elif len(parts) >= 3:  # a frame, whose entry follows with the next call
            waiting.append((descriptor, parts, offset, size))
        else:
            real(descriptor, parts, offset, size)
        return offset + whole

    writer.write_at = swapped


def journal_first(pause_s: float = 0) -> None:
    """Make a writer faulty: it writes the journal record of a frame before the pixels."""
    from exengine.base_classes import write_at as real
    from exengine_ome_zarr import frame_writer

    waiting: list[Any] = []

    def late(descriptor: int, parts: list[Any], offset: int, size: int) -> int:
        if waiting:
            time.sleep(pause_s)
            real(*waiting.pop())
        data = [bytes(memoryview(part).cast("B")) for part in parts]
        waiting.append((descriptor, data, offset, size))
        return offset + size

    assert frame_writer.write_at is real
    frame_writer.write_at = late


def record_first(pause_s: float = 0) -> None:
    """Make a writer faulty: it writes the record of a frame to the spool before the pixels."""
    from exengine.kernel.storage.one_file import spool

    real = spool.SpoolWriter.append
    write_at = spool.files.write_at

    def swapped(self: spool.SpoolWriter, *frame: Any) -> spool.SpooledFrame:
        waiting: list[Any] = []

        def late(descriptor: int, parts: list[Any], offset: int, size: int) -> int:
            if descriptor == self.pixels:
                waiting.append((descriptor, parts, offset, size))
                return offset + size
            end: int = write_at(descriptor, parts, offset, size)
            time.sleep(pause_s)
            write_at(*waiting.pop())
            return end

        spool.files.write_at = late
        try:
            return real(self, *frame)
        finally:
            spool.files.write_at = write_at

    spool.SpoolWriter.append = swapped


def write_and_swallow(job: Job, say: Say) -> None:
    """Do a job with a writer that hides errors."""
    cls = plugins.BACKENDS.load(job.backend)
    good, good_one = cls.write_frames, cls.write_frame

    def swallow(self: Any, number: int, batch: list[object]) -> int:
        with contextlib.suppress(OSError):
            return good(self, number, batch)
        return len(batch)

    def swallow_one(self: Any, number: int, *frame: object) -> None:
        if cls.batch_frames > 1:
            swallow(self, number, [frame])
            return
        with contextlib.suppress(OSError):
            good_one(self, number, *frame)

    if cls.batch_frames > 1:
        cls.write_frames = swallow
    cls.write_frame = swallow_one
    write(job, say)


SPOILS = ("acknowledge-early", "index-first")
"""The faults of a writer that the campaign must detect."""


_RECORD_FIRST = {"ome-zarr": journal_first, "hdf5": record_first, "ome-tiff": record_first}


def spoil(name: str, backend: str, pause_s: float = 0) -> None:
    """Make the writer of a backend faulty in this process; an empty name changes nothing."""
    if name == "acknowledge-early":
        acknowledge_early()
    elif name == "index-first":
        _RECORD_FIRST.get(backend, index_first)(pause_s)
