"""How many Python calls of our own code a put makes: the fixed part of its cost.

Until Python 3.12, a list comprehension is a call.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import exengine
import exengine_ome_zarr

OURS = tuple(str(Path(module.__file__).parent) + os.sep for module in (exengine, exengine_ome_zarr))


@pytest.mark.parametrize(("codec", "most"), [("none", 30), ("blosc-lz4", 40)])
def test_a_put_makes_few_calls(codec, most, new):
    storage = new(codec=codec)
    frame, made = np.zeros((8, 8), np.uint16), []

    def note(called, event, argument):
        if event == "call" and called.f_code.co_filename.startswith(OURS):
            made.append(called.f_code.co_qualname)

    for time in range(4):
        made.clear()
        sys.setprofile(note)
        try:
            storage.put({"time": time}, frame, {"time": time})
        finally:
            sys.setprofile(None)
    assert len(made) <= most, made
