"""Puts frames into a dataset in object storage until it is killed, and prints the number of each frame.

Arguments: the URL, the codec, and the number of the frame after which everything is flushed.
"""

import sys

import numpy as np

import exengine

url, codec, flushed = sys.argv[1], sys.argv[2], int(sys.argv[3])
storage = exengine.open_storage("ome-zarr", url, shard=16, codec=codec)
for number in range(1_000_000):
    pixels = (np.arange(64 * 64, dtype=np.uint32).reshape(64, 64) * 7 + number).astype(np.uint16)
    storage.put({"time": number, "channel": "A"}, pixels, {"number": number})
    if number == flushed:
        storage.flush(durable=True)
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()
