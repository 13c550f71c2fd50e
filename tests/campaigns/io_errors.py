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

How the faults are injected: ``injection.py``.

Run ``python tests/campaigns/io_errors.py``; a case that is shown runs again with ``--only NAME``.
"""

import argparse
import contextlib
import errno
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from children import Ended, warm_up
from injection import GATHERED, PATIENCE_S, Case, CleanRun, record, run
from judge import Said, Verdict, judge
from results import save
from spoils import write_and_swallow
from variants import NDSTORAGE, Variant, add_arguments, variant_of
from writer import Job, write

import exengine.errors

WAYS = ("direct", "many", "handler")
ERRORS = ("ENOSPC", "EIO", "EDQUOT")
OUR_ERRORS = {name for name in dir(exengine.errors) if name.endswith("Error")}


def job_at(path: str, *, way: str, variant: Variant) -> Job:
    """Return the small job: 12 frames of 64x64, in three files, with one durable flush."""
    # One frame after the other through the handler, so that each run makes the same calls.
    return Job(
        path,
        variant.backend,
        count=12,
        batch=4 if way == "many" else 1,
        durable_every=8,
        handler=way == "handler",
        max_pending=1,
        options=variant.with_files(45_000, 2 * 64 * 64),
        planned=variant.backend == "ome-zarr",
    )


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
        found.append(f"the process ended with {ended.code}: {' '.join(ended.output[-600:].split())}")
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
    folder: str,
    *,
    count: int | None,
    seed: int,
    variant: Variant,
    only: str | None = None,
    swallows: bool = False,
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
    variant : Variant
        Or the control that must be found: ``ndstorage``.
    only : str, optional
        The name of one case.
    swallows : bool
        Whether the writer hides errors, which must be found.

    Returns
    -------
    tuple of (dict, dict)
        Figures, and name of a case -> promises that it broke.
    """
    warm_up(folder, variant)
    do = write_and_swallow if swallows else write
    clean = {}
    for way in WAYS:
        clean[way] = record(
            job_at(f"{folder}/clean-{way}", way=way, variant=variant), Path(folder, f"{way}.trace")
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
        job = job_at(path, way=case.way, variant=variant)
        ended = run(case, job, do=do)
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
    parser.add_argument("--swallow", action="store_true", help="a writer that hides errors: must be found")
    parser.add_argument("--folder", help="where the datasets lie; in memory where there is such a place")
    parser.add_argument("--save", action="store_true")
    add_arguments(parser)
    given = parser.parse_args()
    variant = variant_of(given)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=given.folder or memory) as folder:
        figures, failures = sweep(
            folder,
            count=given.count,
            seed=given.seed,
            variant=variant,
            only=given.only,
            swallows=given.swallow,
        )
    for name, value in figures.items():
        _print(f"{name}: {value}")
    _print(f"seconds: {time.monotonic() - begin:.0f}")
    for name, faults in failures.items():
        _print(
            f"again: python tests/campaigns/io_errors.py --only {name}{variant.arguments}  # {'; '.join(faults)[:300]}"
        )
    if given.save and variant.backend != NDSTORAGE and not given.swallow and not failures:
        count = f" --count {given.count}" if given.count else ""
        save(
            "io_errors",
            f"python tests/campaigns/io_errors.py --seed {given.seed}{count}",
            given.seed,
            figures,
            variant=variant,
        )
    return 1 if failures else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
