"""Every write-class system call of a clean run fails once, and fails from then on.

``strace`` records a clean run: a job of 12 frames in three files, with a durable flush and an end. Then for
each call that it made, each time that it made it: ENOSPC, EIO, EDQUOT, once and for good, with ``put``, with
``put_many`` and through a ``DataHandler``; and an interrupted call, a call that writes nothing, and a short write. After
each run the judge asks: did it end within 10 seconds; was the error told to the caller; was nothing
acknowledged after it (P7); is everything acknowledged readable, and no frame wrong.

A failure may stay untold only where the call has nothing left to lose:

- ``close`` of a descriptor with nothing unsynced behind it: one that only read, a folder, the lock, or a
  file that ``fsync`` had taken before;
- a call that fails in a clean run as well: ``mkdir`` of a folder that is there already;
- an interrupted call, which Python makes again, and a short write, which goes on behind what was written.

Where nobody was told, the dataset must be complete and whole.

The tracer is there when the tampered ``getppid`` says so; the calls count from the dataset's first. With
the handler the storage exists before, so that the calls of its one thread are counted by themselves.

Run ``python tests/campaigns/io_errors.py``; a case that is shown runs again with ``--only NAME``.
"""

import argparse
import contextlib
import errno
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from children import Child, Ended, warm_up
from judge import Said, Verdict, judge
from results import save
from writer import Job, Say, write

import exengine.errors

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
WAYS = ("direct", "many", "handler")
ERRORS = ("ENOSPC", "EIO", "EDQUOT")
SHORT = 10  # bytes that a short write takes; of a shorter one, half
PATIENCE_S = 10.0
_PARENT = 4_242_424  # what getppid says under the tracer
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")
_FILE = re.compile(r"^\d+<([^>]*)>")
OUR_ERRORS = {name for name in dir(exengine.errors) if name.endswith("Error")}


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


def job_at(path: str, *, way: str, backend: str = "ndtiff") -> Job:
    """Return the small job: 12 frames of 64x64, in three files, with one durable flush."""
    options = {"max_file_bytes": 45_000} if backend == "ndtiff" else None
    batch = 4 if way == "many" else 1
    # One frame after the other, so that each run makes the same calls.
    handler = way == "handler"
    return Job(
        path,
        backend,
        count=12,
        batch=batch,
        durable_every=8,
        handler=handler,
        max_pending=1,
        options=options,
    )


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


def cases_of(clean: CleanRun, *, way: str) -> list[Case]:
    """Return every fault of the sweep, for one way of writing."""
    cases = []
    for call, count in clean.counts.items():
        for nth in range(1, count + 1):
            cases += [Case(way, call, nth, error, sticky) for error in ERRORS for sticky in (False, True)]
            if call not in ("close", "mkdir", "rename", "unlink", "rmdir"):  # those are not interrupted
                cases.append(Case(way, call, nth, "EINTR", False))
            if call in GATHERED:
                cases += [Case(way, call, nth, "short", sticky) for sticky in (False, True)]
                cases.append(Case(way, call, nth, "torn", True))
                cases += [Case(way, call, nth, "nothing", sticky) for sticky in (False, True)]
    return cases


def run(case: Case, path: str, *, backend: str = "ndtiff", do: Callable[[Job, Say], None] = write) -> Ended:
    """Run the job with one fault.

    Parameters
    ----------
    case : Case
    path : str
        Where the dataset will lie.
    backend : str
        That of the product, or the control.
    do : callable
        What writes; a stand-in proves that the judge sees what it must see.
    """
    job = job_at(path, way=case.way, backend=backend)
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


def write_and_swallow(job: Job, say: Say) -> None:
    """Do a job with a writer that hides what went wrong; the judge must see it."""
    from exengine_ndstorage.ndtiff import NDTiffStorage

    good = NDTiffStorage.write_frames

    def swallow(self: NDTiffStorage, number: int, batch: list[object]) -> int:
        with contextlib.suppress(OSError):
            return good(self, number, batch)
        return len(batch)

    NDTiffStorage.write_frames = swallow
    write(job, say)


