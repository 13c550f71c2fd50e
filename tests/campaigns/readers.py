"""Tests that eight processes can read a dataset while another process writes it.

``python tests/campaigns/readers.py --seconds 180 --seed 1 [--save]``

Some readers reopen the dataset each time; others keep it open and use ``len``, iteration or
``await_new_data``. Each compares the frames that it sees with the number of acknowledged frames, which is in
shared memory: no acknowledged frame may be missing, the number of frames must never decrease, and every frame
must be intact. At the end, all readers must see all frames.
"""

import argparse
import mmap
import os
import random
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import results
from forked import Child, Say
from spoils import SPOILS, spoil
from variants import Variant, add_arguments, variant_of
from writer import Job, axes_of, metadata_of, pixels_of, write

import exengine

SIZE = 64
KINDS = ("anew", "len", "iteration", "await_new_data")
READERS = 8
FILE_BYTES = 2**20  # small, so that many files are begun
ALL_AT_END = 3000  # if there are more frames, only this number is compared, but all coordinates are


class Progress:
    """The number of acknowledged frames, and whether the writer has finished, shared by all processes."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def tell(self, acknowledged: int, finished: bool) -> None:
        """Set the values; there is only one writer."""
        self._memory[:8] = struct.pack("<q", acknowledged)
        self._memory[8:9] = bytes([finished])

    def read(self) -> tuple[int, bool]:
        """Return the values; ``finished`` is read first, so that the number is final if it is true."""
        finished = bool(self._memory[8])
        return struct.unpack("<q", self._memory[:8])[0], finished


def write_for(
    path: str, variant: Variant, seconds: float, per_second: int, progress: Progress, wrong: str
) -> None:
    """Write frames at a steady rate, one or eight at a time, and finish."""
    spoil(wrong, variant.backend, pause_s=0.01)
    options = variant.with_files(FILE_BYTES, 2 * SIZE * SIZE) or {}
    storage = exengine.open_storage(variant.backend, path, **options)
    began = time.monotonic()
    number = 0
    while time.monotonic() - began < seconds:
        count = 8 if number % 200 >= 100 else 1
        frames = [(axes_of(n), pixels_of(n, SIZE), metadata_of(n)) for n in range(number, number + count)]
        if count == 1:
            storage.put(*frames[0])
        else:
            storage.put_many(frames)
        number += count
        progress.tell(number, False)
        time.sleep(max(0, began + number / per_second - time.monotonic()))
    storage.finish()
    progress.tell(number, True)
    storage.close()


def looks(kind: str, path: str) -> Iterator[tuple[Any, int]]:
    """Yield the dataset and its reported number of frames repeatedly, in one of the ways."""
    if kind == "anew":
        while True:
            with exengine.open_dataset(path) as dataset:
                yield dataset, len(dataset)
    with exengine.open_dataset(path) as dataset:
        while True:
            if kind == "iteration":
                yield dataset, sum(1 for _ in dataset)
            else:
                if kind == "await_new_data":
                    dataset.await_new_data(1)
                yield dataset, len(dataset)


def read(kind: str, path: str, progress: Progress, seed: int, say: Say) -> None:
    """Read until the writer has finished and all frames are seen; report any faults."""
    rng = random.Random(seed)
    most = compared = times = 0
    way = looks(kind, path)
    while True:
        acknowledged, finished = progress.read()
        try:
            dataset, count = next(way)
            times += 1
            if count < most or count < acknowledged:
                say(f"broken {count} frames, after {most} were seen and {acknowledged} acknowledged")
            most = max(most, count)
            some = {*range(max(0, count - 3), count), *(rng.randrange(count) for _ in range(5) if count)}
            for number in sorted(some):
                if fault := _fault(dataset, number):
                    say(f"broken {fault}")
                compared += 1
            if finished:
                say(f"seen {most}")
                compared += _read_all(dataset, acknowledged, rng, say)
                break
        except Exception as error:
            say(f"broken {type(error).__name__}: {' '.join(str(error).split())}")
            break
        time.sleep(rng.uniform(0, 0.05))
    say(f"looked {times}")
    say(f"compared {compared}")


def _fault(dataset: Any, number: int) -> str:
    axes = axes_of(number)
    if not np.array_equal(dataset.get_data(axes), pixels_of(number, SIZE)):
        return f"the pixels of frame {number} are others"
    return (
        ""
        if dataset.get_metadata(axes) == metadata_of(number)
        else f"the metadata of frame {number} are others"
    )


def _read_all(dataset: Any, count: int, rng: random.Random, say: Say) -> int:
    listed = [tuple(sorted(axes.items())) for axes in dataset]
    if listed != [tuple(sorted(axes_of(number).items())) for number in range(count)]:
        say(f"broken {len(listed)} frames at the end, {count} were written, or in another order")
    if dataset.status != "complete":
        say(f"broken the status at the end is {dataset.status}")
    some = range(count) if count <= ALL_AT_END else rng.sample(range(count), ALL_AT_END)
    for number in some:
        if fault := _fault(dataset, number):
            say(f"broken {fault}")
    return len(some)


def main() -> int:
    """Run the campaign, print the results, and return 1 if a promise was broken."""
    options = argparse.ArgumentParser(description="readers while a dataset is written")
    options.add_argument("--seconds", type=float, default=180)
    options.add_argument("--per-second", type=int, default=300, help="frames")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument(
        "--spoil", choices=SPOILS, default="", help="make the writer faulty, which must be found"
    )
    options.add_argument(
        "--folder", help="the folder for the dataset; by default, the folder for temporary files"
    )
    options.add_argument("--save", action="store_true", help="save the figures for the documentation")
    add_arguments(options)
    given = options.parse_args()
    variant = variant_of(given)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder, ExitStack() as stack:
        # Import all modules that are imported on first use here, not in each child.
        write(
            Job(
                os.path.join(folder, "first"),
                variant.backend,
                count=2,
                batch=2,
                options=dict(variant.options),
            ),
            _nothing,
        )
        exengine.open_dataset(os.path.join(folder, "first")).close()
        path = os.path.join(folder, "dataset")
        progress = Progress()
        writer = stack.enter_context(
            Child(
                lambda say: write_for(path, variant, given.seconds, given.per_second, progress, given.spoil)
            )
        )
        while not os.path.exists(path):
            time.sleep(0.001)
        kinds = [KINDS[number % len(KINDS)] for number in range(READERS)]
        readers = [
            stack.enter_context(
                Child(lambda say, n=n, kind=kind: read(kind, path, progress, given.seed * 100 + n, say))
            )
            for n, kind in enumerate(kinds)
        ]
        totals = {"looked": 0, "compared": 0}
        seen: list[int] = []
        broken: list[str] = []
        for number, (kind, reader) in enumerate(zip(kinds, readers, strict=True)):
            for line in reader.lines(given.seconds + 300):
                word, _, rest = line.partition(" ")
                if word == "broken":
                    broken.append(f"reader {number}, by {kind}, seed {given.seed}: {rest}")
                elif word == "seen":
                    seen.append(int(rest))
                else:
                    totals[word] += int(rest)
            if reader.wait():
                broken.append(f"reader {number}, by {kind}, ended with {reader.wait()}")
        if writer.wait():
            broken.append(f"the writer ended with {writer.wait()}")
        written = progress.read()[0]
        if seen != [written] * READERS and not broken:
            broken.append(f"the readers saw {seen} of {written} frames")
    figures = {
        "readers": READERS,
        "seconds of writing": given.seconds,
        "frames written": written,
        "looks": totals["looked"],
        "frames compared": totals["compared"],
    }
    command = f"python tests/campaigns/readers.py --seconds {given.seconds:g} --seed {given.seed}"
    return results.conclude("readers", command, given.seed, figures, broken, keep=given.save, variant=variant)


def _nothing(line: str) -> None:
    """Print nothing."""


if __name__ == "__main__":
    sys.exit(main())
