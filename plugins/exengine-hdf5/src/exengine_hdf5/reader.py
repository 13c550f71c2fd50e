"""Reads a finished HDF5 file that ExEngine wrote, by means of the records in the file.

The HDF5 library is needed only to decompress lzf chunks.
"""

import os
from typing import Any, Self

import crc32c
import numpy as np
import numpy.typing as npt

from exengine.base_classes import (
    DatasetStatus,
    DataStorage,
    Manifest,
    Scan,
    SpoolReader,
    StorageCapabilities,
    is_spooled,
    read_at,
    read_manifest,
)
from exengine.errors import DatasetDamagedError, DatasetNotFoundError
from exengine_hdf5.capabilities import BACKEND_NAME, CAPABILITIES
from exengine_hdf5.chunks import decode
from exengine_hdf5.user_block import MAGIC, USER_BLOCK_BYTES, first_bytes, records_at

FINISHED = (DatasetStatus.COMPLETE, DatasetStatus.ABORTED)


def open_hdf5(path: str | os.PathLike[str]) -> DataStorage:
    """Open a dataset: from its spool until the dataset is finished, and from the file afterwards.

    Raises
    ------
    DatasetNotFoundError
        If the path is not a file.
    DatasetDamagedError
        If neither the spool nor the file can be read.
    """
    path = os.path.abspath(path)
    real = os.path.realpath(path)
    if not os.path.isfile(real):
        raise DatasetNotFoundError(f"{path} does not exist, or is not a file")
    manifest = read_manifest(path)
    if is_spooled(real) and (manifest is None or manifest.status not in FINISHED):
        return Hdf5SpoolReader(path, manifest)
    block = first_bytes(real)
    if not block.startswith(MAGIC):
        raise DatasetDamagedError(f"{path} was not written by the backend hdf5, or its beginning is damaged")
    if records_at(block) == (0, 0):
        if manifest is None or manifest.frames is None:
            return EmptyReader(path, manifest)
        raise DatasetDamagedError(f"the frames of {path} are missing: no spool exists next to the file")
    return Hdf5Reader(path, manifest)


class Hdf5SpoolReader(SpoolReader):
    """A reader for the spool of a dataset that is not finished."""

    capabilities: StorageCapabilities = CAPABILITIES
    backend_name = BACKEND_NAME

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        return open_hdf5(path)

    @staticmethod
    def checksum(data: Any) -> int:
        """Return the CRC-32C."""
        return int(crc32c.crc32c(data))


class EmptyReader(Hdf5SpoolReader):
    """A reader for a dataset without a spool. Its writer was killed before creating one."""

    reads_spool = False

    def open_files(self) -> Scan:
        return Scan(self.open_file(self.real_path), self.checksum, 0, 0)


class Hdf5Reader(Hdf5SpoolReader):
    """A reader for a finished file.

    Raises
    ------
    DatasetDamagedError
        If the records cannot be found.
    """

    reads_spool = False

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a finished file, without looking for a spool."""
        return cls(os.path.abspath(path), read_manifest(path))

    def _manifest_inside(self) -> Manifest | None:
        try:
            return Manifest(self.head["manifest"])
        except (KeyError, ValueError):
            return None

    def open_files(self) -> Scan:
        descriptor = self.open_file(self.real_path)
        found = records_at(read_at(descriptor, USER_BLOCK_BYTES, 0))
        if found is None:
            raise DatasetDamagedError(f"{self.path}: the user block is damaged")
        return Scan(descriptor, self.checksum, *found)

    def _settle(self) -> None:
        inside, beside = self._manifest_inside(), self.manifest
        if inside is not None and (beside is None or beside.id != inside.id):
            # the manifest beside this file belongs to a different file
            self.set_status(inside.status, inside.reason, manifest=inside)
        if not self.head and not self._problem:
            self._problem = "the first record is damaged, or another program has moved the records"
        super()._settle()

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        text = self.describe(number)
        if "z" not in text:
            return super().read_frame(number)
        frame = self.place_of(number)
        try:
            dtype = np.dtype(str(text["d"])).newbyteorder("<")
            shape = tuple(int(length) for length in text["s"])
            if frame.size > os.path.getsize(self.real_path):
                raise ValueError("the file is shorter than the frame")
            chunk = read_at(self._descriptors[0], frame.size, frame.offset)
            if len(chunk) != frame.size or crc32c.crc32c(chunk) != text["k"]:
                raise ValueError("the checksum of the chunk differs from the recorded one")
            pixels = decode(chunk, shape, dtype, str(text["z"]))
            if crc32c.crc32c(pixels.reshape(-1).view(np.uint8).data) != frame.crc:
                raise ValueError("the checksum of the pixels differs from the recorded one")
        except (KeyError, TypeError, ValueError, OSError, MemoryError) as error:
            raise DatasetDamagedError(f"frame {number} of {self.path} is damaged: {error}") from None
        return pixels.astype(np.dtype(str(text["d"])), copy=False)
