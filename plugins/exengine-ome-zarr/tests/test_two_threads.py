"""The work of the helper thread: half of a compressed frame, checksums, and early writes to disk."""

import threading

import numpy as np
import pytest

import exengine
from exengine.base_classes import HelperThread
from exengine_ome_zarr.format.pixels import PixelCodec

LARGE = (1024, 1024)
CODECS = ("blosc-lz4", "blosc-zstd", "zstd", "gzip")


@pytest.fixture
def compressed(monkeypatch):
    """Return a list of the thread and the number of chunks of each call that compresses a frame."""
    calls = []
    original = PixelCodec.compress

    def compress(self, *arguments):
        chunks = original(self, *arguments)
        calls.append((threading.current_thread().name, len(chunks)))
        return chunks

    monkeypatch.setattr(PixelCodec, "compress", compress)
    return calls


@pytest.fixture
def begun(monkeypatch):
    """Return a list of the offsets and sizes that the disk was instructed to store."""
    begun = []
    monkeypatch.setattr(HelperThread, "begin_writing", lambda _, file, *part: begun.append(part))
    return begun


@pytest.mark.parametrize("codec", CODECS)
def test_two_threads_compress_a_large_frame_once(codec, new, path, frame, compressed):
    storage = new(codec=codec)
    frames = [({"time": time}, frame({"time": time}, LARGE), None) for time in range(3)]
    for one in frames:
        storage.put(*one)
    assert sorted({name for name, _ in compressed}) == ["MainThread", "exengine-helper"]
    assert sum(chunks for _, chunks in compressed) == 6
    storage.finish()
    with exengine.open_dataset(path) as dataset:
        for axes, data, _ in frames:
            np.testing.assert_array_equal(dataset[axes], data)


def test_each_chunk_of_a_batch_that_exceeds_the_batch_size_is_compressed_once(new, frame, compressed):
    storage = new(codec="zstd")
    storage.put_many([({"time": time}, frame({"time": time}, (2048, 1024)), None) for time in range(5)])
    assert sum(chunks for _, chunks in compressed) == 5 * 2


def test_a_small_compressed_frame_stays_on_one_thread(new, frame, compressed):
    storage = new(codec="zstd")
    storage.put({"time": 0}, frame({"time": 0}, (256, 256)), None)
    assert compressed == [("MainThread", 1)]


def test_an_error_of_the_helper_thread_reaches_the_caller_and_the_frame_can_be_put_again(
    new, path, frame, monkeypatch
):
    storage = new(codec="zstd")
    original = PixelCodec.compress

    def compress(self, *arguments):
        if threading.current_thread().name == "exengine-helper":
            raise MemoryError("no memory")
        return original(self, *arguments)

    data = frame({"time": 0}, LARGE)
    with monkeypatch.context() as patch:
        patch.setattr(PixelCodec, "compress", compress)
        with pytest.raises(MemoryError):
            storage.put({"time": 0}, data, None)
    storage.put({"time": 0}, data, None)
    storage.finish()
    assert exengine.verify(path).ok


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("options", [{}, {"codec": "blosc-lz4"}], ids=["none", "blosc-lz4"])
def test_the_disk_begins_with_small_frames_while_more_are_put_and_with_every_byte_once(
    batch, options, new, frame, begun
):
    storage = new(**options)
    frames = [({"time": time}, frame({"time": time}, (100, 100)), None) for time in range(1000)]  # 20 MB
    for at in range(0, len(frames), batch):
        storage.put_many(frames[at : at + batch])
    assert len(begun) >= 3
    end = 0
    for offset, size in begun:
        assert offset == end and 4 * 2**20 <= size < 5 * 2**20
        end += size


def test_the_disk_begins_with_large_compressed_frames_while_the_next_one_is_compressed(new, frame, begun):
    storage = new(codec="zstd")
    for time in range(4):
        storage.put({"time": time}, frame({"time": time}, (2048, 1024)), None)
    assert len(begun) >= 3
