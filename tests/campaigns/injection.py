"""Runs a job while ``strace`` makes one of its system calls fail, or records the calls of a clean run.

A tampered ``getppid`` shows that the tracer is attached. Calls are counted from the first call for the
dataset. With a handler, the storage is created before, so that only the calls of the handler's thread are
counted.
"""

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from children import Child, Ended
from judge import Said
from writer import Job, Say, write

CALLS = [
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "open",
    "openat",
    "openat2",
    "creat",
    "fsync",
    "fdatasync",
    "syncfs",
    "sync_file_range",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mkdir",
    "mkdirat",
    "ftruncate",
    "truncate",
    "fallocate",
    "unlink",
    "unlinkat",
    "rmdir",
    "close",
    "flock",
    "msync",
    "copy_file_range",
    "sendfile",
]
GATHERED = ("pwritev", "pwritev2")  # the same function of Python in different versions
SHORT = 10  # bytes that a short write accepts; half of a shorter write
PATIENCE_S = 10.0
_PARENT = 4_242_424  # the result of getppid under the tracer
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")
_FILE = re.compile(r"^\d+<([^>]*)>")


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes
    ----------
    way : str
        One of ``WAYS``: with ``put``, with ``put_many``, or through a ``DataHandler``.
    call : str
        The system call.
    nth : int
        The number of the call, counted from 1 in each thread.
    fault : str
        An errno; ``nothing`` (it returns 0); ``short`` (it takes 10 bytes); ``torn`` (10 bytes, then ENOSPC).
    sticky : bool
        Whether every later call fails, too.
    """

    way: str
    call: str
    nth: int
    fault: str
    sticky: bool

    @property
    def name(self) -> str:
        """The name of the case for ``--only``."""
        return f"{self.way}:{self.call}:{self.nth}{'+' if self.sticky else ''}:{self.fault}"

    @classmethod
    def of(cls, name: str) -> "Case":
        """Return the case with a name."""
        way, call, nth, fault = name.split(":")
        return cls(way, call, int(nth.rstrip("+")), fault, nth.endswith("+"))


@dataclass
class CleanRun:
    """The calls of a run without faults.

    Attributes
    ----------
    counts : dict
        System call -> the largest number of such calls by a single thread.
    unsynced_closes : set of int
        The numbers, counted from 1, of ``close`` calls on files with unsynced data.
    refused : set of (str, int)
        The calls that fail even without an injected fault.
    """

    counts: dict[str, int]
    unsynced_closes: set[int]
    refused: set[tuple[str, int]]


def _await_tracer() -> None:
    while os.getppid() != _PARENT:
        time.sleep(0.0002)


def _worker(job: Job, do: Callable[[Job, Say], None], *, traced: bool) -> Callable[[Say], None]:
    def work(say: Say) -> None:
        if not traced:
            do(job, say)
        elif job.handler:

            def begin(line: str) -> None:
                say(line)
                if line == "created":
                    _await_tracer()

            do(job, begin)
        else:
            _await_tracer()
            do(job, say)

    return work


def _trace(child: Child, job: Job, calls: str, *more: str) -> "subprocess.Popen[bytes]":
    until = time.monotonic() + PATIENCE_S
    while job.handler and "created\n" not in child.lines and time.monotonic() < until:
        child.listen(0.1)  # calls before this one are not counted
    command = ["strace", "-f", "-qq", "-e", f"trace={calls},getppid"]
    command += ["-e", f"inject=getppid:retval={_PARENT}", *more, "-p", str(child.pid)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def record(job: Job, trace: Path) -> CleanRun:
    """Run a job without a fault, and return its calls.

    Parameters
    ----------
    job : Job
    trace : Path
        The file for the output of ``strace``.
    """
    child = Child(_worker(job, write, traced=True))
    tracer = _trace(child, job, ",".join(f"?{call}" for call in CALLS), "-y", "-o", str(trace))
    ended = child.end(60)
    _, text = tracer.communicate()
    said = Said.of(ended.lines)
    if ended.code or said.errors or not said.finished:
        raise RuntimeError(f"the run without a fault failed: {ended} {text.decode(errors='replace')}")
    by_thread: dict[str, Counter[str]] = {}
    unsynced: set[str] = set()
    unsynced_closes = set()
    refused = set()
    for line in trace.read_text(errors="replace").splitlines():
        found = _LINE.match(line)
        if not found or found[2] == "getppid":
            continue
        thread, call, arguments = found.groups()
        counts = by_thread.setdefault(thread, Counter())
        counts[call] += 1
        file = _FILE.match(arguments)
        where = file[1] if file else ""
        if call in ("write", "writev", "pwrite64", "pwritev", "pwritev2", "ftruncate", "fallocate"):
            unsynced.add(where)
        elif call in ("fsync", "fdatasync"):
            unsynced.discard(where)
        elif call == "close" and where in unsynced:
            unsynced_closes.add(counts[call])
        if " = -1 E" in arguments:
            refused.add((call, counts[call]))
    names = sorted({call for counts in by_thread.values() for call in counts})
    most = {call: max(counts[call] for counts in by_thread.values()) for call in names}
    return CleanRun(most, unsynced_closes, refused)


def run(case: Case, job: Job, *, do: Callable[[Job, Say], None] = write) -> Ended:
    """Run the job with one fault.

    Parameters
    ----------
    case : Case
    job : Job
    do : callable
        The function that writes; a faulty replacement proves that the judge detects faults.
    """
    if case.fault in ("short", "torn"):
        return Child(_worker(job, _with_short_writes(case, do), traced=False)).end(PATIENCE_S)
    when = f"when={case.nth}{'+' if case.sticky else ''}"
    calls = case.call
    if case.fault == "nothing":
        what = "retval=0"
        if case.sticky:
            calls += ",pwrite64"  # the product continues with this call
    else:
        what = f"error={case.fault}"
    child = Child(_worker(job, do, traced=True))
    inject = [part for call in calls.split(",") for part in ("-e", f"inject={call}:{what}:{when}")]
    if case.fault == "nothing" and case.sticky:
        inject[-1] = "inject=pwrite64:retval=0:when=1+"
    tracer = _trace(child, job, calls, "-o", "/dev/null", *inject)
    ended = child.end(PATIENCE_S)
    _, text = tracer.communicate()
    if text and "inject" in text.decode(errors="replace"):
        raise RuntimeError(f"strace cannot do {case.name}: {text.decode(errors='replace')}")
    return ended


def _with_short_writes(case: Case, do: Callable[[Job, Say], None]) -> Callable[[Job, Say], None]:
    """Return a function that does a job while the system accepts only the beginning of a gathered write.

    Tampering with the return value would not suffice, because it would report bytes that were never written.
    """
    gathered, single = os.pwritev, os.pwrite
    count = 0

    def beginning(data: bytes) -> bytes:
        return data[: min(SHORT, (len(data) + 1) // 2)]

    def pwritev(descriptor: int, parts: list[object], offset: int) -> int:
        nonlocal count
        count += 1
        if count != case.nth and not (case.sticky and count > case.nth):
            return gathered(descriptor, parts, offset)
        if case.fault == "torn" and count > case.nth:
            raise OSError(28, "No space left on device")
        return single(descriptor, beginning(b"".join(bytes(part) for part in parts)), offset)

    def pwrite(descriptor: int, data: object, offset: int) -> int:
        if case.fault == "torn" and count >= case.nth:
            raise OSError(28, "No space left on device")
        return single(descriptor, beginning(bytes(data)) if case.sticky else bytes(data), offset)

    def work(job: Job, say: Say) -> None:
        def begin(line: str) -> None:
            if line == "created" and job.handler:
                os.pwritev, os.pwrite = pwritev, pwrite
            say(line)

        if not job.handler:
            os.pwritev, os.pwrite = pwritev, pwrite
        do(job, begin)

    return work
