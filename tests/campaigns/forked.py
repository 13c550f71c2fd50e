"""Forks processes for a campaign, so that everything is imported only once and each child starts immediately.

The forking process has no threads. A child sends lines through a pipe, each with one ``write(2)``, and never
returns into the code of its parent.
"""

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

Say = Callable[[str], None]
CRASHED = 70  # the exit code of a child that raised an exception


class Child:
    """A forked process, and a context manager that kills it on exit.

    Parameters
    ----------
    work : callable
        The function that the child runs; it receives a function that sends a line.
    """

    def __init__(self, work: Callable[[Say], None]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._pipe, into = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _be_child(work, into)
        os.close(into)
        self._buffer = b""
        self._status: int | None = None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()
        os.close(self._pipe)

    def line(self, timeout_s: float) -> str | None:
        """Return the next complete line without its newline; None after a timeout or at the end.

        Parameters
        ----------
        timeout_s : float
        """
        end = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            if not select.select([self._pipe], [], [], max(0, end - time.monotonic()))[0]:
                return None
            data = os.read(self._pipe, 65536)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def lines(self, timeout_s: float = 60) -> Iterator[str]:
        """Yield lines until the child ends or sends nothing for this time."""
        while (line := self.line(timeout_s)) is not None:
            yield line

    def kill(self) -> None:
        """Kill the process with SIGKILL, if it is still running."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the process to end; return the exit code, or the negated number of the signal."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


def _be_child(work: Callable[[Say], None], into: int) -> NoReturn:
    write = os.write  # looked up now, because a campaign may replace it

    def say(line: str) -> None:
        write(into, line.encode() + b"\n")

    try:
        work(say)
    except BaseException:
        traceback.print_exc()
        os._exit(CRASHED)
    os._exit(0)
