"""The campaign of ``kill -9``: a writer is killed at every point where it touches the disk, and at random.

``python tests/campaigns/kills.py --count 3000 --seed 1 [--save]``

A first run of each job that is not disturbed shows the points: every call that makes, writes, syncs, renames or
closes a file. Then a writer is killed before each, after each, and in the middle of each write, when half of it is
done. The other kills come from outside, after a random time or a random number of acknowledged frames. After each,
the dataset is opened at once and compared with what was acknowledged.
"""

import argparse
import builtins
import dataclasses
import io
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import results
from forked import Child, Say
from judge import Said, Verdict, judge
from writer import Job, pixels_of, write

KIB, MIB = 2**10, 2**20
HALF = "half way through"
JOBS = {
    "small, new files": Job("", count=24, options={"max_file_bytes": 64 * KIB}),
    "small, synced": Job("", count=24, durable_every=6, options={"max_file_bytes": 64 * KIB}),
    "small, batches": Job("", count=40, batch=8, options={"max_file_bytes": 96 * KIB}),
    "small, batches synced, not finished": Job(
        "", count=24, batch=8, durable_every=8, finish=False, options={"max_file_bytes": 64 * KIB}
    ),
    "small, one file, not finished": Job("", count=16, finish=False),
    "large, new files": Job("", size=512, count=8, options={"max_file_bytes": 2 * MIB}),
    "large, batches synced": Job(
        "", size=512, count=8, batch=4, durable_every=4, options={"max_file_bytes": 2 * MIB}
    ),
    "small, handler": Job("", count=40, handler=True, options={"max_file_bytes": 64 * KIB}),
}
AT_RANDOM_ONLY = {"small, handler"}
"""Jobs of several threads: their calls come in another order each time."""


@dataclass(frozen=True)
class Kill:
    """One trial.

    Attributes
    ----------
    job : str
        Key of ``JOBS``.
    point : int
        Which of the calls; -1: killed from outside.
    when : str
        ``before``, ``after`` or half way through that call.
    frames : int
        Killed from outside when so many lines were said ...
    delay_s : float
        ... and so much time is over.
    """

    job: str
    point: int = -1
    when: str = ""
    frames: int = 0
    delay_s: float = 0.0


