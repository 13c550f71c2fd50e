"""Reads the pixels and metadata of frames from the files of a dataset, for its writer and for its readers."""

import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt
import orjson

from exengine.base_classes import FilePool, OpenFile, read_at, read_into, sync_folder
from exengine.errors import DatasetDamagedError, MetadataError
from exengine_ome_zarr.format import sizes
from exengine_ome_zarr.format.files import OPEN, OWN_FOLDER, folders_in
from exengine_ome_zarr.format.journal import Record
from exengine_ome_zarr.format.layout import EMPTY, Layout, decode_index
from exengine_ome_zarr.format.pixels import PixelCodec
from exengine_ome_zarr.format.shards import part_path


def encode_json(value: Any) -> bytes:
    """Encode a checked JSON value, which may contain integers with more than 64 bits.

    Raises
    ------
    MetadataError
        If an integer has more digits than Python can read back.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except ValueError as error:
            raise MetadataError(f"the metadata cannot be encoded as portable JSON: {error}") from None


def frame_line(coordinates: bytes, metadata: bytes) -> bytes:
    """Return a frame's line in ``frames.jsonl``, from its coordinates and metadata as JSON."""
    return b'{"coordinates":%b,"metadata":%b}\n' % (coordinates, metadata)


class FrameName:
    """The description of a frame in an error message, which is composed only if there is an error.

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


def read_frame_line(file: OpenFile, record: Record, name: FrameName) -> dict[str, Any]:
    """Return a frame's line in ``frames.jsonl``: its coordinates and metadata.

    Raises
    ------
    DatasetDamagedError
        If the line differs from the one that was written. ``name`` describes the frame.
    """
    *_, at, size, checksum, _ = record
    if size > sizes.MAX_METADATA_BYTES + 2 * sizes.MAX_TEXT_BYTES or at >= sizes.MAX_OFFSET:
        raise DatasetDamagedError(f"the metadata of {name} has {size} bytes")
    line = read_at(file.descriptor, size, at)
    if len(line) != size or crc32c.crc32c(line) != checksum:
        raise DatasetDamagedError(f"the metadata of {name} differs from what was written")
    return parse_frame_line(line, name)


def parse_frame_line(line: bytes, name: FrameName) -> dict[str, Any]:
    """Return a frame's line in ``frames.jsonl`` as a dict. Its checksum was compared before.

    Raises
    ------
    DatasetDamagedError
        If it cannot be parsed.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DatasetDamagedError(f"the metadata of {name} cannot be parsed: {error}") from None
    if not isinstance(value, dict) or "metadata" not in value:
        raise DatasetDamagedError(f"the metadata of {name} cannot be parsed")
    return value


