"""Kills writers with ``kill -9`` at every call that accesses the disk, and at random times.

``python tests/campaigns/kills.py --count 3000 --seed 1 [--backend ome-zarr --option codec=blosc-lz4] [--save]``

A first, undisturbed run of each job determines the points: every call that creates, writes, syncs, renames or
closes a file. Writers are then killed before and after each call, and halfway through each write. Other
writers are killed by another process, after a random time or a random number of acknowledged frames. After
each kill, the dataset is opened immediately and compared with the acknowledged frames, and so is the result
of ``recover``.

h5py reads every recovered ``hdf5`` dataset, and tifffile every recovered ``ome-tiff`` dataset. zarr-python and
tensorstore also read ``ome-zarr`` datasets: immediately if there is no codec, otherwise after ``recover``. Datasets
of all these kinds are also recovered in place, by recoveries that are killed as well.
"""

import argparse
import contextlib
import dataclasses
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import results
from calls import HALF, Calls
from forked import Child, Say
from judge import Said, Verdict, judge
from libraries import LIBRARIES, faults_by_library
from others import PROGRAMS, Others
from spoils import SPOILS, spoil
from variants import NDSTORAGE, Variant, add_arguments, variant_of
from writer import Job, write

KIB, MIB = 2**10, 2**20
SMALL, LARGE = 64, 512
AT_RANDOM_ONLY = {"small, handler"}
"""Jobs with several threads, whose calls are in a different order each time."""


def jobs_of(variant: Variant) -> dict[str, Job]:
    """Return the jobs by name. Datasets often begin new files, so that many kills occur at a beginning."""

    def job(file_bytes: int, *, more: dict[str, Any] | None = None, **values: Any) -> Job:
        size = values.get("size", SMALL)
        options = variant.with_files(file_bytes, 2 * size * size, **(more or {})) if file_bytes else None
        options = dict(variant.options) or None if options is None else options
        return Job("", variant.backend, options=options, **values)

    if variant.backend != "ome-zarr":
        return {
            "small, new files": job(64 * KIB, count=24),
            "small, synced": job(64 * KIB, count=24, durable_every=6),
            "small, batches": job(96 * KIB, count=40, batch=8),
            "small, batches synced, not finished": job(
                64 * KIB, count=24, batch=8, durable_every=8, finish=False
            ),
            "small, one file, not finished": job(0, count=16, finish=False),
            "large, new files": job(2 * MIB, size=LARGE, count=8),
            "large, batches synced": job(2 * MIB, size=LARGE, count=8, batch=4, durable_every=4),
            "small, handler": job(64 * KIB, count=40, handler=True),
        }
    chunks = {} if not variant.is_live else {"frames_per_chunk": 2}
    return {
        "small, new shards": job(16 * KIB, count=24, more=chunks),
        "small, synced": job(16 * KIB, count=24, durable_every=6),
        "small, planned": job(64 * KIB, count=36, planned=True, more=chunks),
        "small, planned, batches, positions": job(32 * KIB, count=40, batch=8, planned=True, positions=2),
        "small, positions, synced": job(24 * KIB, count=24, positions=3, durable_every=8),
        "small, batches synced, not finished": job(
            64 * KIB, count=24, batch=8, durable_every=8, finish=False, more=chunks
        ),
        "small, default shard, not finished": job(0, count=16, finish=False),
        "large, tiles": job(1 * MIB, size=LARGE, count=8, more={"chunk": 200}),
        "large, batches synced": job(2 * MIB, size=LARGE, count=8, batch=4, durable_every=4, planned=True),
        "small, handler": job(32 * KIB, count=40, handler=True),
    }


@dataclass(frozen=True)
class Kill:
    """One trial.

    Attributes
    ----------
    job : str
        Key of :func:`jobs_of`.
    point : int
        The number of the call; -1 if the writer is killed by another process.
    when : str
        ``before``, ``after`` or halfway through the call.
    frames : int
        The writer is killed by another process after this number of lines ...
    delay_s : float
        ... and after this time.
    """

    job: str
    point: int = -1
    when: str = ""
    frames: int = 0
    delay_s: float = 0.0


