"""The end of a dataset (N), interrupts, and what a writer never destroys (D)."""

import os
import pickle
from collections import Counter

import numpy as np
import pytest
from exengine.storage_backends.ndtiff import NDTiffStorage

import exengine
from exengine.base_classes import CoordinateIndex, has_writer
from exengine.errors import (
    DatasetExistsError,
    DatasetLockedError,
    OptionError,
    StorageFailedError,
)

AT = {"time": 0, "channel": "DAPI"}


def at(number):
    return {"time": number, "channel": ("DAPI", "FITC", "Cy5")[number % 3], "z": -(number % 7)}


def test_n1_finish_and_close_may_be_called_again(path, new, digest, frame):
    storage = new()
    storage.put(AT, frame(AT), None)
    storage.finish()
    before = digest(path)
    storage.finish()
    storage.close()
    storage.close()
    storage.finish()
    assert digest(path) == before


def test_n2_a_finished_dataset_reopens_equal(new, opened, frame):
    with new(summary_metadata={"who": "me", "µ": [1, None]}) as storage:
        for number in range(20):
            storage.put(at(number), frame(at(number)), {"number": number})
        order, axes = list(storage), storage.axes
    dataset = opened()
    assert dataset.status == "complete" and dataset.is_finished()
    assert list(dataset) == order and dataset.axes == axes
    assert dataset.summary_metadata == {"who": "me", "µ": [1, None]}
    for number in range(20):
        np.testing.assert_array_equal(dataset[at(number)], frame(at(number)), strict=True)
        assert dataset.get_metadata(at(number)) == {"number": number}


def test_n3_finish_and_durable_flush_sync_every_file_and_the_names_of_the_files(
    path, new, monkeypatch, frame
):
    synced = set()
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.add(os.path.realpath(f"/proc/self/fd/{fd}")) or fsync(fd)
    )
    storage = new(max_file_bytes=4096)
    for number in range(6):
        storage.put(at(number), frame(at(number)), None)
    names = {str(file) for file in path.iterdir() if file.suffix in (".tif", ".index")}
    assert len(names) > 3
    storage.flush(durable=True)
    assert synced >= names | {str(path), str(path.parent)}
    synced.clear()
    storage.put(at(6), frame(at(6)), None)
    storage.finish()
    last = max(path.glob("*.tif"), key=lambda file: file.stat().st_mtime_ns)
    assert synced >= {str(last), str(path / "NDTiff.index"), str(path)}


def test_n3_finish_syncs_each_file_once_and_each_folder_once_per_change(path, new, monkeypatch, frame):
    storage = new()
    storage.put(at(0), frame(at(0)), None)
    synced = Counter()
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.update([os.path.realpath(f"/proc/self/fd/{fd}")]) or fsync(fd)
    )
    storage.finish()
    assert synced == {
        str(path / "NDTiffStack.tif"): 1,
        str(path / "NDTiff.index"): 1,
        str(path / "exengine.json.new"): 1,
        str(path): 2,  # by the plugin for the names of its files, by the kernel for the new manifest
        str(path.parent): 1,  # by the kernel
    }
    synced.clear()
    storage.finish()
    storage.close()
    assert not synced


def test_n5_close_without_finish_leaves_an_incomplete_dataset_that_can_be_read(path, new, opened, frame):
    storage = new()
    for number in range(5):
        storage.put(at(number), frame(at(number)), {"number": number})
    storage.close()
    dataset = opened()
    assert dataset.status == "incomplete" and "ended without calling finish" in dataset.status_reason
    for number in range(5):
        np.testing.assert_array_equal(dataset[at(number)], frame(at(number)))
        assert dataset.get_metadata(at(number)) == {"number": number}


def test_n5_leaving_a_with_block_by_an_exception_finishes_as_aborted(new, opened, frame):
    storage = new()
    storage.put(AT, frame(AT), None)
    with pytest.raises(ZeroDivisionError), storage:
        raise ZeroDivisionError
    dataset = opened()
    assert dataset.status == "aborted" and "ZeroDivisionError" in dataset.status_reason
    assert len(dataset) == 1


def test_n5_a_forgotten_storage_is_finished_as_aborted_when_the_program_ends(path, start_python, opened):
    program = (
        "import sys, exengine, numpy as np; s = exengine.open_storage('ndtiff', sys.argv[1]);"
        "s.put({'time': 0}, np.ones((4, 4), np.uint8), None)"
    )
    process = start_python(program, path, PYTHONWARNINGS="default")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0 and b"was not finished" in error
    assert opened().status == "aborted"
    assert opened()[{"time": 0}].sum() == 16


