"""Small chunks that would decompress to large ones, or crash a codec."""

import struct
import zlib

import numpy as np
import pytest
from hand_made import array, edit, group, multiscales

from exengine.errors import DatasetDamagedError
from exengine.testing import forget_peak, peak_mib
from exengine_ome_zarr.foreign import open_foreign


def zstd_of_zeros(blocks):
    """Return a frame of zstd that decompresses to 128 KiB of zeros per block, without stating its size."""
    block = struct.pack("<I", 2**17 << 3 | 1 << 1)[:3] + b"\0"
    last = struct.pack("<I", 2**17 << 3 | 1 << 1 | 1)[:3] + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x58" + block * (blocks - 1) + last


def zstd_with_size(size):
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + struct.pack("<I", 1)[:3]


def deflated(size, wbits):
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)  # can be repeated
    return head + piece * (size // 2**24) + packer.flush()


BOMBS = {
    "blosc": ("blosc", lambda: struct.pack("<4B3I", 2, 1, 0, 1, 2**31 - 1, 2**30, 100) + bytes(84)),
    "blosc that claims more bytes than it has": (
        "blosc",
        lambda: struct.pack("<4B3I", 2, 1, 0, 1, 1000, 1000, 2**30) + bytes(84),
    ),
    "lz4": ("lz4", lambda: struct.pack("<I", 2**31 - 1) + bytes(96)),
    "zstd": ("zstd", lambda: zstd_of_zeros(2**14)),
    "zstd with a size": ("zstd", lambda: zstd_with_size(2**40)),
    "gzip": ("gzip", lambda: deflated(2**31, 31)),
    "zlib": ("zlib", lambda: deflated(2**31, 15)),
    "bz2": ("bz2", lambda: __import__("bz2").compress(bytes(2**25))),
    "lzma": ("lzma", lambda: __import__("lzma").compress(bytes(2**25))),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_in_a_chunk_is_not_decompressed(path, kind):
    import numcodecs

    codec, content = BOMBS[kind]
    large = "gzip" in kind or "zlib" in kind
    shape = (1, 2, 2**11, 2**11) if large else (1, 2, 64, 64)
    group(path, {"multiscales": multiscales("tcyx", version="0.4")}, "0.4")
    array(
        path / "0",
        np.zeros(shape, "u2")[:, :0],
        "0.4",
        chunks=(1, 1, *shape[2:]),
        compressors=numcodecs.get_codec({"id": codec}),
    )
    edit(path / "0/.zarray", lambda d: d.update(shape=list(shape)))
    chunk = path / "0/0/0/0/0"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(content())
    before = forget_peak()
    with pytest.raises(DatasetDamagedError, match="0/0/0/0"):
        open_foreign(path).get_data({"time": 0, "channel": 0})
    grown = peak_mib() - before
    assert grown < 300, f"memory grew by {grown} MiB"


def test_a_frame_of_zstd_without_a_size_is_read(path):
    import zarr.codecs as codecs

    group(path, {"multiscales": multiscales("zyx")})
    array(path / "0", np.ones((2, 512, 512), "u2"), chunks=(1, 512, 512), compressors=codecs.ZstdCodec())
    (path / "0/c/0/0/0").write_bytes(zstd_of_zeros(4))
    dataset = open_foreign(path)
    assert not dataset[{"z": 0}].any() and dataset[{"z": 1}].all()
