"""Tests that synced frames survive a power loss, and that no frame is wrong afterwards.

A child writes to a file system on a loop device. At some moment, the file system discards all data that have
not reached the disk, including its journal. It is mounted again, and the judge checks the dataset.

``durable``
    ``flush(durable=True)`` is called after every 8 frames, and the power is cut at random. All frames
    reported as synced must survive, so at most the last 8 frames are lost (F2).
``ending``
    The same with a short job, so that the power is cut near its end: during the last flush, the annotations
    or ``finish``.
``finished``
    The power is cut after ``finish`` has returned. No frame is lost, and the dataset is complete (N3).
``handler``
    The same through a ``DataHandler``.
``unsynced``
    The control, without flush and finish. If it never loses a frame, the harness does not work.
``ndstorage``
    The other control, which uses only the library, after its own ``finish``.

An ``ome-zarr`` dataset is also recovered in place, and must then be intact for zarr-python and tensorstore.

Run ``python tests/campaigns/power_loss.py``, as root.
"""

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field

from children import Child, Ended, warm_up
from judge import Said, Verdict, judge
from mounts import CannotRunError, PowerCut, live_apart
from others import Others
from results import NIGHTLY, save
from variants import NDSTORAGE, Variant, add_arguments, variant_of
from writer import Job, Say, write

import exengine

MODES = ("durable", "ending", "finished", "handler", "unsynced", NDSTORAGE)
MOMENTS_S = {
    "durable": (0.0, 0.4),
    "ending": (0.0, 0.05),
}  # time of the cut, from the creation of the dataset
CONTROLS = ("unsynced", NDSTORAGE)
EVERY = 8


@dataclass
class Tally:
    """The results of the cuts in one mode.

    Attributes
    ----------
    cuts : int
    put, lost : int
        The number of frames acknowledged as written, and the number of these that were lost.
    most_lost : int
        The largest number of frames lost in one cut.
    broken : list of str
        The arguments to repeat the cut, and the fault.
    """

    cuts: int = 0
    put: int = 0
    lost: int = 0
    most_lost: int = 0
    broken: list[str] = field(default_factory=list)


def job_of(mode: str, path: str, variant: Variant) -> Job:
    """Return the job of a mode; :func:`_work` stops the unsynced job early."""
    if mode == NDSTORAGE:
        return Job(path, NDSTORAGE, count=40)
    return Job(
        path,
        variant.backend,
        count={"durable": 400, "ending": 2 * EVERY}.get(mode, 80),
        durable_every=EVERY if mode in MOMENTS_S else 0,
        handler=mode == "handler",
        finish=mode != "unsynced",
        options=variant.with_files(80_000 if mode == "ending" else 300_000, 2 * 64 * 64),
        planned=variant.backend == "ome-zarr" and mode != "finished",
    )


def _work(mode: str, job: Job):  # type: ignore[no-untyped-def]  # a function of a function
    def work(say: Say) -> None:
        def until_the_last(line: str) -> None:
            say(line)
            if mode == "unsynced" and line == f"put {job.count - 1}":
                time.sleep(60)  # the power is cut now
            if line == "finished":
                time.sleep(60)

        write(job, until_the_last)

    return work


def cut_once(
    mode: str, image: str, folder: str, moment_s: float, variant: Variant, others: Others | None
) -> tuple[Said, Verdict, Ended]:
    """Write, cut, mount again and judge.

    Parameters
    ----------
    mode : str
    image, folder : str
        The image and the mount point of the file system.
    moment_s : float
        The time from the creation of the dataset until the power is cut; only for ``MOMENTS_S``.
    variant : Variant
    others : Others, optional
        Programs that also read the dataset after it was recovered in place.
    """
    with PowerCut(image, folder) as disk:
        job = job_of(mode, f"{folder}/data", variant)
        child = Child(_work(mode, job))
        try:
            until = time.monotonic() + 30
            end = f"put {job.count - 1}\n" if mode == "unsynced" else "finished\n"
            if mode in MOMENTS_S:
                end = "created\n"
            while time.monotonic() < until and end not in child.lines and child.listen(0.1):
                pass
            if mode in MOMENTS_S:
                time.sleep(moment_s)
            disk.cut()
        finally:
            child.kill()
            ended = child.end(10)
        disk.restart()
        verdict = judge(job)
        if others is not None and job.backend != NDSTORAGE and not verdict.problem:
            verdict.problem = _recovered(job, verdict, others)
    return Said.of(ended.lines), verdict, ended


def _recovered(job: Job, before: Verdict, others: Others) -> str:
    """Recover a dataset in place, and return its faults, including those found by other programs."""
    try:
        exengine.recover(job.path, in_place=True)
    except Exception as error:
        return f"foreign: recover in place: {type(error).__name__}: {error}"
    after = judge(job)
    if after.readable != before.readable or after.wrong or after.damaged or after.problem:
        return f"foreign: recovered as {after}, readable were {before.readable}"
    faults = others.faults(job, after.readable)
    return f"foreign: {faults[:3]}" if faults else ""


