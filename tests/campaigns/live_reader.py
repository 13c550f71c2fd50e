"""A reader process for the campaign of live readers, which uses zarr-python or tensorstore.

``python live_reader.py PROGRAM ARRAY PROGRESS READS AFTER SEED``

It reads acknowledged frames, half of them among the latest, and compares all pixels. The array stays open,
and is reopened when it has grown. After the writer was killed, it reads ``AFTER`` more frames. It prints
``live N``, ``after N`` and each fault on a line.
"""

import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from live_frames import Progress, indices_of, pixels_of


def _zarr(path: str) -> tuple[Callable[..., Any], int]:
    import zarr

    array = zarr.open_array(path, mode="r", zarr_format=3)
    return array.__getitem__, array.shape[0]


def _tensorstore(path: str) -> tuple[Callable[..., Any], int]:
    import tensorstore

    store = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}, open=True, read=True
    ).result()
    return lambda index: store[index].read().result(), store.shape[0]


OPEN = {"zarr": _zarr, "tensorstore": _tensorstore}


def main() -> None:
    """Read frames, and print any faults."""
    program, path, progress_path, reads, after, seed = sys.argv[1:]
    progress, rng = Progress(progress_path), random.Random(int(seed))
    read, length = OPEN[program](path)
    done = 0

    def one() -> None:
        nonlocal read, length
        count = progress.acknowledged
        recent = rng.random() < 0.5
        number = rng.randrange(max(0, count - 64) if recent else 0, count)
        t, c, z = indices_of(number)
        try:
            if t >= length or rng.random() < 0.01:
                read, length = OPEN[program](path)
            good = np.array_equal(read((t, c, z)), pixels_of(number))
            fault = "" if good else "other pixels"
        except Exception as error:
            fault = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if fault:
            print(f"broken {program}, frame {number} of {count}: {fault}", flush=True)

    while done < int(reads):
        one()
        done += 1
    print(f"live {done}", flush=True)
    while not progress.killed:
        time.sleep(0.01)
    for _ in range(int(after)):
        one()
    print(f"after {after}", flush=True)


if __name__ == "__main__":
    main()
