"""Converts the files of a dataset for upload, and reads frames from its objects."""

import os
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from exengine.base_classes import OpenFile, read_at
from exengine_ome_zarr.format.frame_reading import FrameReading
from exengine_ome_zarr.format.layout import EMPTY, Layout, encode_index
from exengine_ome_zarr.remote.bucket import PART_BYTES, Content, Tag


def file_content(path: str, size: int | None = None) -> Content:
    """Return a file, or its first bytes, as the content of an object."""
    file = OpenFile(path, os.O_RDONLY)
    length = os.fstat(file.descriptor).st_size if size is None else size
    return Content(length, lambda: _pieces(file, length))


def slot_content(path: str, layout: Layout, written: npt.NDArray[np.bool_]) -> Content:
    """Return an uncompressed shard as the content of an object.

    Objects cannot have holes, so the shard ends with the last chunk that was written, and its index lists
    only written chunks. The offsets of the chunks are the same as in the file.

    Parameters
    ----------
    path : str
    layout : Layout
    written : numpy.ndarray
        ``(chunks,)`` bool, true for the chunks of the shard that were written.
    """
    file = OpenFile(path, os.O_RDONLY)
    entries = _slot_entries(layout, written)
    ends = entries[entries[:, 0] != EMPTY].sum(axis=1)
    end = int(ends.max()) if len(ends) else 0
    index = encode_index(entries)

    def pieces() -> Iterator[bytes]:
        yield from _pieces(file, end)
        yield index

    return Content(end + len(index), pieces)


def _pieces(file: OpenFile, size: int) -> Iterator[bytes]:
    at = 0
    while at < size:
        text = read_at(file.descriptor, min(PART_BYTES, size - at), at)
        if not text:
            raise OSError("a file in the spool shrank while it was being uploaded")
        yield text
        at += len(text)


def _slot_entries(layout: Layout, written: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Return the index of an uncompressed shard with these chunks, ``(chunks, 2)`` uint64."""
    size = layout.tile_bytes * layout.frames_per_chunk
    entries = np.full((layout.chunks_in_shard, 2), EMPTY, np.uint64)
    entries[written, 0] = (layout.chunk_slots[written] * size).astype(np.uint64)
    entries[written, 1] = size
    return entries


class Objects(Protocol):
    """The read operations on the objects of a dataset, as documented in ``Bucket``."""

    url: str

    def head(self, name: str) -> tuple[int, str | None] | None: ...

    def get(self, name: str, most: int) -> tuple[bytes, Tag] | None: ...

    def read_range(self, name: str, offset: int, length: int) -> bytes | None: ...

    def read_end(self, name: str, length: int) -> bytes | None: ...

    def objects(self) -> Iterator[tuple[str, int]]: ...


class RemoteFrames(FrameReading):
    """Reads the frames of a dataset in a bucket, with range requests.

    Its methods raise ``DatasetAccessError`` if the store does not respond.

    Parameters
    ----------
    bucket : Bucket or Objects
    layout : Layout
    array_path : callable
        Returns the path of an image's array in the dataset.
    """

    def __init__(self, bucket: Objects, layout: Layout, array_path: Callable[[int], str]) -> None:
        super().__init__(layout, array_path)
        self._bucket = bucket

    def read_bytes(self, path: str, offset: int, length: int) -> bytes | None:
        return self._bucket.read_range(path, offset, length)

    def read_end(self, path: str, length: int) -> bytes | None:
        return self._bucket.read_end(path, length)
