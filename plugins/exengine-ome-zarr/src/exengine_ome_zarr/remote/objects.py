"""Tracks which files in the spool are already in the bucket, and which of them can be removed."""

import os
from collections.abc import Callable, Mapping

import crc32c
import numpy as np
import numpy.typing as npt

from exengine.base_classes import NEW, OpenFile, write_at
from exengine.errors import DatasetAccessError
from exengine_ome_zarr.format import files
from exengine_ome_zarr.format.layout import EMPTY, Layout, decode_index
from exengine_ome_zarr.format.shards import PartFiles, SlotFiles, part_path
from exengine_ome_zarr.remote.bucket import PART_BYTES, Bucket, Content
from exengine_ome_zarr.remote.contents import file_content, slot_content
from exengine_ome_zarr.remote.uploads import Upload, Uploader

_LOGS = (
    files.FRAMES,
    files.LAYOUT,
    files.JOURNAL,
)  # the journal must be last, because it defines which frames exist


class _Shard:
    """A shard in the spool."""

    __slots__ = ("changed", "frames", "parts", "size", "written")

    def __init__(self, chunks: int) -> None:
        self.frames = 0
        self.size = 0
        self.changed = True  # whether the shard has changed since its last upload
        self.parts: set[int] = set()
        self.written: npt.NDArray[np.bool_] = np.zeros(chunks, bool)


