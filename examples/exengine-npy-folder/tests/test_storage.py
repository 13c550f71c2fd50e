"""The backend ``npy-folder``, through the ways that its users have."""

import json
import os
import pickle
import signal
import subprocess
import sys
import zlib

import exengine
import numpy as np
import pytest
from exengine.errors import (
    CoordinatesExistError,
    DatasetDamagedError,
    DatasetExistsError,
    DatasetLockedError,
    MetadataError,
    StorageFailedError,
    StorageFinishedError,
    UnsupportedDataError,
)
from exengine.testing import decode

import exengine_npy_folder
from exengine_npy_folder import NpyFolderStorage


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


def frame_for(coordinates, dtype=np.uint16):
    """Return pixels that no other coordinates have."""
    seed = zlib.crc32(json.dumps(coordinates, sort_keys=True).encode())
    return np.random.default_rng(seed).integers(0, 255, (6, 5)).astype(dtype)


# -- found and chosen --------------------------------------------------------------------------------


def test_it_is_found_by_its_entry_point():
    record = exengine.backends()["npy-folder"]
    assert "npy-folder" in exengine.backends()
    assert record.distribution == "exengine-npy-folder"


def test_open_storage_finds_it_by_name_and_makes_the_dataset_at_the_path_exactly(path):
    with exengine.open_storage("npy-folder", path, sync_every=2) as storage:
        assert type(storage) is NpyFolderStorage
        assert storage.path == os.path.realpath(path)
        storage.put({"time": 0}, frame_for({"time": 0}), {})
    names = ["exengine.json", "exengine.lock", "frame-000000000.npy", "npy-index.jsonl"]
    assert sorted(os.listdir(path)) == names


def test_the_import_path_of_all_backends_leads_to_the_same_class():
    from exengine.storage_backends.npy_folder import NpyFolderStorage as by_alias

    assert by_alias is exengine_npy_folder.NpyFolderStorage


def test_an_acquisition_selects_it_by_name_in_a_config_file(tmp_path, path):
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
storage: {{backend: npy-folder, path: {path}, options: {{sync_every: 3}}}}
source: {{name: simulated, options: {{width: 64, height: 48}}}}
sequence:
  channels: [DAPI, FITC]
  time_plan: {{interval: 0, loops: 3}}
