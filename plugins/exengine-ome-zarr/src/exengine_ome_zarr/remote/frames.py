"""Reads the pixels and metadata of frames from object storage, with range requests."""

from collections.abc import Callable
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt

from exengine.errors import DatasetDamagedError
from exengine_ome_zarr.format.files import OPEN
from exengine_ome_zarr.format.frame_files import FrameName
from exengine_ome_zarr.format.journal import Record
from exengine_ome_zarr.format.layout import EMPTY, Layout, decode_index
from exengine_ome_zarr.format.pixels import PixelCodec
from exengine_ome_zarr.remote.bucket import Bucket


class RemoteFrames:
    """The shards and parts of a dataset in a bucket.

    Parameters
    ----------
    bucket : Bucket
    layout : Layout
    array_path : callable
        Returns the path of an image's array in the dataset.
    """

    def __init__(self, bucket: Bucket, layout: Layout, array_path: Callable[[int], str]) -> None:
        self._bucket = bucket
        self._layout = layout
        self._codec = PixelCodec(layout)
        self._array_path = array_path

    def shard(self, image: int, t: int, c: int, z: int) -> str:
        """Return the name of a frame's shard."""
        return f"{self._array_path(image)}/{self._layout.shard_name(*self._layout.shard_at(t, c, z))}"

    def read(self, record: Record, name: FrameName) -> npt.NDArray[Any]:
        """Return the pixels of a frame.

        Raises
        ------
        DatasetDamagedError
            If the pixels differ from those that were written. ``name`` describes the frame.
        DatasetAccessError
            If the store does not answer.
        """
        _, image, t, c, z, part, offset, length, checksum, *_ = record
        layout, shard = self._layout, self.shard(image, t, c, z)
        if length > 2 * layout.frame_bytes + 64 * layout.tiles + 65536:
            raise DatasetDamagedError(f"the journal states a length of {length} bytes for {name}")
        for place in (f"{OPEN}/part-{part}", shard) if part else (shard,):
            text = self._bucket.read_range(place, offset, length)
            if text is not None and len(text) == length and crc32c.crc32c(text) == checksum:
                return self._decode(text, is_compressed=bool(part), name=name)
        return self._read_by_index(record, shard, name)

    def _decode(self, text: bytes, *, is_compressed: bool, name: FrameName) -> npt.NDArray[Any]:
        layout = self._layout
        if not is_compressed:
            return self._codec.restore(np.frombuffer(bytearray(text), np.uint8))
        if layout.tiles == 1:
            return self._codec.decompress([text], name)
        head, at, pieces = 4 * layout.tiles, 4 * layout.tiles, []
        for length in np.frombuffer(text[:head], "<u4").tolist():
            pieces.append(text[at : at + length])
            at += length
        return self._codec.decompress(pieces, name)

    def _read_by_index(self, record: Record, shard: str, name: FrameName) -> npt.NDArray[Any]:
        """Return the pixels of a frame that is elsewhere in its shard, because the shard was copied."""
        _, _, t, c, z, part, _, _, _, _, _, _, pixels_crc = record
        layout, codec = self._layout, self._codec
        index = decode_index(self._bucket.read_end(shard, layout.index_bytes) or b"")
        if index is None or len(index) != layout.chunks_in_shard:
            raise DatasetDamagedError(f"the pixels of {name} cannot be read: {shard} has no valid index")
        first = layout.chunk_number(t, c, z)
        inside = layout.slot(t, c, z) % layout.frames_per_chunk
        pieces = []
        for offset, length in index[first : first + layout.tiles].tolist():
            if offset == EMPTY:
                raise DatasetDamagedError(f"the pixels of {name} are missing in {shard}")
            if not part:
                offset, length = offset + inside * layout.tile_bytes, layout.tile_bytes
            if length > 2 * layout.tile_bytes + 65536:
                raise DatasetDamagedError(f"the index of {shard} states a chunk of {length} bytes")
            pieces.append(self._bucket.read_range(shard, offset, length) or b"")
        stored: Any
        if part:
            frame = codec.decompress(pieces, name)
            stored = codec.arrange(frame)
        else:
            stored = np.frombuffer(bytearray(b"".join(pieces)), np.uint8)
            if len(stored) != layout.frame_bytes:
                raise DatasetDamagedError(f"the pixels of {name} cannot be read: {shard} is too short")
            frame = codec.restore(stored)
        if crc32c.crc32c(stored) != pixels_crc:
            raise DatasetDamagedError(f"the pixels of {name} in {shard} differ from those that were written")
        return frame
