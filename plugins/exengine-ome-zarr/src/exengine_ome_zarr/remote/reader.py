"""Reads datasets in object storage: copies the journal and the layout, and sends range requests for the rest.

The reader keeps the manifest, the journal and the layout of the dataset in a temporary folder. A dataset that
is still being written grows with each durable flush of its writer. ``status``, ``is_finished`` and
``await_new_data`` look for new frames.
"""

import os
import tempfile
from typing import Any, Self

import crc32c
import numpy.typing as npt

from exengine.base_classes import (
    NEW,
    DatasetStatus,
    DataStorage,
    JsonValue,
    OpenFile,
    wait_until,
    write_at,
)
from exengine.errors import DatasetDamagedError, DatasetNotFoundError
from exengine_ome_zarr.capabilities import remote_capabilities
from exengine_ome_zarr.format import files, sizes
from exengine_ome_zarr.format.frame_files import parse_frame_line
from exengine_ome_zarr.format.frame_reading import FrameName
from exengine_ome_zarr.format.images import Images
from exengine_ome_zarr.format.layout import EMPTY, decode_index
from exengine_ome_zarr.reader import OmeZarrReader
from exengine_ome_zarr.remote.bucket import PART_BYTES, Bucket
from exengine_ome_zarr.remote.claims import MANIFEST, MAX_BYTES, Writer, read_remote_manifest
from exengine_ome_zarr.remote.contents import Objects, RemoteFrames

_POLL_S = 1.0
_MAX_JOURNAL_BYTES = 64 * 2**32  # frame numbers are 32-bit


def open_remote(url: str) -> DataStorage:
    """Open a dataset in object storage for reading.

    Raises
    ------
    DatasetNotFoundError
        If the URL has no manifest.
    DatasetAccessError
        If the store cannot be reached, or refuses access.
    """
    return RemoteReader.open(url)