"""
    )
    ledger = exengine.acquire(config)
    assert (ledger.stored, ledger.failed, ledger.complete) == (6, 0, True)
    with exengine.open_dataset(path) as dataset:
        assert dataset.status == "complete"
        assert len(dataset) == 6
        for coordinates in dataset:
            assert decode(dataset[coordinates]) == coordinates
            assert dataset.get_metadata(coordinates)["source"] == "simulated"
        assert dataset.summary_metadata["source"] == "simulated"
        assert dataset.annotations["ledger"]["stored"] == 6


def test_without_a_path_each_storage_has_a_new_folder():
    with NpyFolderStorage() as first, NpyFolderStorage() as second:
        assert first.path != second.path
        assert os.path.isdir(first.path) and os.path.isdir(second.path)


# -- what is put comes back --------------------------------------------------------------------------

ARRAYS = {
    "one dimension": np.array([1, 2, 3]),
    "no dimension": np.array(7.5),
    "no pixel": np.zeros((0, 4), np.uint8),
    "five dimensions": np.arange(32, dtype=np.int8).reshape(2, 2, 2, 2, 2),
    "color": np.arange(60, dtype=np.uint8).reshape(4, 5, 3),
    "bool": np.eye(4, dtype=bool),
    "complex": np.array([1 + 2j, np.nan]),
    "text": np.array(["a", "ä"]),
    "times": np.array(["2024-01-01", "NaT"], dtype="datetime64[ms]"),
    "fields": np.array([(1, 2.5)], dtype=[("a", "u2"), ("b", "f8")]),
    "byte-swapped": np.arange(12, dtype=">u2").reshape(3, 4),
    "Fortran order": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "every second pixel, backwards": np.arange(48, dtype=np.uint16).reshape(6, 8)[::-2, ::2],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_any_kind_comes_back_with_its_dtype_and_shape(path, name):
    array = ARRAYS[name]
    with NpyFolderStorage(path) as storage:
        storage.put({"time": 0}, array, None)
        before = storage.get_data({"time": 0})
    after = exengine.open_dataset(path).get_data({"time": 0})
    for back in (before, after):
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back, array)


METADATA = {
    "nothing": None,
    "a number": 0.1,
    "a large number": 2**70,
    "text": 'µm, \u2028, "quotes" and\nlines',
    "a list": [1, [2, {}]],
    "what looks like the end of a line": {"line_crc32": 5, "x": ', "line_crc32": 1}\n'},
    "nested": {"a": {"b": [True, None, -0.0]}},
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_of_any_json_kind_comes_back_equal(path, name):
    with NpyFolderStorage(path) as storage:
        storage.put({"time": 0}, frame_for({}), METADATA[name])
        assert storage.get_metadata({"time": 0}) == METADATA[name]
    assert exengine.open_dataset(path).get_metadata({"time": 0}) == METADATA[name]


def test_changing_what_was_put_or_what_came_back_changes_nothing_stored(path):
    with NpyFolderStorage(path) as storage:
        data, metadata = frame_for({"time": 0}), {"list": [1]}
        storage.put({"time": 0}, data, metadata)
        data[:] = 0
        metadata["list"].append(2)
        storage.get_data({"time": 0})[:] = 0
        storage.get_metadata({"time": 0})["list"].append(3)
        np.testing.assert_array_equal(storage[{"time": 0}], frame_for({"time": 0}))
        assert storage.get_metadata({"time": 0}) == {"list": [1]}


def test_a_finished_dataset_reopens_with_all_frames_in_the_order_of_arrival(path):
    all_coordinates = [{"time": t, "channel": c} for t in (3, 0, -2) for c in ("FITC", "DAPI", "ä")]
    with NpyFolderStorage(path, summary_metadata={"sample": 1}) as storage:
        for number, coordinates in enumerate(all_coordinates):
            storage.put(coordinates, frame_for(coordinates), {"number": number})
    with exengine.open_dataset(path) as dataset:
        assert dataset.status == "complete"
        assert dataset.summary_metadata == {"sample": 1}
        assert [dict(coordinates) for coordinates in dataset] == all_coordinates
        for number, coordinates in enumerate(all_coordinates):
            np.testing.assert_array_equal(dataset[coordinates], frame_for(coordinates))
            assert dataset.get_metadata(coordinates) == {"number": number}
        copy = pickle.loads(pickle.dumps(dataset))
        np.testing.assert_array_equal(copy[all_coordinates[4]], frame_for(all_coordinates[4]))


def test_numpy_alone_reads_the_dataset(path):
    with NpyFolderStorage(path) as storage:
        storage.put({"time": 0}, frame_for({"time": 0}), {"exposure_ms": 10})
    (line,) = (path / "npy-index.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads(line)
    assert record["coordinates"] == {"time": 0} and record["metadata"] == {"exposure_ms": 10}
    assert record["crc32"] == zlib.crc32((path / record["file"]).read_bytes())
    np.testing.assert_array_equal(np.load(path / record["file"]), frame_for({"time": 0}))


# -- what is refused ---------------------------------------------------------------------------------


def test_what_is_refused_changes_nothing(path):
    overlapping = np.dtype({"names": ["a", "b"], "formats": ["u4", "u4"], "offsets": [0, 2]})
    with NpyFolderStorage(path) as storage:
        storage.put({"time": 0}, frame_for({"time": 0}), {})
        before = {name: (path / name).read_bytes() for name in os.listdir(path)}
        for error, coordinates, data, metadata in [
            (CoordinatesExistError, {"time": 0}, frame_for({}), {}),
            (UnsupportedDataError, {"time": 1}, np.array([object()]), {}),
            (UnsupportedDataError, {"time": 1}, np.zeros(2, overlapping), {}),
            (MetadataError, {"time": 1}, frame_for({}), {"value": float("nan")}),
            (MetadataError, {"time": 1}, frame_for({}), 10**5000),
        ]:
            with pytest.raises(error):
                storage.put(coordinates, data, metadata)
        assert {name: (path / name).read_bytes() for name in os.listdir(path)} == before
        storage.put({"time": 1}, frame_for({"time": 1}), {})
    dataset = exengine.open_dataset(path)
    assert [dict(coordinates) for coordinates in dataset] == [{"time": 0}, {"time": 1}]
    np.testing.assert_array_equal(dataset[{"time": 1}], frame_for({"time": 1}))


def test_a_second_writer_is_refused_also_through_a_link(tmp_path, path):
    with NpyFolderStorage(path) as storage:
        (tmp_path / "link").symlink_to(path)
        for spelling in (path, tmp_path / "link"):
            with pytest.raises(DatasetLockedError):
                NpyFolderStorage(spelling)
        storage.put({"time": 0}, frame_for({}), {})
    with pytest.raises(DatasetExistsError):
        NpyFolderStorage(path)


def test_a_finished_dataset_and_one_opened_to_read_take_no_frame(path):
    with NpyFolderStorage(path) as storage:
        storage.finish()
        with pytest.raises(StorageFinishedError):
            storage.put({"time": 0}, frame_for({}), {})
    with pytest.raises(StorageFinishedError):
        exengine.open_dataset(path).put({"time": 0}, frame_for({}), {})


# -- when something goes wrong -----------------------------------------------------------------------

KILLED_WRITER = """
import sys, numpy as np, exengine
storage = exengine.open_storage("npy-folder", sys.argv[1])
for time in range(10_000):
    storage.put({"time": time}, np.full((6, 5), time, np.uint16), {"time": time})
    print(time, flush=True)
