"""How many Python calls of ExEngine's own code an operation makes: the fixed part of its cost."""

import os
import sys
from pathlib import Path

import numpy as np

import exengine
import exengine_ndstorage
from exengine import open_storage

OURS = tuple(str(Path(module.__file__).parent) + os.sep for module in (exengine, exengine_ndstorage))


def calls_of(call):
    """Return the names of the functions that a call of a warm function calls."""
    made = []

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            made.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        result = call()
    finally:
        sys.setprofile(None)
    return made, result


def test_open_storage_makes_at_most_70_calls(tmp_path):
    open_storage("ndtiff", tmp_path / "first").close()
    made, storage = calls_of(lambda: open_storage("ndtiff", tmp_path / "second"))
    storage.close()
    assert len(made) <= 70, made
    assert not any("docstring" in name or "describe_type" in name or "resolve" in name for name in made)


def test_put_makes_at_most_20_calls_and_get_11(tmp_path):
    with open_storage("ndtiff", tmp_path / "data") as storage:
        frame = np.zeros((8, 8), np.uint16)
        for time in range(3):
            put, _ = calls_of(lambda time=time: storage.put({"time": time}, frame, {"time": time}))
        for time in range(3):
            get, _ = calls_of(lambda time=time: storage.get_data({"time": time}))
    assert len(put) <= 20, put
    assert len(get) <= 11, get