@pytest.mark.parametrize("call", ["pixels", "entry", "after"])
def test_an_interrupt_in_put_leaves_whole_frames_only(
    call, path, new, opened, oracle, keys_of, monkeypatch, frame
):
    storage = new()
    for number in range(3):
        storage.put(at(number), frame(at(number)), {"number": number})
    pwritev, write_frames, calls = os.pwritev, storage.write_frames, []

    def interrupted_write(*arguments):
        calls.append(pwritev(*arguments))
        if ("pixels", "entry")[len(calls) - 1] == call:
            raise KeyboardInterrupt
        return calls[-1]

    def interrupted_return(*arguments):
        write_frames(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if call == "after":
            patch.setattr(storage, "write_frames", interrupted_return)
        else:
            patch.setattr(os, "pwritev", interrupted_write)
        with pytest.raises(KeyboardInterrupt):
            storage.put(at(3), frame(at(3)), None)
    assert at(3) not in storage
    with pytest.raises(StorageFailedError):
        storage.finish()
    storage.close()
    dataset = opened()
    assert dataset.status == "failed"
    assert list(dataset) == [at(k) for k in range(3)] == keys_of(oracle(path))
    for number in range(3):
        np.testing.assert_array_equal(dataset[at(number)], frame(at(number)))


def test_d1_a_new_dataset_never_lands_on_an_old_one(path, new, digest, frame):
    with new() as storage:
        storage.put(AT, frame(AT), None)
    before = digest(path)
    with pytest.raises(DatasetExistsError):
        NDTiffStorage(path)
    with pytest.raises(DatasetExistsError):
        NDTiffStorage(path.parent, path.name)
    with pytest.raises(DatasetExistsError):
        exengine.open_storage("ndtiff", path)
    assert digest(path) == before
    with exengine.open_storage("ndtiff", path, if_exists="number") as other:
        assert other.path == f"{path}_1"
    assert digest(path) == before


def test_d2_a_second_writer_is_refused_under_every_spelling_of_the_path(path, new, tmp_path, run_python):
    storage = new()
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "parent").symlink_to(tmp_path)
    program = """
import sys
from exengine.errors import DatasetExistsError, DatasetLockedError
from exengine.storage_backends.ndtiff import NDTiffStorage
try:
    NDTiffStorage(sys.argv[1])
except (DatasetLockedError, DatasetExistsError) as error:
    print(type(error).__name__)
"""
    spellings = [
        path,
        tmp_path / "link",
        tmp_path / "folder" / ".." / "dataset",
        tmp_path / "folder/parent/dataset",
    ]
    for spelling in spellings:
        with pytest.raises(DatasetLockedError):
            NDTiffStorage(spelling)
        assert run_python(program, spelling).strip() == "DatasetLockedError"
    storage.put(AT, np.zeros((2, 2), np.uint8), None)


BAD_NAMES = [
    "", ".", "..", "../out", "a/b", "/absolute", "a\\b", "C:", "a\0b", "a\nb", " a", "a ", "a.", "x" * 201, "é" * 101,
    "\udcff", 5,
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_d3_a_name_never_leaves_the_directory(name, tmp_path, digest):
    before = digest(tmp_path)
    with pytest.raises(OptionError, match="is not a valid folder name"):
        NDTiffStorage(tmp_path, name)
    assert digest(tmp_path) == before


def test_d3_coordinates_and_metadata_never_become_names_of_files(path, new, opened, frame):
    storage = new()
    where = {"../../axis": "../../../etc/passwd", "channel": "/tmp/x\0y"}
    storage.put(where, frame(where), {"../a": "/b"})
    storage.finish()
    assert sorted(file.name for file in path.iterdir()) == [
        "NDTiff.index", "NDTiffStack.tif", "exengine.json", "exengine.lock"
    ]  # fmt: skip
    assert [file.name for file in path.parent.iterdir() if file != path] == []
    np.testing.assert_array_equal(opened()[where], frame(where))


def test_a_storage_that_was_opened_to_read_can_be_pickled(new, opened, frame):
    with new() as storage:
        storage.put(AT, frame(AT), None)
    copy = pickle.loads(pickle.dumps(opened()))
    np.testing.assert_array_equal(copy[AT], frame(AT))
    copy.close()


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_behind_the_writing_of_a_frame_loses_and_shifts_no_other(
    path, new, opened, frame, monkeypatch, after
):
    storage = new()
    storage.put({"time": 0}, frame({"time": 0}), None)
    commit = CoordinateIndex.commit

    def interrupted(self, key):
        if after:
            commit(self, key)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CoordinateIndex, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            storage.put({"time": 1}, frame({"time": 1}), None)
    with pytest.raises(StorageFailedError, match="interrupted by KeyboardInterrupt"):
        storage.put({"time": 2}, frame({"time": 2}), None)
    with pytest.raises(StorageFailedError):
        storage.finish()
    storage.close()
    dataset = opened(path)
    assert dataset.status == "failed"
    assert [where["time"] for where in dataset] == ([0, 1] if after else [0])
    for where in dataset:
        np.testing.assert_array_equal(dataset.get_data(where), frame(where))


def test_an_interrupt_when_the_first_file_is_begun_leaves_an_empty_dataset(path, opened, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("exengine_ndstorage.ndtiff.writer.write_at", interrupted)
        with pytest.raises(KeyboardInterrupt):
            NDTiffStorage(path)
    dataset = opened(path)
    assert (dataset.status, len(dataset)) == ("failed", 0)
    assert not has_writer(path)
