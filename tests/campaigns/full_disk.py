"""Tests what happens when disk space, inodes, a file size limit, descriptors or memory run out.

Each case writes until a resource is exhausted, directly and through a ``DataHandler``. The files are so small
that this also happens at the beginning of a file and in the manifest. The call that met the error must raise
it, and exactly the frames that were acknowledged before must be readable. No later frame may be accepted, and
the same process must be able to write a complete dataset elsewhere.

Lack of memory is not permanent: a frame is refused while memory is lacking, and the next frame is accepted
once memory is available.

A single-file dataset needs space again when it is finished. In some cases, all frames fit, and only ``finish``
meets the limit. After a failure, ``recover`` must make a file of the frames elsewhere, which the library of its
format can read.

Run ``python tests/campaigns/full_disk.py``; ``--only NAME`` runs one case and shows its complete output.
"""

import argparse
import errno
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from children import Child, Ended, warm_up
from judge import Said, Verdict, judge
from libraries import LIBRARIES, faults_by_library
from mounts import CannotRunError, live_apart, tmpfs
from results import NIGHTLY, save
from spoils import write_and_swallow
from variants import Variant, add_arguments, variant_of
from writer import Job, Say, axes_of, metadata_of, pixels_of, write

TMPFS_KIB = (24, 52, 96, 148, 260, 500, 1000, 1700, 2600, 4096)
FILE_BYTES = {
    "ndtiff": (1, 300, 1500, 4097, 9000, 20_001, 45_000, 60_000, 123_457, 300_000),
    # the first size of the journal is 65,536 bytes
    "ome-zarr": (1, 300, 9000, 65_536, 70_000, 90_001, 100_000, 123_457, 131_071, 131_100),
    # the pixels of all frames are 409,600 bytes
    "one file": (1, 300, 1500, 4097, 9000, 20_001, 45_000, 123_457, 409_599, 409_600, 420_000),
}
INODES = {"ndtiff": range(3, 17), "ome-zarr": range(3, 60, 3), "one file": range(3, 14)}
DESCRIPTORS = {"ndtiff": range(8), "ome-zarr": range(14), "one file": range(10)}
KINDS = ("disk", "inodes", "file-size", "descriptors", "memory")
PATIENCE_S = 20.0
ERRNOS = {
    "disk": {errno.ENOSPC},
    "inodes": {errno.ENOSPC},
    "file-size": {errno.EFBIG},
    "descriptors": {errno.EMFILE},
    "memory": set(),
}