class FrameFiles:
    """The shards and parts of a dataset, opened for reading.

    Parameters
    ----------
    folder : str
    layout : Layout
    array_path : callable
        Returns the path of an image's array in the dataset.
    """

    def __init__(self, folder: str, layout: Layout, array_path: Callable[[int], str]) -> None:
        self._folder = folder
        self._layout = layout
        self._codec = PixelCodec(layout)
        self._array_path = array_path
        self._pool = FilePool(sizes.MAX_OPEN_FILES_TO_READ)
        self._indices: dict[str, npt.NDArray[np.uint64]] = {}

    def shard(self, image: int, t: int, c: int, z: int) -> str:
        """Return the path of a frame's shard in the dataset."""
        return f"{self._array_path(image)}/{self._layout.shard_name(*self._layout.shard_at(t, c, z))}"

    def read(self, record: Record, name: FrameName) -> npt.NDArray[Any]:
        """Return the pixels of a frame.

        Raises
        ------
        DatasetDamagedError
            If the pixels differ from those that were written. ``name`` describes the frame.
        """
        _, image, t, c, z, part, offset, length, checksum, *_ = record
        layout = self._layout
        if length > 2 * layout.frame_bytes + 64 * layout.tiles + 65536 or offset >= sizes.MAX_OFFSET:
            raise DatasetDamagedError(f"the journal states {length} bytes at {offset} for {name}")
        if not part:
            key = (image, *layout.shard_at(t, c, z))
            file = self._pool.get(key) or self._open(key, self.shard(image, t, c, z))
            if file is not None and length == layout.frame_bytes:
                stored: Any = np.empty(length, np.uint8)
                if _fill(file, stored, offset) and crc32c.crc32c(stored) == checksum:
                    return self._codec.restore(stored)
            return self._read_moved(record, name)
        text = self._read_part(image, t, c, z, part, offset, length, checksum)
        if text is None:
            return self._read_moved(record, name)
        head = 4 * layout.tiles if layout.tiles > 1 else 0
        if len(text) < head:
            raise DatasetDamagedError(f"the journal states {length} bytes for {name}")
        lengths = np.frombuffer(text, "<u4", layout.tiles).tolist() if head else [len(text)]
        return self._codec.decompress(_split(text[head:], lengths), name)

    def _read_part(
        self, image: int, t: int, c: int, z: int, part: int, offset: int, length: int, checksum: int
    ) -> bytes | None:
        """Return the compressed bytes of a frame from its part, or from the shard that it has become."""
        for key, path in (
            (part, part_path(self._folder, part)),
            ((image, t, c, z, "shard"), os.path.join(self._folder, self.shard(image, t, c, z))),
        ):
            try:
                file = self._pool.get(key) or self._pool.hold(key, OpenFile(path, os.O_RDONLY))
            except OSError:
                continue
            text = read_at(file.descriptor, length, offset)
            if len(text) == length and crc32c.crc32c(text) == checksum:
                return text
        return None

    def _read_moved(self, record: Record, name: FrameName) -> npt.NDArray[Any]:
        """Return the pixels of a frame that is elsewhere in its shard, such as after a copy of the shard."""
        _, image, t, c, z, part, _, _, _, _, _, _, pixels_crc = record
        layout, shard = self._layout, self.shard(image, t, c, z)
        try:
            file = OpenFile(os.path.join(self._folder, shard), os.O_RDONLY)
        except OSError as error:
            raise DatasetDamagedError(f"the pixels of {name} cannot be read: {error}") from None
        index = read_index(file, layout)
        if index is None:
            raise DatasetDamagedError(f"the pixels of {name} cannot be read: {shard} has no valid index")
        first = layout.chunk_number(t, c, z)
        entries = index[first : first + layout.tiles]
        if (entries == EMPTY).any():
            raise DatasetDamagedError(f"the pixels of {name} are missing in {shard}")
        pieces = []
        inside = layout.slot(t, c, z) % layout.frames_per_chunk
        for offset, length in entries.tolist():
            if not part:
                offset, length = offset + inside * layout.tile_bytes, layout.tile_bytes
            if length > 2 * layout.tile_bytes + 65536:
                raise DatasetDamagedError(f"the index of {shard} states a chunk of {length} bytes")
            pieces.append(read_at(file.descriptor, length, offset))
        stored: Any
        if part:
            frame = self._codec.decompress(pieces, name)
            stored = self._codec.arrange(frame)
        else:
            text = bytearray(b"".join(pieces))
            if len(text) != layout.frame_bytes:
                raise DatasetDamagedError(f"the pixels of {name} cannot be read: {shard} is too short")
            stored = np.frombuffer(text, np.uint8)
            frame = self._codec.restore(stored)
        if crc32c.crc32c(stored) != pixels_crc:
            raise DatasetDamagedError(
                f"the pixels of {name} differ from those that were written: {shard} "
                f"{self._what_changed(index, file)}"
            )
        return frame

    def _what_changed(self, index: npt.NDArray[np.uint64], file: OpenFile) -> str:
        """Return a clause that says whether another program rewrote a shard, or bytes of it changed."""
        layout = self._layout
        expected = decode_index(layout.complete_index)
        same = index == EMPTY
        if not layout.is_compressed and expected is not None and (same | (index == expected)).all():
            return "has the index that was written, so some of its bytes were changed"
        changed = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(os.fstat(file.descriptor).st_mtime))
        return f"has another index, so another program has rewritten it; it was last changed at {changed}"

    def _open(self, key: object, name: str) -> OpenFile | None:
        try:
            return self._pool.open(key, os.path.join(self._folder, name))
        except OSError:
            return None

    def sync(self, name: str) -> None:
        """Sync a shard to the disk."""
        file = OpenFile(os.path.join(self._folder, name), os.O_RDONLY)
        os.fsync(file.descriptor)

    def sync_folders(self, images: Iterable[int]) -> None:
        """Sync the folders of the dataset, so that the names of its files survive power loss."""
        folders = {self._folder, os.path.join(self._folder, OWN_FOLDER), os.path.join(self._folder, OPEN)}
        for image in images:
            array = os.path.join(self._folder, self._array_path(image))
            folders.update(folders_in(array))
            while len(array) > len(self._folder):
                folders.add(array)
                array = os.path.dirname(array)
        for folder in sorted(folders, key=len, reverse=True):
            if os.path.isdir(folder):
                sync_folder(folder)

    def release(self) -> None:
        """Close the files."""
        self._pool.release()


def read_index(file: OpenFile, layout: Layout) -> npt.NDArray[np.uint64] | None:
    """Return the offset and length of each chunk in a shard, ``(chunks, 2)`` uint64; None if damaged."""
    size = os.fstat(file.descriptor).st_size
    if size < layout.index_bytes:
        return None
    return decode_index(read_at(file.descriptor, layout.index_bytes, size - layout.index_bytes))


def _fill(file: OpenFile, stored: Any, offset: int) -> bool:
    """Read into an array; return whether the file is long enough."""
    view = memoryview(stored)
    done = read_into(file.descriptor, view, offset)
    while done < len(view):
        got = read_into(file.descriptor, view[done:], offset + done)
        if not got:
            return False
        done += got
    return True


def _split(text: bytes, lengths: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for length in lengths:
        pieces.append(text[at : at + length])
        at += length
    return pieces
