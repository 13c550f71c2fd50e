"""Fixtures of the tests: frames that name themselves, readers of others, and real datasets.

The readers of others (``oracle``, ``pages``) use nothing of the code under test.
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
    """Return pixels that depend on the coordinates, so that a misplaced frame is seen."""
    text = repr(sorted(coordinates.items())).encode()
    return np.random.default_rng(zlib.crc32(text)).integers(
        0, np.iinfo(dtype).max, shape, dtype, endpoint=True
    )


@pytest.fixture(scope="session")
def frame():
    """Return what makes the pixels that belong to some coordinates."""
    return make_frame


@pytest.fixture
def path(tmp_path):
    """Return where a dataset may be made."""
    return tmp_path / "dataset"


@pytest.fixture
def new(path):
    """Return what makes a storage at ``path``, closed at the end of the test."""
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
    """Return what opens a dataset to read, by default that at ``path``, until the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(where=None):
            dataset = exengine.open_dataset(path if where is None else where)
            stack.callback(dataset.close)
            return dataset

        yield make


@pytest.fixture(scope="session")
def oracle():
    """Return what opens a dataset with the ndstorage library, without a word."""
    with contextlib.ExitStack() as stack:

        def make(where):
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import ndstorage

                dataset = ndstorage.Dataset(str(where))
            if hasattr(dataset, "res_levels"):  # close() of a pyramid raises
                for level in dataset.res_levels.values():
                    stack.callback(level.close)
            else:
                stack.callback(dataset.close)
            return dataset

        yield make


@pytest.fixture(scope="session")
def keys_of():
    """Return what lists the coordinates that the ndstorage library finds in a dataset."""

    def make(dataset):
        full = getattr(dataset, "res_levels", {}).get(0, dataset)
        if hasattr(full, "get_image_coordinates_list"):
            return [dict(key) for key in full.get_image_coordinates_list()]
        return [dict(key) for key in dataset.get_index_keys()]  # version 2

    return make


@pytest.fixture(scope="session")
def digest():
    """Return what makes one number of all names and bytes of a folder."""

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
    """Return what starts a program with arguments; pipes to and from it. Ended after the test."""
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
    """Return what runs a program to its end and returns what it printed."""

    def run(program, *arguments, **environment):
        process = start_python(program, *arguments, **environment)
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error.decode()
        return out.decode()

    return run