class Calls:
    """Stands between a writer and the system: counts the calls that touch the disk, and kills at one.

    Parameters
    ----------
    at : int
        Which call; -1: none.
    when : str
    note : callable
        Is told the name of each call, and whether it can be done half way.
    """

    def __init__(self, at: int, when: str, note: Callable[[str, bool], None]) -> None:
        self._at, self._when, self._note = at, when, note
        self._count = 0
        self._written: set[int] = set()  # descriptors of files that were opened to write

    def install(self) -> None:
        """Replace the functions of this process."""
        for name in ("fsync", "fdatasync", "ftruncate", "rename", "replace", "mkdir", "unlink", "rmdir"):
            setattr(os, name, self._around(name, getattr(os, name)))
        for name in ("pwritev", "pwrite", "write", "writev"):
            setattr(os, name, self._around(name, getattr(os, name), _halves[name]))
        os.open = self._open(os.open)
        os.close = self._close(os.close)
        builtins.open = self._open_file(builtins.open)

    def _around(
        self, name: str, call: Callable[..., Any], halve: Callable[..., tuple[Any, ...]] | None = None
    ) -> Callable[..., Any]:
        def instead(*arguments: Any, **more: Any) -> Any:
            mine = self._begin(name, halve is not None)
            if mine and self._when == HALF and halve is not None:
                call(*halve(*arguments))
                self._die()
            try:
                return call(*arguments, **more)
            finally:  # also after one that failed, such as a folder that is there already
                if mine:
                    self._die()

        return instead

    def _open(self, call: Callable[..., int]) -> Callable[..., int]:
        counted = self._around("open", call)

        def instead(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if not flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                return call(path, flags, *more, **named)
            descriptor = counted(path, flags, *more, **named)
            self._written.add(descriptor)
            return descriptor

        return instead

    def _close(self, call: Callable[[int], None]) -> Callable[[int], None]:
        counted = self._around("close", call)

        def instead(descriptor: int) -> None:
            if descriptor in self._written:
                self._written.discard(descriptor)
                counted(descriptor)
            else:
                call(descriptor)

        return instead

    def _open_file(self, call: Callable[..., Any]) -> Callable[..., Any]:
        calls = self

        class Raw(io.FileIO):
            write = calls._around(
                "file.write", io.FileIO.write, lambda file, data: (file, data[: len(data) // 2])
            )
            close = calls._around("file.close", io.FileIO.close)

        def instead(path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
            if not set(mode) & set("wax+"):
                return call(path, mode, *more, **named)
            raw = self._around("file.open", Raw)(path, mode.replace("b", "").replace("t", ""))
            file: Any = io.BufferedWriter(raw)
            return file if "b" in mode else io.TextIOWrapper(file, named.get("encoding"))

        return instead

    def _begin(self, name: str, can_be_halved: bool) -> bool:
        mine = self._count == self._at
        self._count += 1
        self._note(name, can_be_halved)
        if mine and self._when == "before":
            self._die()
        return mine

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def _half(parts: list[Any]) -> list[Any]:
    """Return the first half of the bytes of some buffers."""
    data = b"".join(bytes(memoryview(part).cast("B")) for part in parts)
    return [data[: len(data) // 2]]


_halves: dict[str, Callable[..., tuple[Any, ...]]] = {
    "pwritev": lambda descriptor, parts, offset: (descriptor, _half(parts), offset),
    "writev": lambda descriptor, parts: (descriptor, _half(parts)),
    "pwrite": lambda descriptor, data, offset: (descriptor, _half([data])[0], offset),
    "write": lambda descriptor, data: (descriptor, _half([data])[0]),
}


def acknowledge_early() -> None:
    """Make a writer that is wrong: each write reaches the file with the next one only."""
    real = os.pwritev
    waiting: list[Any] = []

    def late(descriptor: int, parts: list[Any], offset: int) -> int:
        if waiting:
            real(*waiting.pop())
        data = [bytes(memoryview(part).cast("B")) for part in parts]
        waiting.append((descriptor, data, offset))
        return sum(map(len, data))

    os.pwritev = late


def index_first(pause_s: float = 0) -> None:
    """Make a writer that is wrong: the entry of a frame is in the index before its pixels are there."""
    from exengine.base_classes import write_at as real
    from exengine_ndstorage.ndtiff import writer

    waiting: list[Any] = []

    def swapped(descriptor: int, parts: list[Any], offset: int, size: int | None = None) -> int:
        whole = sum(memoryview(part).nbytes for part in parts) if size is None else size
        if waiting:
            real(descriptor, parts, offset, size)
            time.sleep(pause_s)
            real(*waiting.pop())
        elif len(parts) >= 3:  # a frame; its entry comes with the next call
            waiting.append((descriptor, parts, offset, size))
        else:
            real(descriptor, parts, offset, size)
        return offset + whole

    writer.write_at = swapped


SPOILS = {"acknowledge-early": acknowledge_early, "index-first": index_first}
"""Faults of a writer that the campaign must find, or it is blind."""


@dataclass
class Campaign:
    """All trials of one run.

    Attributes
    ----------
    folder : str
        Where the datasets are made, each deleted after it was judged.
    backend : str
    spoil : str
        Key of ``SPOILS``, or empty.
    recover_every : int
        Every so many datasets are recovered too; 0: none.
    """

    folder: str
    backend: str = "ndtiff"
    spoil: str = ""
    recover_every: int = 1
    known: set[tuple[str, int, str]] = field(default_factory=set)
    hit: set[tuple[str, int, str]] = field(default_factory=set)
    names: dict[tuple[str, int], str] = field(default_factory=dict)
    length_s: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    def job(self, name: str, trial: object) -> Job:
        """Return the job of a trial, with a place of its own."""
        options = None if self.backend == "ndstorage" else JOBS[name].options
        return dataclasses.replace(
            JOBS[name], path=os.path.join(self.folder, f"{trial}"), backend=self.backend, options=options
        )

    def look(self) -> None:
        """Do every job undisturbed, to know its points and how long it takes."""
        for number, name in enumerate(JOBS):
            job = self.job(name, f"clean{number}")
            for n in range(job.count):
                pixels_of(n, job.size)  # made once, here, for all children
            points: list[tuple[str, bool]] = []

            def work(say: Say, job: Job = job) -> None:
                Calls(-1, "", lambda called, can, say=say: say(f"call {called} {int(can)}")).install()
                write(job, say)

            began = time.monotonic()
            lines = []
            with Child(work) as child:
                for line in child.lines():
                    word, _, rest = line.partition(" ")
                    if word == "call":
                        points.append((rest.split()[0], rest.endswith("1")))
                    else:
                        lines.append(line + "\n")
                code = child.wait()
            self.length_s[name] = time.monotonic() - began
            said = Said.of(lines)
            if code or said.errors or said.put != job.count:
                raise SystemExit(f"the clean run of {name!r} ended with {code}, {said}")
            shutil.rmtree(job.path)
            if name not in AT_RANDOM_ONLY:
                for point, (call, halved) in enumerate(points):
                    self.names[name, point] = call
                    for when in ("before", HALF, "after") if halved else ("before", "after"):
                        self.known.add((name, point, when))

    def plan(self, count: int, seed: int) -> Iterator[Kill]:
        """Yield the trials without end: among the first, up to two thirds at points, all others at random.

        More than ``count`` are needed, because some that are killed from outside have ended by then.
        """
        rng = random.Random(seed)
        points = sorted(self.known)
        rng.shuffle(points)
        kills: list[Kill | None] = [Kill(*point) for point in points[: count * 2 // 3]]
        kills += [None] * (count - len(kills))
        rng.shuffle(kills)
        for kill in itertools.chain(kills, itertools.repeat(None)):
            yield kill or self._at_random(rng)

    def _at_random(self, rng: random.Random) -> Kill:
        name = rng.choice(list(JOBS))
        if rng.random() < 0.5:
            return Kill(name, delay_s=rng.uniform(0, 1.1 * self.length_s[name]))
        return Kill(name, frames=rng.randint(0, JOBS[name].count + 3), delay_s=rng.expovariate(2000))

    def run(self, kill: Kill, number: int) -> None:
        """Do one trial and judge it."""
        job = self.job(kill.job, number)

        def work(say: Say) -> None:
            if kill.point >= 0:
                Calls(kill.point, kill.when, lambda _call, _halved: None).install()
            if self.spoil:
                SPOILS[self.spoil]()
            write(job, say)

        lines: list[str] = []
        with Child(work) as child:
            if kill.point < 0:
                while len(lines) < kill.frames and (line := child.line(60)) is not None:
                    lines.append(line + "\n")
                _wait(kill.delay_s)
                child.kill()
            lines += [line + "\n" for line in child.lines()]
            code = child.wait()
        said = Said.of(lines)
        if code == -signal.SIGKILL:
            self.figures["killed"] += 1
            if kill.point >= 0:
                self.hit.add((kill.job, kill.point, kill.when))
        elif code or kill.point >= 0:
            self.broken.append(self._describe(kill, number, f"the writer ended with {code}, {said.errors}"))
        else:
            self.figures["ended before the kill"] += 1
        problems = self._judge(job, said, number)
        self.broken += [self._describe(kill, number, problem) for problem in problems]
        shutil.rmtree(job.path, ignore_errors=True)

    def _judge(self, job: Job, said: Said, number: int) -> list[str]:
        there = os.path.lexists(job.path)
        if not there and not said.created:
            self.figures["killed before there was a dataset"] += 1
            return [f"{said} without a dataset"] if said.put else []
        before = _state(job.path)
        verdict = judge(job)
        self.figures["frames acknowledged"] += said.put
        self.figures["frames lost"] += len(verdict.lost(said.put))
        self.figures["frames torn or wrong"] += len(verdict.wrong) + len(verdict.damaged)
        problems = find_fault(job, said, verdict)
        if _state(job.path) != before:
            problems.append("opening it to read changed it")
        if self.recover_every and number % self.recover_every == 0:
            problems += self._recover(job, verdict)
        return problems

    def _recover(self, job: Job, verdict: Verdict) -> list[str]:
        """Recover the dataset elsewhere, and compare with what could be read before."""
        import exengine

        output = job.path + "-recovered"
        before = _state(job.path)
        try:
            report = exengine.recover(job.path, output=output)
        except Exception as error:
            return [f"recover: {type(error).__name__}: {error}"]
        if report.outcome == "nothing to recover":
            self.figures["found finished by recover"] += 1
            return [] if verdict.status == "complete" else [f"nothing to recover, though {verdict.status}"]
        recovered = judge(job, output)
        self.figures["recovered"] += 1
        problems = []
        if recovered.readable != verdict.readable or recovered.wrong or recovered.problem:
            problems.append(f"recovered as {recovered}, readable were {verdict.readable}")
        if recovered.status not in ("complete", "aborted"):
            problems.append(f"recovered with the status {recovered.status!r}")
        if _state(job.path) != before:
            problems.append("recover changed the original")
        # The library alone reads some of them: what is recovered is NDTiff, and not only for us.
        if verdict.readable and self.figures["recovered"] % 25 == 0:
            other = judge(dataclasses.replace(job, backend="ndstorage"), output)
            self.figures["recovered and read by ndstorage"] += 1
            if other.readable != verdict.readable:
                problems.append(f"ndstorage reads of the recovered dataset {other}")
        shutil.rmtree(output, ignore_errors=True)
        return problems

    def _describe(self, kill: Kill, number: int, problem: str) -> str:
        call = self.names.get((kill.job, kill.point), "")
        return f"case {number}: {kill} {call}: {problem}"


def find_fault(job: Job, said: Said, verdict: Verdict) -> list[str]:
    """Return the promises that a dataset breaks, given what its killed writer had said."""
    problems = []
    if verdict.problem:
        problems.append(verdict.problem)
    if verdict.lost(said.put):
        problems.append(f"lost: {verdict.lost(said.put)} of {said.put} acknowledged")
    if verdict.wrong:
        problems.append(f"wrong: {verdict.wrong}")
    if verdict.damaged:
        problems.append(f"torn: {verdict.damaged}")
    in_flight = job.count if job.handler else said.put + job.batch
    if any(number >= in_flight for number in verdict.readable):
        problems.append(f"readable are {verdict.readable}, {said.put} were acknowledged")
    if verdict.readable != list(range(len(verdict.readable))):
        problems.append(f"frames are missing in the middle: {verdict.readable}")
    if verdict.strange or verdict.listed not in (-1, len(verdict.readable)):
        problems.append(f"lists {verdict.listed} frames, strange ones {verdict.strange}")
    if said.errors:
        problems.append(f"the writer met {said.errors}")
    wanted = {"complete"} if said.finished else {"incomplete", "complete"}
    if job.backend != "ndstorage" and verdict.status not in wanted:
        problems.append(f"its status is {verdict.status!r}")
    if verdict.status == "complete" and len(verdict.readable) != job.count:
        problems.append(f"complete with {len(verdict.readable)} of {job.count} frames")
    return problems


def _state(path: str) -> list[tuple[str, int, int]]:
    """Return what is in a folder: names, sizes, times of change."""
    if not os.path.isdir(path):
        return []
    with os.scandir(path) as entries:
        return sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)


def _wait(seconds: float) -> None:
    end = time.perf_counter() + seconds
    if seconds > 0.01:
        time.sleep(seconds - 0.005)
    while time.perf_counter() < end:
        pass


def main() -> int:
    """Run the campaign, print what came of it, and return 1 when a promise was broken."""
    options = argparse.ArgumentParser(description="kill -9 of a writer")
    options.add_argument("--count", type=int, default=3000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--case", type=int, help="only this one, of a run with the same count and seed")
    options.add_argument("--backend", default="ndtiff", help="ndstorage: the control, which must lose frames")
    options.add_argument("--spoil", choices=SPOILS, default="", help="make the writer wrong: must be found")
    options.add_argument("--recover-every", type=int, default=1, metavar="N", help="0: recover none")
    options.add_argument("--folder", help="where to make datasets, by default the folder for temporary files")
    options.add_argument("--save", action="store_true", help="keep the figures for the docs")
    given = options.parse_args()

    import exengine
    import exengine.data

    _ = exengine.DataHandler
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        # Whatever is imported at first use is imported here, and not by each child.
        first = Job(
            os.path.join(folder, "first"), count=2, batch=2, durable_every=2, options={"max_file_bytes": MIB}
        )
        write(first, lambda line: None)
        judge(first)
        campaign = Campaign(folder, given.backend, given.spoil, given.recover_every)
        campaign.look()
        for number, kill in enumerate(campaign.plan(given.count, given.seed)):
            if given.case in (None, number):
                campaign.run(kill, number)
            if campaign.figures["killed"] >= given.count or number == given.case:
                break
            if number % 500 == 499:
                print(
                    f"{number + 1} runs, {len(campaign.broken)} broken promises, {time.monotonic() - began:.0f} s"
                )
    figures = {
        "kills": campaign.figures.pop("killed"),
        **campaign.figures,
        "points": f"{len(campaign.hit)} of {len(campaign.known)}",
        "seconds": round(time.monotonic() - began),
    }
    command = f"python tests/campaigns/kills.py --count {given.count} --seed {given.seed}"
    return results.conclude("kills", command, given.seed, figures, campaign.broken, keep=given.save)


if __name__ == "__main__":
    sys.exit(main())
