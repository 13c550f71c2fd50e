"""Tests that programs without ExEngine can read OME-Zarr while it is being written.

``python tests/campaigns/live_readers.py --reads 100000 --seed 1 [--save]``

One process writes at a steady rate. zarr-python, tensorstore and zarrita (in node, as in a browser) read in
separate processes. Each frame that was acknowledged before a read must be correct: all pixels, which identify
the frame, are compared. After enough reads, the writer is killed with ``kill -9``, and the readers continue
without a repair.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import results
from forked import Child, Say
from live_frames import CHANNELS, PLANES, Progress, axes_of, pixels_of
from variants import Variant, add_arguments, variant_of

import exengine
from exengine.base_classes import PlannedAxis, SourcePlan

HERE = Path(__file__).parent
PROGRAMS = ("zarr", "tensorstore", "zarrita")
PACKAGES = ("zarrita@0.7.5", "@zarrita/storage@0.2.0")
SHARD_FRAMES = 1024  # so that many shards begin, and the array grows often
LEAD_FRAMES = 200  # frames that are written before the readers start


class CannotRunError(Exception):
    """A program is missing."""


def write(path: str, variant: Variant, per_second: int, progress: Progress, spoil: str) -> None:
    """Write frames at a steady rate until the process is killed."""
    options = {"shard": SHARD_FRAMES, **variant.options}
    storage = exengine.open_storage(variant.backend, path, **options)
    axes = (PlannedAxis("time"), PlannedAxis("z", tuple(range(PLANES))), PlannedAxis("channel", CHANNELS))
    storage.expect(SourcePlan(axes=axes))
    began, number = time.monotonic(), 0
    while True:
        if spoil:  # acknowledges a frame before it is stored
            progress.acknowledged = number + 2
        storage.put(axes_of(number), pixels_of(number), {"number": number})
        number += 1
        if not spoil:
            progress.acknowledged = number
        if (pause := began + number / per_second - time.monotonic()) > 0:
            time.sleep(pause)


def install_zarrita(folder: str) -> str:
    """Return a folder with zarrita, which ``npm`` installs from its registry."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise CannotRunError("zarrita needs the programs node and npm")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, *PACKAGES]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if ended.returncode:
        raise CannotRunError(f"npm cannot install zarrita: {' '.join(ended.stderr.split())[:300]}")
    return folder


def start(
    program: str, array: str, progress: str, reads: int, after: int, seed: int, modules: str
) -> "subprocess.Popen[str]":
    """Start a reader."""
    numbers = [str(reads), str(after), str(seed)]
    if program == "zarrita":
        command = ["node", str(HERE / "live_reader.mjs"), modules, array, progress, *numbers]
    else:
        command = [sys.executable, str(HERE / "live_reader.py"), program, array, progress, *numbers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def campaign(given: argparse.Namespace, variant: Variant, folder: str) -> tuple[dict[str, object], list[str]]:
    """Write, read, kill the writer, and read again; return the figures and the broken promises."""
    programs = given.programs
    modules = install_zarrita(os.path.join(folder, "node")) if "zarrita" in programs else ""
    path, progress_path = os.path.join(folder, "data.ome.zarr"), os.path.join(folder, "progress")
    progress = Progress(progress_path)
    broken: list[str] = []
    figures: dict[str, object] = {"readers": len(programs) * given.each}

    def work(say: Say) -> None:
        write(path, variant, given.per_second, progress, given.spoil)

    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Child(work))
        while progress.acknowledged < LEAD_FRAMES:
            time.sleep(0.01)
        began, first = time.monotonic(), progress.acknowledged
        each = -(-given.reads // (len(programs) * given.each))
        readers = [
            (
                program,
                start(program, os.path.join(path, "0"), progress_path, each, given.after, seed, modules),
            )
            for seed, program in enumerate(programs * given.each, 1000 * given.seed)
        ]
        for _, reader in readers:
            stack.callback(reader.kill)
        for _, reader in readers:
            _listen(reader, "live", broken)
        seconds = time.monotonic() - began
        frames = progress.acknowledged - first
        os.kill(writer.pid, signal.SIGKILL)
        if writer.wait() != -signal.SIGKILL:
            broken.append(f"the writer had ended with {writer.wait()}")
        progress.killed = True
        for program, reader in readers:
            _listen(reader, "after", broken)
            if reader.wait(60):
                broken.append(f"a reader by {program} ended with {reader.returncode}")
        figures["frames acknowledged"] = progress.acknowledged
        figures["frames per second"] = round(frames / seconds)
        for program in programs:
            figures[f"reads by {program} while it is written"] = each * given.each
        figures["reads right after kill -9"] = given.after * len(readers)
        with exengine.open_dataset(path) as dataset:
            if len(dataset) < progress.acknowledged:
                broken.append(f"{len(dataset)} of {progress.acknowledged} frames are in the dataset")
    figures["seconds"] = round(seconds)
    if int(str(figures["frames per second"])) < given.least:
        broken.append(
            f"{figures['frames per second']} frames per second were written, less than {given.least}"
        )
    return figures, broken


def _listen(reader: "subprocess.Popen[str]", until: str, broken: list[str]) -> None:
    assert reader.stdout is not None
    for line in reader.stdout:
        word, _, rest = line.strip().partition(" ")
        if word == "broken":
            broken.append(rest)
        if word == until:
            return
    broken.append(f"a reader ended before it said {until!r}")


def main() -> int:
    """Run the campaign, print the results, and return 1 if a promise was broken."""
    options = argparse.ArgumentParser(description="other programs read while a dataset is written")
    options.add_argument("--reads", type=int, default=100_000, help="over all readers")
    options.add_argument(
        "--after", type=int, default=500, help="number of reads by each reader after kill -9"
    )
    options.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    options.add_argument("--each", type=int, default=1, help="number of readers for each program")
    options.add_argument("--per-second", type=int, default=1500, help="frames")
    options.add_argument("--least", type=int, default=1000, help="the minimum number of frames per second")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument(
        "--spoil", action="store_true", help="acknowledge frames too early, which must be found"
    )
    options.add_argument(
        "--folder", help="the folder for the dataset; by default, the folder for temporary files"
    )
    options.add_argument("--save", action="store_true", help="save the figures for the documentation")
    add_arguments(options)
    options.set_defaults(backend="ome-zarr")
    given = options.parse_args()
    variant = variant_of(given)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        try:
            figures, broken = campaign(given, variant, folder)
        except CannotRunError as error:
            print(f"cannot run: {error}")
            return int(results.NIGHTLY)
    command = f"python tests/campaigns/live_readers.py --reads {given.reads} --seed {given.seed}"
    return results.conclude(
        "live_readers", command, given.seed, figures, broken, keep=given.save, variant=variant
    )


if __name__ == "__main__":
    sys.exit(main())
