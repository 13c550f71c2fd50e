"""Private copies of frames: equal to the frame, apart from it, and in memory that is used again."""

import time
from collections import deque

import numpy as np
import pytest

from exengine.kernel.data_handler import DataHandler
from exengine.kernel.flow import frame_buffers
from exengine.kernel.flow.frame_buffers import LARGE_BYTES, SLAB_BYTES, FrameBuffers

KINDS = {
    "plain": np.arange(12, dtype=np.uint16).reshape(3, 4),
    "Fortran order": np.asfortranarray(np.arange(12, dtype=np.uint16).reshape(3, 4)),
    "reversed": np.arange(12, dtype=np.uint16).reshape(3, 4)[:, ::-1],
    "big endian": np.arange(12, dtype=">u2").reshape(3, 4),
    "complex": np.arange(12, dtype=np.complex64).reshape(3, 4),
    "half": np.arange(12, dtype=np.float16).reshape(3, 4),
    "dates": np.arange(12).astype("datetime64[s]").reshape(3, 4),
    "records": np.zeros((3, 4), [("a", "u2"), ("b", "f8")]),
    "objects": np.full((3, 4), "x", object),
    "masked": np.ma.masked_array(np.arange(12, dtype=np.uint16).reshape(3, 4), np.eye(3, 4)),
    "empty": np.zeros((0, 4), np.uint16),
    "a single value": np.array(7, np.uint16),
    "read-only": np.broadcast_to(np.arange(4, dtype=np.uint16), (3, 4)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["copy", "copy_large"])
def test_a_copy_of_any_array_is_equal_and_apart(kind, method):
    image, buffers = KINDS[kind], FrameBuffers()
    copy = getattr(buffers, method)(image)
    assert type(copy) is type(image) and copy.dtype == image.dtype and copy.shape == image.shape
    assert np.array_equal(copy, image) and not np.shares_memory(copy, image)
    assert copy.flags.writeable and getattr(copy, "mask", 0) is not getattr(image, "mask", 1)
    if kind == "masked":
        assert (copy.mask == image.mask).all()


def test_a_masked_array_after_a_plain_one_of_the_same_layout_keeps_its_mask():
    buffers = FrameBuffers()
    buffers.copy(KINDS["plain"])
    assert isinstance(buffers.copy(KINDS["masked"]), np.ma.MaskedArray)


def test_copies_of_several_layouts_do_not_touch_each_other():
    buffers, copies = FrameBuffers(), []
    for number in range(2000):
        shape = ((30, 40), (40, 30), (16, 16, 3))[number % 3]
        copies.append((number, buffers.copy(np.full(shape, number, np.uint16))))
    assert all((copy == number).all() for number, copy in copies)


def test_memory_is_used_again_when_no_frame_refers_to_it_and_only_then():
    buffers, image = FrameBuffers(), np.zeros((64, 64), np.uint16)  # 32 in a slab
    per_slab = SLAB_BYTES // image.nbytes
    kept = buffers.copy(image)
    seen = {id(kept.base)}
    for number in range(20 * per_slab):
        copy = buffers.copy(np.full_like(image, number % 1000))
        seen.add(copy.__array_interface__["data"][0] - copy.__array_interface__["data"][0] % 4096)
        assert not np.shares_memory(copy, kept)
    assert not kept.any()
    assert len(seen) <= 8 * per_slab


def test_large_frames_use_their_memory_again_when_no_frame_refers_to_it_and_only_then():
    buffers, image = FrameBuffers(), np.zeros(LARGE_BYTES, np.uint8)
    kept, places = buffers.copy_large(image), set()
    for number in range(100):
        copy = buffers.copy_large(np.full_like(image, number % 200))
        places.add(copy.__array_interface__["data"][0])
        assert not np.shares_memory(copy, kept) and copy[0] == number % 200
    assert not kept.any() and len(places) < 50


@pytest.mark.parametrize("populate", [frame_buffers._POPULATE, None])
def test_slabs_are_allocated_in_advance_only_while_the_storage_keeps_them(populate, monkeypatch):
    monkeypatch.setattr(frame_buffers, "_POPULATE", populate)
    buffers, image = FrameBuffers(), np.zeros((64, 64), np.uint16)
    assert not buffers.prepare()  # no frame yet
    kept = [buffers.copy(image) for _ in range(SLAB_BYTES // image.nbytes)]
    assert buffers.prepare() and buffers.prepare() and not buffers.prepare()
    prepared = list(buffers._prepared)
    kept += [buffers.copy(np.full_like(image, number)) for number in range(2 * len(kept))]
    assert [any(np.shares_memory(slab, copy) for copy in kept) for slab in prepared] == [True, True]
    assert [int(copy[-1, -1]) for copy in kept[-64:]] == list(range(64)) and kept[-1].flags.writeable
    del prepared, kept[:32]
    buffers.copy(image)  # in the slab that is free again
    assert not buffers._prepared and buffers.prepare()


def test_large_buffers_of_frames_in_flight_are_reused_in_their_order_and_no_more_are_kept_than_they_need():
    buffers, image = FrameBuffers(), np.zeros(2**23, np.uint8)
    spare = frame_buffers._KEPT_BYTES // image.nbytes
    queue, places, most = deque(), set(), 0
    for number in range(60):
        queue.append(buffers.copy_large(np.full_like(image, number), sum(frame.nbytes for frame in queue)))
        places.add(queue[-1].__array_interface__["data"][0])
        if len(queue) > 10:
            assert queue.popleft()[-1] == number - 10
        most = max(most, len(buffers._large))
    assert len(places) == 11 and most <= 11 + spare
    queue.clear()
    buffers.trim()
    assert 0 < len(buffers._large) <= spare
    buffers.copy_large(image)
    assert len(buffers._large) <= spare
    kept = [buffers.copy_large(image) for _ in range(20)]  # a storage in memory keeps its frames
    assert len({id(frame.base) for frame in kept}) == 20 and len(buffers._large) <= spare + 1
    buffers.release()
    assert not buffers._large and not kept[-1].any()


def test_buffers_of_two_sizes_in_turn_are_reused():
    buffers, places = FrameBuffers(), set()
    images = np.zeros(LARGE_BYTES, np.uint8), np.zeros(3 * LARGE_BYTES, np.uint8)
    for number in range(40):
        copy = buffers.copy_large(images[number % 2])
        places.add(copy.base.__array_interface__["data"][0])
        del copy
    assert len(places) <= 4


def test_a_handler_without_frames_in_flight_keeps_few_large_buffers(held_storage):
    spare = frame_buffers._KEPT_BYTES // 2**23
    held_storage.gate.clear()
    handler = DataHandler(held_storage)
    for number in range(12):
        handler.put({"time": number}, np.zeros(2**23, np.uint8), {})
    assert len(handler._copies._large) > 2 * spare
    held_storage.gate.set()
    until = time.monotonic() + 10
    while len(handler._copies._large) > spare and time.monotonic() < until:
        time.sleep(0.01)
    assert 0 < len(handler._copies._large) <= spare
    handler.finish()
    handler.await_completion(timeout=10)
    assert not handler._copies._large
