"""``exengine convert`` from NDTiff to OME-Zarr, beside ``cp`` and ``sync`` of the same dataset.

The source is not in the page cache. Both run in turn, as processes of their own, and include their start.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from harness import VOID_ABOVE, temporary
from report import Table

import exengine

TITLE = "Converting a dataset"
SIZE = 2048
GOAL = 0.6  # the fraction of the speed of cp and sync
MEMORY_GIB = 1.0
_BLOCK = 2**24


def write_source(path: Path, gib: int) -> int:
    """Write a dataset that cannot be compressed; return the number of bytes of its files."""
    pixels = np.random.default_rng(0).integers(0, 2**16, (SIZE, SIZE), np.uint16)
    with exengine.open_storage("ndtiff", path) as storage:
        for number in range(gib * 2**30 // pixels.nbytes):
            pixels[0, :2] = number % 2**16, number // 2**16
            axes = {"time": number // 2, "channel": ("DAPI", "FITC")[number % 2]}
            storage.put(axes, pixels, {"exposure_ms": 10.0, "n": number})
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def drop_from_cache(path: Path) -> None:
    """Remove the files of a dataset from the page cache."""
    os.sync()
    for file in path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def copied(source: Path, target: Path) -> float:
    """Return how many seconds ``cp`` and ``sync`` take."""
    drop_from_cache(source)
    begin = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    os.sync()
    seconds = time.perf_counter() - begin
    shutil.rmtree(target)
    return seconds


def converted(source: Path, target: Path, *arguments: str) -> float:
    """Return how many seconds the command takes."""
    drop_from_cache(source)
    command = [sys.executable, "-m", "exengine", "convert", str(source), str(target), "--json"]
    begin = time.perf_counter()
    done = subprocess.run(
        [*command, "--backend", "ome-zarr", *arguments], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - begin
    assert json.loads(done.stdout)["outcome"] == "converted"
    shutil.rmtree(target)
    return seconds


def main(table: Table, quick: bool) -> None:
    gib, rounds = (2, 2) if quick else (20, 1)
    with temporary() as folder:
        source, target = Path(folder, "source"), Path(folder, "target.ome.zarr")
        size = write_source(source, gib)
        copies, conversions, verified = [], [], []
        for _ in range(rounds):
            copies.append(copied(source, target))
            conversions.append(converted(source, target, "--no-verify"))
            copies.append(copied(source, target))
        verified.append(converted(source, target))
    most_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 2**30
    copy, conversion = statistics.median(copies), statistics.median(conversions)
    apart = (max(copies) - min(copies)) / min(copies)
    void = f"cp differs from itself by {apart:.0%}" if apart > VOID_ABOVE else ""
    speed = f"{size / conversion / 1e6:.0f} MB/s"
    note = (
        f"cp and sync {size / copy / 1e6:.0f} MB/s; verified {size / verified[0] / 1e6:.0f} MB/s; load "
        f"{os.getloadavg()[0]:.1f}"
    )
    table.add(
        f"convert {gib} GiB without verification, speed / cp + sync", copy / conversion, "x", GOAL,
        most=False, measured=speed, note=note, void=void,
    )  # fmt: skip
    table.add(
        f"convert {gib} GiB, memory", most_gib, "GiB", MEMORY_GIB,
        most=True, measured=f"{most_gib:.2f} GiB", note="of the process, with its libraries",
    )  # fmt: skip


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
