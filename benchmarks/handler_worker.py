"""Runs one measurement of a data handler in one process, and prints one JSON object.

    python handler_worker.py WHO BACKEND SIZE COUNT BUSY

WHO is ``current`` or ``old`` (ExEngine 0.4.0) for a handler, ``handed`` for a handler to which the arrays are
handed over, as an acquisition does, or ``storage`` for the storage of ``current`` without a handler.
BACKEND is ``ram`` or ``tiff``. BUSY is the number of other busy Python threads. No module of this project is
imported at the top level, so that the predecessor's interpreter can run this script.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
import time


class Executor:
    def publish_notification(self, notification):
        pass


def main(who, backend, size, count, busy):
    import numpy as np

    from exengine.data import DataCoordinates, DataHandler
    from exengine.storage_backends.ndtiff_and_ndram.NDTiffandRAM import NDRAMStorage, NDTiffStorage

    image = np.random.default_rng(0).integers(0, 60000, (size, size)).astype(np.uint16)
    folder = tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("EXENGINE_BENCH_DIR"))
    stop = threading.Event()

    def work():
        number = 0
        while not stop.is_set():
            for _ in range(1000):
                number += 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(busy)]
    try:
        storage = NDTiffStorage(folder) if backend == "tiff" else NDRAMStorage()
        if who == "storage":
            put, end = storage.put, storage.finish
        else:
            # ExEngine 0.4.0 stores nothing without an executor.
            handler = DataHandler(storage, None, Executor()) if who == "old" else DataHandler(storage)

            options = {"copy": False} if who == "handed" else {}

            def put(coordinates, image, metadata):
                handler.put(coordinates, image, metadata, None, **options)

            def end():
                handler.finish()
                handler.await_completion()

        for thread in threads:
            thread.start()
        latencies = []
        clock = time.perf_counter
        begin, cpu = clock(), time.process_time()
        for number in range(count):
            before = clock()
            put(DataCoordinates(time=number, channel="DAPI", z=1), image, {"exposure_ms": 10})
            latencies.append(clock() - before)
        taken = clock() - begin
        end()
        whole = clock() - begin
        stop.set()
        latencies.sort()
        return {
            "frames_per_s": count / whole,
            "put_per_s": count / taken,
            "cpu_us": (time.process_time() - cpu) / count * 1e6,
            "median_us": latencies[count // 2] * 1e6,
            "p999_us": latencies[min(count - 1, int(count * 0.999))] * 1e6,
            "max_us": latencies[-1] * 1e6,
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    who, backend, *numbers = sys.argv[1:]
    print(json.dumps(main(who, backend, *map(int, numbers))), flush=True)
    os._exit(0)
