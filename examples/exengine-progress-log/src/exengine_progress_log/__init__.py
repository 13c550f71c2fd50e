"""An observer of ExEngine's acquisitions that writes a log file beside each dataset.

For ``data/demo`` it writes ``data/demo.log``, with a line at the beginning of the acquisition, one for each
batch of frames, and one at the end. A dataset in memory has no log.
"""

import threading
from datetime import datetime
from typing import TextIO

import exengine


class ProgressLog:
    """The observer. One object serves every acquisition of the process.

    ExEngine calls this observer on one thread per acquisition. The state of an acquisition is therefore in
    thread-local variables, and needs no lock.
    """

    def __init__(self) -> None:
        self._state = threading.local()

    @exengine.hookimpl
    def exengine_storage_opened(self, backend: str, path: str | None) -> None:
        """Open the log."""
        self._state.file, self._state.stored = None, 0
        if path is not None:
            self._state.file = open(f"{path}.log", "a", encoding="utf-8")  # noqa: SIM115 - closed at the end
            self._write(f"opened {path} ({backend})")

    @exengine.hookimpl
    def exengine_frames_stored(self, coordinates: list[exengine.DataCoordinates]) -> None:
        """Write a line for a batch."""
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


observer = ProgressLog()
"""The object that the entry point names."""
