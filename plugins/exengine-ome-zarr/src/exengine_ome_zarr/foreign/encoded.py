"""Locates encoded chunks in files and shards, and checks them before a codec decodes them.

A torn shard is an error here, whereas Zarr libraries may read its chunks as missing. Codecs trust the sizes
in the header of a chunk: a damaged chunk could crash the interpreter, and a small chunk could expand to an
enormous size. The sizes are therefore first compared with the metadata of the array.
"""

import bz2
import lzma
import math
import threading
import zlib
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt

from exengine.errors import DatasetDamagedError
from exengine_ome_zarr.foreign.arrays import ArrayLayout
from exengine_ome_zarr.foreign.files import Files, joined

EMPTY = 2**64 - 1
"""The offset and the size that mark a chunk as never written."""

_UNCHECKED_BYTES = 2**29  # a chunk that cannot exceed this size after decompression needs no check
_MOST_INDEXES = 256
_MOST_DEFLATE = 1032  # the largest ratio that the format allows
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK_BYTES = 2**17


class ChunkFiles:
    """The encoded chunks of an array.

    Parameters
    ----------
    files : Files
    layout : ArrayLayout
    """

    def __init__(self, files: Files, layout: ArrayLayout) -> None:
        self._files = files
        self._layout = layout
        self._indexes: dict[str, tuple[tuple[int, int], npt.NDArray[np.uint64]]] = {}
        self._lock = threading.Lock()

    def read(self, place: tuple[int, ...]) -> bytes | None:
        """Return the encoded chunk at a grid position, or None if the chunk was never written.

        Raises
        ------
        DatasetDamagedError
            If the file or shard of the chunk is torn, or if a codec could not decode the chunk safely.
        """
        layout = self._layout
        if layout.shard is None:
            key = joined(layout.key, layout.file_name(place))
            data = self._files.read(key, layout.most_encoded_bytes)
            if data is None:
                return None
        else:
            grid = layout.shard_grid
            shard = tuple(at // count for at, count in zip(place, grid, strict=True))
            key = joined(layout.key, layout.file_name(shard))
            index = self._index(key)
            if index is None:
                return None
            slot = tuple(at % count for at, count in zip(place, grid, strict=True))
            row = index[int(np.ravel_multi_index(slot, grid))]
            offset, size = int(row[0]), int(row[1])
            if offset == size == EMPTY:
                return None
            data = self._files.read_range(key, offset, size)
            if data is None or len(data) != size:
                raise DatasetDamagedError(f"{self._files.name(key)} shrank during reading")
        problem = refusal(data, layout)
        if problem:
            raise DatasetDamagedError(f"{self._files.name(key)} has a damaged chunk: {problem}")
        return data

    def _index(self, key: str) -> npt.NDArray[np.uint64] | None:
        """Return the index of a shard. If the file has changed, the index is read again."""
        signature = self._files.signature(key)
        if signature is None:
            return None
        known = self._indexes.get(key)
        if known is not None and known[0] == signature:
            return known[1]
        index = read_index(self._files, self._layout, key, signature[0])
        with self._lock:
            while len(self._indexes) >= _MOST_INDEXES:
                del self._indexes[next(iter(self._indexes))]
            self._indexes[key] = (signature, index)
        return index

    def check_file(self, name: str) -> str:
        """Return the fault in one of the array's files, or an empty string if there is none.

        Parameters
        ----------
        name : str
            The key of the file, relative to the array. If the file is a shard, only its index is read.
        """
        if self._layout.place_of(name) is None:
            return ""
        key = joined(self._layout.key, name)
        try:
            signature = self._files.signature(key)
            if signature is None:
                return ""
            if self._layout.shard is not None:
                read_index(self._files, self._layout, key, signature[0])
                return ""
        except DatasetDamagedError as error:
            return str(error)
        return self._size_problem(key, signature[0])

    def _size_problem(self, key: str, size: int) -> str:
        layout = self._layout
        if not size:
            return f"{self._files.name(key)} is empty"
        raw = layout.chunk_bytes + layout.checksum_bytes
        if not layout.compressor and not layout.has_filters and size != raw:
            return f"{self._files.name(key)} has {size} bytes, but its chunk needs {raw}"
        return ""


def read_index(files: Files, layout: ArrayLayout, key: str, size: int) -> npt.NDArray[np.uint64]:
    """Return the offset and the size of each chunk in a shard, after checking them.

    Parameters
    ----------
    files : Files
    layout : ArrayLayout
    key : str
        The key of the shard.
    size : int
        The size of the shard's file, in bytes.

    Raises
    ------
    DatasetDamagedError
        If the shard is torn.
    """
    count = math.prod(layout.shard_grid)
    index_bytes = 16 * count + (4 if layout.index_has_crc else 0)
    where = files.name(key)
    if size < index_bytes:
        raise DatasetDamagedError(
            f"{where} is a torn shard: it has {size} bytes, but its index alone has {index_bytes}"
        )
    data = files.read_range(key, size - index_bytes if layout.index_at_end else 0, index_bytes)
    if data is None or len(data) != index_bytes:
        raise DatasetDamagedError(f"{where} is a torn shard: its index cannot be read")
    entries = data[: 16 * count]
    if layout.index_has_crc and crc32c.crc32c(entries) != int.from_bytes(data[-4:], "little"):
        raise DatasetDamagedError(f"{where} is a torn shard: its index does not match its checksum")
    index = np.frombuffer(entries, "<u8").reshape(count, 2).astype(np.uint64)
    offset, length = index[:, 0], index[:, 1]
    written = (offset != EMPTY) | (length != EMPTY)
    limit = np.uint64(size)
    outside = written & ((offset > limit) | (length > limit - np.minimum(offset, limit)))
    if outside.any():
        at = int(np.argmax(outside))
        raise DatasetDamagedError(
            f"{where} is a torn shard: chunk {at} begins at byte {int(offset[at])} and has {int(length[at])} "
            f"bytes, but the file has {size}"
        )
    large = written & (length > np.uint64(layout.most_encoded_bytes))
    if large.any():
        raise DatasetDamagedError(f"{where} is a torn shard: chunk {int(np.argmax(large))} is too large")
    return index


def refusal(data: bytes, layout: ArrayLayout) -> str:
    """Return the reason why a chunk must not be decoded, or an empty string if it may be decoded."""
    if not data:
        return "it has no bytes"
    if layout.checksum_bytes:
        data = data[: -layout.checksum_bytes]
    check = _CHECKS.get(layout.compressor)
    try:
        return check(data, layout.most_decoded_bytes) if check is not None else ""
    except (IndexError, ValueError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        return f"{layout.compressor} cannot decompress it: {error}"


def _check_blosc(data: bytes, most: int) -> str:
    """Check the sizes in the header, which ``blosc_decompress`` does not compare with the buffer."""
    if len(data) < 16:
        return "it is shorter than a blosc header"
    decoded, block, encoded = (int.from_bytes(data[at : at + 4], "little") for at in (4, 8, 12))
    if encoded != len(data):
        return f"it has {len(data)} bytes, but its header claims {encoded}"
    if decoded > most or block > max(decoded, 1):
        return f"it claims to decompress to {decoded} bytes, in blocks of {block}"
    return ""


def _check_lz4(data: bytes, most: int) -> str:
    decoded = int.from_bytes(data[:4], "little")
    return f"it claims to decompress to {decoded} bytes" if decoded > most or len(data) < 4 else ""


def _check_zstd(data: bytes, most: int) -> str:
    """Check that the decompressed size, or an upper bound on it, is within the limit (RFC 8878)."""
    if data[:4] != _ZSTD_MAGIC:
        return "it does not begin with a zstd frame"
    descriptor = data[4]
    single = descriptor >> 5 & 1
    at = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    size_bytes = (single, 2, 4, 8)[descriptor >> 6]
    if size_bytes:
        decoded = int.from_bytes(data[at : at + size_bytes], "little") + (256 if size_bytes == 2 else 0)
        return f"it claims to decompress to {decoded} bytes" if decoded > most else ""
    total = 0
    last = False
    while not last and at + 3 <= len(data) and total <= max(most, _UNCHECKED_BYTES):
        header = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        total += _ZSTD_BLOCK_BYTES if kind == 2 else size
        at += 3 + (1 if kind == 1 else size)
    return f"it decompresses to {total} bytes or more" if total > max(most, _UNCHECKED_BYTES) else ""


def _check_deflate(data: bytes, most: int) -> str:
    if len(data) * _MOST_DEFLATE <= max(most, _UNCHECKED_BYTES):
        return ""
    return _count(zlib.decompressobj(47), data, most)  # the value 47 accepts gzip and zlib


def _check_bz2(data: bytes, most: int) -> str:
    return _count(bz2.BZ2Decompressor(), data, most)


def _check_lzma(data: bytes, most: int) -> str:
    return _count(lzma.LZMADecompressor(memlimit=_UNCHECKED_BYTES), data, most)


def _count(decompressor: Any, data: bytes, most: int) -> str:
    """Decompress data in pieces to determine its size, which the header does not contain."""
    total = len(decompressor.decompress(data, 2**20))
    while not decompressor.eof and total <= most:
        rest = getattr(decompressor, "unconsumed_tail", b"")
        piece = decompressor.decompress(rest, 2**20)
        if not piece:
            break
        total += len(piece)
    return f"it decompresses to more than {most} bytes" if total > most else ""


_CHECKS = {
    "blosc": _check_blosc,
    "lz4": _check_lz4,
    "zstd": _check_zstd,
    "gzip": _check_deflate,
    "zlib": _check_deflate,
    "bz2": _check_bz2,
    "lzma": _check_lzma,
}
