"""Uses the records in a finished OME-TIFF file written by ExEngine to read its frames."""

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
from exengine_ome_tiff.bigtiff import FIRST_PIXELS_AT, first_bytes, is_own, is_tiff, records_in
from exengine_ome_tiff.capabilities import BACKEND_NAME, CAPABILITIES
from exengine_ome_tiff.codecs import decode

FINISHED = (DatasetStatus.COMPLETE, DatasetStatus.ABORTED)


def open_tiff(path: str | os.PathLike[str]) -> DataStorage:
    """Open a dataset: from its spool until the dataset is finished, and from the file afterwards.

    Files written by other programs can also be opened.

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
        return OmeTiffSpoolReader(path, manifest)
    begin = first_bytes(real)
    if is_own(begin):
        if records_in(begin) != (0, 0):
            return OmeTiffReader(path, manifest)
        if manifest is None or manifest.frames is None:
            return EmptyReader(path, manifest)
        raise DatasetDamagedError(f"the frames of {path} are missing: no spool exists next to the file")
    if manifest is not None and manifest.backend == BACKEND_NAME:
        raise DatasetDamagedError(
            f"the beginning of {path} is damaged, or another program has replaced the file; to open a "
            "replaced file, move it to a folder that does not contain the manifest"
        )
    if not is_tiff(begin):
        raise DatasetDamagedError(f"{path} is not a TIFF file, or its beginning is damaged")
    from exengine_ome_tiff.foreign.reader import ForeignReader

    return ForeignReader(path)


class OmeTiffSpoolReader(SpoolReader):
    """A reader for the spool of a dataset that is not finished."""

    capabilities: StorageCapabilities = CAPABILITIES
    backend_name = BACKEND_NAME

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        return open_tiff(path)

    @staticmethod
    def checksum(data: Any) -> int:
        """Return the CRC-32C of the data."""
        return int(crc32c.crc32c(data))


class EmptyReader(EmptyFileReader, OmeTiffSpoolReader):
    """A reader for a dataset that has no spool because its writer was killed before creating one."""


class OmeTiffReader(RecordedFileReader, OmeTiffSpoolReader):
    """A reader for a finished file."""

    def find_records(self, descriptor: int) -> tuple[int, int] | None:
        return records_in(read_at(descriptor, FIRST_PIXELS_AT, 0))

    def decode(
        self, stored: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], compression: str
    ) -> npt.NDArray[Any]:
        return decode(stored, shape, dtype, compression)
