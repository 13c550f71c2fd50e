"""Runs one measurement in one process, and prints one JSON object. Works with ExEngine 1.0 and 0.4.0.

    python worker.py WHAT WHO [NUMBERS ...]

WHO is ``current``, ``old`` (ExEngine 0.4.0) or ``raw``. No module of this project is imported at the top
level, so that the predecessor's interpreter can run this script.
"""

import json
import os
import shutil
import sys
import tempfile
import time

MB = 2**20


def rss_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MB


def scratch():
    return tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("EXENGINE_BENCH_DIR"))


def per_call_us(function, count, repeats=5):
    """Return the time per call in microseconds, from the best of several rounds."""
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(count):
            function()
        best = min(best, time.perf_counter() - begin)
    return best / count * 1e6


def coordinates(who, count):
    from exengine.data import DataCoordinates

    if who == "current":
        return {"us": per_call_us(lambda: hash(DataCoordinates(time=5, channel="DAPI", z=3)), count)}
    return {"us": per_call_us(lambda: DataCoordinates(time=5, channel="DAPI", z=3), count)}


def ram_put(who, size, count):
    import numpy as np

    from exengine.data import DataCoordinates
    from exengine.storage_backends.ndtiff_and_ndram.NDTiffandRAM import NDRAMStorage

    image = np.zeros((size, size), np.uint16)
    storage = NDRAMStorage()
    begin = time.perf_counter()
    for number in range(count):
        storage.put(DataCoordinates(time=number, channel="DAPI", z=1), image, {"exposure_ms": 10})
    return {"us": (time.perf_counter() - begin) / count * 1e6}


def tiff(who, size, count):
    """Write frames of one size and read them back. Each put has new coordinates."""
    import numpy as np

    image = np.random.default_rng(0).integers(0, 60000, (size, size)).astype(np.uint16)
    folder = scratch()
    try:
        if who == "raw":
            file = os.open(os.path.join(folder, "raw"), os.O_WRONLY | os.O_CREAT)
            begin = time.perf_counter()
            for _ in range(count):
                os.write(file, image)
            put = time.perf_counter() - begin
            os.fsync(file)
            whole = time.perf_counter() - begin
            os.close(file)
            return {"put_us": put / count * 1e6, "whole_us": whole / count * 1e6}
        from exengine.data import DataCoordinates
        from exengine.storage_backends.ndtiff_and_ndram.NDTiffandRAM import NDTiffStorage

        storage = NDTiffStorage(folder)
        begin = time.perf_counter()
        for number in range(count):
            storage.put(DataCoordinates(time=number, channel="DAPI", z=1), image, {"exposure_ms": 10})
        put = time.perf_counter() - begin
        storage.finish()
        whole = time.perf_counter() - begin
        some = min(count, 2000)
        begin = time.perf_counter()
        for number in range(some):
            storage.get_data(DataCoordinates(time=number, channel="DAPI", z=1))
        read = time.perf_counter() - begin
        storage.close()
        return {"put_us": put / count * 1e6, "whole_us": whole / count * 1e6, "read_us": read / some * 1e6}
    finally:
        shutil.rmtree(folder)


def million(who, count):
    """Write many tiny frames, and measure the memory use and the cost of a put over time.

    ``EXENGINE_BENCH_BACKEND`` names another backend than ``ndtiff``, ``EXENGINE_BENCH_SIZE`` another size.
    """
    import numpy as np

    from exengine.data import DataCoordinates
    from exengine.storage_backends.ndtiff_and_ndram.NDTiffandRAM import NDTiffStorage

    size = int(os.environ.get("EXENGINE_BENCH_SIZE", "8"))
    image = np.zeros((size, size), np.uint8)
    folder = os.environ["EXENGINE_BENCH_DATASET"]
    backend = os.environ.get("EXENGINE_BENCH_BACKEND")
    if backend is None:
        storage = NDTiffStorage(folder)
    else:
        import exengine

        storage = exengine.open_storage(backend, folder)
    costs, memory = [], []
    window = 10_000
    for first in range(0, count, window):
        begin = time.perf_counter()
        for number in range(first, min(first + window, count)):
            where = DataCoordinates(
                time=number // 10, channel=("DAPI", "FITC")[number % 2], z=number // 2 % 5
            )
            storage.put(where, image, {"n": number})
        costs.append((time.perf_counter() - begin) / window * 1e6)
        memory.append(rss_mb())
    storage.finish()
    storage.close()
    # Use the best of ten windows at each end, which is not slowed by temporary disturbances of the machine.
    head, tail = min(costs[:10]), min(costs[-10:])
    growth = (memory[-1] - memory[0]) / max(1, count - window) * 100_000
    files = sum(len(names) for _, _, names in os.walk(folder))
    return {"put_us_first": head, "put_us_last": tail, "rss_mb_per_100k": growth, "files": files}


def open_million(who, count):
    import random

    path = os.environ["EXENGINE_BENCH_DATASET"]
    if who == "old":
        import contextlib
        import io

        import ndstorage

        begin = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            dataset = ndstorage.Dataset(path)
        return {"open_s": time.perf_counter() - begin, "rss_mb": rss_mb(), "frames": len(dataset.index)}
    import exengine

    begin = time.perf_counter()
    dataset = exengine.open_dataset(path)
    frames = len(dataset)
    opened = time.perf_counter() - begin
    memory = rss_mb()
    rng = random.Random(0)  # noqa: S311 - not used for secrets
    wanted = [
        exengine.DataCoordinates(time=n // 10, channel=("DAPI", "FITC")[n % 2], z=n // 2 % 5)
        for n in (rng.randrange(count) for _ in range(20_000))
    ]
    assert all(where in dataset for where in wanted)
    lookup = float("inf")  # the best of ten rounds, each with different coordinates
    for first in range(0, len(wanted), len(wanted) // 10):
        some = wanted[first : first + len(wanted) // 10]
        begin = time.perf_counter()
        for where in some:
            where in dataset  # noqa: B015 - only the look-up is measured
        lookup = min(lookup, (time.perf_counter() - begin) / len(some) * 1e6)
    read = float("inf")
    for _ in range(10):  # the first round reads the files into the cache of the system
        begin = time.perf_counter()
        for where in wanted[:2000]:
            dataset.get_data(where)
        read = min(read, (time.perf_counter() - begin) / 2000 * 1e6)
    return {"open_s": opened, "rss_mb": memory, "lookup_us": lookup, "read_us": read, "frames": frames}


def many(who, count):
    """Write and open a dataset of many tiny frames, in a temporary folder."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("EXENGINE_BENCH_DIR")) as folder:
        os.environ["EXENGINE_BENCH_DATASET"] = os.path.join(folder, "many")
        return million(who, count) | open_million(who, count)


if __name__ == "__main__":
    what, who, *numbers = sys.argv[1:]
    print(json.dumps(globals()[what](who, *map(int, numbers))))
