"""The writer: frames of every kind, batches, options, and its files."""

import os

import numpy as np
import pytest
from exengine.storage_backends.ndtiff import NDTiffStorage

import exengine
from exengine import DataCoordinates
from exengine.base_classes import DataStorage
from exengine.errors import (
    CoordinatesError,
    CoordinatesExistError,
    MetadataError,
    OptionError,
    StorageFailedError,
    UnsupportedDataError,
)
from exengine.testing import check_class
from exengine_ndstorage.ndtiff.format import INDEX_NAME

AT = {"time": 0, "channel": "DAPI"}


def at(number):
    return {"time": number, "channel": ("DAPI", "FITC", "Cy5")[number % 3], "z": -(number % 7)}


def array_kinds(folder):
    """Return arrays of every kind in which a caller may hold pixels, by name."""
    random = np.random.default_rng(1).integers(0, 65536, (40, 60), np.uint16)
    held = np.memmap(folder / "frames", np.uint16, "w+", shape=(40, 60))
    held[:] = random
    read_only = random.copy()
    read_only.flags.writeable = False
    rgb = random.view(np.uint8)[:, :60].reshape(20, 40, 3)
    return {
        "random": random,
        "uint8": random.astype(np.uint8),
        "every third pixel": random[::2, ::3],
        "sub-array view": random[7:29, 3:50],
        "upside down": random[::-1, ::-1],
        "transposed": random.T,
        "Fortran order": np.asfortranarray(random),
        "byte-swapped": random.astype(">u2"),
        "byte-swapped view": random.astype(">u2")[::3, 1:],
        "read-only": read_only,
        "broadcast": np.broadcast_to(random[0], (40, 60)),
        "memory-mapped": held,
        "memory-mapped view": held[3:, ::2],
        "unaligned": np.frombuffer(b"\0" + random.tobytes(), np.uint16, offset=1).reshape(40, 60),
        "RGB": rgb,
        "RGB with channels in reverse": rgb[:, :, ::-1],
        "RGB Fortran": np.asfortranarray(rgb),
        "one pixel": random[:1, :1],
        "one row": random[:1],
        "one column": random[:, :1],
        "odd number of bytes": random.astype(np.uint8)[:5, :7],
        "zeros": np.zeros((8, 8), np.uint16),
        "full": np.full((8, 8), 65535, np.uint16),
        "a matrix": random.view(type("Subclass", (np.ndarray,), {})),
    }


def frames_of_all_kinds(folder, count):
    kinds = list(array_kinds(folder).items())
    for number in range(count):
        name, data = kinds[number % len(kinds)]
        if number >= len(kinds):
            data = np.roll(data, number)
        yield {"number": number, "kind": name}, data, {"number": number, "kind": name}


READ_ALL = """
import sys, zlib, exengine
with exengine.open_dataset(sys.argv[1]) as dataset:
    print(dataset.status, len(dataset))
    for c in dataset:
        data = dataset[c]
        print(c["number"], zlib.crc32(data.tobytes()), data.shape, data.dtype.str, dataset.get_metadata(c))
"""


def native(data):
    return np.ascontiguousarray(data).astype(data.dtype.newbyteorder("="))


def test_a_thousand_frames_of_every_kind_are_read_back_after_each_put_and_by_another_process(
    tmp_path, path, new, run_python
):
    import zlib

    expected = []
    with new() as storage:
        for coordinates, data, metadata in frames_of_all_kinds(tmp_path, 1000):
            storage.put(coordinates, data, metadata)
            assert coordinates in storage
            got = storage.get_data(coordinates)
            np.testing.assert_array_equal(got, native(data), strict=True)
            assert storage.get_metadata(coordinates) == metadata
            crc = zlib.crc32(native(data).tobytes())
            expected.append(f"{coordinates['number']} {crc} {got.shape} {got.dtype.str} {metadata}")
    assert run_python(READ_ALL, path).splitlines() == ["complete 1000", *expected]


def test_put_many_stores_what_put_stores(tmp_path, path, new, run_python):
    frames = list(frames_of_all_kinds(tmp_path, 150))
    with new() as storage:
        storage.put_many(frames[:70])
        storage.put_many(iter(frames[70:]))
        assert len(storage) == 150
        for coordinates, data, metadata in frames:
            np.testing.assert_array_equal(storage[coordinates], native(data), strict=True)
            assert storage.get_metadata(coordinates) == metadata
    lines = run_python(READ_ALL, path).splitlines()
    assert lines[0] == "complete 150"
    assert [int(line.split()[0]) for line in lines[1:]] == list(range(150))


