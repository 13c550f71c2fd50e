"""Kills acquisitions with ``kill -9`` at random moments, and continues each of them in its dataset.

``python tests/campaigns/resumed.py --count 100 --seed 1 [--backend ome-zarr --option codec=blosc-lz4] [--save]``

Each acquisition of the simulated source is killed one to four times, anywhere between its start and its end;
sometimes it is interrupted instead, so that its dataset is finished as aborted. After each kill, the dataset
is read. In the end, it must contain every frame of the plan once, bit for bit, and its ledger must account
for all of them. Continuing it again must not change any file.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import results
from children import Child, Ended
from variants import Variant, add_arguments, variant_of
from writer import Say

import exengine
from exengine.acquisition.earlier import Earlier
from exengine.frame_sources.sequence import parse_sequence
from exengine.frame_sources.simulated import SimulatedSource

SIZE = 64
FILE_BYTES = 2**16
PATIENCE_S = 60.0
SOURCE = {"width": SIZE, "height": SIZE, "rate_hz": 400.0}
SEQUENCES: dict[str, dict[str, Any]] = {
    "time, channels, stack": {
        "channels": ["DAPI", "FITC"],
        "time_plan": {"interval": 0, "loops": 10},
        "z_plan": {"range": 2, "step": 1},
    },
    "positions, each with its own time-lapse": {
        "axis_order": "ptc",
        "channels": ["DAPI", "FITC"],
        "stage_positions": [{"x": 0, "y": 0, "name": "left"}, {"x": 9, "y": 0, "name": "right"}],
        "time_plan": {"interval": 0, "loops": 12},
    },
    "a channel every second time point": {
        "channels": ["DAPI", {"config": "FITC", "acquire_every": 2}],
        "time_plan": {"interval": 0, "loops": 30},
    },
}
SPOILS = ("forget-a-frame", "other-pixels")
"""Faults that the campaign must find: a run that skips a missing frame, and one that takes other pixels."""


@dataclass
class Campaign:
    """All acquisitions of one run of the campaign."""

    folder: str
    variant: Variant
    rng: random.Random
    spoil: str = ""
    figures: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.planned = {name: frames_of(sequence) for name, sequence in SEQUENCES.items()}
        self.seconds: dict[str, float] = {}
        for name in SEQUENCES:  # also imports everything before the first fork
            begin = time.perf_counter()
            whole = self.variant.path(self.folder, "whole")
            exengine.acquire(self.config(name), resume=whole)
            self.seconds[name] = time.perf_counter() - begin
            shutil.rmtree(self.variant.folder_of(whole))

    def config(self, name: str) -> dict[str, Any]:
        """Return the config of an acquisition; small files and shards make many beginnings."""
        options = self.variant.with_files(FILE_BYTES, 2 * SIZE * SIZE) or {}
        return {
            "storage": {"backend": self.variant.backend, "path": "unused", "options": options},
            "source": {"name": "simulated", "options": SOURCE},
            "sequence": SEQUENCES[name],
        }

    def run(self, number: int) -> None:
        """Kill one acquisition once or several times, let it end, and judge its dataset."""
        name = list(SEQUENCES)[number % len(SEQUENCES)]
        path = self.variant.path(self.folder, f"data-{number}")
        told: list[str] = []
        kept: set[Any] = set()
        kills = self.rng.choice((1, 1, 2, 4))
        while kills:
            how = signal.SIGINT if self.rng.random() < 0.2 else signal.SIGKILL
            ended = self.acquire(name, path, how)
            hit = ended.code in (-signal.SIGKILL, 130) or "KeyboardInterrupt" in ended.output
            kills -= hit and how == signal.SIGKILL
            self.figures["kills" if how == signal.SIGKILL else "interrupts"] += hit
            if not hit and not ended.code:  # it ended too early, so it begins again
                self.figures["ended before the kill"] += 1
                shutil.rmtree(self.variant.folder_of(path))
                kept = set()
                continue
            if not hit:
                kills = 0
                told.append(f"a run ended with {ended.code}: {ended.output[-500:]}")
            found = self.look(name, path, told)
            if kept - found:
                told.append(f"{len(kept - found)} frames were lost in a later run")
            kept = found
        ended = self.acquire(name, path, None)
        if ended.code:
            told.append(f"the last run ended with {ended.code}: {ended.output[-500:]}")
        found = self.look(name, path, told)
        self.figures["frames planned"] += len(self.planned[name])
        self.figures["frames missing"] += len(self.planned[name].keys() - found)
        if os.path.exists(path):
            self.judge(name, path, told)
        self.broken += [f"BROKEN acquisition {number} ({name}): {text}" for text in told]
        shutil.rmtree(self.variant.folder_of(path), ignore_errors=True)

    def acquire(self, name: str, path: str, how: int | None) -> Ended:
        """Start or continue an acquisition in a child, and end it at a random moment."""
        child = Child(lambda say: self.work(name, path, say))
        if how is not None:
            if self.rng.random() < 0.3:  # often before the first frame, where files are created
                child.listen(self.rng.random() * self.seconds[name])
            else:
                self.wait_for(child, self.rng.randint(0, len(self.planned[name]) * 2 // 3))
                time.sleep(self.rng.expovariate(200))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, how)
        return child.end(PATIENCE_S)

    @staticmethod
    def wait_for(child: Child, frames: int) -> None:
        """Wait until the run has stored this number of frames, or has ended."""
        until = time.monotonic() + PATIENCE_S
        while child.listen(0.05) and time.monotonic() < until:
            if child.lines and int(child.lines[-1]) >= frames:
                return

    def work(self, name: str, path: str, say: Say) -> None:
        """Run in the child: what ``exengine acquire --resume`` does."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.spoil == "forget-a-frame":
            contains = Earlier.__contains__
            Earlier.__contains__ = lambda self, at: at.get("time") == 7 or contains(self, at)  # type: ignore[method-assign]
        if self.spoil == "other-pixels" and os.path.exists(path):
            render = SimulatedSource._render
            SimulatedSource._render = lambda self, event: render(self, event) ^ 1  # type: ignore[method-assign]
        try:
            with exengine.Acquisition(self.config(name), resume=path) as acquisition:
                acquisition.run(lambda ledger: say(str(ledger.stored)), interval_s=0.002)
        except KeyboardInterrupt:
            os._exit(130)

    def look(self, name: str, path: str, told: list[str]) -> set[Any]:
        """Return the frames of a dataset, after comparing each of them with the plan."""
        if not os.path.exists(path):
            return set()
        planned, listed = self.planned[name], []
        with Closing(path) as dataset:
            for coordinates in dataset:
                listed.append(coordinates)
                expected = planned.get(coordinates)
                if expected is None:
                    told.append(f"a frame at {dict(coordinates)} was not planned")
                elif not same(dataset[coordinates], expected):
                    self.figures["frames wrong"] += 1
                    told.append(f"the frame at {dict(coordinates)} differs")
        if len(set(listed)) != len(listed):
            told.append("a frame is listed twice")
        self.figures["frames compared"] += len(listed)
        return set(listed)

    def judge(self, name: str, path: str, told: list[str]) -> None:
        """Check the status, the ledger and the runs of a dataset that was continued to its end."""
        report = exengine.verify(path)
        if not report.ok or report.status != "complete":
            told.append(f"the dataset is {report.status}: {report.to_dict()!r:.500}")
        with Closing(path) as dataset:
            ledger, runs = dataset.annotations["ledger"], dataset.annotations.get("runs", [{}])
        count = ledger["stored"] + ledger["stored_before"]
        if count != len(self.planned[name]) or not ledger["balanced"]:
            told.append(f"the ledger accounts for {count} of {len(self.planned[name])} frames")
        ends = [run.get("first_frame", 0) for run in runs[1:]]
        if [run["frames"] for run in runs[:-1]] != ends or ends != sorted(ends):
            told.append(f"the runs do not follow each other: {runs!r:.500}")
        self.figures["runs recorded"] += len(runs)
        folder = self.variant.folder_of(path)
        before = content_of(folder)
        if self.acquire(name, path, None).code or content_of(folder) != before:
            told.append("continuing a complete dataset changed it")


