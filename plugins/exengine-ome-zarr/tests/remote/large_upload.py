"""Uploads a large dataset, and prints the required time, memory and spool size as JSON.

Run it without a URL to start a separate server::

    python large_upload.py --mib 5120 --spool-mib 1024 --shard-mib 256

Otherwise, environment variables specify the server. The exit code is 1 if a frame is wrong.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import exengine
from exengine.testing import peak_mib

FRAME_BYTES = 512 * 512 * 2


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url")
    parser.add_argument("--mib", type=int, default=5120)
    parser.add_argument("--spool-mib", type=int, default=1024)
    parser.add_argument("--shard-mib", type=int, default=8)
    parser.add_argument("--folder", help="of the server and the spool")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, contextlib.ExitStack() as stack:
        if options.url is None:
            from s3_server import BUCKET, S3Server

            server = S3Server(Path(folder) / "server")
            stack.callback(server.kill)
            os.environ.update(server.environment)
            options.url = f"s3://{BUCKET}/large.ome.zarr"
        figures = upload(options, Path(folder) / "spool")
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if figures["read_back"] else 1


def upload(options, spool):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 4096, (8, 512, 512), np.uint16)  # noise, as from a camera
    count = options.mib * 2**20 // FRAME_BYTES
    peak_spool, is_over = [0], threading.Event()

    def watch():
        while not is_over.wait(0.1):
            peak_spool[0] = max(peak_spool[0], bytes_in(spool))

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.monotonic()
    try:
        with exengine.open_storage(
            "ome-zarr",
            options.url,
            shard=options.shard_mib * 2**20 // FRAME_BYTES,
            spool=str(spool),
            spool_bytes=options.spool_mib * 2**20,
        ) as storage:
            for number in range(count):
                storage.put({"time": number}, noise[number % 8] + np.uint16(number), {"number": number})
            put_s = time.monotonic() - begin
    finally:
        is_over.set()
        watcher.join()
    seconds = time.monotonic() - begin
    rss = peak_mib()
    with exengine.open_dataset(options.url) as dataset:
        chosen = range(count) if count < 500 else sorted(rng.choice(count, 500, replace=False).tolist())
        read_back = len(dataset) == count and dataset.status == "complete"
        for number in chosen:
            expected = noise[number % 8] + np.uint16(number)
            read_back &= np.array_equal(dataset.get_data({"time": number}), expected)
            read_back &= dataset.get_metadata({"time": number}) == {"number": number}
    return {
        "frames": count,
        "mib": options.mib,
        "put_s": round(put_s, 1),
        "seconds": round(seconds, 1),
        "mib_per_s": round(options.mib / seconds, 1),
        "rss_mib": round(rss),
        "spool_mib": round(peak_spool[0] / 2**20),
        "checked": len(chosen),
        "read_back": bool(read_back),
    }


def bytes_in(folder):
    """Return the space that the files in a folder occupy."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_blocks * 512
    return total


if __name__ == "__main__":
    sys.exit(main())
