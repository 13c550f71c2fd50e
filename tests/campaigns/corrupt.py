"""Tests that damaged datasets can be opened and read to the end, in bounded time and memory.

``python tests/campaigns/corrupt.py --count 10000 --seed 1 [--save]``

``damage.py`` damages a few original datasets: ExEngine's own (finished, unfinished, with several files, RGB,
with mixed shapes) and, if available, real ones from other programs. They are truncated at every offset, then
edited at random. A forked process opens each dataset, reads as much as possible, and compares. A promise is
broken if the process ends, takes too long, raises an exception other than an ExEngineError, or returns a
wrong frame as good.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import damage
import damage_one_file
import damage_zarr
import numpy as np
import results
from damage import Dataset
from forked import Child, Say
from reader_spoils import MOST_BYTES, SPOILS
from variants import Variant, add_arguments, variant_of
from writer import Job, axes_of, metadata_of, pixels_of, write

import exengine
from exengine.errors import CoordinatesNotFoundError, DatasetDamagedError, ExEngineError
from exengine.testing.frames import frame_of

BATCH = 200
FOREIGN = (
    "v3/12_bit_pycromanager_mda",
    "v3/ndtiffv3.0_test",
    "v3/ndtiffv3.0_stitched_test",
    "v3/ndtiff3.2_magellan_explore_rgb",
    "v2/ndtiffv2.0_test",
)
Truth = dict[frozenset[tuple[str, Any]], tuple["np.ndarray[Any, Any]", Any]]


def originals(folder: str, variant: Variant) -> tuple[list[Dataset], dict[str, Truth]]:
    """Return ExEngine's own datasets and those of other programs, with the content of the former."""
    found, truths = [], {}
    for name, finish in (("finished", True), ("unfinished", False)):
        options = variant.with_files(4096 if variant.backend == "ndtiff" else 512, 2 * 8 * 8)
        path = variant.path(folder, name)
        job = Job(path, variant.backend, size=8, count=14, finish=finish, options=options)
        write(job, lambda line: None)
        found.append(_taken(name, variant.folder_of(path)))
        truths[name] = {frozenset(axes_of(n).items()): (pixels_of(n, 8), metadata_of(n)) for n in range(14)}
    for name, frames, options in MORE[variant.backend]():
        path = variant.path(folder, name)
        truth: Truth = {}
        with exengine.open_storage(variant.backend, path, **{**options, **variant.options}) as storage:
            for number, (axes, shape, dtype) in enumerate(frames):
                one = (frame_of(axes, shape, dtype), {"number": number, "größe": "µm"})
                truth[frozenset(axes.items())] = one
                storage.put(axes, *one)
        found.append(_taken(name, variant.folder_of(path)))
        truths[name] = truth
    if variant.backend == "ndtiff":
        data = os.environ.get("EXENGINE_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data"
        places = {name: Path(data, "ndtiff", name) for name in FOREIGN}
        found += [_taken(name, str(place)) for name, place in places.items() if place.is_dir()]
    return found, truths


Frames = list[tuple[dict[str, Any], tuple[int, ...], str]]


def _mixed() -> list[tuple[str, Frames, dict[str, Any]]]:
    """Return frames with many shapes for NDTiff."""
    kinds = (((6, 10, 3), "u1"), ((8, 8), "u2"), ((8, 16), "u1"), ((5, 7), "u1"))
    frames = [
        ({"time": -number, "well": f"B{number}", "größe": 10**9 + number}, *kinds[number % 4])
        for number in range(12)
    ]
    return [("mixed", frames, {"max_file_bytes": 4096})]


def _zarr_frames() -> list[tuple[str, Frames, dict[str, Any]]]:
    """Return frames with labels, stage positions, tiles and colours for OME-Zarr."""
    labels: Frames = [
        ({"time": -number, "well": f"B{number % 3}", "position": number % 2}, (6, 10, 3), "u1")
        for number in range(12)
    ]
    tiles: Frames = [({"time": number, "z": number % 2}, (20, 37), "u2") for number in range(6)]
    return [("labels", labels, {"shard": 2}), ("tiles", tiles, {"chunk": 16, "shard": 3})]


def _one_file_frames(*compressions: str) -> list[tuple[str, Frames, dict[str, Any]]]:
    """Return frames with many shapes for a single-file backend, and frames to compress."""
    (_, mixed, _), *_ = _mixed()
    tiles: Frames = [({"time": number, "z": number % 2}, (20, 37), "u2") for number in range(6)]
    compressed = [(name, tiles, {"compression": name}) for name in compressions]
    return [("mixed", mixed, {}), *compressed]


MORE: dict[str, Callable[[], list[tuple[str, Frames, dict[str, Any]]]]] = {
    "ndtiff": _mixed,
    "ome-zarr": _zarr_frames,
    "hdf5": lambda: _one_file_frames("gzip", "lzf"),
    "ome-tiff": lambda: _one_file_frames("zlib"),
}
"""For each backend, the names, frames and options of further datasets."""


def _taken(name: str, path: str) -> Dataset:
    files = {
        str(file.relative_to(path)): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()
    }
    return Dataset(name, files)


# -- in the child --------------------------------------------------------------------------------


@dataclass
class Found:
    """The outcome for one dataset."""

    outcome: str = ""
    good: int = 0
    damaged: int = 0
    wrong: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    hidden: list[str] = field(
        default_factory=list
    )  # foreign datasets that became ExEngine datasets through the damage
    unsaid: int = 0  # frames missing from a dataset with the status complete

    def guard(self, what: str, call: Any) -> Any:
        """Return the result of a call, or None if it raised an exception."""
        try:
            return call()
        except ExEngineError as error:
            cause = error.__cause__
            if isinstance(cause, MemoryError):
                self.foreign.append(f"{what}: asked for more memory than there may be")
            elif cause is not None and not isinstance(cause, ExEngineError | OSError):
                self.hidden.append(f"{what}: {type(cause).__name__}: {cause}"[:200])
            return error
        except Exception as error:
            self.foreign.append(f"{what}: {type(error).__name__}: {error}"[:300])
            return error


def examine(path: str, truth: Truth | None, thorough: bool) -> Found:
    """Open a dataset and read everything from it."""
    found = Found()
    dataset = found.guard("open", lambda: exengine.open_dataset(path))
    if isinstance(dataset, Exception):
        found.outcome = type(dataset).__name__
        return found
    found.outcome = str(found.guard("status", lambda: dataset.status))
    for name in (
        "status_reason",
        "annotations",
        "summary_metadata",
        "axes",
        "is_finished",
        "__len__",
        "__repr__",
    ):
        found.guard(name, lambda name=name: _called(getattr(dataset, name)))
    found.guard("await_new_data", lambda: dataset.await_new_data(0))
    listed = found.guard("iteration", lambda: [dict(axes) for axes in dataset])
    listed = [] if isinstance(listed, Exception) else listed
    wanted = [dict(axes) for axes in truth or ()]
    for axes in [
        *wanted,
        *(axes for axes in listed if truth is None or frozenset(axes.items()) not in truth),
    ][:300]:
        _look(found, dataset, axes, truth)
    for number in getattr(dataset, "resolution_levels", ())[1:]:
        level = found.guard("level", lambda number=number: dataset.level(number))
        for axes in found.guard("iteration", lambda level=level: list(level)):
            _look(found, level, axes, None)
        found.guard(
            "mosaic",
            lambda n=number: dataset.as_array(stitched=True, missing=0, level=n)[..., :1, :1].compute(
                scheduler="synchronous"
            ),
        )
    if thorough:
        found.guard("as_array", lambda: dataset.as_array(missing="mask")[..., :1, :1])
    found.guard("close", dataset.close)
    return found


def _called(value: Any) -> Any:
    return value() if callable(value) else value


def _look(found: Found, dataset: Any, axes: dict[str, Any], truth: Truth | None) -> None:
    data = found.guard(f"data of {axes}", lambda: dataset.get_data(axes))
    metadata = found.guard(f"metadata of {axes}", lambda: dataset.get_metadata(axes))
    found.guard(f"{axes} in", lambda: axes in dataset)
    known = None if truth is None else truth.get(frozenset(axes.items()))
    if isinstance(data, CoordinatesNotFoundError):
        found.unsaid += known is not None and found.outcome == "complete"
    elif isinstance(data, DatasetDamagedError):
        found.damaged += 1
    elif truth is not None and not isinstance(data, Exception):
        if (
            known is None
            or data.shape != known[0].shape
            or data.dtype != known[0].dtype
            or (data != known[0]).any()
        ):
            found.wrong.append(f"the pixels of {axes}")
        else:
            found.good += 1
    if truth is not None and not isinstance(metadata, Exception) and (known is None or metadata != known[1]):
        found.wrong.append(f"the metadata of {axes}")


# -- in the parent -------------------------------------------------------------------------------


class Campaign:
    """All numbered cases of one run.

    Parameters
    ----------
    folder : str
    variant : Variant
    count, seed : int
    spoil : str
        A key of ``SPOILS``.
    patience_s : float
        The time after which a process counts as hanging.
    """

    def __init__(
        self, folder: str, variant: Variant, count: int, seed: int, spoil: str, patience_s: float
    ) -> None:
        self._patience_s = patience_s
        self._folder, self._seed, self._spoil = folder, seed, spoil
        self._variant = variant
        tools = {"ndtiff": damage, "ome-zarr": damage_zarr}
        self._tools: Any = tools.get(variant.backend, damage_one_file)
        self.originals, self._truths = originals(os.path.join(folder, "originals"), variant)
        cuts = [(original, *cut) for original in self.originals for cut in self._tools.cuts(original)]
        self.all_cuts = len(cuts)
        rng = random.Random(seed)
        rng.shuffle(cuts)
        cuts.sort(
            key=lambda cut: cut[0].name not in self._truths
        )  # all of ExEngine's own datasets before those of other programs
        ours = sum(original.name in self._truths for original, *_ in cuts)
        self.cuts = cuts[: count * 6 // 10] if count * 6 // 10 >= ours else rng.sample(cuts, count * 6 // 10)
        self.count = count
        self.figures: Counter[str] = Counter()
        self.hidden: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.broken: list[str] = []
        self.peak_bytes = 0

    def case(self, number: int) -> Dataset:
        """Return the dataset for a case."""
        if number < len(self.cuts):
            return damage.cut(*self.cuts[number])
        rng = random.Random(f"{self._seed} {number}")
        ours = [original for original in self.originals if original.name in self._truths]
        original = rng.choice(ours if rng.random() < 0.6 else self.originals)
        return self._tools.edit(original, rng)

    def run(self, numbers: list[int]) -> None:
        """Run these cases in one child; after a hang or a crash, run the remaining cases in another child."""
        while numbers:
            place = tempfile.mkdtemp(dir=self._folder)
            with Child(lambda say, some=numbers, place=place: self._work(say, some, place)) as child:
                while numbers and (line := child.line(self._patience_s)) is not None:
                    self._take(numbers.pop(0), json.loads(line))
                if numbers:
                    child.kill()
                    code = child.wait()
                    hung = code == -signal.SIGKILL
                    self.figures["hangs" if hung else "crashes"] += 1
                    self._break(
                        numbers.pop(0), f"no answer in {self._patience_s} s" if hung else f"ended with {code}"
                    )
            shutil.rmtree(place)

    def _work(self, say: Say, numbers: list[int], place: str) -> None:
        SPOILS[self._spoil]()
        warnings.simplefilter(
            "ignore"
        )  # the library that reads version 2 leaves closing files to the garbage collector
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
        at_start = _peak_bytes()
        _limit_memory()
        for number in numbers:
            case = self.case(number)
            folder, outside = os.path.join(place, "dataset"), os.path.join(place, "outside")
            os.mkdir(folder)
            os.mkdir(outside)
            case.write(folder, outside)
            began = time.monotonic()
            found = examine(
                self._variant.path(place, "dataset"), self._truths.get(case.name), number % 20 == 0
            )
            say(
                json.dumps(
                    {**vars(found), "peak": _peak_bytes() - at_start, "seconds": time.monotonic() - began},
                )
            )
            shutil.rmtree(folder)
            shutil.rmtree(outside)

    def _take(self, number: int, found: dict[str, Any]) -> None:
        self.figures["frames read and equal"] += found["good"]
        self.figures["frames reported as damaged"] += found["damaged"]
        self.figures["damaged frames returned as good"] += len(found["wrong"])
        self.figures["foreign exceptions"] += len(found["foreign"])
        self.figures["frames absent, and the status says complete"] += found["unsaid"]
        self.outcomes[found["outcome"]] += 1
        self.hidden.update(re.sub(r"\{.*?\}|'.*?'", "..", text) for text in found["hidden"])
        self.peak_bytes = max(self.peak_bytes, found["peak"])
        for problem in (*found["wrong"], *found["foreign"]):
            self._break(number, problem)
        if found["peak"] > MOST_BYTES:
            self._break(number, f"took {found['peak']} bytes of memory")
        if found["seconds"] > self._patience_s / 2:
            self._break(number, f"took {found['seconds']:.1f} s")

    def _break(self, number: int, problem: str) -> None:
        case = self.case(number)
        self.broken.append(f"case {number}: {case.name}: {case.done}: {problem}")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _limit_memory() -> None:
    """Make excessive allocations fail before they affect the machine."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    most = now + MOST_BYTES + 256 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> int:
    """Run the campaign, print what came of it, and return 1 when a promise was broken."""
    options = argparse.ArgumentParser(description="damaged datasets, opened and read")
    options.add_argument("--count", type=int, default=10000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--case", type=int, help="run only this case of a run with the same count and seed")
    options.add_argument(
        "--spoil", choices=SPOILS, default="", help="make the reader faulty, which must be found"
    )
    options.add_argument(
        "--patience",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="the time after which a process counts as hanging",
    )
    options.add_argument(
        "--folder", help="the folder for datasets; by default, the folder for temporary files"
    )
    options.add_argument("--save", action="store_true", help="save the figures for the documentation")
    add_arguments(options)
    given = options.parse_args()
    variant = variant_of(given)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        campaign = Campaign(folder, variant, given.count, given.seed, given.spoil, given.patience)
        path = variant.path(folder, "first")
        for original in campaign.originals:  # import all modules that are imported on first use
            original.copy().write(variant.folder_of(path), folder)
            examine(path, None, True)
            shutil.rmtree(variant.folder_of(path))
        numbers = list(range(given.count)) if given.case is None else [given.case]
        for first in range(0, len(numbers), BATCH):
            campaign.run(numbers[first : first + BATCH])
            if first % (BATCH * 10) == 0 and first:
                print(
                    f"{first + BATCH} datasets, {len(campaign.broken)} broken promises, {time.monotonic() - began:.0f} s"
                )
    figures = {
        "datasets": given.count,
        "originals": len(campaign.originals),
        "cuts": f"{len(campaign.cuts)} of {campaign.all_cuts}",
        "hangs": campaign.figures.pop("hangs", 0),
        "crashes of the interpreter": campaign.figures.pop("crashes", 0),
        **campaign.figures,
        "most memory, MiB": round(campaign.peak_bytes / 2**20),
        "seconds": round(time.monotonic() - began),
    }
    outcomes = ", ".join(f"{outcome} {count}" for outcome, count in campaign.outcomes.most_common())
    hidden = [f"hidden {times} times: {text}" for text, times in campaign.hidden.most_common(20)]
    return results.conclude(
        "corrupt",
        f"python tests/campaigns/corrupt.py --count {given.count} --seed {given.seed}",
        given.seed,
        figures,
        campaign.broken,
        keep=given.save,
        variant=variant,
        details=[f"outcomes: {outcomes}", *hidden],
    )


if __name__ == "__main__":
    sys.exit(main())
