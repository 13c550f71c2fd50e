"""Reads datasets that are packed into one ``.ozx`` file.

The reader copies the journal and the layout to a temporary folder, as for a dataset in object storage. Pixels
and metadata of frames stay in the file.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Self

from exengine.base_classes import Archive
from exengine.errors import DatasetDamagedError, DatasetNotFoundError, ExEngineError
from exengine_ome_zarr.format import files
from exengine_ome_zarr.remote.bucket import Tag
from exengine_ome_zarr.remote.claims import MANIFEST
from exengine_ome_zarr.remote.reader import RemoteReader, copy_documents


def is_packed(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a packed dataset of this backend."""
    if not os.fspath(path).endswith((files.PACKED_SUFFIX, ".zip")) or not os.path.isfile(path):
        return False
    try:
        return files.LAYOUT in Archive(path).sizes
    except (ExEngineError, OSError):
        return False


class PackedReader(RemoteReader):
    """A reader for a packed dataset. Use :meth:`open` to create a reader."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a dataset by the path of its file."""
        absolute = os.path.abspath(path)
        try:
            objects = _Objects(Archive(absolute))
        except OSError as error:
            raise DatasetNotFoundError(f"{absolute} cannot be opened: {error.strerror}") from None
        if files.LAYOUT not in objects.archive.sizes or MANIFEST not in objects.archive.sizes:
            raise DatasetNotFoundError(f"{absolute} is not a dataset that ExEngine has packed")
        copy = tempfile.TemporaryDirectory(prefix="exengine-")
        try:
            copy_documents(objects, copy.name)
            reader = cls(objects, copy)
        except BaseException:
            copy.cleanup()
            raise
        reader.capabilities = replace(reader.capabilities, remote=False)
        return reader


class _Objects:
    """The files in an archive, with the read operations of a bucket."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.url = archive.path

    def head(self, name: str) -> tuple[int, str | None] | None:
        size = self.archive.sizes.get(name)
        return None if size is None else (size, None)

    def get(self, name: str, most: int) -> tuple[bytes, Tag] | None:
        size = self.archive.sizes.get(name, 0)
        if size > most:
            raise DatasetDamagedError(f"{self.url}/{name} has {size} bytes; the limit is {most}")
        text = self.archive.read(name, 0, size)
        return None if text is None else (text, {})

    def read_range(self, name: str, offset: int, length: int) -> bytes | None:
        return self.archive.read(name, offset, length)

    def read_end(self, name: str, length: int) -> bytes | None:
        size = self.archive.sizes.get(name, 0)
        return self.archive.read(name, max(0, size - length), length)

    def objects(self) -> Iterator[tuple[str, int]]:
        return iter(self.archive)
