"""How far a long pass over the frames of a dataset is: one line that changes, on a terminal only."""

import sys
import time

from exengine.cli.output import human_time

_EVERY_S = 0.2


class FrameProgress:
    """Shows on stderr how many frames are done; a context manager, which takes the line away again.

    Parameters
    ----------
    doing : str
        What is being done, such as ``verified``.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._terminal = sys.stderr.isatty()
        self._begin = self._shown = time.monotonic()
        self._width = 0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._terminal or now - self._shown < _EVERY_S:
            return
        self._shown = now
        rate = done / (now - self._begin)
        text = f"{done} of {total} frames {self._doing}, {human_time((total - done) / rate)} left"
        print("\r" + text.ljust(self._width), end="", file=sys.stderr, flush=True)
        self._width = len(text)

    def __enter__(self) -> "FrameProgress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)
