"""A dataset whose writer has ended is continued: from its spool, or from the finished file.

``EXENGINE_LONG=1`` kills before and after each call. Otherwise, it kills before every third call.
"""

import contextlib
import os
import shutil

import numpy as np
import pytest

import exengine
from exengine.errors import DatasetDamagedError, OptionError
from exengine.testing import killed_at_call
from exengine_hdf5 import Hdf5Storage

LONG = bool(os.environ.get("EXENGINE_LONG"))


def put_rest(path, check, written, make, **options):
    """Continue a dataset with two frames more, and check all of its frames."""
    everything = dict(written)
    with Hdf5Storage.resume(path, **options) as storage:
        for z in (-1, 4):
            axes = exengine.DataCoordinates({"time": 9, "channel": "Cy5", "z": z})
            everything[axes] = make(axes.coordinate_dict)
            storage.put(axes, everything[axes], {"at": axes.coordinate_dict, "text": "\0é"})
        storage.finish()
    check(path, everything)
    assert exengine.verify(path).ok
    assert not [
        name for name in os.listdir(path.parent) if name.endswith((".frames", ".journal", ".new", ".lock"))
    ]


@pytest.mark.parametrize("end", ["close", "abort"])
def test_frames_are_added_to_those_that_exist(end, path, write, check, frame):
    written = write(end=end, compression="gzip", summary_metadata={"lens": "20x"})
    put_rest(path, check, written, frame, compression="gzip", summary_metadata={"lens": "20x"})


def test_the_parts_of_a_frame_that_a_killed_writer_left_are_cut_off(path, write, check, frame):
    written = write(end="close")
    for part in ("journal", "frames"):
        with open(f"{path}.exengine.{part}", "ab") as file:
            file.write(b"\xefrec" + bytes(3000))
    put_rest(path, check, written, frame)


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"summary_metadata": {"lens": "10x"}}])
@pytest.mark.parametrize("end", ["close", "abort"])
def test_other_options_are_refused_and_change_nothing(end, options, path, write, check):
    written = write(end=end, compression="lzf", summary_metadata={"lens": "20x"})
    good = {"compression": "lzf", "summary_metadata": {"lens": "20x"}}
    before = {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)}
    with pytest.raises(OptionError, match="created with other options"):
        Hdf5Storage.resume(path, **{**good, **options})
    assert {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)} == before
    check(path, written, "aborted" if end == "abort" else "incomplete")


def test_a_journal_that_lacks_a_record_is_refused(path, write):
    write(end="close")
    journal = path.with_name(f"{path.name}.exengine.journal")
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 1
    journal.write_bytes(content)
    with pytest.raises(DatasetDamagedError, match="cannot be continued: the journal lacks"):
        Hdf5Storage.resume(path)


def test_a_spool_without_the_pixels_of_its_last_frame_is_refused(path, write):
    write(end="close")
    pixels = f"{path}.exengine.frames"
    os.truncate(pixels, os.path.getsize(pixels) - 1)
    with pytest.raises(DatasetDamagedError, match="its spool lacks pixels"):
        Hdf5Storage.resume(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.once
@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_kill_at_any_call_of_resume_loses_no_frame(end, tmp_path, write, check, frame):
    original = tmp_path / "original" / "scan.h5"
    original.parent.mkdir()
    written = write(original, times=1, end=end)
    number, killed = 0, True
    while killed:
        number += 1 if LONG else 3
        for when in ("before", "after") if LONG else ("before",):
            folder = tmp_path / f"{number}-{when}"
            shutil.copytree(original.parent, folder)
            path = folder / "scan.h5"
            killed = killed_at_call(number, when, lambda path=path: Hdf5Storage.resume(path))
            with contextlib.closing(exengine.open_dataset(path)) as dataset:
                assert dataset.status in ("incomplete", "aborted"), dataset.status_reason
                assert all(np.array_equal(dataset[axes], pixels) for axes, pixels in written.items())
            put_rest(path, check, written, frame)
    assert number > 10
