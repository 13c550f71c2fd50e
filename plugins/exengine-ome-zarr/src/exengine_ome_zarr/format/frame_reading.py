"""Reads frames by their journal records or by shard indices, wherever the files are stored.

Only this module decides where the bytes of a frame are, which lengths are possible, and which checksum
applies. A subclass reads bytes from a folder or from object storage.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt

from exengine.errors import DatasetDamagedError
from exengine_ome_zarr.format import sizes
from exengine_ome_zarr.format.files import OPEN
from exengine_ome_zarr.format.journal import Record
from exengine_ome_zarr.format.layout import EMPTY, Indices, Layout, decode_index
from exengine_ome_zarr.format.pixels import PixelCodec


class FrameName:
    """The description of a frame in an error message. It is created only if there is an error.

    Parameters
    ----------
    describe : callable
        Returns the description of a frame.
    number : int
        The number of the frame.
    """

    __slots__ = ("_describe", "_number")

    def __init__(self, describe: Callable[[int], str], number: int) -> None:
        self._describe = describe
        self._number = number

    def __str__(self) -> str:
        return self._describe(self._number)


class FrameReading(ABC):
    """Reads the frames of a dataset or of one of its resolution levels.

    Parameters
    ----------
    layout : Layout
    array_path : callable
        Returns the path of an image's array in the dataset.
    """

    def __init__(self, layout: Layout, array_path: Callable[[int], str]) -> None:
        self.layout = layout
        self.codec = PixelCodec(layout)
        self._array_path = array_path

    # -- for subclasses --------------------------------------------------------------------------

    @abstractmethod
    def read_bytes(self, path: str, offset: int, length: int) -> bytes | None:
        """Return bytes from a file (fewer if the file ends too early), or None if there is no file."""

    @abstractmethod
    def read_end(self, path: str, length: int) -> bytes | None:
        """Return the last bytes of a file in the dataset, or None if the file is missing or too short."""

    def changed_at(self, path: str) -> str:
        """Return a clause stating when a file was last changed, or an empty string if the time is unknown."""
        return ""

    # -- reading ---------------------------------------------------------------------------------

    def shard(self, image: int, t: int, c: int, z: int) -> str:
        """Return the path of a frame's shard in the dataset."""
        return f"{self._array_path(image)}/{self.layout.shard_name(*self.layout.shard_at(t, c, z))}"

    def read(self, record: Record, name: object) -> npt.NDArray[Any]:
        """Return the pixels of a frame.

        Raises
        ------
        DatasetDamagedError
            If the pixels differ from those that were written. The message refers to the frame by ``name``.
        """
        _, image, t, c, z, part, offset, length, checksum, _, _, _, pixels_crc = record
        layout, shard = self.layout, self.shard(image, t, c, z)
        if length > 2 * layout.frame_bytes + 64 * layout.tiles + 65536 or offset >= sizes.MAX_OFFSET:
            raise DatasetDamagedError(
                f"the journal is damaged: it lists {length} bytes at offset {offset} for {name}"
            )
        # Frames keep their offsets when their part becomes a shard, but not when the shard is copied.
        for path in (f"{OPEN}/part-{part}", shard) if part else (shard,):
            text = self.read_bytes(path, offset, length)
            if text is not None and len(text) == length and crc32c.crc32c(text) == checksum:
                return self._decode(self._chunks_of(text, name) if part else [text], bool(part), name)
        frame = self.read_by_index(image, (t, c, z), bool(part), name)
        pixels: Any = self.codec.arrange(frame)
        if crc32c.crc32c(pixels) != pixels_crc:
            changed = self._what_changed(shard)
            raise DatasetDamagedError(
                f"the pixels of {name} differ from those that were written: {shard} {changed}"
            )
        return frame

    def read_by_index(self, image: int, at: Indices, is_compressed: bool, name: object) -> npt.NDArray[Any]:
        """Locate a frame by means of its shard's index; return the pixels without verifying checksums.

        Raises
        ------
        DatasetDamagedError
            If the frame is missing or cannot be read. The message refers to the frame by ``name``.
        """
        layout, shard = self.layout, self.shard(image, *at)
        index = decode_index(self.read_end(shard, layout.index_bytes) or b"")
        if index is None:
            raise DatasetDamagedError(f"the pixels of {name} cannot be read: {shard} has no valid index")
        first = layout.chunk_number(*at)
        inside = layout.slot(*at) % layout.frames_per_chunk
        chunks = []
        for offset, length in index[first : first + layout.tiles].tolist():
            if offset == EMPTY:
                raise DatasetDamagedError(f"the pixels of {name} are missing from {shard}")
            if not is_compressed:
                offset, length = offset + inside * layout.tile_bytes, layout.tile_bytes
            if length > 2 * layout.tile_bytes + 65536 or offset >= sizes.MAX_OFFSET:
                raise DatasetDamagedError(
                    f"the index of {shard} is damaged: it lists {length} bytes at offset {offset}"
                )
            chunks.append(self.read_bytes(shard, offset, length) or b"")
        return self._decode(chunks, is_compressed, name)

    def _chunks_of(self, text: bytes, name: object) -> list[bytes]:
        """Return the compressed chunks of a frame. If there are several, their lengths are stored first."""
        tiles = self.layout.tiles
        if tiles == 1:
            return [text]
        if len(text) < 4 * tiles:
            raise DatasetDamagedError(f"the journal is damaged: it lists only {len(text)} bytes for {name}")
        chunks, at = [], 4 * tiles
        for length in np.frombuffer(text, "<u4", tiles).tolist():
            chunks.append(text[at : at + length])
            at += length
        return chunks

    def _decode(self, chunks: list[bytes], is_compressed: bool, name: object) -> npt.NDArray[Any]:
        """Return a frame from its chunks."""
        if is_compressed:
            return self.codec.decompress(chunks, name)
        stored = np.frombuffer(bytearray(b"".join(chunks)), np.uint8)
        if len(stored) != self.layout.frame_bytes:
            raise DatasetDamagedError(f"the pixels of {name} cannot be read: the file is too short")
        return self.codec.restore(stored)

    def _what_changed(self, shard: str) -> str:
        """Return a clause stating that another program rewrote the shard, or that bytes in it changed."""
        layout = self.layout
        index = decode_index(self.read_end(shard, layout.index_bytes) or b"")
        expected = decode_index(layout.complete_index)
        if not layout.is_compressed and index is not None and expected is not None:
            if ((index == EMPTY) | (index == expected)).all():
                return "still has the index that was written, so some of its other bytes have changed"
        return f"has a different index, so another program has rewritten it{self.changed_at(shard)}"
