"""The arrangement of frames in shards: every frame has a slot of its own, where readers of Zarr look for it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exengine_ome_zarr.format import sizes
from exengine_ome_zarr.format.layout import (
    FRAME_DIMENSIONS,
    Layout,
    choose_layout,
    decode_index,
    encode_index,
)

small = st.integers(1, 4)
triples = st.tuples(small, small, small)


@st.composite
def layouts(draw):
    """Draw layouts of small shards: any order, chunks of several frames, tiles, RGB."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    tile = (draw(st.integers(1, height)), draw(st.integers(1, width)))
    several = draw(st.booleans())
    if several:
        tile = (height, width)
    samples = draw(st.sampled_from([1, 1, 3]))
    chunk = draw(triples) if several else (1, 1, 1)
    if samples > 1:
        chunk = (*chunk[:2], 1)
    shard = tuple(each * times for each, times in zip(chunk, draw(triples), strict=True))
    return Layout(
        height=height,
        width=width,
        samples=samples,
        dtype=draw(st.sampled_from(["uint8", "uint16", "float32"])),
        axes=("time", "channel", "z"),
        roles={"t": ("time",), "c": ("channel",), "z": ("z",)},
        tile=tile,
        chunk=chunk,
        shard=shard,
        order=tuple(draw(st.permutations(FRAME_DIMENSIONS))),
    )


def frames_of(layout):
    return list(np.ndindex(*layout.shard))


@given(layouts())
def test_every_frame_of_a_shard_has_a_slot_of_its_own_and_no_slot_is_left_over(layout):
    slots = [layout.slot(*frame) for frame in frames_of(layout)]
    assert sorted(slots) == list(range(math.prod(layout.shard)))


@given(layouts(), triples)
def test_a_slot_depends_only_on_the_place_in_the_shard(layout, shard):
    for frame in frames_of(layout)[:8]:
        there = [f + s * size for f, s, size in zip(frame, shard, layout.shard, strict=True)]
        assert layout.slot(*there) == layout.slot(*frame)
        assert layout.shard_at(*there) == shard


@given(layouts())
def test_the_index_written_in_advance_leads_to_the_bytes_of_every_frame(layout):
    index = decode_index(layout.complete_index)
    assert index is not None and len(layout.complete_index) == layout.index_bytes
    for frame in frames_of(layout):
        first = layout.chunk_number(*frame)
        entries = index[first : first + layout.tiles].tolist()
        inside = layout.slot(*frame) % layout.frames_per_chunk * layout.tile_bytes
        begin = layout.slot(*frame) * layout.frame_bytes
        wanted = [begin + tile * layout.tile_bytes for tile in range(layout.tiles)]
        assert [offset + inside for offset, _ in entries] == wanted
        assert {length for _, length in entries} == {layout.tile_bytes * layout.frames_per_chunk}


@given(layouts())
def test_the_chunks_of_the_index_fill_the_slots_without_gap_or_overlap(layout):
    index = decode_index(layout.complete_index)
    begins = sorted(int(offset) for offset, _ in index)
    size = layout.tile_bytes * layout.frames_per_chunk
    assert begins == list(range(0, layout.slots_bytes, size))


@given(layouts())
def test_consecutive_frames_of_the_acquisition_have_consecutive_slots_if_a_chunk_holds_one(layout):
    layout = replace(layout, chunk=(1, 1, 1))
    order = [FRAME_DIMENSIONS.index(dim) for dim in layout.order]
    acquired = sorted(frames_of(layout), key=lambda frame: [frame[number] for number in order])
    assert [layout.slot(*frame) for frame in acquired] == list(range(len(acquired)))


@given(layouts())
def test_a_layout_returns_from_json_as_it_was(layout):
    again = Layout.from_json(layout.to_json())
    assert again == layout


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0}, {"tile": [0, 4]}, {"tile": [4]}, {"chunk": [1, 1, "1"]}, {"shard": [2**31, 1, 1]}, {"chunk": [2, 1, 1]},
        {"dtype": "complex64"}, {"dtype": "O"}, {"samples": 2}, {"samples": 0}, {"order": ["t", "c", "c"]},
        {"roles": {"q": ["time"]}}, {"shard": [2**21, 1, 1]}, {"height": 2**30, "width": 2**30, "tile": [2**30, 2**30]},
        {"chunk": [3, 1, 1], "tile": [2, 4]}, {"shard": [True, 1, 1]}, {"unknown": 1},
    ],
)  # fmt: skip
def test_a_layout_that_contradicts_itself_or_is_too_large_is_refused(change):
    good = Layout(
        height=4, width=4, samples=1, dtype="uint16", axes=("time",), roles={"t": ("time",)}, tile=(4, 4), shard=(3, 1, 1)
    ).to_json()  # fmt: skip
    Layout.from_json(good)
    with pytest.raises((ValueError, TypeError, KeyError)):
        Layout.from_json({**good, **change})


