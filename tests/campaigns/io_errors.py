"""Makes every write-class system call of a clean run fail, once or permanently.

``strace`` records a clean run: a job of 12 frames in three files, with a durable flush and an end. Each of
its calls then fails in a run of its own with ENOSPC, EIO or EDQUOT, once or permanently, with ``put``, with
``put_many`` and through a ``DataHandler``. In further runs, the call is interrupted, writes nothing, or
writes only a part. After each run, the judge checks that the run ended within 10 seconds, that the error
reached the caller, that nothing was acknowledged after the error (P7), that every acknowledged frame can be
read, and that no frame is wrong.

A failure may remain unreported only if the call cannot lose anything:

- ``close`` of a descriptor without unsynced data: one used only for reading, a folder, the lock, or a file
  that was synced before;
- a call that also fails in a clean run, such as ``mkdir`` for an existing folder;
- an interrupted call, which Python repeats, and a short write, which is continued after the bytes written.

If no error was reported, the dataset must be complete and intact.

``injection.py`` injects the faults.

Run ``python tests/campaigns/io_errors.py``; use ``--only NAME`` to repeat a case.
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
    # Pass one frame after another through the handler, so that each run makes the same calls.
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
            if call not in (
                "close",
                "mkdir",
                "rename",
                "unlink",
                "rmdir",
            ):  # these calls cannot be interrupted
                cases.append(Case(way, call, nth, "EINTR", False))
            if call in GATHERED:
                cases += [Case(way, call, nth, "short", sticky) for sticky in (False, True)]
                cases.append(Case(way, call, nth, "torn", True))
                cases += [Case(way, call, nth, "nothing", sticky) for sticky in (False, True)]
    return cases


def broken(case: Case, clean: CleanRun, ended: Ended, verdict: Verdict, count: int) -> list[str]:
    """Return the promises that a run broke; empty if there are none.

    Parameters
    ----------
    case : Case
    clean : CleanRun
    ended : Ended
    verdict : Verdict
        The verdict on the resulting dataset.
    count : int
        The number of frames in the job.
    """
    said = Said.of(ended.lines)
    found = []
    if ended.hung:
        found.append(f"it did not end within {PATIENCE_S:.0f} s")
    elif ended.code:
        found.append(f"the process ended with {ended.code}: {' '.join(ended.output[-600:].split())}")
    told = bool(said.errors)
    # The control does not report a status.
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
        # After the last rename, a permanent fault makes it impossible to mark the dataset, but its frames are
        # safe.
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
    """Run all cases, or a random sample of them.

    Parameters
    ----------
    folder : str
        The folder for the datasets while they are checked.
    count : int, optional
        The number of cases to draw; by default, all cases.
    seed : int
        The seed for drawing cases.
    variant : Variant
        The backend, or the control ``ndstorage``, which must be found faulty.
    only : str, optional
        The name of a single case to run.
    swallows : bool
        Whether to use a writer that hides errors, which must be found.

    Returns
    -------
    tuple of (dict, dict)
        The figures, and the broken promises by case.
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
    """Run the campaign; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, help="the number of cases to draw; by default, all cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="run only the case with this name, and show its complete output")
    parser.add_argument(
        "--swallow", action="store_true", help="use a writer that hides errors, which must be found"
    )
    parser.add_argument("--folder", help="the folder for the datasets; by default in memory, if possible")
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