def test_put_many_goes_on_in_the_next_file(path, new, opened, frame):
    with new(max_file_bytes=4096) as storage:
        storage.put_many([({"time": k}, frame({"time": k}, (16, 16)), {"k": k}) for k in range(40)])
    assert len(list(path.glob("*.tif"))) > 5
    dataset = opened()
    assert [c["time"] for c in dataset] == list(range(40))
    for k in range(40):
        np.testing.assert_array_equal(dataset[{"time": k}], frame({"time": k}, (16, 16)))


def test_a_batch_is_written_as_its_frames_would_be_one_by_one(tmp_path):
    frames = list(frames_of_all_kinds(tmp_path, 60))
    one, many = (NDTiffStorage(tmp_path / name, max_file_bytes=40_000) for name in ("one", "many"))
    for some in frames:
        one.put(*some)
    batch = [
        (DataCoordinates(where), data, many.check_frame(DataCoordinates(where), data, metadata))
        for where, data, metadata in frames
    ]
    calls = 0
    while batch:
        calls += 1
        del batch[: many.write_frames(60 - len(batch), batch)]
    assert calls < 30
    names = [name for name in os.listdir(one.path) if name.endswith((".tif", ".index"))]
    assert len(names) > 3
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
    one.close()
    many.close()


REFUSED_IN_A_BATCH = {
    "array": ({"time": 9}, np.zeros((3, 3)), None, UnsupportedDataError),
    "metadata": ({"time": 9}, np.zeros((3, 3), np.uint8), float("nan"), MetadataError),
    "coordinates": ({"time": True}, np.zeros((3, 3), np.uint8), None, CoordinatesError),
    "kind of position": ({"time": "nine"}, np.zeros((3, 3), np.uint8), None, CoordinatesError),
    "there already": ({"time": 2}, np.zeros((3, 3), np.uint8), None, CoordinatesExistError),
}


@pytest.mark.parametrize("fault", REFUSED_IN_A_BATCH)
@pytest.mark.parametrize("number", [0, 5])
def test_put_many_stores_the_frames_before_the_one_that_is_refused(fault, number, new, opened, frame):
    *refused, error = REFUSED_IN_A_BATCH[fault]
    storage = new()
    storage.put({"time": 2 if number == 0 else 100}, frame(AT), None)
    frames = [({"time": k + 2}, frame({"time": k}), {"k": k}) for k in range(1, 10)]
    if fault == "there already" and number:
        refused[0] = {"time": 5}
    frames.insert(number, tuple(refused))
    with pytest.raises(error):
        storage.put_many(frames)
    assert len(storage) == 1 + number
    assert {"time": 3 + number} not in storage
    storage.put({"time": 50}, frame({"time": 50}), None)
    storage.finish()
    dataset = opened()
    assert [c["time"] for c in dataset][1:] == [*range(3, 3 + number), 50]
    np.testing.assert_array_equal(dataset[{"time": 50}], frame({"time": 50}))


def test_put_many_of_a_generator_that_uses_one_buffer_again_stores_each_frame(new):
    def camera():
        buffer = np.zeros((4, 4), np.uint16)
        for k in range(100):
            buffer[:] = k
            yield {"time": k}, buffer, None

    storage = new()
    storage.put_many(camera())
    assert [int(storage[{"time": k}][0, 0]) for k in range(100)] == list(range(100))


def test_put_many_writes_a_batch_of_small_frames_at_once(new, monkeypatch):
    written = []
    pwritev = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *arguments: written.append(1) or pwritev(*arguments))
    storage = new()
    storage.put({"time": 0}, np.zeros((4, 4), np.uint16), None)
    del written[:]
    storage.put_many([({"time": k}, np.zeros((4, 4), np.uint16), None) for k in range(1, 65)])
    assert len(written) == 2


def test_the_class_keeps_the_contract():
    assert check_class(NDTiffStorage, DataStorage) == []


def test_a_name_is_the_folder_and_the_beginning_of_the_files(tmp_path, opened, frame):
    with NDTiffStorage(tmp_path, "run_1", {"a": 1}) as storage:
        storage.put(AT, frame(AT), None)
        assert storage.path == str(tmp_path / "run_1")
    assert (tmp_path / "run_1" / "run_1_NDTiffStack.tif").is_file()
    assert opened(tmp_path / "run_1")[AT].shape == (24, 32)


