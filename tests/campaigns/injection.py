"""Runs a job while ``strace`` lets one of its system calls fail, or records those of a clean run.

The tracer is there when the tampered ``getppid`` says so; the calls count from the dataset's first. With a
handler the storage exists before, so that the calls of its one thread are counted by themselves.
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
GATHERED = ("pwritev", "pwritev2")  # the same function of Python, by version
SHORT = 10  # bytes that a short write takes; of a shorter one, half
PATIENCE_S = 10.0
_PARENT = 4_242_424  # what getppid says under the tracer
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
        From 1, in each thread.
    fault : str
        An errno; ``nothing`` (it returns 0); ``short`` (it takes 10 bytes); ``torn`` (10 bytes, then ENOSPC).
    sticky : bool
        Also every later one.
    """

    way: str
    call: str
    nth: int
    fault: str
    sticky: bool

    @property
    def name(self) -> str:
        """What ``--only`` takes."""
        return f"{self.way}:{self.call}:{self.nth}{'+' if self.sticky else ''}:{self.fault}"

    @classmethod
    def of(cls, name: str) -> "Case":
        """Return the case of a name."""
        way, call, nth, fault = name.split(":")
        return cls(way, call, int(nth.rstrip("+")), fault, nth.endswith("+"))


@dataclass
class CleanRun:
    """What a run without a fault does.

    Attributes
    ----------
    counts : dict
        System call -> how often the thread that makes it most makes it.
    unsynced_closes : set of int
        The closes, from 1, of a file with something that ``fsync`` has not seen.
    refused : set of (str, int)
        The calls that fail without a fault.
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
        child.listen(0.1)  # its calls until then are not counted
    command = ["strace", "-f", "-qq", "-e", f"trace={calls},getppid"]
    command += ["-e", f"inject=getppid:retval={_PARENT}", *more, "-p", str(child.pid)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def record(job: Job, trace: Path) -> CleanRun:
    """Run a job without a fault, and return what it did.

    Parameters
    ----------
    job : Job
    trace : Path
        Where the output of ``strace`` goes.
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
        What writes; a stand-in proves that the judge sees what it must see.
    """
    if case.fault in ("short", "torn"):
        return Child(_worker(job, _with_short_writes(case, do), traced=False)).end(PATIENCE_S)
    when = f"when={case.nth}{'+' if case.sticky else ''}"
    calls = case.call
    if case.fault == "nothing":
        what = "retval=0"
        if case.sticky:
            calls += ",pwrite64"  # the product goes on with that one
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
    """Return what does a job while the system takes only the beginning of a gathered write.

    A tampered return value would claim bytes that were never written: a disk that lies.
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
