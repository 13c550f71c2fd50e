"""Who may write to a URL, and what is deleted there."""

import concurrent.futures
import json
import os
import socket

import numpy as np
import obstore
import pytest

import exengine
from exengine.errors import (
    DatasetExistsError,
    DatasetLockedError,
    StorageFailedError,
    UnsupportedOperationError,
)
from exengine_ome_zarr.remote.bucket import Bucket

pytestmark = pytest.mark.once

SMALL = np.zeros((8, 8), np.uint8)


def make(url, **options):
    with exengine.open_storage("ome-zarr", url, **options) as storage:
        storage.put({"time": 0}, SMALL, None)
        return storage.path


def test_a_second_writer_is_refused_and_told_who_holds_the_dataset(url):
    first = exengine.open_storage("ome-zarr", url)
    for if_exists in ("error", "overwrite"):
        with pytest.raises(
            DatasetLockedError, match=f"process {os.getpid()} on {socket.gethostname()} since 20"
        ):
            exengine.open_storage("ome-zarr", url, if_exists=if_exists)
    with pytest.raises(DatasetLockedError, match="after this writer has ended"):
        exengine.recover(url)
    first.put({"time": 0}, SMALL, None)
    first.finish()
    first.close()
    with exengine.open_dataset(url) as dataset:
        assert (dataset.status, len(dataset)) == ("complete", 1)


def test_exactly_one_of_several_writers_that_begin_at_once_gets_the_url(url):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        tries = [pool.submit(exengine.open_storage, "ome-zarr", url) for _ in range(6)]
    errors = [each.exception() for each in tries]
    assert [type(error) for error in errors if error is not None] == 5 * [DatasetLockedError]
    (storage,) = (each.result() for each in tries if each.exception() is None)
    storage.put({"time": 0}, SMALL, None)
    storage.finish()
    storage.close()


def test_the_writers_that_were_refused_leave_nothing_in_the_spool(url, spool):
    make(url)
    with pytest.raises(DatasetExistsError, match="already exists"):
        exengine.open_storage("ome-zarr", url)
    assert not any(spool.iterdir())


def test_number_counts_up(url):
    assert make(url) == url
    stem = url.removesuffix(".ome.zarr")
    assert make(url, if_exists="number") == f"{stem}_1.ome.zarr"
    assert make(url, if_exists="number") == f"{stem}_2.ome.zarr"


def test_objects_that_are_no_dataset_keep_their_place(url, store, names):
    obstore.put(store(url), "notes.txt", b"of a user")
    for if_exists in ("error", "overwrite"):
        with pytest.raises(DatasetExistsError):
            exengine.open_storage("ome-zarr", url, if_exists=if_exists)
    assert names(url) == {"notes.txt"}


@pytest.mark.parametrize(
    "foreign", ["notes.txt", "0/notes.txt", "0/c/0/0/0.bak", ".exengine/notes", "1/exengine.json"]
)
def test_overwrite_deletes_nothing_if_there_is_a_foreign_object(url, store, names, foreign):
    make(url)
    obstore.put(store(url), foreign, b"of a user")
    before = names(url)
    with pytest.raises(DatasetExistsError, match="not part of the dataset"):
        exengine.open_storage("ome-zarr", url, if_exists="overwrite")
    assert names(url) == before
    assert exengine.verify(url).ok


def test_overwrite_deletes_no_dataset_of_another_backend_or_without_a_good_manifest(url, store, names):
    make(url)
    manifest = json.loads(bytes(obstore.get(store(url), "exengine.json").bytes()))
    for content in ({**manifest, "backend": "ndtiff"}, {**manifest, "files": ["other"]}, {"a": 1}):
        obstore.put(store(url), "exengine.json", json.dumps(content).encode())
        before = names(url)
        with pytest.raises((DatasetExistsError, ValueError)):
            exengine.open_storage("ome-zarr", url, if_exists="overwrite")
        assert names(url) == before


