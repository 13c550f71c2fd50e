"""Reads a finished OME-TIFF file that ExEngine wrote, with the records in it."""

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
from exengine.errors import DatasetDamagedError, DatasetNotFoundError, UnsupportedOperationError
from exengine_ome_tiff.bigtiff import FIRST_PIXELS_AT, first_bytes, is_own, is_tiff, records_in
from exengine_ome_tiff.capabilities import BACKEND_NAME, CAPABILITIES
from exengine_ome_tiff.codecs import decode

FINISHED = (DatasetStatus.COMPLETE, DatasetStatus.ABORTED)


def open_tiff(path: str | os.PathLike[str]) -> DataStorage:
    """Open a dataset: from its spool until it is finished, and from the file afterwards.

    A file of another program is opened as well.

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
        raise DatasetDamagedError(f"the frames of {path} are missing: its spool is not next to it")
    if manifest is not None and manifest.backend == BACKEND_NAME:
        raise DatasetDamagedError(
            f"the beginning of {path} is damaged, or another program has replaced the file; in the latter "
            "case, move it away from its manifest to open it"
        )
    if not is_tiff(begin):
        raise DatasetDamagedError(f"{path} is not a TIFF file, or its beginning is damaged")
    from exengine_ome_tiff.foreign.reader import ForeignReader

    return ForeignReader(path)


class OmeTiffSpoolReader(SpoolReader):
    """A dataset that is not finished, read from its spool."""

    capabilities: StorageCapabilities = CAPABILITIES
    backend_name = BACKEND_NAME

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        return open_tiff(path)

    @staticmethod
    def checksum(data: Any) -> int:
        """Return the CRC-32C."""
        return int(crc32c.crc32c(data))


class EmptyReader(OmeTiffSpoolReader):
    """A dataset without a spool, because its writer was killed before it created one."""

    reads_spool = False

    def open_files(self) -> Scan:
        return Scan(self.open_file(self.real_path), self.checksum, 0, 0)


class OmeTiffReader(OmeTiffSpoolReader):
    """A finished file.

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
        found = records_in(read_at(descriptor, FIRST_PIXELS_AT, 0))
        if found is None:
            raise DatasetDamagedError(f"{self.path}: the pointer to the records is damaged")
        return Scan(descriptor, self.checksum, *found)

    def _settle(self) -> None:
        inside, beside = self._manifest_inside(), self.manifest
        if inside is not None and (beside is None or beside.id != inside.id):
            self.set_status(inside.status, inside.reason, manifest=inside)  # the other is of another file
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
            strip = read_at(self._descriptors[0], frame.size, frame.offset)
            if len(strip) != frame.size or crc32c.crc32c(strip) != text["k"]:
                raise ValueError("the checksum of the strip differs from that which was written")
            pixels = decode(strip, shape, dtype, str(text["z"]))
            if crc32c.crc32c(pixels.reshape(-1).view(np.uint8).data) != frame.crc:
                raise ValueError("the checksum of the pixels differs from that which was written")
        except UnsupportedOperationError:
            raise
        except (KeyError, TypeError, ValueError, OSError, MemoryError) as error:
            raise DatasetDamagedError(f"frame {number} of {self.path} is damaged: {error}") from None
        return pixels.astype(np.dtype(str(text["d"])), copy=False)
