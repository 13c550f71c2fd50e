"""Uses a hostile dataset in every way, with limits."""

import itertools
import json
import time

import numpy as np
from hand_made import numbered

from exengine.errors import ExEngineError
from exengine_ome_zarr.foreign import is_ome_zarr, open_foreign

DATA = numbered(2, 3, 8, 9)
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def survey(path):
    """Use a dataset in every way that opening allows; return the first error."""
    begin = time.monotonic()
    is_ome_zarr(path)
    error = None
    try:
        dataset = open_foreign(path)
    except ExEngineError as refused:
        return refused
    for call in (
        lambda: [dataset.get_data(c) for c in itertools.islice(dataset, 5)],
        lambda: [dataset.get_metadata(c) for c in itertools.islice(dataset, 5)],
        lambda: json.dumps(dataset.summary_metadata),
        lambda: (len(dataset), dataset.axes, str(dataset.status), dataset.status_reason),
        lambda: [dataset.level(level) for level in dataset.resolution_levels],
        dataset.check_structure,
        lambda: np.asarray(dataset.as_array()[(0,) * len(dataset.axes)]),
    ):
        try:
            call()
        except ExEngineError as refused:
            error = error or refused
    dataset.close()
    assert time.monotonic() - begin < 30
    return error
