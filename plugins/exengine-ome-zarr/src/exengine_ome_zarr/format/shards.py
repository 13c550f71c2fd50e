"""The shard files of a dataset that is being written: slots without compression, parts with compression.

Without compression, a shard appears with its full length and a complete index. Readers see every frame as
soon as its slot is written, and zeros in the other slots. The file is sparse, so empty slots take no space.

With compression, the chunks are appended to a part, a file in ``.exengine/open``. When all frames of the
shard have arrived, the part gets an index and becomes the shard.
"""

import os

import numpy as np
import numpy.typing as npt

from exengine.base_classes import NEW, FilePool, OpenFile, write_at
from exengine_ome_zarr.format.files import OPEN, temporary
from exengine_ome_zarr.format.layout import EMPTY, Layout, encode_index
from exengine_ome_zarr.format.sizes import MAX_OPEN_FILES

WRITE = os.O_RDWR


def rename_into_place(new: str, path: str) -> None:
    """Rename a file, and create the missing folders above its new path."""
    try:
        os.rename(new, path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.rename(new, path)


class SlotFiles:
    """The shards of an uncompressed dataset.

    Parameters
    ----------
    folder : str
    layout : Layout
    continues : bool
        Whether shards of an earlier writer may exist.
    """

    def __init__(self, folder: str, layout: Layout, *, continues: bool = False) -> None:
        self._folder = folder
        self._layout = layout
        self.continues = continues
        self._pool = FilePool(MAX_OPEN_FILES)
        self.get = self._pool.get
        self._made: set[str] = set()
        self.unsynced: dict[str, None] = {}
        """The shards that were written since the last sync."""

    def open(self, name: str) -> OpenFile:
        """Return the shard at a path in the dataset. If it does not exist, create it."""
        self.unsynced[name] = None
        path = os.path.join(self._folder, name)
        if self.continues and name not in self._made and os.path.exists(path):
            self._made.add(name)
        if name in self._made:
            return self._pool.get(name) or self._pool.hold(name, OpenFile(path, WRITE))
        new = temporary(self._folder)
        file = OpenFile(new, NEW)
        try:
            return self.adopt(name, file, new)
        except BaseException:
            del file
            os.unlink(new)
            raise

    def adopt(self, name: str, file: OpenFile, new: str) -> OpenFile:
        """Turn a file with slots into a shard by giving it its full length, its index and its name.

        Parameters
        ----------
        name : str
            The path of the shard in the dataset.
        file : OpenFile
        new : str
            The current path of the file.
        """
        index = self._layout.complete_index
        os.ftruncate(file.descriptor, self._layout.slots_bytes + len(index))
        write_at(file.descriptor, (index,), self._layout.slots_bytes, len(index))
        rename_into_place(new, os.path.join(self._folder, name))
        self._made.add(name)
        self.unsynced[name] = None
        return self._pool.hold(name, file)

    def forget(self, name: str) -> None:
        """Forget a shard that is no longer in the folder."""
        self._made.discard(name)
        self.unsynced.pop(name, None)
        self._pool.discard(name)

    def release(self) -> None:
        """Close the files."""
        self._pool.release()


class Part:
    """A file to which the compressed chunks of one shard are appended.

    Attributes
    ----------
    number : int
    file : OpenFile
    end : int
        The offset after the last frame.
    entries : numpy.ndarray
        ``(chunks, 2)`` uint64, the offset and length of each chunk; ``EMPTY`` if it is missing.
    frames : int
        The number of frames in the part.
    started : int
        The offset up to which the system has begun to write the file to the disk.
    """

    __slots__ = ("end", "entries", "file", "frames", "number", "started")

    def __init__(self, folder: str, number: int, chunks: int, flags: int = NEW) -> None:
        self.number = number
        self.file = OpenFile(part_path(folder, number), flags)
        self.end = self.started = 0
        self.frames = 0
        self.entries: npt.NDArray[np.uint64] = np.full((chunks, 2), EMPTY, np.uint64)


def part_path(folder: str, number: int) -> str:
    """Return the path of an unpublished part."""
    return os.path.join(folder, OPEN, f"part-{number}")


class PartFiles:
    """The parts of a compressed dataset.

    Parameters
    ----------
    folder : str
    layout : Layout
    """

    def __init__(self, folder: str, layout: Layout) -> None:
        self._folder = folder
        self._layout = layout
        self._parts: dict[str, Part] = {}
        self._count = 0
        self.published: dict[int, str] = {}
        """For each published part, the path of the shard that it has become."""
        self.unsynced: dict[str, None] = {}
        """The shards that were published since the last sync."""

    def get(self, name: str) -> Part:
        """Return the part of a shard. If it does not exist, create it."""
        part = self._parts.get(name)
        if part is None:
            part = Part(self._folder, self._count + 1, self._layout.chunks_in_shard)
            self._count += 1
            self._parts[name] = part
        return part

    def added(self, name: str, part: Part, chunk: int, begin: int, lengths: list[int], full: int) -> None:
        """Record a frame that was appended, and publish the part if all frames of the shard have arrived.

        Parameters
        ----------
        name : str
            The path of the shard in the dataset.
        part : Part
        chunk : int
            The number of the frame's first chunk.
        begin : int
            The offset of the frame's first chunk.
        lengths : list of int
            The length of each of the frame's chunks.
        full : int
            The number of frames that the shard will contain.
        """
        offset = begin
        for number, length in enumerate(lengths, chunk):
            part.entries[number] = offset, length
            offset += length
        part.end = offset
        part.frames += 1
        path = os.path.join(self._folder, name)
        if part.frames == full and not os.path.lexists(path):
            index = encode_index(part.entries)
            write_at(part.file.descriptor, (index,), part.end, len(index))
            rename_into_place(part_path(self._folder, part.number), path)
            self.published[part.number] = name
            self.unsynced[name] = None
            del self._parts[name]

    def continue_part(self, name: str, number: int) -> Part | None:
        """Return a part that an earlier writer created, or None if it was published."""
        self._count = max(self._count, number)
        if not os.path.exists(part_path(self._folder, number)):
            self.published[number] = name
            return None
        part = self._parts.get(name)
        if part is None:
            part = self._parts[name] = Part(self._folder, number, self._layout.chunks_in_shard, WRITE)
        return part

    def open_parts(self, name: str) -> list[Part]:
        """Return the parts of a shard that are not published."""
        part = self._parts.get(name)
        return [part] if part is not None else []

    def descriptors(self) -> list[int]:
        """Return the descriptors of the open parts."""
        return [part.file.descriptor for part in self._parts.values()]

    def release(self) -> None:
        """Close the files."""
        self._parts.clear()