lengths = st.dictionaries(st.sampled_from(["t", "c", "z"]), st.none() | st.integers(1, 5000))


@given(
    shape=st.tuples(st.integers(1, 3000), st.integers(1, 3000)) | st.just((64, 64, 3)),
    dtype=st.sampled_from(["uint8", "uint16", "float64"]),
    lengths=lengths,
    order=st.permutations(FRAME_DIMENSIONS),
    codec=st.sampled_from(["none", "blosc-lz4"]),
    chunk=st.none() | st.integers(16, 1000),
    shard=st.none() | st.integers(1, 10_000),
    frames_per_chunk=st.none() | st.integers(1, 200),
)
def test_every_chosen_layout_is_valid_and_not_larger_than_its_limits(
    shape, dtype, lengths, order, codec, chunk, shard, frames_per_chunk
):
    roles = {dim: (dim,) for dim in lengths}
    layout = choose_layout(
        shape,
        dtype,
        tuple(lengths),
        roles,
        lengths,
        order=[dim for dim in order if dim in lengths],
        codec=codec,
        chunk=chunk,
        shard=shard,
        frames_per_chunk=None if codec != "none" else frames_per_chunk,
    )
    layout.refuse_nonsense()
    frames = math.prod(layout.shard)
    # A shard consists of whole chunks, which can make it larger than stated, but never double.
    assert frames < 2 * (shard or sizes.MAX_SHARD_FRAMES)
    assert frames == 1 or frames * layout.frame_bytes < 2 * max(
        sizes.SHARD_BYTES, (shard or 0) * layout.frame_bytes
    )
    if codec != "none":
        assert layout.frames_per_chunk == 1
    for dim, along in zip(FRAME_DIMENSIONS, layout.shard, strict=True):
        assert dim in lengths or along == 1


def test_only_one_dimension_of_unknown_length_extends_a_shard_because_growth_would_move_the_slots():
    layout = choose_layout(
        (64, 64), "uint16", ("time", "z"), {"t": ("time",), "z": ("z",)}, {"t": None, "z": None}
    )
    assert layout.shard[0] > 1 and layout.shard[2] == 1


def test_the_innermost_dimension_of_the_acquisition_fills_a_shard_first():
    known = {"t": 100, "z": 10}
    roles = {"t": ("time",), "z": ("z",)}
    by_time = choose_layout((64, 64), "uint8", ("time", "z"), roles, known, order=("t", "z"), shard=10)
    by_plane = choose_layout((64, 64), "uint8", ("z", "time"), roles, known, order=("z", "t"), shard=10)
    assert (by_time.shard, by_plane.shard) == ((1, 1, 10), (10, 1, 1))


@pytest.mark.parametrize(
    ("shape", "codec", "tile"),
    [
        ((2048, 2048), "none", (2048, 2048)),
        ((2048, 2048), "zstd", (512, 2048)),
        ((512, 512), "blosc-lz4", (256, 512)),
        ((256, 256), "blosc-lz4", (256, 256)),
        ((2050, 2048), "zstd", (1025, 2048)),  # four chunks would be padded
        ((2049, 2048), "zstd", (2049, 2048)),
        ((512, 512, 3), "zstd", (256, 512)),
    ],
)
def test_large_compressed_frames_have_chunks_of_rows_without_padding(shape, codec, tile):
    layout = choose_layout(shape, "uint16", ("time",), {"t": ("time",)}, {"t": None}, codec=codec)
    assert layout.tile == tile


def test_an_index_whose_checksum_is_wrong_is_not_believed():
    text = bytearray(encode_index(np.arange(8, dtype=np.uint64).reshape(4, 2)))
    assert decode_index(bytes(text)) is not None
    for at in range(len(text)):
        damaged = bytearray(text)
        damaged[at] ^= 1
        assert decode_index(bytes(damaged)) is None
    assert decode_index(b"") is None and decode_index(bytes(text[:-1])) is None