def broken(mode: str, said: Said, verdict: Verdict, count: int) -> list[str]:
    """Return the promises that a cut broke; for a control, ignore lost frames."""
    found = []
    if verdict.wrong:
        found.append(f"wrong frames: {verdict.wrong}")
    if mode == NDSTORAGE:
        return []
    if verdict.problem.startswith("foreign"):
        found.append(verdict.problem)
    if mode == "unsynced":
        return found
    if verdict.damaged:
        found.append(f"damaged frames: {verdict.damaged}")
    if mode in MOMENTS_S:
        if said.finished and verdict.status != "complete":
            found.append(f"finished, and the status is {verdict.status}")
        if verdict.status == "complete" and verdict.lost(count):
            found.append("it says complete, and is not")
        if lost := verdict.lost(said.synced):
            found.append(f"{len(lost)} synced and lost: {lost[:5]} {verdict.status} {verdict.problem}")
        if len(lost := verdict.lost(said.put)) > EVERY:
            found.append(f"{len(lost)} of {said.put} lost, more than {EVERY}")
    else:
        if not said.finished:
            found.append(f"it did not finish: {said}")
        if lost := verdict.lost(count):
            found.append(f"{len(lost)} finished and lost: {lost[:5]}")
        if verdict.status != "complete":
            found.append(f"finished, and the status is {verdict.status} {verdict.problem}")
    return found


def campaign(
    folder: str,
    *,
    cuts: int,
    seed: int,
    variant: Variant,
    modes: tuple[str, ...] = MODES,
    others: Others | None = None,
) -> dict[str, Tally]:
    """Cut the power in each mode.

    Raises
    ------
    CannotRunError
        If this process is not permitted to mount file systems.
    """
    for used in (variant, Variant(NDSTORAGE)):
        os.mkdir(f"{folder}/{used.backend}")
        warm_up(f"{folder}/{used.backend}", used)
    tallies = {}
    for mode in modes:
        tally = tallies[mode] = Tally()
        for number in range(cuts):
            moment_s = random.Random(f"{seed} {mode} {number}").uniform(*MOMENTS_S.get(mode, (0, 0)))
            said, verdict, ended = cut_once(
                mode, f"{folder}/disk.img", f"{folder}/disk", moment_s, variant, others
            )
            lost = verdict.lost(said.put)
            tally.cuts += 1
            tally.put += said.put
            tally.lost += len(lost)
            tally.most_lost = max(tally.most_lost, len(lost))
            if faults := broken(mode, said, verdict, job_of(mode, "", variant).count):
                tally.broken.append(
                    f"--seed {seed} --modes {mode} --cuts {number + 1}{variant.arguments}: {'; '.join(faults)} {ended.output}"
                )
                _print(f"BROKEN {tally.broken[-1]}")
        if mode in CONTROLS and not tally.lost:
            tally.broken.append(f"the control {mode} lost nothing in {cuts} cuts: the harness is blind")
        _print(f"{mode}: {tally.cuts} cuts, {tally.put} frames acknowledged, {tally.lost} lost, "
               f"at most {tally.most_lost} in one, {len(tally.broken)} broken")  # fmt: skip
    return tallies


def _print(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Run the campaign; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuts", type=int, default=50, help="of each mode")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    add_arguments(parser)
    parser.add_argument(
        "--without-sync", action="store_true", help="make fsync do nothing, which must be found"
    )
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    variant = variant_of(given)
    begin = time.monotonic()
    if given.without_sync:
        os.fsync = lambda descriptor: None
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        try:
            live_apart()  # mount before the other programs start, because they must see the mounts
            others = stack.enter_context(Others()) if variant.backend == "ome-zarr" else None
            tallies = campaign(
                folder,
                cuts=given.cuts,
                seed=given.seed,
                variant=variant,
                modes=tuple(given.modes),
                others=others,
            )
        except CannotRunError as error:
            _print(f"cannot run: {error}")
            return int(NIGHTLY)
    faults = [text for tally in tallies.values() for text in tally.broken]
    _print(f"runs: {sum(tally.cuts for tally in tallies.values())}, seconds: {time.monotonic() - begin:.0f}")
    for text in faults:
        _print(f"again: python tests/campaigns/power_loss.py {text}")
    if given.save and not faults and not given.without_sync and variant.backend != NDSTORAGE:
        figures: dict[str, object] = {}
        for mode, tally in tallies.items():
            figures[f"{mode}: cuts"] = tally.cuts
            figures[f"{mode}: frames acknowledged"] = tally.put
            figures[f"{mode}: lost"] = tally.lost
            figures[f"{mode}: most lost in one cut"] = tally.most_lost
        command = f"python tests/campaigns/power_loss.py --cuts {given.cuts} --seed {given.seed}"
        save("power_loss", command, given.seed, figures, variant=variant)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
