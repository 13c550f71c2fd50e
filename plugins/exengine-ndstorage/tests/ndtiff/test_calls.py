"""How many Python functions of ExEngine and of this plugin one frame needs: a measure of speed without a clock."""

import sys
from pathlib import Path

import exengine
import exengine_ndstorage

FOLDERS = tuple(str(Path(package.__file__).parent) for package in (exengine, exengine_ndstorage))
PUT, GET, GET_FROM_READER = 20, 11, 15


def calls(function, *arguments):
    """Return the names of the functions that a call runs."""
    names = []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(FOLDERS):
            names.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return names


def test_a_small_frame_is_put_and_read_with_few_calls(new, opened, frame):
    axes = [{"time": number, "channel": "DAPI"} for number in range(4)]
    pixels = frame(axes[0])
    storage = new()
    for known in axes[:3]:
        storage.put(known, pixels, {})
    put = calls(storage.put, axes[3], pixels, {})
    assert len(put) <= PUT, put
    get = calls(storage.get_data, axes[1])
    assert len(get) <= GET, get
    storage.finish()
    dataset = opened()
    dataset.get_data(axes[0])
    get = calls(dataset.get_data, axes[1])
    assert len(get) <= GET_FROM_READER, get