"""


def test_every_frame_that_was_put_survives_kill_9_of_the_writer(path):
    command = [sys.executable, "-c", KILLED_WRITER, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        for line in writer.stdout:
            if int(line) == 20:
                writer.send_signal(signal.SIGKILL)
                break
        acknowledged = 21 + len(writer.stdout.readlines())
    with exengine.open_dataset(path) as dataset:
        assert dataset.status == "incomplete"
        assert len(dataset) in (acknowledged, acknowledged + 1)
        for time in range(len(dataset)):
            assert (dataset[{"time": time}] == time).all()
            assert dataset.get_metadata({"time": time}) == {"time": time}
    with exengine.open_storage("npy-folder", path, if_exists="overwrite") as storage:
        assert len(storage) == 0


def test_a_torn_last_line_is_skipped_at_every_length(path):
    storage = NpyFolderStorage(path)
    for time in range(2):
        storage.put({"time": time}, frame_for({"time": time}), {})
    storage.close()
    index = path / "npy-index.jsonl"
    whole = index.read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole)):
        index.write_bytes(whole[:length])
        with exengine.open_dataset(path) as dataset:
            assert dataset.status == "incomplete"
            assert [dict(coordinates) for coordinates in dataset] == [{"time": 0}]


def test_another_process_reads_while_frames_are_written(path):
    read = "dataset = exengine.open_dataset(sys.argv[1]); print(dataset.status, [int(dataset[c][0]) for c in dataset])"
    command = [sys.executable, "-c", f"import sys, exengine; {read}", path]
    with NpyFolderStorage(path) as storage:
        for time in range(2):
            storage.put({"time": time}, np.array([time + 5]), {})
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert result.stdout == "incomplete [5, 6]\n"


def test_damage_is_reported_and_never_returned(path):
    with NpyFolderStorage(path) as storage:
        for time in range(4):
            storage.put({"time": time}, frame_for({"time": time}), {"time": time})
    pixels, index = path / "frame-000000001.npy", path / "npy-index.jsonl"
    pixels.write_bytes(pixels.read_bytes()[:-1] + b"\xff")
    with exengine.open_dataset(path) as dataset, pytest.raises(DatasetDamagedError):
        dataset.get_data({"time": 1})
    pixels.unlink()
    with exengine.open_dataset(path) as dataset:
        assert dataset.status == "damaged"
        with pytest.raises(DatasetDamagedError):
            dataset.get_data({"time": 1})
    index.write_bytes(index.read_bytes().replace(b'{"time": 2}', b'{"time": 9}', 1))
    with exengine.open_dataset(path) as dataset:
        assert dataset.status == "damaged"
        assert [dict(coordinates) for coordinates in dataset] == [{"time": time} for time in (0, 1, 3)]
        np.testing.assert_array_equal(dataset[{"time": 3}], frame_for({"time": 3}))


def test_the_first_error_of_the_disk_stays_and_the_frames_before_are_whole(path, monkeypatch):
    storage = NpyFolderStorage(path)
    storage.put({"time": 0}, frame_for({"time": 0}), {})
    write = os.write  # a full disk takes a part
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
    with pytest.raises(StorageFailedError):
        storage.put({"time": 1}, frame_for({"time": 1}), {})
    monkeypatch.undo()
    with pytest.raises(StorageFailedError):
        storage.put({"time": 2}, frame_for({"time": 2}), {})
    storage.close()
    with exengine.open_dataset(path) as dataset:
        assert dataset.status == "failed"
        assert [dict(coordinates) for coordinates in dataset] == [{"time": 0}]
        np.testing.assert_array_equal(dataset[{"time": 0}], frame_for({"time": 0}))


def test_frames_are_synced_as_often_as_the_option_says(path, monkeypatch):
    synced = []
    monkeypatch.setattr(NpyFolderStorage, "sync_frames", lambda self: synced.append(len(self)))
    with NpyFolderStorage(path, sync_every=2) as storage:
        for time in range(5):
            storage.put({"time": time}, frame_for({}), {})
        assert len(synced) == 2
        storage.flush(durable=True)
        assert len(synced) == 3
    assert len(synced) == 4
