"""Reads the pixels and metadata of frames from the files of a dataset, for both writers and readers."""

import json
import os
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt
import orjson

from exengine.base_classes import FilePool, OpenFile, read_at, read_into, sync_folder
from exengine.errors import DatasetDamagedError, MetadataError
from exengine_ome_zarr.format import sizes
from exengine_ome_zarr.format.files import OPEN, OWN_FOLDER, folders_in
from exengine_ome_zarr.format.frame_reading import FrameReading
from exengine_ome_zarr.format.journal import Record
from exengine_ome_zarr.format.layout import Layout, decode_index


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
    """Return the line for a frame in ``frames.jsonl``, from its coordinates and metadata as JSON."""
    return b'{"coordinates":%b,"metadata":%b}\n' % (coordinates, metadata)


def read_frame_line(file: OpenFile, record: Record, name: object) -> dict[str, Any]:
    """Read a frame's line in ``frames.jsonl``, and return its coordinates and metadata.

    Raises
    ------
    DatasetDamagedError
        If the line differs from the one that was written. The message refers to the frame by ``name``.
    """
    *_, at, size, checksum, _ = record
    if size > sizes.MAX_METADATA_BYTES + 2 * sizes.MAX_TEXT_BYTES or at >= sizes.MAX_OFFSET:
        raise DatasetDamagedError(f"the journal is damaged: it lists {size} bytes of metadata for {name}")
    line = read_at(file.descriptor, size, at)
    if len(line) != size or crc32c.crc32c(line) != checksum:
        raise DatasetDamagedError(f"the metadata of {name} differs from the metadata that was written")
    return parse_frame_line(line, name)


def parse_frame_line(line: bytes, name: object) -> dict[str, Any]:
    """Parse a frame's line in ``frames.jsonl``, after its checksum has been verified.

    Raises
    ------
    DatasetDamagedError
        If the line cannot be parsed.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DatasetDamagedError(f"the metadata of {name} cannot be parsed: {error}") from None
    if not isinstance(value, dict) or "metadata" not in value:
        raise DatasetDamagedError(f"the metadata of {name} cannot be parsed")
    return value


class FrameFiles(FrameReading):
    """The shards and parts of a dataset in a folder.

    Parameters
    ----------
    folder : str
    layout : Layout
    array_path : callable
        Returns the path of an image's array in the dataset.
    """

    def __init__(self, folder: str, layout: Layout, array_path: Callable[[int], str]) -> None:
        super().__init__(layout, array_path)
        self._folder = folder
        self._pool = FilePool(sizes.MAX_OPEN_FILES_TO_READ)

    def read_slot(self, record: Record) -> npt.NDArray[Any] | None:
        """Read a frame from its slot in a shard; return None if the frame is elsewhere or damaged.

        Almost every frame is in its slot; :meth:`read` also finds the others.
        """
        _, image, t, c, z, part, offset, length, checksum, _, _, _, _ = record
        if part or length != self.layout.frame_bytes:
            return None
        return self.read_at_slot((image, t, c, z), offset, checksum)

    def read_at_slot(
        self, place: tuple[int, int, int, int], offset: int, checksum: int
    ) -> npt.NDArray[Any] | None:
        """Read an uncompressed frame from a shard; return None if it is damaged.

        Parameters
        ----------
        place : (int, int, int, int)
            The image of the frame, and its indices t, c and z.
        offset : int
            The offset in the shard, in bytes.
        checksum : int
            The CRC-32C of the stored bytes.
        """
        if offset >= sizes.MAX_OFFSET:
            return None
        image, t, c, z = place
        shard_t, shard_c, shard_z = self.layout.shard
        key = (image, t // shard_t, c // shard_c, z // shard_z)
        file = self._pool.get(key) or self._open(key, self.shard(image, t, c, z))
        if file is None:
            return None
        stored: Any = self.codec.empty()
        got = read_into(file.descriptor, stored.data, offset)
        if got != self.layout.frame_bytes and not _fill(file, stored, offset):
            return None
        return self.codec.restore(stored) if crc32c.crc32c(stored) == checksum else None

    def read(self, record: Record, name: object) -> npt.NDArray[Any]:
        frame = self.read_slot(record)
        return super().read(record, name) if frame is None else frame

    def read_bytes(self, path: str, offset: int, length: int) -> bytes | None:
        file = self._pool.get(path) or self._open(path, path)
        return None if file is None else read_at(file.descriptor, length, offset)

    def read_end(self, path: str, length: int) -> bytes | None:
        file = self._pool.get(path) or self._open(path, path)
        size = 0 if file is None else os.fstat(file.descriptor).st_size
        return None if file is None or size < length else read_at(file.descriptor, length, size - length)

    def changed_at(self, path: str) -> str:
        changed = time.localtime(os.stat(os.path.join(self._folder, path)).st_mtime)
        return time.strftime("; it was last changed at %Y-%m-%d %H:%M:%S", changed)

    def _open(self, key: Hashable, path: str) -> OpenFile | None:
        try:
            return self._pool.open(key, os.path.join(self._folder, path))
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
    """Return the index of a shard, or None if the index is missing or damaged.

    The index is an array ``(chunks, 2)`` uint64 with the offset and length of each chunk.
    """
    size = os.fstat(file.descriptor).st_size
    if size < layout.index_bytes:
        return None
    return decode_index(read_at(file.descriptor, layout.index_bytes, size - layout.index_bytes))


def _fill(file: OpenFile, stored: Any, offset: int) -> bool:
    """Fill an array from a file; return whether the file is long enough."""
    view = memoryview(stored.reshape(-1).view(np.uint8))
    done = read_into(file.descriptor, view, offset)
    while done < len(view):
        got = read_into(file.descriptor, view[done:], offset + done)
        if not got:
            return False
        done += got
    return True