class Closing:
    """Opens a dataset for a ``with`` block, which does not finish it."""

    def __init__(self, path: str) -> None:
        self._dataset = exengine.open_dataset(path)

    def __enter__(self) -> exengine.DataStorage:
        return self._dataset

    def __exit__(self, *_: object) -> None:
        self._dataset.close()


def same(one: Any, other: Any) -> bool:
    """Return whether two arrays are equal bit for bit."""
    return one.dtype == other.dtype and np.array_equal(one, other)


def frames_of(sequence: dict[str, Any]) -> dict[Any, Any]:
    """Return the coordinates and the pixels of every planned frame."""
    frames: dict[Any, Any] = {}
    source = SimulatedSource(width=SIZE, height=SIZE)
    source.prepare(parse_sequence(sequence))
    source.run(lambda coordinates, pixels, metadata: frames.update({coordinates: pixels}))
    source.close()
    return frames


def content_of(path: str) -> dict[str, str]:
    """Return a checksum of each file in a folder."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(Path(path).rglob("*"))
        if file.is_file()
    }


def main() -> int:
    """Run the campaign, print the results, and return 1 if a promise was broken."""
    options = argparse.ArgumentParser(description="acquisitions that are killed and continued")
    options.add_argument("--count", type=int, default=100)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--spoil", choices=SPOILS, default="", help="a fault that must be found")
    options.add_argument("--save", action="store_true", help="save the figures for the documentation")
    add_arguments(options)
    given = options.parse_args()
    variant = variant_of(given)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(folder, variant, random.Random(given.seed), given.spoil)
        for number in range(given.count):
            campaign.run(number)
    names = ("kills", "interrupts", "ended before the kill", "frames planned", "frames missing")
    figures = {
        "acquisitions": given.count,
        **{name: campaign.figures[name] for name in (*names, "frames wrong", "frames compared")},
        "runs recorded": campaign.figures["runs recorded"],
        "seconds": round(time.monotonic() - began),
    }
    command = f"python tests/campaigns/resumed.py --count {given.count} --seed {given.seed}"
    return results.conclude(
        "resumed", command, given.seed, figures, campaign.broken, keep=given.save, variant=variant
    )


if __name__ == "__main__":
    sys.exit(main())
