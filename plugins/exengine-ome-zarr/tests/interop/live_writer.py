"""Stores a frame for each time point on the standard input, and reports it; see ``live_frame``.

The dataset is planned, so that its array has its full length from the first frame on, and is not finished.
"""

import os
import sys

import numpy as np

TIMES = 6
SHAPE = (200, 256)


def live_frame(time):
    """Return the frame of a time point."""
    return (np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint16) % 5000 + 1000 * (time + 1)).reshape(SHAPE)


def main(path):
    """Write until the standard input ends, then end without finishing."""
    import exengine
    from exengine.base_classes import PlannedAxis, SourcePlan

    storage = exengine.open_storage("ome-zarr", path)
    storage.expect(
        SourcePlan(axes=(PlannedAxis("time", length=TIMES),), pixel_size_um=(1.0, 1.0), interval_s=1.0)
    )
    for line in sys.stdin:
        storage.put({"time": int(line)}, live_frame(int(line)), {})
        sys.stdout.write(f"{int(line)}\n")
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
