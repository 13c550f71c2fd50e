"""Datasets in object storage, read back by this and by other programs."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import obstore
import pytest
from s3_server import SECRET

import exengine
from exengine.base_classes import PlannedAxis, SourcePlan
from exengine.errors import CoordinatesExistError, DatasetAccessError, OptionError
from exengine_ome_zarr.remote.bucket import Bucket

OPTIONS = {
    "none": {"shard": 4},
    "small frames in a chunk": {"shard": 8, "frames_per_chunk": 4},
    "blosc-lz4": {"shard": 4, "codec": "blosc-lz4"},
    "tiles": {"shard": 4, "chunk": 32},
    "compressed tiles": {"shard": 4, "chunk": 32, "codec": "zstd"},
}


@pytest.fixture(params=OPTIONS)
def options(request):
    return OPTIONS[request.param]


def test_zarr_python_and_exengine_read_back_what_was_written(url, store, frame, options, spool):
    with exengine.open_storage("ome-zarr", url, **options) as storage:
        assert storage.capabilities.remote
        assert storage.path == url
        for number in range(10):
            storage.put({"time": number, "channel": "DAPI"}, frame(number), {"number": number})
        for number in range(10):
            assert np.array_equal(storage.get_data({"time": number, "channel": "DAPI"}), frame(number))
        storage.annotate("note", {"of": "the test"})
    import zarr
    from zarr.storage import ObjectStore

    group = zarr.open_group(ObjectStore(store(url), read_only=True), mode="r")
    assert group["0"].shape == (10, 1, 64, 64)
    assert all(np.array_equal(group["0"][number, 0], frame(number)) for number in range(10))
    assert group.attrs["ome"]["omero"]["channels"][0]["label"] == "DAPI"
    with exengine.open_dataset(url) as dataset:
        assert (dataset.status, len(dataset)) == ("complete", 10)
        assert dataset.annotations["note"] == {"of": "the test"}
        assert dataset.axes == {"time": [*range(10)], "channel": ["DAPI"]}
        for number in range(10):
            where = {"time": number, "channel": "DAPI"}
            assert np.array_equal(dataset[where], frame(number))
            assert dataset.get_metadata(where) == {"number": number}
        assert np.array_equal(np.asarray(dataset.as_array()[3, 0]), frame(3))
    assert exengine.verify(url).ok
    assert not any(spool.iterdir())


def test_positions_become_images(url, store, frame, options):
    with exengine.open_storage("ome-zarr", url, **options) as storage:
        for number in range(12):
            storage.put({"position": number % 2, "time": number // 2}, frame(number), None)
    import zarr
    from zarr.storage import ObjectStore

    group = zarr.open_group(ObjectStore(store(url), read_only=True), mode="r")
    assert all(np.array_equal(group[f"{number % 2}/0"][number // 2], frame(number)) for number in range(12))
    with exengine.open_dataset(url) as dataset:
        assert all(
            np.array_equal(dataset[{"position": number % 2, "time": number // 2}], frame(number))
            for number in range(12)
        )


def test_a_durable_flush_makes_every_frame_readable_elsewhere(url, frame, options):
    storage = exengine.open_storage("ome-zarr", url, **options)
    for number in range(6):
        storage.put({"time": number}, frame(number), {"number": number})
        if number in (2, 5):
            storage.flush(durable=True)
            with exengine.open_dataset(url) as dataset:
                assert (dataset.status, len(dataset)) == ("incomplete", number + 1)
                assert "process" in dataset.status_reason
                assert all(np.array_equal(dataset[{"time": n}], frame(n)) for n in range(number + 1))
                assert dataset.get_metadata({"time": number}) == {"number": number}
    with exengine.open_dataset(url) as dataset:
        storage.put({"time": 6}, frame(6), None)
        storage.finish()
        storage.close()
        assert dataset.await_new_data(timeout=30)
        assert np.array_equal(dataset[{"time": 6}], frame(6))
        assert dataset.status == "complete"


def test_a_storage_that_is_closed_without_finish_has_uploaded_its_frames(url, frame, spool):
    storage = exengine.open_storage("ome-zarr", url, shard=4)
    for number in range(6):
        storage.put({"time": number}, frame(number), None)
    storage.close()
    with exengine.open_dataset(url) as dataset:
        assert (dataset.status, len(dataset)) == ("incomplete", 6)
        assert np.array_equal(dataset[{"time": 5}], frame(5))
    assert exengine.recover(url).frames == 6
    assert not any(spool.iterdir())


def test_a_shard_is_brought_back_for_a_frame_that_was_not_planned(url, frame, spool):
    options = {"shard": 4, "frames_per_chunk": 2}
    for codec in ("none", "blosc-lz4"):
        at = f"{url}-{codec}"
        given = options if codec == "none" else {"shard": 4, "codec": codec}
        storage = exengine.open_storage("ome-zarr", at, **given)
        storage.expect(SourcePlan(axes=(PlannedAxis("time", length=6),)))
        for number in range(6):
            storage.put({"time": number}, frame(number), None)
        storage.flush(durable=True)
        (folder,) = spool.iterdir()
        assert not (folder / "0/c/1/0/0").exists(), "the last shard is full as planned, and was uploaded"
        storage.put({"time": 6}, frame(6), None)
        with pytest.raises(CoordinatesExistError):
            storage.put({"time": 5}, frame(0), None)
        assert all(np.array_equal(storage.get_data({"time": n}), frame(n)) for n in range(7))
        storage.finish()
        storage.close()
        with exengine.open_dataset(at) as dataset:
            assert all(np.array_equal(dataset[{"time": n}], frame(n)) for n in range(7))
        assert exengine.verify(at).ok


def test_put_waits_while_the_spool_is_full(url, frame, spool, monkeypatch):
    """The spool never exceeds its limit by more than a shard, and every frame arrives."""
    upload, may_go_on = Bucket.put, threading.Event()
    shard, limit = 4 * 64 * 64 * 2, 3 * 4 * 64 * 64 * 2

    def slow(self, name, content):
        if "/c/" in name:
            assert may_go_on.wait(60)
        upload(self, name, content)

    monkeypatch.setattr(Bucket, "put", slow)
    storage = exengine.open_storage("ome-zarr", url, shard=4, spool_bytes=limit)
    most, stored = [], []

    def write():
        for number in range(40):
            storage.put({"time": number}, frame(number), None)
            stored.append(number)
            most.append(storage._objects.used_bytes)

    writer = threading.Thread(target=write)
    writer.start()
    while len(stored) < 12:
        assert writer.is_alive()
        writer.join(0.01)
    writer.join(0.5)
    assert len(stored) == 12, "the spool is full, and nothing was uploaded"
    may_go_on.set()
    writer.join(60)
    assert len(stored) == 40
    assert max(most) <= limit + shard
    storage.finish()
    storage.close()
    with exengine.open_dataset(url) as dataset:
        assert all(np.array_equal(dataset[{"time": n}], frame(n)) for n in range(40))


def test_an_upload_that_the_store_has_changed_is_noticed(url, store, server):
    from exengine_ome_zarr.remote.bucket import PART_BYTES, Content

    bucket = Bucket(url)
    sent = bytes(PART_BYTES) + b"the end"
    pieces = [iter((sent,)), iter((b"x" + sent[1:],))]  # what is read back differs from what was sent
    content = Content(len(sent), lambda: pieces.pop(0))
    monkey = pytest.MonkeyPatch()
    monkey.setattr("exengine_ome_zarr.remote.bucket._expected_tag", lambda digests: "not an MD5 sum")
    with monkey.context(), pytest.raises(DatasetAccessError, match="differs from the content"):
        bucket.put("object", content)
    monkey.undo()
    bucket.put("object", Content(len(sent), lambda: iter((sent[:5], sent[5:]))))
    assert bytes(obstore.get(store(url), "object").bytes()) == sent


def test_no_secret_is_in_an_object_a_file_or_a_message(url, store, names, frame, spool):
    storage = exengine.open_storage("ome-zarr", url, shard=4)
    storage.put({"time": 0}, frame(0), None)
    storage.flush(durable=True)
    files = [file.read_bytes() for file in spool.rglob("*") if file.is_file()]
    objects = [bytes(obstore.get(store(url), name).bytes()) for name in names(url)]
    assert len(files) > 3 and len(objects) > 3
    assert not any(SECRET.encode() in text for text in (*files, *objects))
    storage.finish()
    storage.close()


def test_resolution_levels_are_refused_before_anything_is_created(url, names, spool):
    with pytest.raises(OptionError, match="cannot have resolution levels"):
        exengine.open_storage("ome-zarr", url, pyramid="mean")
    assert names(url) == set()
    assert not spool.exists()


@pytest.mark.timeout(300)
def test_a_large_upload_needs_little_memory(url):
    """The same as the campaign, with 48 MiB in place of 5 GiB."""
    script = Path(__file__).parent / "large_upload.py"
    arguments = ["--url", url, "--mib", "48", "--spool-mib", "16"]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert figures["frames"] == 96 and figures["read_back"]
    assert figures["rss_mib"] < 512
    assert figures["spool_mib"] <= 16 + 8 + 1