def test_overwrite_replaces_a_dataset_and_nothing_beside_it(url, store, names):
    with exengine.open_storage("ome-zarr", url, shard=1) as storage:
        for number in range(5):
            storage.put({"time": number}, SMALL, None)
    beside = make(f"{url}2")
    make(url, if_exists="overwrite")
    with exengine.open_dataset(url) as dataset:
        assert len(dataset) == 1
    assert not any("c/4" in name for name in names(url))
    assert exengine.verify(beside).ok


def test_of_several_writers_that_overwrite_at_once_one_wins_and_its_frames_remain(url):
    make(url)

    def overwrite(number):
        with exengine.open_storage("ome-zarr", url, if_exists="overwrite") as storage:
            storage.put({"time": number}, SMALL, None)
            storage.flush(durable=True)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        tries = [pool.submit(overwrite, number) for number in range(4)]
    won = [number for number, each in enumerate(tries) if each.exception() is None]
    assert won
    assert {type(each.exception()) for each in tries} <= {type(None), DatasetLockedError}
    with exengine.open_dataset(url) as dataset:
        assert dataset.status == "complete"
        assert next(iter(dataset))["time"] in won
    assert exengine.verify(url).ok


@pytest.mark.parametrize("other", [b"", b"other", b"a longer manifest"], ids=["empty", "equal", "longer"])
def test_a_manifest_is_not_replaced_if_another_process_came_first(url, store, other):
    bucket = Bucket(url)
    seen = bucket.put_if("exengine.json", b"first", None)
    obstore.put(store(url), "exengine.json", other)
    assert bucket.put_if("exengine.json", b"mine!", seen) is None
    assert bucket.put_if("exengine.json", b"mine!", None) is None
    assert bytes(obstore.get(store(url), "exengine.json").bytes()) == other


def test_a_manifest_whose_answer_was_lost_counts_as_stored(url):
    bucket = Bucket(url)
    first = bucket.put_if("exengine.json", b"mine", None)
    assert bucket.put_if("exengine.json", b"mine", None) == first


def test_a_writer_notices_that_its_dataset_was_taken_over_and_uploads_nothing(url, store, names):
    storage = exengine.open_storage("ome-zarr", url)
    storage.put({"time": 0}, SMALL, None)
    content = bytes(obstore.get(store(url), "exengine.json").bytes())
    obstore.put(store(url), "exengine.json", content + b"\n")
    before = names(url)
    with pytest.raises(StorageFailedError, match="taken over by another process"):
        storage.flush(durable=True)
    with pytest.raises(StorageFailedError, match="taken over by another process"):
        storage.finish()
    storage.close()
    assert names(url) == before


def test_a_final_manifest_that_cannot_be_uploaded_is_an_error_and_recover_helps(url, frame, monkeypatch):
    storage = exengine.open_storage("ome-zarr", url)
    storage.put({"time": 0}, frame(0), None)
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "put_if", lambda *_: None)
        with pytest.raises(StorageFailedError, match="could not be marked as finished"):
            storage.finish()
        storage.close()
    with exengine.open_dataset(url) as dataset:
        assert dataset.status == "incomplete"
    assert exengine.recover(url).frames == 1


def test_a_dataset_whose_writer_is_on_another_machine_is_not_touched(url, store, names):
    storage = exengine.open_storage("ome-zarr", url)
    storage.put({"time": 0}, SMALL, None)
    storage.close()
    manifest = json.loads(bytes(obstore.get(store(url), "exengine.json").bytes()))
    manifest["writer"].update(host="elsewhere", token="0" * 16)
    obstore.put(store(url), "exengine.json", json.dumps(manifest).encode())
    before = names(url)
    with pytest.raises(UnsupportedOperationError, match="on elsewhere since"):
        exengine.recover(url)
    with pytest.raises(DatasetLockedError, match="on elsewhere since"):
        exengine.open_storage("ome-zarr", url, if_exists="overwrite")
    assert names(url) == before
    assert exengine.recover(url, in_place=True).frames == 1
    assert exengine.verify(url).ok
