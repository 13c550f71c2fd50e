"""Fixtures of the tests: frames that contain their coordinates, independent readers, and real datasets.

The independent readers (``oracle``, ``pages``) use none of the code under test.
"""

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

import exengine


def _example_data():
    named = os.environ.get("EXENGINE_TEST_DATA")
    beside = Path(__file__).parents[4] / "shared" / "data"
    return Path(named) if named else beside if beside.is_dir() else None


EXAMPLE_DATA = _example_data()


def pytest_report_header():
    return f"example datasets: {EXAMPLE_DATA or 'none'}"


@pytest.fixture(scope="session")
def example_data():
    """Return the folder of the datasets that Micro-Manager and Pycro-Manager wrote."""
    if EXAMPLE_DATA is None:
        pytest.skip("no example datasets: EXENGINE_TEST_DATA is not set, and none are beside the checkout")
    return EXAMPLE_DATA / "ndtiff"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(tmp_path_factory, monkeypatch):
    for name in [name for name in os.environ if name.startswith("EXENGINE_") and name != "EXENGINE_LONG"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


def make_frame(coordinates, shape=(24, 32), dtype=np.uint16):
    """Return pixels that depend on the coordinates, so that a misplaced frame is detected."""
    text = repr(sorted(coordinates.items())).encode()
    return np.random.default_rng(zlib.crc32(text)).integers(
        0, np.iinfo(dtype).max, shape, dtype, endpoint=True
    )


@pytest.fixture(scope="session")
def frame():
    """Return a function that computes the pixels for given coordinates."""
    return make_frame


@pytest.fixture
def path(tmp_path):
    """Return the path for a new dataset."""
    return tmp_path / "dataset"


@pytest.fixture
def new(path):
    """Return a function that creates a storage at ``path``, which is closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(**options):
            storage = exengine.open_storage("ndtiff", path, **options)
            stack.callback(_close, storage)
            return storage

        yield make


def _close(storage):
    with contextlib.suppress(exengine.ExEngineError):
        storage.close()


@pytest.fixture
def opened(path):
    """Return a function that opens a dataset, by default that at ``path``, until the test ends."""
    with contextlib.ExitStack() as stack:

        def make(where=None):
            dataset = exengine.open_dataset(path if where is None else where)
            stack.callback(dataset.close)
            return dataset

        yield make


@pytest.fixture(scope="session")
def oracle():
    """Return a function that opens a dataset with the ndstorage library, without its output."""
    with contextlib.ExitStack() as stack:

        def make(where):
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import ndstorage

                dataset = ndstorage.Dataset(str(where))
            if hasattr(dataset, "res_levels"):  # close() of a pyramid raises an error
                for level in dataset.res_levels.values():
                    stack.callback(level.close)
            else:
                stack.callback(dataset.close)
            return dataset

        yield make


@pytest.fixture(scope="session")
def keys_of():
    """Return a function that lists the coordinates that the ndstorage library finds in a dataset."""

    def make(dataset):
        full = getattr(dataset, "res_levels", {}).get(0, dataset)
        if hasattr(full, "get_image_coordinates_list"):
            return [dict(key) for key in full.get_image_coordinates_list()]
        return [dict(key) for key in dataset.get_index_keys()]  # version 2

    return make


@pytest.fixture(scope="session")
def digest():
    """Return a function that computes a single digest of all names and bytes in a folder."""

    def make(folder):
        whole = hashlib.sha256()
        for file in sorted(Path(folder).rglob("*")):
            whole.update(f"{file.relative_to(folder)}\0".encode())
            if file.is_file():
                whole.update(file.read_bytes())
        return whole.hexdigest()

    return make


@pytest.fixture
def start_python():
    """Return a function that starts a program with arguments and pipes; the program ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(program, *arguments, **environment):
            process = subprocess.Popen(
                [sys.executable, "-c", program, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **environment},
            )
            stack.callback(_end, process)
            return process

        yield start


def _end(process):
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


@pytest.fixture
def run_python(start_python):
    """Return a function that runs a program to its end and returns its output."""

    def run(program, *arguments, **environment):
        process = start_python(program, *arguments, **environment)
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error.decode()
        return out.decode()

    return run