def broken(case: Case, clean: CleanRun, ended: Ended, verdict: Verdict, count: int) -> list[str]:
    """Return which promises a run broke; the empty list is the good answer.

    Parameters
    ----------
    case : Case
    clean : CleanRun
    ended : Ended
    verdict : Verdict
        Of the dataset that is left.
    count : int
        Frames of the job.
    """
    said = Said.of(ended.lines)
    found = []
    if ended.hung:
        found.append(f"it did not end within {PATIENCE_S:.0f} s")
    elif ended.code:
        found.append(f"the process ended with {ended.code}")
    told = bool(said.errors)
    # The control has no status.
    whole = verdict.readable == list(range(count)) and verdict.status in ("complete", "unknown")
    if not told and not _may_stay_untold(case, clean):
        found.append("the error was not told")
    if not told and not (said.finished and whole):
        found.append(f"nobody was told, and the dataset is not whole: {verdict}")
    if foreign := [kind for _, kind, _, _ in said.errors if kind not in OUR_ERRORS]:
        found.append(f"errors that are not ours: {foreign}")
    if said.errors and case.fault in errno.errorcode.values():
        _, _, number, message = said.errors[0]
        if number != case.fault and os.strerror(getattr(errno, case.fault)) not in message:
            found.append(f"the error does not say its cause: {said.errors[0]}")
    if told and not said.finished and not case.sticky and verdict.status == "complete":
        # A fault that stays after the last rename leaves no way to mark the dataset; its frames are safe.
        found.append("finish raised, and the dataset says complete")
    first = next((at for at, line in enumerate(ended.lines) if line.startswith("error ")), len(ended.lines))
    if late := [
        line.strip() for line in ended.lines[first:] if line.startswith(("put", "synced", "finished"))
    ]:
        found.append(f"acknowledged after the first error: {late}")
    if lost := verdict.lost(said.put):
        found.append(f"acknowledged and lost: {lost}")
    if verdict.wrong or verdict.damaged:
        found.append(f"wrong frames: {verdict.wrong}, damaged: {verdict.damaged}")
    if verdict.problem.startswith("foreign"):
        found.append(f"opening: {verdict.problem}")
    if verdict.status == "complete" and verdict.lost(count):
        found.append("it says complete, and is not")
    return found


def _may_stay_untold(case: Case, clean: CleanRun) -> bool:
    if case.fault in ("EINTR", "short", "nothing"):
        return True
    met = range(case.nth, (clean.counts[case.call] if case.sticky else case.nth) + 1)
    if case.call == "close":
        return not clean.unsynced_closes.intersection(met)
    return all((case.call, nth) in clean.refused for nth in met)


def sweep(
    folder: str, *, count: int | None, seed: int, only: str | None = None, writer: str = "ndtiff"
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Run the sweep, or a sample of it.

    Parameters
    ----------
    folder : str
        Where the datasets lie while they are judged.
    count : int, optional
        How many cases to draw; all of them by default.
    seed : int
        Of the draw.
    only : str, optional
        The name of one case.
    writer : str
        ``ndtiff``, or another backend; or a control that must be found: ``ndstorage``, or ``swallows``, which
        hides errors.

    Returns
    -------
    tuple of (dict, dict)
        Figures, and name of a case -> promises that it broke.
    """
    backend = "ndtiff" if writer == "swallows" else writer
    warm_up(folder, backend)
    do = write_and_swallow if writer == "swallows" else write
    clean = {}
    for way in WAYS:
        clean[way] = record(
            job_at(f"{folder}/clean-{way}", way=way, backend=backend), Path(folder, f"{way}.trace")
        )
    every = [case for way in WAYS for case in cases_of(clean[way], way=way)]
    chosen = every
    if only is not None:
        chosen = [Case.of(only)]
    elif count is not None and count < len(every):
        chosen = random.Random(seed).sample(every, count)
    failures: dict[str, list[str]] = {}
    told = silent = 0
    begin = time.monotonic()
    for number, case in enumerate(chosen):
        path = f"{folder}/run-{number}"
        ended = run(case, path, backend=backend, do=do)
        job = job_at(path, way=case.way, backend=backend)
        verdict = judge(job)
        if faults := broken(case, clean[case.way], ended, verdict, job.count):
            failures[case.name] = faults
            _print(f"BROKEN {case.name}: {'; '.join(faults)}")
        if only is not None:
            _print(f"{''.join(ended.lines)}{ended.output}{verdict}")
        told, silent = told + bool(ended.errors), silent + (not ended.errors)
        shutil.rmtree(path, ignore_errors=True)
        if (number + 1) % 100 == 0:
            _print(
                f"{number + 1} of {len(chosen)} runs, {time.monotonic() - begin:.0f} s, {len(failures)} broken"
            )
    points = sum(sum(one.counts.values()) for one in clean.values())
    calls = sorted({call for one in clean.values() for call in one.counts})
    figures = {"calls": " ".join(calls), "points": points, "cases": len(every), "runs": len(chosen)}
    figures |= {"told": told, "untold, and whole": silent, "broken": len(failures)}
    return figures, failures


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the campaign; return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, help="draw so many cases; all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="run the case of this name, and show all that it said")
    parser.add_argument(
        "--writer", default="ndtiff", help="a backend; or a control: ndstorage alone, or one that swallows"
    )
    parser.add_argument("--folder", help="where the datasets lie; in memory where there is such a place")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=given.folder or memory) as folder:
        figures, failures = sweep(
            folder, count=given.count, seed=given.seed, only=given.only, writer=given.writer
        )
    for name, value in figures.items():
        _print(f"{name}: {value}")
    _print(f"seconds: {time.monotonic() - begin:.0f}")
    for name, faults in failures.items():
        _print(f"again: python tests/campaigns/io_errors.py --only {name}  # {'; '.join(faults)[:300]}")
    if given.save and given.writer == "ndtiff" and not failures:
        count = f" --count {given.count}" if given.count else ""
        save(
            "io_errors",
            f"python tests/campaigns/io_errors.py --seed {given.seed}{count}",
            given.seed,
            figures,
        )
    return 1 if failures else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
