"""The interoperability tests, which the tox environment ``interop`` runs; other test runs do not collect them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

collect_ignore_glob = [] if os.environ.get("EXENGINE_INTEROP") else ["test_*.py"]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return a function that makes a sample, once in a session."""
    from samples import SAMPLES

    folder = tmp_path_factory.mktemp("samples")
    found = {}

    def make(name):
        if name not in found:
            found[name] = SAMPLES[name](folder / f"{name}.ome.zarr")
        return found[name]

    return make


@pytest.fixture
def served():
    """Return a function that serves a dataset on the loopback interface, and returns its address."""
    from exengine_ome_zarr.serve import DatasetServer

    servers = []

    def serve(path):
        servers.append(DatasetServer(path))
        servers[-1].start()
        return servers[-1].url

    yield serve
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def zarrita_modules(tmp_path_factory):
    """The folder in which node finds zarrita."""
    prepared = os.environ.get("EXENGINE_ZARRITA")
    if prepared:
        return Path(prepared)
    if not shutil.which("npm"):
        pytest.fail("node and npm are needed, to run zarrita")
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "zarrita@0.7"]
    subprocess.run(command, cwd=folder, check=True, timeout=100)
    return folder
