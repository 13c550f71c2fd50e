"""Datasets in object storage after the death of a writer or of the server."""

import shutil
import subprocess
import sys

import numpy as np
import obstore
import pytest

import exengine
from exengine.errors import DatasetAccessError, StorageFailedError, UnsupportedOperationError
from exengine_ome_zarr.remote import recovery, uploads
from exengine_ome_zarr.remote.bucket import Bucket

pytestmark = pytest.mark.once


@pytest.fixture(params=["none", "blosc-lz4"])
def killed(request, url, start_writer):
    """Kill a writer; return the number of the last frame that it acknowledged."""
    writer = start_writer(url, request.param, 70)
    for line in writer.stdout:
        if int(line) == 100:
            break
    writer.kill()
    return max([100, *(int(line) for line in writer.stdout.read().split())])


@pytest.mark.timeout(300)
def test_after_kill_9_recover_uploads_every_acknowledged_frame(url, killed, frame, spool, names):
    with exengine.open_dataset(url) as dataset:
        assert dataset.status == "incomplete"
        assert "has died" in dataset.status_reason
        assert len(dataset) == 71, "the frames that were flushed"
        assert np.array_equal(dataset[{"time": 70, "channel": "A"}], frame(70))
    program = [sys.executable, "-m", "exengine", "recover", url]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert "recovered: s3://" in done.stdout
    with exengine.open_dataset(url) as dataset:
        assert dataset.status == "aborted"
        assert killed < len(dataset) <= killed + 2
        for number in range(killed + 1):
            where = {"time": number, "channel": "A"}
            assert np.array_equal(dataset[where], frame(number))
            assert dataset.get_metadata(where) == {"number": number}
    assert exengine.verify(url).ok
    assert not any(spool.iterdir())
    assert not any("open/" in name for name in names(url))
    again = exengine.recover(url)
    assert again.outcome == "nothing to recover"


@pytest.mark.timeout(300)
def test_a_recovery_that_was_killed_can_be_repeated(url, killed, monkeypatch):
    class Killed(BaseException):
        pass

    for step in ("recover_in_place", "_upload", "_delete_others"):
        owner = recovery if step == "recover_in_place" else recovery._Recovery

        def kill(*_):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(owner, step, kill)
            with pytest.raises(Killed):
                exengine.recover(url)
        with exengine.open_dataset(url) as dataset:
            assert dataset.status == "incomplete"
    report = exengine.recover(url)
    assert (report.ok, report.frames > killed) == (True, True)
    assert exengine.verify(url).ok


@pytest.mark.timeout(300)
def test_without_the_spool_the_flushed_frames_are_recovered_if_asked_for(url, killed, frame, spool, names):
    shutil.rmtree(spool)
    with pytest.raises(UnsupportedOperationError, match="--in-place"):
        exengine.recover(url)
    assert exengine.recover(url, in_place=True, dry_run=True).frames == 71
    assert exengine.recover(url, in_place=True).frames == 71
    with exengine.open_dataset(url) as dataset:
        assert (dataset.status, len(dataset)) == ("aborted", 71)
        assert all(np.array_equal(dataset[{"time": n, "channel": "A"}], frame(n)) for n in range(71))
    assert exengine.verify(url).ok
    assert not any("open/" in name for name in names(url))


def test_a_copy_of_the_flushed_frames_can_be_made_without_touching_the_dataset(url, killed, tmp_path, names):
    before = names(url)
    report = exengine.recover(url, output=tmp_path / "copy")
    assert (report.frames, report.path) == (71, str(tmp_path / "copy"))
    assert exengine.verify(tmp_path / "copy").ok
    assert names(url) == before


