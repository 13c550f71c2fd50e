"""The view of a running acquisition: progress, rate, queue, disk, ledger and the newest frame.

The view only reads counters and the newest frame. It never waits for the acquisition.
"""

import logging
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator

from exengine.acquisition.run import Acquisition
from exengine.acquisition.space import existing_folder
from exengine.cli.contact_sheet import rgb_of
from exengine.cli.ledger_text import ledger_lines
from exengine.cli.watching.picture import draw, mode_of
from exengine.kernel.errors import UnsupportedDataError
from exengine.kernel.frames.ledger import Ledger
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system import memory
from exengine.kernel.wording import human_bytes, human_count, human_time

_RATE_S = 3.0  # the time over which rates are averaged
_SPACE_S = 1.0  # the time between two checks of the free space
_MOST_COLUMNS = 100  # the width of the picture is limited, so that slow connections keep up
_BAR = 30
_MOST_NOTES = 3
_MOST_MESSAGES = 100

_Sample = tuple[float, int, int, int]
"""A time in seconds, and the numbers of frames offered, frames stored and bytes stored up to that time."""


class RunView:
    """The lines that show a running acquisition, for :class:`~exengine.cli.watching.terminal.Screen`.

    Parameters
    ----------
    acquisition : Acquisition
        The acquisition; it may run on another thread.
    """

    def __init__(self, acquisition: Acquisition) -> None:
        self.messages = Messages()
        self._acquisition = acquisition
        self._begin_s = time.monotonic()
        self._samples: deque[_Sample] = deque([(self._begin_s, 0, 0, 0)])
        self._space: int | None = None
        self._space_s = -_SPACE_S
        self._mode = mode_of(os.environ, sys.stdout.encoding)
        self._colors = {channel.name: channel.color for channel in acquisition.plan.channels}
        self._picture_of: tuple[object, ...] | None = None
        self._picture: list[bytes] = []

    def __call__(self, columns: int, lines: int) -> list[bytes]:
        """Return the lines for a terminal of this size."""
        text = [_line(text, columns) for text in self._text()]
        return text + self._newest(columns, lines - len(text))

    # -- text ------------------------------------------------------------------------------------

    def _text(self) -> Iterator[str]:
        acquisition, now_s = self._acquisition, time.monotonic()
        ledger = acquisition.ledger
        offered, stored, stored_bytes = ledger.offered, ledger.stored, ledger.stored_bytes
        self._samples.append((now_s, offered, stored, stored_bytes))
        while len(self._samples) > 2 and now_s - self._samples[0][0] > _RATE_S:
            self._samples.popleft()
        before_s, before_offered, before_stored, before_bytes = self._samples[0]
        taken_s = max(now_s - before_s, 1e-6)
        rate, bytes_per_s = (stored - before_stored) / taken_s, (stored_bytes - before_bytes) / taken_s

        where = acquisition.path or "in memory"
        elapsed = human_time(now_s - self._begin_s)
        yield f"{where} ({acquisition.config['storage.backend']}), {elapsed}"
        yield f"  frames   {_progress(stored, acquisition.plan.frames, rate)}"
        yield (
            f"  rate     {rate:.1f} frames/s, {human_bytes(bytes_per_s)}/s, "
            f"source {(offered - before_offered) / taken_s:.1f} frames/s"
        )
        waiting, limit = acquisition.pending_bytes, acquisition.config["handler.max_pending"]
        frames = human_count(_in_flight(ledger), "frame")
        yield f"  queue    {_bar(waiting / limit)} {frames}, {human_bytes(waiting)} of {human_bytes(limit)}"
        yield f"  {self._space_text(bytes_per_s, now_s)}"
        yield (
            f"  ledger   {offered} offered, {stored} stored, {ledger.dropped} dropped, {ledger.failed} failed"
        )
        yield from self._notes(ledger)

    def _space_text(self, bytes_per_s: float, now_s: float) -> str:
        path = self._acquisition.path
        if path is not None and is_url(path):
            return "disk     object storage"
        if now_s - self._space_s >= _SPACE_S:
            self._space_s = now_s
            folder = None if path is None else existing_folder(path)
            self._space = memory.available_bytes() if folder is None else shutil.disk_usage(folder).free
        name = "memory" if path is None else "disk"
        if self._space is None:
            return f"{name:8} unknown"
        left = f", full in {human_time(self._space / bytes_per_s)} at this rate" if bytes_per_s >= 1 else ""
        return f"{name:8} {human_bytes(self._space)} free{left}"

    def _notes(self, ledger: Ledger) -> Iterator[str]:
        """Yield the most recent gaps, late frames and messages."""
        facts = {
            "gaps": ledger.gaps[-_MOST_NOTES:],
            "late": [
                {"coordinates": where, "delay_s": delay_s} for where, delay_s in ledger.late[-_MOST_NOTES:]
            ],
            "stalled": {"frames": ledger.stalled, "seconds": ledger.stalled_s},
        }
        for label, text in ledger_lines(facts):
            yield f"  {label:8} {text}"
        for where, reason in ledger.not_stored[-_MOST_NOTES:]:
            yield f"  lost     {where}: {reason}"
        for text in list(self.messages.texts)[-_MOST_NOTES:]:
            yield f"  message  {text}"

    # -- the picture -----------------------------------------------------------------------------

    def _newest(self, columns: int, lines: int) -> list[bytes]:
        """Return the label and the picture of the newest frame, as at most ``lines`` lines."""
        newest = self._acquisition.newest
        if newest is None or lines < 1:
            return []
        coordinates, data = newest
        axes = " ".join(f"{axis}={position}" for axis, position in coordinates.__dict__.items())
        label = f"  newest   {axes}, {' x '.join(map(str, data.shape))} {data.dtype}"
        wanted = (id(data), coordinates, columns, lines)
        if wanted != self._picture_of:
            self._picture_of = wanted
            color = rgb_of(self._colors.get(str(coordinates.__dict__.get("channel"))) or "FFFFFF")
            try:
                self._picture = draw(data, color, min(columns, _MOST_COLUMNS), lines - 1, self._mode)
            except UnsupportedDataError as error:
                self._picture = [_line(f"  {error}", columns)]
        return [_line(label, columns), *self._picture]


class Messages(logging.Handler):
    """Keeps the messages of ExEngine's log, which would otherwise be printed over the view.

    Attributes
    ----------
    texts : deque of str
        The messages.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: deque[str] = deque(maxlen=_MOST_MESSAGES)

    def emit(self, record: logging.LogRecord) -> None:
        """Add a message to ``texts``."""
        self.texts.append(record.getMessage())


def _line(text: str, columns: int) -> bytes:
    """Return text as one line without control characters, shortened to a given number of columns."""
    shown = "".join(character if character.isprintable() else "?" for character in text[:columns])
    return shown.encode(sys.stdout.encoding, "replace")


def _bar(part: float) -> str:
    full = round(_BAR * min(max(part, 0.0), 1.0))
    return f"[{'#' * full}{'-' * (_BAR - full)}]"


def _progress(stored: int, expected: int | None, rate: float) -> str:
    if not expected:
        return f"{stored}"
    left = f", {human_time(max(0, expected - stored) / rate)} left" if rate else ""
    return f"{_bar(stored / expected)} {stored} of {expected}{left}"


def _in_flight(ledger: Ledger) -> int:
    """Return the number of frames that are waiting to be processed or stored."""
    arrived = ledger.offered - ledger.passed_on - ledger.dropped - ledger.discarded - ledger.failed_in
    return max(0, arrived) + max(0, ledger.produced - ledger.stored - ledger.failed_out)