def test_an_empty_dataset_with_a_name_keeps_its_summary(tmp_path, opened):
    NDTiffStorage(tmp_path, "run", {"a": 1}).close()
    dataset = opened(tmp_path / "run")
    assert dataset.summary_metadata == {"a": 1} and len(dataset) == 0


@pytest.mark.parametrize("value", [4095, 2**32 + 1, 0, -1, "4096", 5000.0, True, None])
def test_max_file_bytes_is_checked(value, path):
    with pytest.raises(OptionError, match="max_file_bytes"):
        NDTiffStorage(path, max_file_bytes=value)
    assert not path.exists()


@pytest.mark.parametrize(
    "summary", [[1], "text", 5, {"a": float("nan")}, {"a": b"x"}, {1: 2}, {"a": {1, 2}}], ids=repr
)
def test_summary_metadata_that_cannot_be_held_is_refused_before_anything_is_made(summary, path):
    with pytest.raises(MetadataError):
        NDTiffStorage(path, None, summary)
    assert not path.exists()


def test_summary_metadata_that_take_half_of_a_file_are_refused(path):
    with pytest.raises(MetadataError, match="max_file_bytes=4096"):
        NDTiffStorage(path, None, {"a": "x" * 4000}, 4096)
    assert not path.exists()


def test_no_file_is_longer_than_asked_for_unless_one_frame_is(path, new, opened, frame):
    with new(max_file_bytes=10_000) as storage:
        for number in range(12):
            storage.put(at(number), frame(at(number), (30, 50)), {"number": number})
        storage.put(at(12), frame(at(12), (200, 100)), None)
        storage.put(at(13), frame(at(13), (30, 50)), None)
    sizes = sorted(file.stat().st_size for file in path.glob("*.tif"))
    assert [size > 10_000 for size in sizes] == [False] * (len(sizes) - 1) + [True]
    dataset = opened()
    for number in range(14):
        assert np.array_equal(dataset[at(number)], storage_frame(frame, number))


def storage_frame(frame, number):
    return frame(at(number), (200, 100) if number == 12 else (30, 50))


def test_a_frame_that_would_end_at_4_gib_begins_a_new_file(path, new, opened, frame):
    # The next IFD's place has 32 bits: what ends at 2**32 exactly cannot be pointed behind.
    storage = new()
    storage.put(at(0), frame(at(0)), None)
    storage._end = 2**32 - (storage._end - len(storage._header))  # the same size again ends there
    storage.put(at(1), frame(at(1)), None)
    assert len(list(path.glob("*.tif"))) == 2
    np.testing.assert_array_equal(storage[at(1)], frame(at(1)))


def test_a_dataset_of_more_files_than_descriptors_is_written_read_and_synced(path, run_python):
    program = """
import sys, resource, exengine, numpy as np
resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
with exengine.open_storage("ndtiff", sys.argv[1], max_file_bytes=4096) as s:
    for k in range(300):
        s.put({"time": k}, np.full((40, 40), k, np.uint16), {"k": k})
        if k % 100 == 50:
            s.flush(durable=True)
    assert [int(s[{"time": k}][0, 0]) for k in range(300)] == list(range(300))
with exengine.open_dataset(sys.argv[1]) as d:
    assert d.status == "complete", d.status_reason
    assert [int(d[{"time": k}][0, 0]) for k in range(299, -1, -1)] == list(range(299, -1, -1))
    assert [d.get_metadata({"time": k})["k"] for k in range(300)] == list(range(300))
    print(len(d))
"""
    assert run_python(program, path).strip() == "300"
    assert len(list(path.glob("*.tif"))) == 300


def test_a_folder_that_takes_no_files_fails_at_once_and_says_so(path, monkeypatch):
    opened = os.open

    def refuse(name, *arguments):
        if str(name).endswith(INDEX_NAME):
            raise OSError(24, "Too many open files")
        return opened(name, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageFailedError, match="Too many open files"):
        NDTiffStorage(path)
    monkeypatch.undo()
    with exengine.open_dataset(path) as dataset:
        assert len(dataset) == 0 and dataset.status == "failed"


def test_a_frame_for_which_there_is_no_memory_leaves_nothing_behind(new, frame, monkeypatch):
    storage = new()

    def no_memory(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(np, "ascontiguousarray", no_memory)
        with pytest.raises(MemoryError):
            storage.put({"time": "a"}, frame({"time": 0}), None)
    storage.put({"time": 0}, frame({"time": 0}), None)
    storage.finish()
    assert list(storage) == [{"time": 0}]
