"""Forks child processes from a process that has already imported everything, in a few milliseconds each.

A child reports through a socket with ``sendto(2)``, so that faults injected into ``write(2)`` affect the
dataset but not the report. Its output is kept and shown with a failure.
"""

import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from variants import Variant
from writer import Job, Say, write


@dataclass
class Ended:
    """How a child ended.

    Attributes
    ----------
    lines : list of str
        The lines that it reported; see ``writer.py``.
    code : int
        Its exit code; if negative, the signal that ended it.
    hung : bool
        Whether it did not end in time and was killed.
    output : str
        Its standard output and error.
    """

    lines: list[str]
    code: int
    hung: bool
    output: str

    @property
    def errors(self) -> list[str]:
        """The lines that report an error."""
        return [line for line in self.lines if line.startswith("error ")]


class Child:
    """A forked process that does some work and reports its progress.

    Parameters
    ----------
    work : callable
        Called in the child with a function that sends a line.
    """

    def __init__(self, work: Callable[[Say], None]) -> None:
        ours, theirs = socket.socketpair()
        self._output = os.memfd_create("output")
        sys.stdout.flush()  # otherwise, the child would print it again
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                ours.close()
                os.dup2(self._output, 1)
                os.dup2(self._output, 2)
                work(lambda line: theirs.sendall(line.encode() + b"\n"))
                code = 0
            except BaseException:
                with suppress(OSError):  # one of the injected faults
                    traceback.print_exc()
            finally:
                with suppress(OSError):
                    sys.stdout.flush()
                os._exit(code)
        theirs.close()
        self._socket = ours
        self._said = b""

    def listen(self, seconds: float) -> bool:
        """Receive lines from the child until a timeout; return whether more may follow."""
        ready, _, _ = select.select([self._socket], [], [], max(0.0, seconds))
        if not ready:
            return True
        try:
            more = self._socket.recv(65536)
        except ConnectionResetError:  # killed while it was sending
            more = b""
        self._said += more
        return bool(more)

    @property
    def lines(self) -> list[str]:
        """The lines that the child has sent so far."""
        return self._said.decode().splitlines(keepends=True)

    def kill(self) -> None:
        """Kill the child with SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self, seconds: float) -> Ended:
        """Wait for the child to end; kill it after a timeout."""
        until = time.monotonic() + seconds
        hung = False
        while self.listen(until - time.monotonic()):
            if time.monotonic() >= until:
                hung = True
                self.kill()
                break
        while self.listen(1.0 if hung else 0.0):
            pass
        _, status = os.waitpid(self.pid, 0)
        self._socket.close()
        output = os.pread(self._output, 20_000, 0).decode(errors="replace")
        os.close(self._output)
        return Ended(self.lines, os.waitstatus_to_exitcode(status), hung, output)


def warm_up(folder: str, variant: Variant) -> None:
    """Do a small job in each way in this process, so that no fault occurs during an import in a child."""
    from judge import judge

    for handler in (False, True):
        options = variant.with_files(40_000, 2 * 64 * 64)
        job = Job(
            variant.path(folder, f"warm-{handler}"),
            variant.backend,
            count=12,
            handler=handler,
            options=options,
        )
        job = replace(job, planned=variant.backend == "ome-zarr")
        write(job, lambda line: None)
        judge(job)
