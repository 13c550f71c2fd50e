"""Draws on a terminal from a separate thread, so that a slow or stopped terminal delays nothing else.

The thread requests one view at a time, and writes it before it requests the next. A slow terminal therefore
causes views to be skipped; they are never queued. The view is drawn on the alternate screen of the terminal;
the user's own text reappears at the end. Nothing is drawn while the program is in the background.

Life cycle: created -> entered as a context manager -> left. On leaving, the main thread waits until the
terminal has accepted all output. If the terminal accepts no output, the thread is abandoned.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

INTERVAL_S = 0.25
_REDRAW_S = 2.0
_PATIENCE_S = 1.0
"""The time after which a terminal that accepts no output is abandoned."""
_CHUNK_BYTES = 4096

_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"  # alternate screen, hidden cursor, no line wrapping, cleared
_LEAVE = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"

View = Callable[[int, int], Sequence[bytes]]
"""Takes the numbers of columns and lines of the terminal, and returns the lines to draw."""


def is_watchable() -> bool:
    """Return whether standard output is a terminal on which a view can be drawn."""
    return os.name == "posix" and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")


class Screen:
    """The alternate screen of the terminal to which standard output is connected.

    Parameters
    ----------
    view : callable
        Called on the thread that draws; see ``View``.
    interval_s : float
        The time between two views, in seconds.

    Attributes
    ----------
    views : int
        The number of views that were drawn.
    error : Exception or None
        The error that ended the drawing.
    """

    def __init__(self, view: View, *, interval_s: float = INTERVAL_S) -> None:
        self.views = 0
        self.error: Exception | None = None
        self._view = view
        self._interval_s = interval_s
        self._descriptor = sys.stdout.fileno()
        self._ended = threading.Event()
        self._left = threading.Event()  # set when the thread has written everything
        self._abandoned = False
        self._writing = threading.Lock()  # held while a view is written, and while the process is stopped
        self._is_entered = False
        self._shown: list[bytes] = []
        self._size = (0, 0)
        self._redrawn_s = self._written_s = 0.0
        self._handles_stop = False
        self._thread = threading.Thread(target=self._run, name="exengine-watch", daemon=True)

    def __enter__(self) -> Self:
        sys.stdout.flush()
        on_main_thread = threading.current_thread() is threading.main_thread()
        if on_main_thread and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._stop_process)
            self._handles_stop = True
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        if self._handles_stop:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # The run has ended. If the user has only paused the terminal, wait until it resumes, so that the
        # end of the run is shown. If the user has pressed Ctrl-C, wait only briefly.
        leaves = kind is not None and issubclass(kind, KeyboardInterrupt)
        begin_s = time.monotonic()
        try:
            # Up to Python 3.12, a thread whose join is interrupted counts as ended, so join is not used.
            while not self._left.wait(0.1):
                if leaves and time.monotonic() - max(begin_s, self._written_s) > _PATIENCE_S:
                    break
        finally:
            if not self._left.is_set():
                self._abandon()

    def _abandon(self) -> None:
        """Discard all further output, because the terminal accepts none, and the program has to end."""
        self._abandoned = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                if stream.isatty():
                    os.dup2(nowhere, stream.fileno())
        os.close(nowhere)

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._interval_s):
                with self._writing:
                    if self._is_in_foreground():
                        self._draw()
        except Exception as error:  # reported at the end; the acquisition continues
            self.error = error
        with contextlib.suppress(OSError), self._writing:
            self._leave()
        self._left.set()

    def _is_in_foreground(self) -> bool:
        with contextlib.suppress(OSError):
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        return True  # this is not the controlling terminal

    def _draw(self) -> None:
        size = os.get_terminal_size(self._descriptor)
        lines = list(self._view(size.columns, size.lines))[: size.lines]
        now_s = time.monotonic()
        changes = b""
        if not self._is_entered:
            self._is_entered, changes = True, _ENTER
        # Another program may have written to the terminal, so everything is drawn again at intervals.
        if changes or size != self._size or now_s - self._redrawn_s >= _REDRAW_S:
            changes += b"\x1b[2J" if size != self._size else b""
            self._shown, self._size, self._redrawn_s = [], size, now_s
        for number, line in enumerate(lines):
            if number >= len(self._shown) or line != self._shown[number]:
                changes += b"\x1b[%d;1H%b\x1b[K" % (number + 1, line)
        if len(lines) < max(len(self._shown), size.lines if not self._shown else 0):
            changes += b"\x1b[%d;1H\x1b[J" % (len(lines) + 1)
        self._write(changes)
        self._shown = lines
        self.views += 1

    def _leave(self) -> None:
        if self._is_entered:
            self._is_entered = False
            self._write(_LEAVE, until_ended=False)

    def _write(self, data: bytes, *, until_ended: bool = True) -> None:
        """Write all data. By default, stop when the run ends, so that leaving the screen is not delayed."""
        left = memoryview(data)
        while left and not self._abandoned and not (until_ended and self._ended.is_set()):
            left = left[os.write(self._descriptor, left[:_CHUNK_BYTES]) :]
            self._written_s = time.monotonic()

    # -- Ctrl-Z ----------------------------------------------------------------------------------

    def _stop_process(self, *_: object) -> None:
        """Restore the user's screen, stop the process, and draw again when it resumes."""
        has_screen = self._writing.acquire(timeout=_PATIENCE_S)
        try:
            if has_screen:
                with contextlib.suppress(OSError):
                    self._leave()
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # returns when the process resumes
            signal.signal(signal.SIGTSTP, self._stop_process)
        finally:
            if has_screen:
                self._writing.release()
