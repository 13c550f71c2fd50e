"""Fixtures of the tests: frames that contain their coordinates, and readers that do not use ExEngine."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import exengine

# A slow machine is not a fault. Hypothesis itself sets no deadline where it knows that it runs in CI.
hypothesis.settings.register_profile("exengine", deadline=None)
hypothesis.settings.load_profile("exengine")


def pytest_collection_modifyitems(items):
    """Begin with the tests that wait longest for servers, so that other processes run the others in that time."""
    items.sort(key=lambda item: item.path.name != "test_faults.py")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(tmp_path_factory, monkeypatch):
    for name in [name for name in os.environ if name.startswith("EXENGINE_") and name != "EXENGINE_LONG"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


def make_frame(coordinates, shape=(24, 32), dtype="uint16"):
    """Return pixels that depend on the coordinates, so that a misplaced frame is detected."""
    text = repr(sorted(coordinates.items())).encode()
    noise = np.random.default_rng(zlib.crc32(text)).integers(0, 256, (*shape, 8), np.uint8)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return noise.astype(np.uint16)[..., :2].prod(axis=-1).astype(dtype)
    return np.ascontiguousarray(noise[..., : dtype.itemsize]).view(dtype).reshape(shape)


@pytest.fixture(scope="session")
def frame():
    """Return a function that computes the pixels for given coordinates."""
    return make_frame


@pytest.fixture
def path(tmp_path):
    """Return the path for a new dataset."""
    return tmp_path / "dataset.ome.zarr"


def _close(storage):
    with contextlib.suppress(exengine.ExEngineError):
        storage.close()


@pytest.fixture
def new(path):
    """Return a function that creates a storage at ``path``, which is closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(where=path, **options):
            storage = exengine.open_storage("ome-zarr", where, **options)
            stack.callback(_close, storage)
            return storage

        yield make


@pytest.fixture
def opened(path):
    """Return a function that opens a dataset, by default that at ``path``, until the test ends."""
    with contextlib.ExitStack() as stack:

        def make(where=path):
            dataset = exengine.open_dataset(where)
            stack.callback(dataset.close)
            return dataset

        yield make


@pytest.fixture(scope="session")
def copy_at_rest():
    """Return a function that copies a dataset while its writer is alive, between two changes of its threads."""

    def listing(folder):
        found = []
        for path in sorted(folder.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                found.append((path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return found

    def copy(source, target):
        while True:
            before = listing(source)
            # A file that is renamed meanwhile is missing: the next copy has it under its new name.
            with contextlib.suppress(shutil.Error, FileNotFoundError):
                shutil.copytree(source, target)
                if listing(source) == before:
                    return target
            shutil.rmtree(target, ignore_errors=True)

    return copy


@pytest.fixture(scope="session")
def by_zarr():
    """Return a function that reads an array of a dataset with zarr-python, and reopens it each time."""
    import zarr

    def read(where, array="0"):
        return zarr.open_array(Path(where) / array, mode="r", zarr_format=3)[...]

    return read


@pytest.fixture(scope="session")
def by_tensorstore():
    """Return a function that reads an array of a dataset with tensorstore, and reopens it each time."""
    import tensorstore

    def read(where, array="0"):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(Path(where) / array)}}
        return tensorstore.open(spec, open=True, read=True).result().read().result()

    return read


@pytest.fixture(scope="session")
def document():
    """Return a function that reads a ``zarr.json`` of a dataset."""

    def read(where, group=""):
        return json.loads((Path(where) / group / "zarr.json").read_text())

    return read


@pytest.fixture
def run_python():
    """Return a function that runs a program in a separate process, and returns its exit code and output."""

    def run(program, *arguments, timeout=60):
        ended = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return ended.returncode, ended.stdout, ended.stderr

    return run
