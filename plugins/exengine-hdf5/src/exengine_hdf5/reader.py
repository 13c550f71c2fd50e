"""Reads a finished HDF5 file that ExEngine wrote, by means of the records in the file.

The HDF5 library is needed only to decompress lzf chunks.
"""

import os
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt

from exengine.base_classes import (
    DatasetStatus,
    DataStorage,
    EmptyFileReader,
    RecordedFileReader,
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
        """Return the CRC-32C of the data."""
        return int(crc32c.crc32c(data))


class EmptyReader(EmptyFileReader, Hdf5SpoolReader):
    """A reader for a dataset that has no spool because its writer was killed before creating one."""


class Hdf5Reader(RecordedFileReader, Hdf5SpoolReader):
    """A reader for a finished file."""

    def find_records(self, descriptor: int) -> tuple[int, int] | None:
        return records_at(read_at(descriptor, USER_BLOCK_BYTES, 0))

    def decode(
        self, stored: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], compression: str
    ) -> npt.NDArray[Any]:
        return decode(stored, shape, dtype, compression)
