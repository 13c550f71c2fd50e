"""Stores frames at full rate for a long time, without leaks or lost frames.

A ``DataHandler`` writes one dataset after another with one backend, alternating between large and small
frames. Each dataset is reopened, its frames are counted and some are compared, and it is deleted, so that
only one dataset is on the disk. After each cycle, the numbers of descriptors and threads must be the same as
after the first, and memory must not grow: a line is fitted to the later half of the cycles.

Run ``python tests/campaigns/soak.py --minutes 20``.
"""

import argparse
import gc
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from results import save
from variants import Variant, add_arguments, variant_of
from writer import axes_of, metadata_of, pixels_of

import exengine
from exengine.testing import peak_mib

SIZES = (512, 64)  # width of a frame in pixels, in turn
MOST_FRAMES = 60_000  # maximum number of frames in a cycle, because small frames are numerous
PENDING_BYTES = 64 * 2**20
MOST_RISE_MIB = 24.0  # permitted growth between the first and the last of the later cycles
MOST_ABOVE_MIB = 192.0  # permitted memory during a cycle, in addition to the queued frames


@dataclass
class Level:
    """The resources of a process."""

    resident_mib: float
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> "Level":
        """Measure the resources after a garbage collection."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        mib = pages * resource.getpagesize() / 2**20
        return cls(mib, len(os.listdir("/proc/self/fd")), threading.active_count())


def frame_of(number: int, size: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint16]]":
    """Return a frame that contains its number. The noise is reused, because creating it is slow."""
    frame = pixels_of(number % 16, size).copy()
    frame[0, :2] = number & 0xFFFF, number >> 16
    return frame


def cycle(path: str, variant: Variant, *, size: int, count: int, until: float) -> tuple[int, int, list[str]]:
    """Write one dataset, check it, and delete it.

    Parameters
    ----------
    path : str
    variant : Variant
    size, count : int
        The width of a frame in pixels, and the maximum number of frames.
    until : float
        The time at which to stop, as ``time.monotonic()``.

    Returns
    -------
    tuple of (int, int, list of str)
        The number of frames put, the number of missing frames, and the broken promises.
    """
    found = []
    storage = exengine.open_storage(variant.backend, path, **variant.options)
    handler = exengine.DataHandler(storage, max_pending=PENDING_BYTES)
    put = 0
    for number in range(count):
        if number % 64 == 63 and time.monotonic() > until:
            break
        handler.put(axes_of(number), frame_of(number, size), metadata_of(number), copy=False)
        put += 1
    handler.finish()
    handler.await_completion()
    ledger = handler.ledger
    if (
        not ledger.complete
        or (ledger.offered, ledger.passed_on, ledger.produced, ledger.stored) != (put,) * 4
    ):
        found.append(f"{put} frames were put, and the ledger says {ledger}")
    storage.close()
    with exengine.open_dataset(path) as dataset:
        missing = put - len(dataset)
        if missing or dataset.status != "complete":
            found.append(f"{put} frames were put, {len(dataset)} are there, {dataset.status}")
        for number in {*range(0, put, 97), put - 1}:
            good = np.array_equal(dataset.get_data(axes_of(number)), frame_of(number, size))
            if not good or dataset.get_metadata(axes_of(number)) != metadata_of(number):
                found.append(f"frame {number} is another one")
    shutil.rmtree(path)
    return put, missing, found


def soak(
    folder: str, variant: Variant, *, seconds: float, cycle_bytes: int, keep: list[object] | None = None
) -> tuple[dict[str, object], list[str]]:
    """Write datasets for some time.

    Parameters
    ----------
    folder : str
        The folder for the datasets, which contains one at a time.
    variant : Variant
    seconds : float
    cycle_bytes : int
        The size of the pixel data in a dataset.
    keep : list, optional
        A list that grows with each cycle: a leak that must be found.

    Returns
    -------
    tuple of (dict, list of str)
        The figures, and the broken promises.
    """
    begin = time.monotonic()
    until = begin + seconds
    levels: list[Level] = []
    found: list[str] = []
    frames = total_bytes = cycles = lost = 0
    while cycles < 4 or time.monotonic() < until:
        for size in SIZES:
            count = min(cycle_bytes // (2 * size * size), MOST_FRAMES)
            # The first cycles are completed even if the time is short, so that there is something to compare.
            put, missing, faults = cycle(
                f"{folder}/data-{cycles}-{size}",
                variant,
                size=size,
                count=count,
                until=until if cycles >= 4 else float("inf"),
            )
            lost += missing
            found += [f"cycle {cycles}, {size} pixels: {fault}" for fault in faults]
            frames, total_bytes = frames + put, total_bytes + put * 2 * size * size
            if keep is not None:
                descriptor = os.open("/dev/null", os.O_RDONLY)
                stop = threading.Event()
                threading.Thread(target=stop.wait, daemon=True).start()
                keep.append((descriptor, stop, np.ones(2**20)))  # 8 MiB
        levels.append(Level.now())
        cycles += 1
        if cycles % 10 == 0:
            print(
                f"{time.monotonic() - begin:.0f} s, {cycles} cycles, {frames} frames, {levels[-1]}",
                flush=True,
            )
    for what in ("descriptors", "threads"):
        values = [getattr(level, what) for level in levels]
        if set(values) != {values[0]}:
            found.append(f"{what} after each cycle: {values}")
    half = [level.resident_mib for level in levels[len(levels) // 2 - 1 :]]
    slope = float(np.polyfit(range(len(half)), half, 1)[0])
    third = max(1, len(half) // 3)
    rise = float(np.median(half[-third:]) - np.median(half[:third]))  # a single step counts once
    if rise > MOST_RISE_MIB:
        found.append(f"memory rises by {rise:.1f} MiB in {len(half)} cycles: {half}")
    most = peak_mib()
    if most > levels[0].resident_mib + PENDING_BYTES / 2**20 + MOST_ABOVE_MIB:
        found.append(f"memory reached {most:.0f} MiB")
    figures: dict[str, object] = {
        "minutes": round((time.monotonic() - begin) / 60, 2), "cycles": cycles, "frames": frames,
        "GB": round(total_bytes / 1e9, 1), "frames lost": lost,
        "descriptors": levels[-1].descriptors, "threads": levels[-1].threads,
        "resident MiB after the first cycle": round(levels[0].resident_mib),
        "resident MiB after the last cycle": round(levels[-1].resident_mib),
        "most resident MiB": round(most), "rise in the later half, MiB per cycle": round(slope, 3),
    }  # fmt: skip
    return figures, found


def main() -> int:
    """Run the campaign; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument(
        "--cycle-mb", type=float, default=2000, help="size of the pixel data in a dataset, in MB"
    )
    parser.add_argument(
        "--leak", action="store_true", help="keep something from each cycle, which must be found"
    )
    parser.add_argument("--save", action="store_true")
    add_arguments(parser)
    given = parser.parse_args()
    variant = variant_of(given)
    with tempfile.TemporaryDirectory() as folder:
        figures, found = soak(
            folder,
            variant,
            seconds=given.minutes * 60,
            cycle_bytes=int(given.cycle_mb * 1e6),
            keep=[] if given.leak else None,
        )
    for name, value in figures.items():
        print(f"{name}: {value}")
    for text in found:
        print(f"BROKEN {text}")
    if found:
        print(
            f"again: python tests/campaigns/soak.py --minutes {given.minutes} --cycle-mb {given.cycle_mb}{variant.arguments}"
        )
    if given.save and not found and not given.leak:
        save(
            "soak",
            f"python tests/campaigns/soak.py --minutes {given.minutes:g}",
            None,
            figures,
            variant=variant,
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
