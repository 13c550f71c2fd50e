"""An observer for ExEngine acquisitions that writes a log file alongside each dataset.

For the dataset ``data/demo``, the observer writes ``data/demo.log``. The log has a line for the start of the
acquisition, a line for each batch of frames, and a line for the end. A dataset in memory has no log. If a
log already exists, the observer appends to it. It refuses any other file with the same name.
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
    """The observer. A single object serves all acquisitions in the process.

    ExEngine calls this observer on one thread per acquisition. The state of an acquisition is therefore kept
    in thread-local variables and does not need a lock.
    """

    def __init__(self) -> None:
        self._state = threading.local()

    @exengine.hookimpl
    def exengine_storage_opened(self, backend: str, path: str | None) -> None:
        """Open the log."""
        self._state.file, self._state.stored = None, 0
        if path is not None:
            self._state.file = _open_log(f"{path}.log")
            self._write(f"opened {path} ({backend})")

    @exengine.hookimpl
    def exengine_frames_stored(self, coordinates: list[exengine.DataCoordinates]) -> None:
        """Write a line for a batch of frames."""
        self._state.stored += len(coordinates)
        last = coordinates[-1].coordinate_dict
        self._write(f"{len(coordinates)} frames stored, {self._state.stored} in all, the last at {last}")

    @exengine.hookimpl
    def exengine_acquisition_finished(self, ledger: exengine.Ledger, status: str) -> None:
        """Write the last line, and close the log."""
        lost = ledger.dropped + ledger.failed
        self._write(f"{status}: {ledger.stored} of {ledger.offered} frames stored, {lost} lost")
        if self._state.file is not None:
            self._state.file.close()

    def _write(self, text: str) -> None:
        file: TextIO | None = self._state.file
        if file is not None:
            file.write(f"{datetime.now().isoformat(timespec='milliseconds')} {text}\n")
            file.flush()


def _open_log(path: str) -> TextIO:
    """Open a new or existing log for appending.

    Links, pipes, devices and files that are not logs are refused.
    """
    descriptor = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    beginning = os.read(descriptor, 100)
    if beginning and not _FIRST_LINE.match(beginning):
        os.close(descriptor)
        raise FileExistsError(f"{path} exists and is not a log of this observer; rename it")
    return open(descriptor, "a", encoding="utf-8")


observer = ProgressLog()
"""The object to which the entry point refers."""
