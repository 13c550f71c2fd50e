"""Progress on stderr: a line that is updated in place on a terminal, or occasional lines elsewhere."""

import sys
import time
from typing import Self

from exengine.cli.output import say
from exengine.kernel.frames.ledger import Ledger
from exengine.kernel.wording import human_bytes, human_time

_TERMINAL_S = 0.2
_ELSEWHERE_S = 2.0


class StatusLine:
    """Shows a status line at intervals. As a context manager, it removes the line from a terminal on exit.

    Parameters
    ----------
    elsewhere : bool
        Whether to print lines even if stderr is not a terminal.
    """

    def __init__(self, *, elsewhere: bool) -> None:
        self._terminal = sys.stderr.isatty()
        self._interval_s = _TERMINAL_S if self._terminal else _ELSEWHERE_S if elsewhere else None
        self._begin = self._shown = time.monotonic()
        self._width = 0

    @property
    def elapsed_s(self) -> float:
        """Time since the start, in seconds."""
        return time.monotonic() - self._begin

    @property
    def due(self) -> bool:
        """Whether it is time to show the next line."""
        return self._interval_s is not None and time.monotonic() - self._shown >= self._interval_s

    def show(self, text: str) -> None:
        """Show a line in place of the previous line."""
        self._shown = time.monotonic()
        if self._terminal:
            print("\r" + text.ljust(self._width), end="", file=sys.stderr, flush=True)
            self._width = len(text)
        else:
            say(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)
            self._width = 0


class FrameProgress(StatusLine):
    """Progress of a pass over a dataset's frames, shown only on a terminal.

    Parameters
    ----------
    participle : str
        The participle that describes the work, such as ``verified``.
    """

    def __init__(self, participle: str) -> None:
        super().__init__(elsewhere=False)
        self._participle = participle

    def __call__(self, done: int, total: int) -> None:
        if done and self.due:
            left_s = (total - done) * self.elapsed_s / done
            self.show(f"{done} of {total} frames {self._participle}, {human_time(left_s)} left")


class PhaseProgress(StatusLine):
    """Progress of work that handles the same frames in several phases."""

    def __init__(self) -> None:
        super().__init__(elsewhere=True)
        self._phase = ""
        self._phase_begin_s = 0.0
        self._first = 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase != self._phase:
            self._phase, self._phase_begin_s, self._first = phase, self.elapsed_s, done
        if self.due:
            taken_s, new = self.elapsed_s - self._phase_begin_s, done - self._first
            left = f", {human_time((total - done) * taken_s / new)} left" if new else ""
            self.show(f"{done} of {total} frames {phase}{left}")


class AcquisitionProgress(StatusLine):
    """Progress of an acquisition.

    Parameters
    ----------
    expected : int or None
        The number of frames, if known.
    """

    def __init__(self, expected: int | None) -> None:
        super().__init__(elsewhere=True)
        self._expected = expected

    def __call__(self, ledger: Ledger) -> None:
        if not self.due:
            return
        elapsed_s, expected = self.elapsed_s, self._expected
        rate = ledger.stored / elapsed_s if elapsed_s else 0.0
        text = f"{ledger.stored} of {expected} frames" if expected else f"{ledger.stored} frames"
        bytes_per_s = ledger.stored_bytes / elapsed_s if elapsed_s else 0.0
        text += f", {rate:.1f} frames/s, {human_bytes(bytes_per_s)}/s"
        if expected and rate:
            text += f", {human_time(max(0, expected - ledger.stored) / rate)} left"
        if ledger.failed or ledger.dropped:
            text += f", {ledger.failed} failed, {ledger.dropped} dropped"
        self.show(text)
