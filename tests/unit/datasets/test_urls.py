"""Datasets at URLs: the kernel passes the URL on to the backend, and never takes it for a path."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import exengine
from exengine.acquisition.run import Acquisition
from exengine.cli.main import main
from exengine.datasets.creation import StoragePlan, open_storage
from exengine.datasets.opening import open_dataset
from exengine.datasets.recovery import recover
from exengine.datasets.verification import verify
from exengine.kernel.errors import (
    ConfigError,
    DatasetExistsError,
    DatasetNotFoundError,
    UnsupportedOperationError,
)
from exengine.kernel.registry import plugins
from exengine.kernel.storage.remote import RemoteDatasets, is_url

URL = "s3://bucket/demo.b"


@pytest.fixture
def bucket(installed, make_distribution, backends_of, monkeypatch, tmp_path):
    """Install the backend ``bucket``, and return its module."""
    source = (Path(__file__).parents[2] / "backends" / "bucket.py").read_text(encoding="utf-8")
    make_distribution("exengine-bucket", {"bucket": "exengine_bucket:BucketStorage"}, source)
    monkeypatch.setattr(plugins, "BACKENDS", backends_of())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    plugins.BACKENDS.load("bucket")
    module = sys.modules["exengine_bucket"]
    module.STORE.clear()
    module.CALLS.clear()
    yield module
    assert not any((tmp_path / "here").iterdir()), "a URL was taken for a path"


def write(**more):
    with open_storage("bucket", URL, **more) as storage:
        storage.put({"time": 0}, np.full((4, 4), 7), {"a": 1})
    return storage


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://bucket/a", True),
        ("gs://bucket/a", True),
        ("abfss://container@account/a", True),
        ("C://data", False),
        ("C:\\data", False),
        ("data/s3://a", False),
        ("./s3:/a", False),
        ("", False),
    ],
)
def test_a_url_is_told_from_a_path(path, expected):
    assert is_url(path) is expected


def test_a_dataset_at_a_url_is_created_and_opened_by_its_backend(bucket):
    assert write(size=9).path == URL
    assert open_dataset(URL)[{"time": 0}][0, 0] == 7
    assert open_dataset(URL, backend="bucket").status == "complete"
    assert verify(URL).checked == 1


def test_if_exists_is_carried_out_by_the_backend(bucket):
    write()
    with pytest.raises(DatasetExistsError):
        write()
    assert write(if_exists="number").path == "s3://bucket/demo_1.b"
    assert write(if_exists="overwrite").path == URL
    assert bucket.CALLS == [("replace", URL)]


def test_a_backend_that_cannot_replace_a_dataset_says_so(bucket, monkeypatch):
    write()
    cls = bucket.BucketStorage
    monkeypatch.setattr(cls, "replace", RemoteDatasets.__dict__["replace"])
    with pytest.raises(UnsupportedOperationError, match="BucketStorage cannot replace a dataset at a URL"):
        write(if_exists="overwrite")


def test_backends_on_disk_refuse_urls(bucket):
    with pytest.raises(ConfigError, match="writes only to folders on this machine"):
        StoragePlan("disk", URL, options={})
    with pytest.raises(UnsupportedOperationError, match="'disk' does not support URLs"):
        open_dataset(URL, backend="disk")


def test_without_a_backend_for_urls_the_message_names_one(installed):
    with pytest.raises(UnsupportedOperationError, match="exengine-ome-zarr"):
        open_dataset(URL)


def test_a_url_without_a_dataset_is_reported_by_the_backend(bucket):
    for call in (open_dataset, verify, recover):
        with pytest.raises(DatasetNotFoundError, match="there is no dataset at s3://"):
            call(URL)


def test_recover_finishes_a_dataset_at_its_url(bucket, tmp_path):
    storage = open_storage("bucket", URL)
    storage.put({"time": 0}, np.zeros((4, 4)), None)
    report = recover(URL, dry_run=True)
    assert (report.path, report.frames, report.total, report.outcome) == (URL, 1, 2, "recovered")
    report = recover(URL, in_place=True)
    assert (report.status, report.lost[0].coordinates) == ("aborted", {"time": 7})
    assert recover(URL).outcome == "nothing to recover"
    assert bucket.CALLS == [("recover", URL, True, False), ("recover", URL, False, True)]


def test_info_and_recover_on_the_command_line_take_urls(bucket, capsys):
    storage = open_storage("bucket", URL)
    storage.put({"time": 0}, np.zeros((4, 4)), None)
    assert main(["info", URL, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["bytes"], facts["being_written"], facts["frames"]) == (12_345, True, 1)
    assert main(["info", URL]) == 0
    assert "12.3 kB\n" in capsys.readouterr().out
    assert main(["recover", URL]) == 0
    assert URL in capsys.readouterr().out


def test_an_acquisition_writes_to_a_url_whatever_the_disk_has_left(bucket, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: pytest.fail("the disk of a URL was measured"))
    config = {
        "storage": {"backend": "bucket", "path": URL},
        "source": {"name": "simulated"},
        "sequence": {"time_plan": {"interval": 0, "loops": 3}},
    }
    with Acquisition(config) as acquisition:
        assert acquisition.run().stored == 3
    assert len(exengine.open_dataset(URL)) == 3


def test_the_command_line_shows_the_url_as_it_is(bucket, tmp_path, capsys):
    config = tmp_path / "acquire.yaml"
    config.write_text("source: {name: simulated}\nsequence: {time_plan: {interval: 0, loops: 2}}\n")
    arguments = [str(config), "--backend", "bucket", "--path", URL]
    assert main(["acquire", *arguments]) == 0
    assert f"complete: {URL} (bucket)" in capsys.readouterr().out
