"""What goes wrong with a URL is said within ten seconds, with what to do about it, and without secrets."""

import socket
import sys
import time

import numpy as np
import pytest

import exengine
from exengine.errors import (
    ConfigError,
    DatasetAccessError,
    DatasetNotFoundError,
    OptionError,
    UnsupportedDataError,
    UnsupportedOperationError,
)
from exengine_ome_zarr.remote.addresses import check_url, explain
from exengine_ome_zarr.writer import OmeZarrStorage

pytestmark = pytest.mark.once

SECRET = "secret-that-nobody-may-see"


@pytest.fixture(params=["create", "overwrite", "open", "verify", "recover"])
def use(request):
    """Return each operation that takes a URL."""
    calls = {
        "create": lambda url: exengine.open_storage("ome-zarr", url),
        "overwrite": lambda url: exengine.open_storage("ome-zarr", url, if_exists="overwrite"),
        "open": exengine.open_dataset,
        "verify": exengine.verify,
        "recover": exengine.recover,
    }
    return calls[request.param]


def error_of(call, url, kind=DatasetAccessError):
    begin = time.monotonic()
    with pytest.raises(kind) as caught:
        call(url)
    assert time.monotonic() - begin < 10
    message = str(caught.value)
    assert SECRET not in message
    return message


def test_wrong_credentials(url, use, server, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    message = error_of(use, url)
    assert url in message and server.endpoint.removeprefix("http://") in message
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment" in message


def test_no_credentials(url, use, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "AWS_ACCESS_KEY_ID" in error_of(use, url)


def test_a_bucket_that_does_not_exist(server, use):
    message = error_of(use, "s3://no-such-bucket/a/demo.ome.zarr")
    assert "has no bucket 'no-such-bucket'" in message


def test_a_server_that_does_not_answer(url, use, monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # and never accepts
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        message = error_of(use, url)
    assert "127.0.0.1" in message and "does not respond; check the network and AWS_ENDPOINT_URL" in message


def test_a_port_on_which_nothing_listens(url, use, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "127.0.0.1:9 does not respond" in error_of(use, url)


def test_a_host_that_is_not_known(url, use, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid:8333")
    assert "no-such-host.invalid:8333 does not respond" in error_of(use, url)


def test_an_endpoint_without_encryption_has_to_be_allowed(url, use, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert "AWS_ALLOW_HTTP=true" in error_of(use, url)


def test_a_url_without_a_dataset(url):
    assert "there is no dataset at s3://" in error_of(exengine.open_dataset, url, DatasetNotFoundError)


@pytest.mark.parametrize(
    ("url", "clause"),
    [
        ("s3://key:" + SECRET + "@bucket/demo.ome.zarr", "neither credentials nor a query"),
        ("https://host/demo.ome.zarr?X-Amz-Signature=" + SECRET, "neither credentials nor a query"),
        ("s3://bucket", "does not refer to a dataset"),
        ("s3://bucket/", "does not refer to a dataset"),
        ("s3:///demo.ome.zarr", "does not refer to a dataset"),
        ("s3://bucket/a/../b.ome.zarr", "contains '.' or '..'"),
        ("file:///tmp/demo.ome.zarr", "pass the path of a folder"),
        ("memory:///demo.ome.zarr", "pass the path of a folder"),
        ("ftp://host/demo.ome.zarr", "does not refer to an object store"),
    ],
)
def test_urls_that_cannot_be_used(url, clause, spool):
    pytest.importorskip("obstore")
    for call in (exengine.open_dataset, lambda each: exengine.open_storage("ome-zarr", each)):
        assert clause in error_of(call, url, ConfigError)
    assert not spool.exists()


def test_a_url_is_shown_without_its_final_slash():
    assert check_url("s3://bucket/demo.ome.zarr/") == "s3://bucket/demo.ome.zarr"


def test_without_obstore_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    message = error_of(exengine.open_dataset, "s3://bucket/demo.ome.zarr", UnsupportedOperationError)
    assert "pip install obstore" in message


def test_the_class_itself_takes_no_url():
    with pytest.raises(OptionError, match=r"OmeZarrStorage\.create"):
        OmeZarrStorage("s3://bucket/demo.ome.zarr")


def test_other_backends_refuse_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for backend in exengine.backends():
        if backend in ("ome-zarr", "ndram"):
            continue
        with pytest.raises(ConfigError, match="writes only to folders on this machine"):
            exengine.open_storage(backend, "s3://bucket/demo")
    assert not any(tmp_path.iterdir())


def test_the_text_of_a_request_is_not_passed_on():
    error = RuntimeError(f"Error performing PUT https://host/x?sig={SECRET} - status code: 500 Internal")
    explained = explain(error, "az://account/container/demo.ome.zarr", "be written")
    assert SECRET not in str(explained)
    assert "status 500" in str(explained)


def test_a_spool_that_cannot_be_created(url, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("EXENGINE_SPOOL", str(tmp_path / "file" / "spool"))
    assert "EXENGINE_SPOOL" in error_of(lambda each: exengine.open_storage("ome-zarr", each), url)


def test_frames_and_options_are_refused_as_on_a_disk(url, names):
    with pytest.raises(OptionError):
        exengine.open_storage("ome-zarr", url, codec="none", level=3)
    with pytest.raises(OptionError, match="spool_bytes"):
        exengine.open_storage("ome-zarr", url, spool_bytes=0)
    assert names(url) == set()
    with exengine.open_storage("ome-zarr", url) as storage:
        with pytest.raises(UnsupportedDataError):
            storage.put({"time": 0}, np.zeros((2, 2, 2, 2)), None)
        storage.put({"time": 0}, np.zeros((2, 2), np.uint8), None)