@dataclass(frozen=True)
class Case:
    """The resource that runs out, and its available amount.

    Attributes
    ----------
    kind : str
        One of ``KINDS``.
    amount : int
        The disk space in KiB, the inodes, the bytes of a file, the additional descriptors, or the memory in
        MiB.
    handler : bool
        Whether to use a ``DataHandler``.
    variant : Variant
    """

    kind: str
    amount: int
    handler: bool
    variant: Variant

    @property
    def name(self) -> str:
        """The name of the case for ``--only``."""
        return f"{self.kind}:{self.amount}:{'handler' if self.handler else 'direct'}"

    def job(self, path: str) -> Job:
        """Return the job, which is too large for the resource except in some cases with small amounts."""
        if self.variant.is_one_file and self.kind in ("disk", "file-size"):
            return self._one_file_job(path)
        if self.kind == "disk":
            size = max(24, int((self.amount * 1024 * 1.4 / 60 / 2) ** 0.5))
            file_bytes = max(16_384, self.amount * 1024 // 3)
            # The high byte of each pixel is zero, so that a codec halves the size of a frame.
            count = 60 if "codec" not in self.variant.options else 150
            return self._of(path, size=size, count=count, file_bytes=file_bytes)
        if self.kind == "file-size" and self.variant.backend == "ome-zarr":
            # The shards are smaller than the limit, so the metadata or the growing journal reach it.
            return self._of(path, size=16, count=1800, file_bytes=self.amount // 2)
        if self.kind == "file-size":
            # In two cases, the index grows too large, because each TIFF file has one frame.
            file_bytes = 4096 if self.amount in (1500, 9000) else 2**30
            return self._of(path, size=32, count=200, file_bytes=file_bytes)
        if self.kind == "memory":
            return self._of(path, size=1024, count=12, file_bytes=2**30)
        return self._of(path, size=64, count=24, file_bytes=36_000)

    def _one_file_job(self, path: str) -> Job:
        if self.kind == "disk":
            # In half of the cases, the disk has enough space for the spool, but not for the finished file too.
            factor = 0.7 if TMPFS_KIB.index(self.amount) % 2 else 1.4
            size = max(24, int((self.amount * 1024 * factor / 60 / 2) ** 0.5))
            return self._of(path, size=size, count=60, file_bytes=0)
        if self.amount in (20_001, 45_000):  # the journal grows faster than the pixels of such small frames
            return self._of(path, size=8, count=300, file_bytes=0)
        return self._of(path, size=32, count=200, file_bytes=0)

    def _of(self, path: str, *, size: int, count: int, file_bytes: int) -> Job:
        options = self.variant.with_files(file_bytes, 2 * size * size)
        return Job(path, self.variant.backend, size=size, count=count, handler=self.handler, options=options)


def every_case(variant: Variant) -> Iterator[Case]:
    """Yield all cases."""
    backend = "one file" if variant.is_one_file else variant.backend
    amounts = {
        "disk": TMPFS_KIB, "inodes": INODES[backend], "file-size": FILE_BYTES[backend],
        "descriptors": DESCRIPTORS[backend], "memory": (0, 1, 3),
    }  # fmt: skip
    for kind in KINDS:
        for amount in amounts[kind]:
            for handler in (False, True):
                yield Case(kind, amount, handler, variant)


def _elsewhere(job: Job, path: str) -> Job:
    return replace(job, path=path, size=64, count=8, handler=False)


def _work(case: Case, job: Job, other: Job, do: Callable[[Job, Say], None]) -> Callable[[Say], None]:
    def work(say: Say) -> None:
        if case.kind == "memory":
            _write_without_memory(job, say, spare_mib=case.amount)
            return
        before = len(os.listdir("/proc/self/fd"))
        with _limit(case):
            do(job, say)
        say(f"kept {len(os.listdir('/proc/self/fd')) - before}")
        write(other, lambda line: say(f"elsewhere {line}"))

    return work


class _Limit(AbstractContextManager[None]):
    """A soft limit of this process, which is lifted at the end for writing to the other disk."""

    def __init__(self, which: int, value: int) -> None:
        self._which = which
        self._before = resource.getrlimit(which)
        resource.setrlimit(which, (value, self._before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(self._which, self._before)


def _limit(case: Case) -> AbstractContextManager[None]:
    if case.kind == "file-size":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error raised in its place
        return _Limit(resource.RLIMIT_FSIZE, case.amount)
    if case.kind == "descriptors":
        # The system assigns the lowest free numbers first, and none above the limit.
        taken = {int(name) for name in os.listdir("/proc/self/fd")}
        free = [number for number in range(len(taken) + case.amount + 1) if number not in taken]
        return _Limit(resource.RLIMIT_NOFILE, free[case.amount])
    return nullcontext()


def _write_without_memory(job: Job, say: Say, *, spare_mib: int) -> None:
    """Write frames that must be copied: first with memory, then without memory, then with memory again."""
    import exengine

    frames = [pixels_of(number, job.size).T.copy().T for number in range(job.count)]
    storage = exengine.open_storage(job.backend, job.path, **(job.options or {}))
    handler = exengine.DataHandler(storage) if job.handler else None
    put = handler.put if handler else storage.put
    refused = 0
    ballast: list[bytearray] = []
    half = job.count // 2
    for number in range(job.count):
        if number == half:
            if handler:
                while handler.pending_bytes:
                    time.sleep(0.001)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, resource.RLIM_INFINITY))
            for step in (2**20, 2**16):
                try:
                    while True:
                        ballast.append(bytearray(step))
                except MemoryError:
                    pass
            del ballast[:spare_mib]
            try:
                put(axes_of(number), frames[number], metadata_of(number))
            except MemoryError:
                refused += 1
                ballast.clear()
                put(axes_of(number), frames[number], metadata_of(number))
            ballast.clear()
        else:
            put(axes_of(number), frames[number], metadata_of(number))
    if handler:
        handler.finish()
        handler.await_completion()
    storage.finish()
    storage.close()
    say(f"put {job.count - 1}")
    say("finished")
    say(f"refused {refused}")


def run(case: Case, folder: str, *, do: Callable[[Job, Say], None] = write) -> tuple[list[str], Ended]:
    """Run one case, and check the result.

    Parameters
    ----------
    case : Case
    folder : str
        An empty folder to use.
    do : callable
        The function that writes; a faulty replacement proves that the judge detects faults.

    Returns
    -------
    tuple of (list of str, Ended)
        The broken promises, and the result of the child.

    Raises
    ------
    CannotRunError
        If this process is not permitted to mount file systems.
    """
    small = f"{folder}/small"
    place: AbstractContextManager[object] = nullcontext(os.mkdir(small))
    if case.kind == "disk":
        place = tmpfs(small, f"size={case.amount}k")
    elif case.kind == "inodes":
        place = tmpfs(small, f"size=8m,nr_inodes={case.amount}")
    job = case.job(case.variant.path(small, "data"))
    other = _elsewhere(job, case.variant.path(folder, "other"))
    unrecovered = []
    with place:
        ended = Child(_work(case, job, other, do)).end(PATIENCE_S)
        verdict = judge(job)
        if case.variant.is_one_file and verdict.status in ("failed", "incomplete"):
            unrecovered = _recover(job, case.variant.path(folder, "recovered"), verdict)
            if case.kind == "file-size":  # the disk itself has space
                unrecovered += _recover(job, "", verdict)
            ended.lines.append("recovered\n")
    found = [f"it did not end within {PATIENCE_S:.0f} s"] if ended.hung else []
    found += unrecovered
    if ended.code and not ended.hung:
        found.append(f"the process ended with {ended.code}")
    if case.kind != "memory" and "kept 0\n" not in ended.lines:
        found.append(f"descriptors stay open: {[line for line in ended.lines if line.startswith('kept')]}")
    own = [line for line in ended.lines if not line.startswith("elsewhere ")]
    said = Said.of(own)
    # A frame that was refused for lack of memory is put again, and counts only once.
    whole = verdict.readable == list(range(job.count)) and verdict.status == "complete"
    if verdict.wrong or verdict.damaged or verdict.problem.startswith("foreign"):
        found.append(f"wrong: {verdict.wrong}, damaged: {verdict.damaged}, {verdict.problem}")
    if said.errors:
        _, kind, _, message = said.errors[0]
        causes = [os.strerror(code) for code in ERRNOS[case.kind]]
        if not any(cause in message for cause in causes):
            found.append(f"the error does not say its cause: {said.errors[0]}")
        if kind not in ("StorageFailedError", "DatasetAccessError", "HandlerError"):
            found.append(f"an error that is not ours: {said.errors[0]}")
        if verdict.readable != list(range(said.put)):
            found.append(f"{said.put} acknowledged, readable {verdict.readable}")
        first = next(at for at, line in enumerate(own) if line.startswith("error "))
        if any(line.startswith(("put", "finished")) for line in own[first:]):
            found.append("acknowledged after the error")
        if verdict.status == "complete":
            found.append("it says complete")
    elif not (said.finished and whole):
        found.append(f"nobody was told, and the dataset is not whole: {verdict}")
    if case.kind in ("disk", "file-size") and not said.errors:
        found.append("nothing ran out: the case proves nothing")
    # A data handler has memory for the copies of small frames, so it may accept them all.
    if case.kind == "memory" and "refused 1\n" not in ended.lines and case.amount == 0 and not job.handler:
        found.append("no frame was refused: the case proves nothing")
    if case.kind != "memory":
        there = judge(other)
        if there.readable != list(range(other.count)) or there.status != "complete":
            found.append(f"the new dataset elsewhere is not whole: {there} {ended.errors}")
    return found, ended


def _recover(job: Job, output: str, verdict: Verdict) -> list[str]:
    """Recover a failed dataset, and return the differences from the frames that were readable before.

    Parameters
    ----------
    job : Job
    output : str
        The path of the file; empty to build it in place.
    verdict : Verdict
        The frames that were readable before.
    """
    import exengine

    path = output or job.path
    try:
        exengine.recover(job.path, output=output or None, in_place=not output)
        report = exengine.verify(path)
    except exengine.ExEngineError as error:
        return [f"recover: {type(error).__name__}: {error}"]
    recovered = judge(job, path)
    if recovered.readable != verdict.readable or recovered.wrong or recovered.status != "aborted":
        return [f"recovered as {recovered}, readable were {verdict.readable}"]
    beside = [
        name for name in os.listdir(os.path.dirname(path)) if name.endswith((".frames", ".journal", ".new"))
    ]
    # `verify` also lists the frames that a data handler was given and that the storage refused.
    found = [f"verify: {report.to_dict()!r:.300}"] if report.damaged or report.problems else []
    return [
        *found,
        *(f"left behind: {name}" for name in beside),
        *faults_by_library(job, verdict.readable, path),
    ]


def campaign(
    folder: str,
    variant: Variant,
    *,
    kinds: tuple[str, ...] = KINDS,
    every: int = 1,
    only: str | None = None,
    do: Callable[[Job, Say], None] = write,
) -> tuple[dict[str, object], dict[str, list[str]], dict[str, str]]:
    """Run all cases, or every n-th case.

    Returns
    -------
    tuple of (dict, dict, dict)
        The figures; the broken promises by case; and the reason why each kind could not be run.
    """
    os.mkdir(f"{folder}/warm")
    warm_up(f"{folder}/warm", variant)
    cases = [case for case in every_case(variant) if case.kind in kinds][::every]
    if only is not None:
        cases = [case for case in every_case(variant) if case.name == only]
    figures: dict[str, object] = {}
    failures: dict[str, list[str]] = {}
    lacking: dict[str, str] = {}
    where: dict[str, int] = {}
    for number, case in enumerate(cases):
        place = f"{folder}/{number}"
        os.mkdir(place)
        try:
            faults, ended = run(case, place, do=do)
        except CannotRunError as error:
            lacking.setdefault(case.kind, str(error))
            continue
        finally:
            shutil.rmtree(place, ignore_errors=True)
        if only is not None:
            print("".join(ended.lines), ended.output)
        if faults:
            failures[case.name] = faults
            print(f"BROKEN {case.name}: {'; '.join(faults)[:400]}", flush=True)
        if "recovered\n" in ended.lines:
            name = f"recovered, and read by {LIBRARIES[variant.backend].name}"
            where[name] = where.get(name, 0) + 1
        figures[f"runs: {case.kind}"] = int(str(figures.get(f"runs: {case.kind}", 0))) + 1
        told = next((line.split()[1] for line in ended.lines if line.startswith("error ")), "nothing ran out")
        where[f"{case.kind}, told by {told}"] = where.get(f"{case.kind}, told by {told}", 0) + 1
    return figures | where | {"broken": len(failures)}, failures, lacking


def main() -> int:
    """Run the campaign; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--every", type=int, default=1, help="run only every n-th case")
    parser.add_argument("--only", help="run only the case with this name")
    parser.add_argument(
        "--swallow", action="store_true", help="use a writer that hides errors, which must be found"
    )
    parser.add_argument("--save", action="store_true")
    add_arguments(parser)
    given = parser.parse_args()
    variant = variant_of(given)
    begin = time.monotonic()
    live_apart()
    with tempfile.TemporaryDirectory() as folder:
        figures, failures, lacking = campaign(
            folder,
            variant,
            kinds=tuple(given.kinds),
            every=given.every,
            only=given.only,
            do=write_and_swallow if given.swallow else write,
        )
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(f"seconds: {time.monotonic() - begin:.0f}")
    for name, faults in failures.items():
        print(
            f"again: python tests/campaigns/full_disk.py --only {name}{variant.arguments}  # {'; '.join(faults)[:300]}"
        )
    for kind, why in lacking.items():
        print(f"cannot run: {kind}: {why}")
    if given.save and not failures and not lacking and not given.swallow:
        save("full_disk", "python tests/campaigns/full_disk.py", None, figures, variant=variant)
    return 1 if failures or (lacking and NIGHTLY) else 0


if __name__ == "__main__":
    sys.exit(main())