class SpooledObjects:
    """The files of a dataset in the spool, and the objects to which they are uploaded.

    Parameters
    ----------
    bucket : Bucket
    folder : str
        The folder of the dataset in the spool.
    most_bytes : int
        The amount of data in the spool at which ``put`` waits for uploads.
    """

    def __init__(self, bucket: Bucket, folder: str, most_bytes: int) -> None:
        self.bucket = bucket
        self._folder = folder
        self._most_bytes = most_bytes
        self._uploader = Uploader(bucket)
        self._layout: Layout | None = None
        self._shards: dict[str, _Shard] = {}
        self._gone: list[str] = []  # removed shards that have not been reported yet
        self._full: dict[str, Upload] = {}  # full shards that are being uploaded
        self._documents: dict[str, int] = {}  # the checksums of the documents in the bucket
        self._ends: dict[str, int] = {}  # for each file that only grows, its length in the bucket
        self._open_parts: set[str] = set()  # the unpublished parts that are in the bucket
        self.removed: dict[str, int] = {}
        """The shards that exist only in the bucket, each with its number of frames."""
        self.used_bytes = 0
        """The amount of data in the spool."""
        self.is_complete = False
        """Whether the bucket contains the finished dataset, apart from its manifest."""

    # -- frames ----------------------------------------------------------------------------------

    def make_room(self, size: int) -> None:
        """Wait until the spool has space for a frame.

        Shards that are not full cannot be removed. If only such shards are left, they may exceed the limit.

        Raises
        ------
        ExEngineError
            If the store does not accept uploads.
        """
        self._uploader.refuse_if_failed()
        while self.used_bytes + size > self._most_bytes and self._full:
            self._uploader.wait(self._has_removable)
            self._gone += self._remove()

    def _has_removable(self) -> bool:
        return any(upload.is_done for upload in self._full.values())

    def added(self, name: str, layout: Layout, chunk: int, size: int, part: int) -> None:
        """Record a frame that was written to a shard.

        Parameters
        ----------
        name : str
            The path of the shard in the dataset.
        layout : Layout
        chunk : int
            The number of the frame's first chunk.
        size : int
            The number of bytes that were written.
        part : int
            The number of the part that contains the frame; 0 if the frame is in the shard itself.
        """
        self._layout = layout
        shard = self._shards.get(name)
        if shard is None:
            shard = self._shards[name] = _Shard(layout.chunks_in_shard)
        shard.frames += 1
        shard.size += size
        shard.changed = True
        if part:
            shard.parts.add(part)
        else:
            shard.written[chunk : chunk + layout.tiles] = True
        self.used_bytes += size

    def upload_if_full(self, name: str, full: int, parts: PartFiles | None) -> None:
        """Begin to upload a shard if it is complete, which means that it contains ``full`` frames."""
        shard = self._shards[name]
        if shard.frames >= full and name not in self._full and _is_published(name, shard, parts):
            self._full[name] = self._submit(name, shard)

    def _submit(self, name: str, shard: _Shard) -> Upload:
        """Begin to upload a shard that exists as a file."""
        path, layout = os.path.join(self._folder, name), self._layout
        assert layout is not None
        shard.changed = False
        if shard.parts:
            return self._uploader.submit(name, lambda: file_content(path))
        written = shard.written.copy()
        return self._uploader.submit(name, lambda: slot_content(path, layout, written))

    def remove_uploaded(self) -> list[str]:
        """Remove full shards from the spool if they are in the bucket, and return their names."""
        gone, self._gone = [*self._gone, *self._remove()], []
        return gone

    def _remove(self) -> list[str]:
        gone: list[str] = []
        for upload in self._uploader.take_done():
            name = upload.name
            if self._full.get(name) is not upload:
                continue
            del self._full[name]
            shard = self._shards[name]
            if shard.changed:  # a late frame was added to the shard
                continue
            del self._shards[name]
            self.removed[name] = shard.frames  # readers must switch to the bucket before the file is removed
            path = os.path.join(self._folder, name)
            os.truncate(path, 0)  # frees the disk space even if the file is still open elsewhere
            os.unlink(path)
            self.used_bytes -= shard.size
            gone.append(name)
        return gone

    def bring_back(self, name: str, layout: Layout, slots: SlotFiles | None) -> None:
        """Copy a shard from the bucket to the spool, so that a frame can be added to the shard.

        Raises
        ------
        ExEngineError
            If the shard cannot be read.
        """
        found = self.bucket.head(name)
        index = decode_index(self.bucket.read_end(name, layout.index_bytes) or b"")
        if found is None or index is None:
            raise DatasetAccessError(f"{self.bucket.url}/{name} cannot be read back")
        size = found[0] - (layout.index_bytes if slots is not None else 0)
        new, at = files.temporary(self._folder), 0
        file = OpenFile(new, NEW)
        while at < size:
            text = self.bucket.read_range(name, at, min(PART_BYTES, size - at))
            if not text:
                raise DatasetAccessError(f"{self.bucket.url}/{name} shrank while it was being read")
            write_at(file.descriptor, (text,), at, len(text))
            at += len(text)
        if slots is not None:
            slots.adopt(name, file, new)
        else:
            os.rename(new, os.path.join(self._folder, name))
        shard = self._shards[name] = _Shard(layout.chunks_in_shard)
        shard.frames, shard.size = self.removed.pop(name), size
        if slots is not None:
            shard.written = index[:, 0] != EMPTY
        self.used_bytes += size

    # -- everything ------------------------------------------------------------------------------

    def upload_all(self, parts: PartFiles | None, ends: Mapping[str, int], *, final: bool) -> None:
        """Upload everything that the bucket does not have, and wait until it has been verified.

        Parameters
        ----------
        parts : PartFiles or None
            The parts, if the dataset is compressed.
        ends : mapping of str to int
            The lengths of the files that only grow.
        final : bool
            Whether the files have their final form.

        Raises
        ------
        ExEngineError
            If the store does not accept the uploads.
        """
        for name, shard in self._shards.items():
            if name in self._full:
                continue
            if final and shard.parts:
                if shard.changed or not _is_published(name, shard, parts):
                    self._submit(name, shard)
            elif shard.changed:
                self._submit_changed(name, shard, parts)
        for name in self._document_names():
            self._submit_document(name)
        for name in _LOGS:
            self._submit_log(name, ends[name])
        self._uploader.finish_queue()
        if final:
            self.bucket.delete(sorted(self._open_parts))
            self._open_parts.clear()
            self.is_complete = True

    def _submit_changed(self, name: str, shard: _Shard, parts: PartFiles | None) -> None:
        """Begin to upload a shard that is not full."""
        if parts is None:
            self._submit(name, shard)
            return
        shard.changed = False
        if os.path.exists(os.path.join(self._folder, name)):
            self._submit(name, shard)
        for part in parts.open_parts(name):
            path, end = part_path(self._folder, part.number), part.end
            inside = os.path.relpath(path, self._folder).replace(os.sep, "/")
            self._open_parts.add(inside)
            self._uploader.submit(inside, _part_content(path, end))

    def _document_names(self) -> list[str]:
        """Return all other files: documents, and files derived from frames. The root document is last."""
        found = []
        for below, _, names in os.walk(self._folder):
            inside = os.path.relpath(below, self._folder).replace(os.sep, "/")
            if inside == files.OPEN:
                continue
            for name in names:
                relative = name if inside == "." else f"{inside}/{name}"
                if relative not in _LOGS and (name == files.DOCUMENT or inside == files.OWN_FOLDER):
                    found.append(relative)
        return sorted(found, key=lambda name: (-name.count("/"), name))

    def _submit_document(self, name: str) -> None:
        content = file_content(os.path.join(self._folder, name))
        checksum = 0
        for piece in content.pieces():
            checksum = crc32c.crc32c(piece, checksum)
        if self._documents.get(name) != checksum:
            self._documents[name] = checksum
            self._uploader.submit(name, lambda: content)

    def _submit_log(self, name: str, end: int) -> None:
        if self._ends.get(name) != end:
            self._ends[name] = end
            content = file_content(os.path.join(self._folder, name), end)
            self._uploader.submit(name, lambda: content)

    def end(self) -> None:
        """Stop the uploads. Further calls have no effect."""
        self._uploader.end()


def _is_published(name: str, shard: _Shard, parts: PartFiles | None) -> bool:
    """Return whether the file with a shard's name contains all frames of the shard."""
    return parts is None or all(parts.published.get(part) == name for part in shard.parts)


def _part_content(path: str, end: int) -> Callable[[], Content]:
    return lambda: file_content(path, end)