def test_a_frame_that_is_lost_is_named_and_the_others_are_recovered(url, frame, spool, start_writer):
    writer = start_writer(url, "none", 20)
    for line in writer.stdout:
        if int(line) == 40:
            break
    writer.kill()
    (folder,) = spool.iterdir()
    shards = sorted(folder.glob("0/c/*/0/0/0"), key=lambda path: int(path.parts[-4]))
    with open(shards[-1], "r+b") as file:
        file.write(b"damaged!")
    number = 16 * int(shards[-1].parts[-4])
    report = exengine.recover(url)
    assert [lost.coordinates for lost in report.lost] == [{"time": number, "channel": "A"}]
    with exengine.open_dataset(url) as dataset:
        assert {"time": number, "channel": "A"} not in dataset
        assert np.array_equal(dataset[{"time": number - 1, "channel": "A"}], frame(number - 1))


@pytest.mark.timeout(300)
def test_a_server_that_is_killed_and_started_again_costs_no_flushed_frame(url, server, frame):
    storage = exengine.open_storage("ome-zarr", url, shard=4)
    for number in range(10):
        storage.put({"time": number}, frame(number), None)
    storage.flush(durable=True)
    server.kill()
    for number in range(10, 30):
        storage.put({"time": number}, frame(number), None)
    assert np.array_equal(storage.get_data({"time": 29}), frame(29))
    server.start()
    with exengine.open_dataset(url) as dataset:
        assert len(dataset) == 10
        assert all(np.array_equal(dataset[{"time": n}], frame(n)) for n in range(10))
    for number in range(30, 40):
        storage.put({"time": number}, frame(number), None)
    storage.finish()
    storage.close()
    with exengine.open_dataset(url) as dataset:
        assert (dataset.status, len(dataset)) == ("complete", 40)
        assert all(np.array_equal(dataset[{"time": n}], frame(n)) for n in range(40))
    assert exengine.verify(url).ok


@pytest.mark.timeout(300)
def test_a_server_that_stays_away_fails_put_when_the_spool_is_full_and_recover_completes_the_dataset(
    url, server, frame, monkeypatch
):
    monkeypatch.setattr(uploads, "PATIENCE_S", 2.0)
    storage = exengine.open_storage("ome-zarr", url, shard=4, spool_bytes=10 * 64 * 64 * 2)
    server.kill()
    with pytest.raises(StorageFailedError, match=r"127\.0\.0\.1:\d+ does not respond"):
        storage.put_many([({"time": number}, frame(number), None) for number in range(100)])
    stored = storage.frames_stored
    assert 8 <= stored < 20
    with pytest.raises(StorageFailedError):
        storage.put({"time": 1000}, frame(0), None)
    with pytest.raises(StorageFailedError):
        storage.finish()
    storage.close()
    server.start()
    report = exengine.recover(url)
    assert (report.frames, report.ok) == (stored, True)
    with exengine.open_dataset(url) as dataset:
        assert all(np.array_equal(dataset[{"time": n}], frame(n)) for n in range(stored))


def test_a_failed_upload_is_repeated(url, frame, monkeypatch):
    put, failures = Bucket.put, []

    def fails_at_first(self, name, content):
        if failures.count(name) < 2:
            failures.append(name)
            raise DatasetAccessError("an error for a while")
        put(self, name, content)

    monkeypatch.setattr(Bucket, "put", fails_at_first)
    with exengine.open_storage("ome-zarr", url, shard=4) as storage:
        for number in range(5):
            storage.put({"time": number}, frame(number), None)
    assert failures
    assert exengine.verify(url).ok


def test_a_shard_that_was_changed_in_the_bucket_is_reported(url, store, frame):
    with exengine.open_storage("ome-zarr", url, shard=4) as storage:
        for number in range(8):
            storage.put({"time": number}, frame(number), None)
    objects = store(url)
    text = bytearray(bytes(obstore.get(objects, "0/c/0/0/0").bytes()))
    text[100] ^= 1
    obstore.put(objects, "0/c/0/0/0", bytes(text))
    obstore.delete(objects, "0/c/1/0/0")
    report = exengine.verify(url)
    damaged = [lost.coordinates["time"] for lost in (*report.damaged, *report.missing)]
    assert sorted(damaged) == [0, 4, 5, 6, 7]
    assert report.problems == ["the shard 0/c/1/0/0 is missing"]
