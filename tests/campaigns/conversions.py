"""Kills conversions with ``kill -9`` at random moments, and repeats the command until each of them has ended.

``python tests/campaigns/conversions.py --count 50 --seed 1 [--backend ome-zarr --option codec=blosc-lz4] [--save]``

The source is a dataset with two positions, two channels, z and time, in which some frames are missing; the
backend of the campaign writes the result. A killed conversion must leave nothing at its path, or the whole
result. In the end, the result must equal that of a conversion that was not killed, and nothing else is left.
"""

import argparse
import contextlib
import json
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
from exengine.datasets.conversion import copy

SIZE = 64
FILE_BYTES = 2**17
PATIENCE_S = 60.0
SPOILS = ("forget-a-frame", "other-pixels")
"""Faults that the campaign must find: a continued copy that skips a frame, or changes one."""


@dataclass
class Campaign:
    """All conversions of one run of the campaign."""

    folder: str
    variant: Variant
    rng: random.Random
    spoil: str = ""
    figures: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        copy._MOST_FRAMES, copy._SYNC_S, copy._POLL_S = 5, 0.01, 0.001
        self.options = self.variant.with_files(FILE_BYTES, 2 * SIZE * SIZE) or {}
        self.source = f"{self.folder}/source"
        self.write_source("ome-zarr" if self.variant.backend == "ndtiff" else "ndtiff")
        whole = self.variant.path(self.folder, "whole")
        self.convert(whole, verify=True)  # also imports everything before the first fork
        begin = time.perf_counter()
        self.start(self.variant.path(self.folder, "timed"), True, None)
        self.seconds = time.perf_counter() - begin
        self.expected = content_of(whole)

    def write_source(self, backend: str) -> None:
        """Write the dataset to convert."""
        y, x = np.indices((SIZE, SIZE), np.uint16)
        number = 0
        storage = exengine.open_storage(backend, self.source, summary_metadata={"name": "source"})
        for position in ("left", "right"):
            for when in range(12):
                for channel in ("DAPI", "FITC"):
                    for z in (-1, 0, 3):
                        if (when + z) % 5 == 3:
                            continue
                        axes = {"position": position, "time": when, "channel": channel, "z": z}
                        storage.put(axes, y * 200 + x + number * 3, {"n": number, "float": 1.0})
                        number += 1
        storage.annotate("ledger", {"stored": number})
        storage.finish()
        storage.close()

    def convert(self, path: str, *, verify: bool) -> None:
        """Convert the source, as ``exengine convert`` does."""
        backend = self.variant.backend
        exengine.convert(self.source, path, backend=backend, options=self.options, verify=verify)

    def run(self, number: int, kills: int) -> None:
        """Kill one conversion this number of times, let it end, and judge its result."""
        path = self.variant.path(self.folder, f"result-{number}")
        verify = bool(self.rng.getrandbits(1))
        told: list[str] = []
        for _ in range(kills):
            # Half of the kills come at a moment, which may be before or after the copy on a fast machine.
            if self.rng.getrandbits(1):
                ended = self.start(path, verify, self.rng.random() * self.seconds)
            else:
                ended = self.start(path, verify, None, self.rng.randrange(1, len(self.expected["frames"])))
            hit = ended.code == -signal.SIGKILL
            self.figures["kills" if hit else "ended before the kill"] += 1
            self.figures["kills during the copy"] += hit and any(
                name.endswith("progress.json") for name in left_in(os.path.dirname(path))
            )
            if not hit and ended.code:
                told.append(f"a conversion ended with {ended.code}: {ended.output[-500:]}")
            if os.path.exists(path) and (wrong := self.differs(path)):
                told.append(f"a dataset that is not the result was published: {wrong}")
        ended = self.start(path, verify, None)
        if ended.code:
            told.append(f"the last conversion ended with {ended.code}: {ended.output[-500:]}")
        elif wrong := self.differs(path):
            told.append(wrong)
        if any(".converting" in name for name in left_in(os.path.dirname(path))):
            told.append("the hidden folder was left behind")
        self.broken += [f"BROKEN conversion {number}: {text}" for text in told]
        folder = self.variant.folder_of(path)
        shutil.rmtree(folder, ignore_errors=True)
        for name in os.listdir(self.folder):
            if name.endswith(".converting"):
                shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)

    def start(self, path: str, verify: bool, after_s: float | None, frame: int = 0) -> Ended:
        """Convert in a child, and kill it after some time, or before it copies a frame with this number."""
        child = Child(lambda say: self.work(path, verify, frame, say))
        if after_s is not None:
            time.sleep(after_s)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        return child.end(PATIENCE_S)

    def work(self, path: str, verify: bool, frame: int, say: Say) -> None:
        """Run in the child."""
        if frame:
            every = copy.FrameCopy._frames

            def killed(self: Any) -> Any:
                for number, each in enumerate(every(self), self.done):
                    if number == frame:
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield each

            copy.FrameCopy._frames = killed  # type: ignore[method-assign]
        frames = copy.FrameCopy._frames

        def spoiled(self: Any) -> Any:
            for number, (axes, pixels, metadata) in enumerate(frames(self)):
                if number == 2 and self.done:  # only in a copy that continues another one
                    if spoil == "forget-a-frame":
                        continue
                    pixels = pixels ^ 1
                yield axes, pixels, metadata

        spoil = self.spoil
        if spoil:
            copy.FrameCopy._frames = spoiled  # type: ignore[method-assign]
        self.convert(path, verify=verify and not spoil)

    def differs(self, path: str) -> str:
        """Return how a result differs from that of a conversion that was not killed."""
        try:
            found = content_of(path)
            report = exengine.verify(path)
        except exengine.ExEngineError as error:
            return f"the result cannot be read: {error}"
        self.figures["frames compared"] += len(found["frames"])
        wrong = sum(found["frames"].get(at) != frame for at, frame in self.expected["frames"].items())
        self.figures["frames wrong"] += wrong
        if wrong or found != self.expected or not report.ok:
            return f"{wrong} frames differ, verify says {report.to_dict()!r:.300}"
        return ""


