"""The bytes of a frame: what is arranged is restored, and every reader of Zarr decodes each chunk by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exengine.errors import DatasetDamagedError
from exengine_ome_zarr.format.layout import DTYPES, Layout
from exengine_ome_zarr.format.pixels import CODECS, PixelCodec


@st.composite
def layouts(draw):
    height, width = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    return Layout(
        height=height,
        width=width,
        samples=draw(st.sampled_from([1, 3])),
        dtype=draw(st.sampled_from(DTYPES)),
        axes=("time",),
        roles={"t": ("time",)},
        codec=draw(st.sampled_from(["none", *CODECS])),
        tile=(draw(st.integers(1, height)), draw(st.integers(1, width))),
    )


def pixels_of(layout):
    raw = np.random.default_rng(1).integers(0, 100, layout.frame_shape)
    return raw.astype(layout.dtype)


@given(layouts())
def test_a_frame_returns_from_its_bytes(layout):
    codec, pixels = PixelCodec(layout), pixels_of(layout)
    arranged = codec.arrange(pixels)
    assert arranged.nbytes == layout.frame_bytes
    if layout.is_compressed:
        chunks = codec.compress(arranged)
        assert len(chunks) == layout.tiles
        restored = codec.decompress(chunks, "a frame")
    else:
        restored = codec.restore(arranged.reshape(-1).view(np.uint8))
    np.testing.assert_array_equal(restored, pixels)


@given(layouts())
def test_each_tile_holds_its_part_of_every_plane_and_is_padded_with_zeros(layout):
    pixels = pixels_of(layout).reshape(layout.height, layout.width, layout.samples)
    tiles = (
        PixelCodec(layout)
        .arrange(pixels_of(layout))
        .reshape(layout.tiles_y, layout.tiles_x, layout.samples, *layout.tile)
    )
    tile_y, tile_x = layout.tile
    for y in range(layout.tiles_y):
        for x in range(layout.tiles_x):
            part = pixels[y * tile_y : (y + 1) * tile_y, x * tile_x : (x + 1) * tile_x].transpose(2, 0, 1)
            found = tiles[y, x]
            np.testing.assert_array_equal(found[:, : part.shape[1], : part.shape[2]], part)
            assert not found[:, part.shape[1] :].any() and not found[:, :, part.shape[2] :].any()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("chunk", [b"", b"nonsense", bytes(100)])
def test_what_cannot_be_decompressed_is_damaged(codec, chunk):
    layout = Layout(
        height=4, width=4, samples=1, dtype="uint16", axes=("t",), roles={"t": ("t",)}, codec=codec, tile=(4, 4)
    )  # fmt: skip
    with pytest.raises(DatasetDamagedError):
        PixelCodec(layout).decompress([chunk], "a frame")


@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_of_another_size_is_damaged(codec):
    small, large = (
        Layout(height=n, width=4, samples=1, dtype="uint8", axes=("t",), roles={"t": ("t",)}, codec=codec, tile=(n, 4))
        for n in (4, 5)
    )  # fmt: skip
    chunks = PixelCodec(large).compress(np.zeros((5, 4), np.uint8))
    with pytest.raises(DatasetDamagedError, match="bytes instead of"):
        PixelCodec(small).decompress(chunks, "a frame")


def test_an_unknown_codec_is_damaged():
    layout = Layout(
        height=4, width=4, samples=1, dtype="uint8", axes=("t",), roles={"t": ("t",)}, codec="lzma", tile=(4, 4)
    )  # fmt: skip
    with pytest.raises(DatasetDamagedError, match="lzma"):
        PixelCodec(layout)