class RemoteReader(OmeZarrReader):
    """A reader for a dataset in object storage. Use :meth:`open` to create a reader.

    Parameters
    ----------
    bucket : Bucket or Objects
    copy : TemporaryDirectory
        The folder with the copies of the manifest, the journal and the layout.
    """

    def __init__(self, bucket: Objects, copy: "tempfile.TemporaryDirectory[str]") -> None:
        self._bucket = bucket
        self._copy = copy
        self._remote_frames: RemoteFrames | None = None
        super().__init__(copy.name)
        self.path = bucket.url
        self.capabilities = remote_capabilities(self.capabilities)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a dataset by its URL."""
        bucket = Bucket(os.fspath(path))
        if read_remote_manifest(bucket) is None:
            next(bucket.objects(), None)  # raises an error if the bucket does not exist
            raise DatasetNotFoundError(f"there is no dataset at {bucket.url}")
        copy = tempfile.TemporaryDirectory(prefix="exengine-")
        try:
            copy_documents(bucket, copy.name)
            return cls(bucket, copy)
        except BaseException:
            copy.cleanup()
            raise

    # -- status ----------------------------------------------------------------------------------

    @property
    def _writer(self) -> Writer | None:
        return Writer.of(self.manifest) if self.manifest is not None else None

    @property
    def _is_growing(self) -> bool:
        """Whether the dataset is incomplete according to the manifest that was read last."""
        return self.manifest is None or self.manifest.status is DatasetStatus.INCOMPLETE

    def _has_writer(self) -> bool:
        writer = self._writer
        return writer is not None and writer.is_active

    def _settle(self) -> None:
        super()._settle()
        writer = self._writer
        if not self._is_growing or writer is None:
            return
        if not self._table.problem:
            reason = (
                f"its writer, {writer}, has not finished the dataset; the frames up to the last durable "
                "flush can be read"
                if writer.is_active
                else f"its writer, {writer}, has died"
            )
            self.set_status(DatasetStatus.INCOMPLETE, reason)

    @property
    def status(self) -> DatasetStatus:
        if self._is_growing:
            copy_documents(self._bucket, self._folder)
        return super().status

    def is_finished(self) -> bool:
        """Return whether no more frames will arrive: the dataset is finished, or its writer has ended."""
        return self.status is not DatasetStatus.INCOMPLETE or not self._has_writer()

    def await_new_data(self, timeout: float | None = None) -> bool:
        count = len(self._table)

        def has_new_data() -> bool:
            finished = self.is_finished()
            return len(self._table) > count or finished

        return wait_until(has_new_data, timeout, poll_s=_POLL_S)

    def check_structure(self) -> list[str]:
        """Check that every shard exists, and that its index lists all of its frames."""
        table, layout = self._table, self._table.layout
        if layout is None:
            return []
        there = dict(self._bucket.objects())
        finished = self.status is not DatasetStatus.INCOMPLETE
        faults = [f"the document {files.DOCUMENT} is missing"] if files.DOCUMENT not in there else []
        shards: dict[str, set[int]] = {}
        frames = self._frames
        for number in range(len(table)):
            image, t, c, z = table.place(number)
            shards.setdefault(frames.shard(image, t, c, z), set()).add(layout.chunk_number(t, c, z))
        for name, chunks in sorted(shards.items()):
            if name not in there:
                if finished or not layout.is_compressed:
                    faults.append(f"the shard {name} is missing")
                continue
            index = decode_index(self._bucket.read_end(name, layout.index_bytes) or b"")
            if index is None or len(index) != layout.chunks_in_shard:
                faults.append(f"the index of the shard {name} is missing or damaged")
            elif (index[sorted(chunks)] == EMPTY).any() and (finished or not layout.is_compressed):
                faults.append(f"the index of the shard {name} does not list all frames of the shard")
        return faults

    # -- frames ----------------------------------------------------------------------------------

    @property
    def _frames(self) -> RemoteFrames:
        frames = self._remote_frames
        if frames is None:
            table = self._table
            layout = table.layout
            assert layout is not None  # not None, because a frame was found
            images = Images(self._folder, layout, table.facts, table.labels)
            frames = self._remote_frames = RemoteFrames(self._bucket, layout, images.array_path)
        return frames

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        return self._frames.read(self._record(number), FrameName(self._name, number))

    def read_frame_metadata(self, number: int) -> JsonValue:
        record, name = self._record(number), FrameName(self._name, number)
        *_, at, size, checksum, _ = record
        if size > sizes.MAX_METADATA_BYTES + 2 * sizes.MAX_TEXT_BYTES:
            raise DatasetDamagedError(f"the journal is damaged: it lists {size} bytes of metadata for {name}")
        line = self._bucket.read_range(files.FRAMES, at, size)
        if line is None or len(line) != size or crc32c.crc32c(line) != checksum:
            raise DatasetDamagedError(f"the metadata of {name} differs from the text that was written")
        return parse_frame_line(line, name)["metadata"]

    def release(self) -> None:
        """Close the files, and remove the copies."""
        super().release()
        self._copy.cleanup()


def copy_documents(bucket: Objects, folder: str) -> None:
    """Bring the copies of the manifest, the journal and the layout up to date.

    Parameters
    ----------
    bucket : Bucket or Objects
    folder : str
        The folder of the copies. It may contain older copies.
    """
    found = bucket.get(MANIFEST, MAX_BYTES)
    if found is None:
        raise DatasetNotFoundError(f"there is no dataset at {bucket.url}")
    os.makedirs(os.path.join(folder, files.OWN_FOLDER), exist_ok=True)
    # Read the manifest first, then the journal, then the layout, because each may refer to the next.
    _extend(bucket, files.JOURNAL, folder, _MAX_JOURNAL_BYTES)
    _extend(bucket, files.LAYOUT, folder, sizes.MAX_LAYOUT_BYTES)
    new = os.path.join(folder, f"{MANIFEST}.new")
    with open(new, "wb") as file:
        file.write(found[0])
    os.replace(new, os.path.join(folder, MANIFEST))


def _extend(bucket: Objects, name: str, folder: str, most: int) -> None:
    """Append the new part of a growing object to its copy."""
    there = bucket.head(name)
    if there is None:
        return
    if there[0] > most:
        raise DatasetDamagedError(f"{bucket.url}/{name} has {there[0]} bytes; the limit is {most}")
    path = os.path.join(folder, name)
    file = OpenFile(path, os.O_RDWR if os.path.exists(path) else NEW)
    at = os.fstat(file.descriptor).st_size
    if at > there[0]:  # a recovery has replaced the object
        os.ftruncate(file.descriptor, 0)
        at = 0
    while at < there[0]:
        text = bucket.read_range(name, at, min(PART_BYTES, there[0] - at))
        if not text:
            raise DatasetDamagedError(f"{bucket.url}/{name} shrank while it was being read")
        write_at(file.descriptor, (text,), at, len(text))
        at += len(text)