@dataclass
class Campaign:
    """All trials of one run.

    Attributes
    ----------
    folder : str
        The folder for the datasets, each of which is deleted after it was checked.
    variant : Variant
    others : Others, optional
        The other programs, if they can read the format.
    spoil : str
        One of ``SPOILS``, or empty.
    recover_every : int
        One out of this number of datasets is also recovered; 0 for none.
    samples : int
        The maximum number of frames of a dataset that each other program reads.
    jobs : dict
        By default, those of :func:`jobs_of`.
    """

    folder: str
    variant: Variant
    others: Others | None = None
    spoil: str = ""
    recover_every: int = 1
    samples: int = 10
    jobs: dict[str, Job] = field(default_factory=dict)
    known: set[tuple[str, int, str]] = field(default_factory=set)
    hit: set[tuple[str, int, str]] = field(default_factory=set)
    names: dict[tuple[str, int], str] = field(default_factory=dict)
    length_s: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.jobs = self.jobs or jobs_of(self.variant)

    def job(self, name: str, trial: object) -> Job:
        """Return the job of a trial, with its own path."""
        return dataclasses.replace(self.jobs[name], path=self.variant.path(self.folder, trial))

    def look(self) -> None:
        """Run every job undisturbed, to determine its points and its duration."""
        for number, name in enumerate(self.jobs):
            job = self.job(name, f"clean{number}")
            for n in range(job.count):
                job.pixels(n)  # created once, for all children
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
            shutil.rmtree(self.variant.folder_of(job.path))
            if name not in AT_RANDOM_ONLY:
                for point, (call, halved) in enumerate(points):
                    self.names[name, point] = call
                    for when in ("before", HALF, "after") if halved else ("before", "after"):
                        self.known.add((name, point, when))

    def plan(self, count: int, seed: int) -> Iterator[Kill]:
        """Yield trials endlessly: up to two thirds of the first are at points, all others at random times.

        More than ``count`` trials are needed, because some writers end before they are killed.
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
        name = rng.choice(list(self.jobs))
        if rng.random() < 0.5:
            return Kill(name, delay_s=rng.uniform(0, 1.1 * self.length_s[name]))
        return Kill(name, frames=rng.randint(0, self.jobs[name].count + 3), delay_s=rng.expovariate(2000))

    def run(self, kill: Kill, number: int) -> None:
        """Run one trial and check the result."""
        job = self.job(kill.job, number)

        def work(say: Say) -> None:
            if kill.point >= 0:
                Calls(kill.point, kill.when, lambda _call, _halved: None).install()
            spoil(self.spoil, self.variant.backend)
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
        shutil.rmtree(self.variant.folder_of(job.path), ignore_errors=True)

    def _judge(self, job: Job, said: Said, number: int) -> list[str]:
        there = os.path.lexists(job.path)
        if not there and not said.created:
            self.figures["killed before there was a dataset"] += 1
            return [f"{said} without a dataset"] if said.put else []
        before = self._state(job)
        verdict = judge(job)
        self.figures["frames acknowledged"] += said.put
        self.figures["frames lost"] += len(verdict.lost(said.put))
        self.figures["frames torn or wrong"] += len(verdict.wrong) + len(verdict.damaged)
        problems = find_fault(job, said, verdict)
        if self._state(job) != before:
            problems.append("opening it to read changed it")
        if self.others and self.variant.is_live and said.put:
            problems += self._read_by_others(job, list(range(said.put)), job.path, "at once")
        if self.recover_every and number % self.recover_every == 0:
            mends = self.others or self.variant.is_one_file
            if mends and number // self.recover_every % 2:
                problems += self._recover_in_place(job, verdict, number)
            else:
                problems += self._recover(job, verdict)
        return problems

    def _recover(self, job: Job, verdict: Verdict) -> list[str]:
        """Recover the dataset into a copy, and compare it with the frames that could be read before."""
        import exengine

        folder = f"{self.variant.folder_of(job.path)}-recovered"
        output = self.variant.path(os.path.dirname(folder), os.path.basename(folder))
        before = self._state(job)
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
        if self._state(job) != before:
            problems.append("recover changed the original")
        problems += self._read_by_others(job, verdict.readable, output, "recovered")
        if self.others is None:
            problems += self._read_by_library(job, verdict, output)
        shutil.rmtree(folder, ignore_errors=True)
        return problems

    def _recover_in_place(self, job: Job, verdict: Verdict, number: int) -> list[str]:
        """Recover the dataset in place, after a recovery that was killed, and compare."""
        import exengine

        rng = random.Random(f"in place {number}")
        for _ in range(2):
            at, when = int(rng.expovariate(1 / 25)), rng.choice(("before", HALF, "after"))

            def work(say: Say, at: int = at, when: str = when) -> None:
                Calls(at, when, lambda _call, _halved: None).install()
                exengine.recover(job.path, in_place=True)

            with Child(work) as child:
                code = child.wait()
            if code == -signal.SIGKILL:
                self.figures["recoveries in place that were killed"] += 1
            elif code:
                return [f"recover in place ended with {code}"]
        try:
            exengine.recover(job.path, in_place=True)
        except Exception as error:
            return [f"recover in place: {type(error).__name__}: {error}"]
        recovered = judge(job)
        self.figures["recovered in place"] += 1
        problems = []
        if recovered.readable != verdict.readable or recovered.wrong or recovered.problem:
            problems.append(f"recovered in place as {recovered}, readable were {verdict.readable}")
        if recovered.status not in ("complete", "aborted"):
            problems.append(f"recovered in place with the status {recovered.status!r}")
        if not exengine.verify(job.path).ok:
            problems.append(f"verify of the dataset recovered in place: {exengine.verify(job.path)}")
        if self.variant.is_one_file:
            problems += self._read_by_library(job, verdict, job.path)
        return problems + self._read_by_others(job, verdict.readable, job.path, "recovered in place")

    def _state(self, job: Job) -> list[tuple[str, int, int]]:
        return _state(self.variant.folder_of(job.path))

    def _read_by_others(self, job: Job, numbers: list[int], path: str, when: str) -> list[str]:
        """Read some frames, including the last, with zarr-python and tensorstore."""
        if self.others is None or not numbers:
            return []
        some = numbers
        if len(numbers) > self.samples:
            some = [*random.Random(path).sample(numbers[:-1], self.samples - 1), numbers[-1]]
        self.figures[f"frames read by others, {when}"] += len(PROGRAMS) * len(some)
        return [f"{when}: {fault}" for fault in self.others.faults(job, some, path)]

    def _read_by_library(self, job: Job, verdict: Verdict, output: str) -> list[str]:
        """Read some of the recovered datasets with the ndstorage library, or all of them with h5py or tifffile."""
        problems = []
        if self.variant.backend in LIBRARIES:
            self.figures[f"recovered and read by {LIBRARIES[self.variant.backend].name}"] += 1
            return faults_by_library(job, verdict.readable, output)
        if verdict.readable and self.figures["recovered"] % 25 == 0:
            other = judge(dataclasses.replace(job, backend=NDSTORAGE), output)
            self.figures["recovered and read by ndstorage"] += 1
            if other.readable != verdict.readable:
                problems.append(f"ndstorage reads of the recovered dataset {other}")
        return problems

    def _describe(self, kill: Kill, number: int, problem: str) -> str:
        call = self.names.get((kill.job, kill.point), "")
        return f"case {number}: {kill} {call}: {problem}"


def find_fault(job: Job, said: Said, verdict: Verdict) -> list[str]:
    """Return the promises that a dataset breaks, given the reports of its killed writer."""
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
    if job.backend != NDSTORAGE and verdict.status not in wanted:
        problems.append(f"its status is {verdict.status!r}")
    if verdict.status == "complete" and len(verdict.readable) != job.count:
        problems.append(f"complete with {len(verdict.readable)} of {job.count} frames")
    return problems


def _state(path: str) -> list[tuple[str, int, int]]:
    """Return the names, sizes and modification times of the files in a folder."""
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            about = os.stat(file)
            found.append((file, about.st_size, about.st_mtime_ns))
    return sorted(found)


def _wait(seconds: float) -> None:
    end = time.perf_counter() + seconds
    if seconds > 0.01:
        time.sleep(seconds - 0.005)
    while time.perf_counter() < end:
        pass


def main() -> int:
    """Run the campaign, print the results, and return 1 if a promise was broken."""
    options = argparse.ArgumentParser(description="kill -9 of a writer")
    options.add_argument("--count", type=int, default=3000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--case", type=int, help="run only this trial of a run with the same count and seed")
    add_arguments(options)
    options.add_argument(
        "--spoil", choices=SPOILS, default="", help="make the writer faulty, which must be found"
    )
    options.add_argument("--recover-every", type=int, default=1, metavar="N", help="0: recover none")
    options.add_argument("--samples", type=int, default=10, help="frames that each other program reads")
    options.add_argument(
        "--folder", help="the folder for datasets; by default, the folder for temporary files"
    )
    options.add_argument("--save", action="store_true", help="save the figures for the documentation")
    given = options.parse_args()

    import exengine
    import exengine.data

    _ = exengine.DataHandler
    variant = variant_of(given)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder))
        others = stack.enter_context(Others()) if variant.backend == "ome-zarr" else None
        # Import all modules that are imported on first use here, not in each child.
        first = dataclasses.replace(
            jobs_of(variant)["large, batches synced"], path=variant.path(folder, "first"), size=64, count=2
        )
        write(first, lambda line: None)
        judge(first)
        campaign = Campaign(folder, variant, others, given.spoil, given.recover_every, given.samples)
        campaign.look()
        for number, kill in enumerate(campaign.plan(given.count, given.seed)):
            if given.case in (None, number):
                campaign.run(kill, number)
            if campaign.figures["killed"] >= given.count or number == given.case:
                break
            if number % 500 == 499:
                print(
                    f"{number + 1} runs, {len(campaign.broken)} broken promises, {time.monotonic() - began:.0f} s",
                    flush=True,
                )
    figures = {
        "kills": campaign.figures.pop("killed"),
        **campaign.figures,
        "points": f"{len(campaign.hit)} of {len(campaign.known)}",
        "seconds": round(time.monotonic() - began),
    }
    command = f"python tests/campaigns/kills.py --count {given.count} --seed {given.seed}"
    return results.conclude(
        "kills", command, given.seed, figures, campaign.broken, keep=given.save, variant=variant
    )


if __name__ == "__main__":
    sys.exit(main())