def content_of(path: str) -> dict[str, Any]:
    """Return all that a dataset contains, as values to compare."""
    dataset = exengine.open_dataset(path)
    try:
        note = dict(dataset.annotations)
        note.pop("conversion")
        return {
            "frames": {
                at: (str(dataset[at].dtype), dataset[at].tobytes(), json.dumps(dataset.get_metadata(at)))
                for at in dataset
            },
            "order": list(dataset),
            "axes": {axis: list(positions) for axis, positions in dataset.axes.items()},
            "summary": dataset.summary_metadata,
            "annotations": note,
            "status": (str(dataset.status), dataset.status_reason),
        }
    finally:
        dataset.close()


def left_in(folder: str) -> list[str]:
    """Return the paths of all files in a folder."""
    return [str(file) for file in Path(folder).rglob("*") if file.is_file()]


def main() -> int:
    """Run the campaign, print the results, and return 1 if a promise was broken."""
    options = argparse.ArgumentParser(description="conversions that are killed and repeated")
    options.add_argument("--count", type=int, default=50, help="number of kills")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--spoil", choices=SPOILS, default="", help="a fault that must be found")
    options.add_argument("--save", action="store_true", help="save the figures for the documentation")
    add_arguments(options)
    given = options.parse_args()
    variant = variant_of(given)
    began = time.monotonic()
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(folder, variant, random.Random(given.seed), given.spoil)
        while campaign.figures["kills"] < given.count and number < 20 * given.count:
            left = given.count - campaign.figures["kills"]
            campaign.run(number, min(campaign.rng.choice((1, 2, 4, 6)), left))
            number += 1
    names = ("kills", "kills during the copy", "ended before the kill", "frames compared", "frames wrong")
    figures = {
        "conversions": number,
        **{name: campaign.figures[name] for name in names},
        "seconds": round(time.monotonic() - began),
    }
    command = f"python tests/campaigns/conversions.py --count {given.count} --seed {given.seed}"
    return results.conclude(
        "conversions", command, given.seed, figures, campaign.broken, keep=given.save, variant=variant
    )


if __name__ == "__main__":
    sys.exit(main())
