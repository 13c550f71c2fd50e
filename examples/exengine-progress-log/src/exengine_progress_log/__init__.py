"""Writes a log file beside each dataset while it grows: an observer of ExEngine's acquisitions.

``data/demo`` gets ``data/demo.log``, with a line when the acquisition begins, one for each batch of
frames, and one at its end. A dataset in memory gets none. An older log is appended to; any other file of that
name is left alone.
"""

import os
import re
import threading
from datetime import datetime
from typing import TextIO

import exengine
from exengine.base_classes import open_regular

_FIRST_LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} opened ")


class ProgressLog:
    """The observer. One object serves every acquisition of the process.

    ExEngine gives each acquisition a thread for this observer: what belongs to one acquisition is kept
    in thread-local variables, and needs no lock.
    """

    def __init__(self) -> None:
        self._mine = threading.local()

    @exengine.hookimpl
    def exengine_storage_opened(self, backend: str, path: str | None) -> None:
        """Open the log."""
        self._mine.file, self._mine.stored = None, 0
        if path is not None:
            self._mine.file = _open_log(f"{path}.log")
            self._write(f"opened {path} ({backend})")

    @exengine.hookimpl
    def exengine_frames_stored(self, coordinates: list[exengine.DataCoordinates]) -> None:
        """Write a line on a batch."""
        self._mine.stored += len(coordinates)
        last = coordinates[-1].coordinate_dict
        self._write(f"{len(coordinates)} frames stored, {self._mine.stored} in all, the last at {last}")

    @exengine.hookimpl
    def exengine_acquisition_finished(self, ledger: exengine.Ledger, status: str) -> None:
        """Write the last line, and close the log."""
        lost = ledger.dropped + ledger.failed
        self._write(f"{status}: {ledger.stored} of {ledger.offered} frames stored, {lost} lost")
        if self._mine.file is not None:
            self._mine.file.close()

    def _write(self, text: str) -> None:
        file: TextIO | None = self._mine.file
        if file is not None:
            file.write(f"{datetime.now().isoformat(timespec='milliseconds')} {text}\n")
            file.flush()


def _open_log(path: str) -> TextIO:
    """Open a new log or one of earlier, to append to it; no link, pipe or device, and no file of another kind."""
    descriptor = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    beginning = os.read(descriptor, 100)
    if beginning and not _FIRST_LINE.match(beginning):
        os.close(descriptor)
        raise FileExistsError(f"{path} is there, and is not a log of this observer; rename it")
    return open(descriptor, "a", encoding="utf-8")


observer = ProgressLog()
"""What the entry point names."""
