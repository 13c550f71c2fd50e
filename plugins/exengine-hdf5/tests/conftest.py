"""Fixtures of the tests: frames that contain their coordinates, and a path for a new file."""

import contextlib
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

import exengine


@pytest.fixture(autouse=True)
def _no_settings_from_outside(tmp_path_factory, monkeypatch):
    for name in [name for name in os.environ if name.startswith("EXENGINE_") and name != "EXENGINE_LONG"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


def make_frame(coordinates, shape=(24, 32), dtype="uint16"):
    """Return pixels that depend on the coordinates, so that a misplaced frame is detected."""
    text = repr(sorted(coordinates.items())).encode()
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    noise = np.random.default_rng(zlib.crc32(text)).integers(0, 2, size, np.uint8)
    return noise.view(dtype).reshape(shape)


@pytest.fixture(scope="session")
def frame():
    """Return a function that computes the pixels for given coordinates."""
    return make_frame


@pytest.fixture
def path(tmp_path):
    """Return the path for a new dataset."""
    return tmp_path / "scan.h5"


@pytest.fixture
def write(path):
    """Return a function that writes a dataset with 2 channels and 2 positions on z, and lacks one frame."""

    def run(where=path, *, times=3, end="finish", dtype="uint16", shape=(24, 32), **options):
        storage = exengine.open_storage("hdf5", where, **options)
        written = {}
        for time in range(times):
            for channel in ("DAPI", "FITC"):
                for z in (-1, 4):
                    axes = {"time": time, "channel": channel, "z": z}
                    if (time, channel, z) == (1, "FITC", 4):
                        continue
                    pixels = make_frame(axes, shape, dtype)
                    storage.put(axes, pixels, {"at": axes, "text": "\0é"})
                    written[exengine.DataCoordinates(axes)] = pixels
        if end == "finish":
            storage.finish()
        elif end == "abort":
            storage.abort("stopped by the user")
        storage.close()
        return written

    return run


@pytest.fixture
def check():
    """Return a function that compares a dataset with the frames that were written."""

    def run(path, written, status="complete"):
        with contextlib.closing(exengine.open_dataset(path)) as dataset:
            assert dataset.status == status, dataset.status_reason
            assert list(dataset) == list(written)
            for axes, pixels in written.items():
                found = dataset.get_data(axes)
                assert found.dtype == pixels.dtype and np.array_equal(found, pixels)
                assert dataset.get_metadata(axes) == {"at": axes.coordinate_dict, "text": "\0é"}

    return run


@pytest.fixture
def run_python():
    """Return a function that runs a program to its end and returns its exit code, output and errors."""

    def run(program, *arguments):
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run
