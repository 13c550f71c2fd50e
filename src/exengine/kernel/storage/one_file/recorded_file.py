"""Reads a finished single-file dataset whose file contains the records of its spool.

A backend with a spool may store the records in its file; each record then gives the place of the pixels in
that file. Frames are found and checked in the same way as in the spool, without the library of the format.
"""

import os
from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from exengine.kernel.errors import DatasetDamagedError, UnsupportedOperationError
from exengine.kernel.storage.manifest import Manifest, read_manifest
from exengine.kernel.storage.one_file.spool import Scan
from exengine.kernel.storage.one_file.spool_reader import SpoolReader
from exengine.kernel.system import files


class RecordedFileReader(SpoolReader):
    """A reader for a finished file with records. Override :meth:`find_records` and :meth:`decode`.

    If a frame is stored compressed, its description has two more values: ``z``, the name of the
    compression, and ``k``, the checksum of the stored bytes.

    Raises
    ------
    DatasetDamagedError
        If the records cannot be found.
    """

    reads_spool: ClassVar[bool] = False

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a finished file, without looking for a spool."""
        return cls(os.path.abspath(path), read_manifest(path))

    @abstractmethod
    def find_records(self, descriptor: int) -> tuple[int, int] | None:
        """Return the offset and the size of the records in the file; None if they cannot be found."""

    @abstractmethod
    def decode(
        self, stored: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], compression: str
    ) -> npt.NDArray[Any]:
        """Return the pixels of a compressed frame.

        Parameters
        ----------
        stored : bytes
            The stored bytes, whose checksum is correct.
        shape : tuple of int
        dtype : numpy.dtype
            The dtype of the pixels, in little-endian byte order.
        compression : str

        Raises
        ------
        ValueError
            If the bytes cannot be decompressed.
        UnsupportedOperationError
            If a library for this compression is not installed.
        """

    def open_files(self) -> Scan:
        descriptor = self.open_file(self.real_path)
        found = self.find_records(descriptor)
        if found is None:
            raise DatasetDamagedError(f"{self.path}: the pointer to the records is damaged")
        return Scan(descriptor, self.checksum, *found)

    def _settle(self) -> None:
        inside, beside = self._manifest_inside(), self.manifest
        if inside is not None and (beside is None or beside.id != inside.id):
            # The manifest beside this file belongs to a different file.
            self.set_status(inside.status, inside.reason, manifest=inside)
        if not self.head and not self._problem:
            self._problem = "the first record is damaged, or another program has moved the records"
        super()._settle()

    def _manifest_inside(self) -> Manifest | None:
        try:
            return Manifest(self.head["manifest"])
        except (KeyError, ValueError):
            return None

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        text = self.describe(number)
        if "z" not in text:
            return super().read_frame(number)
        frame = self.place_of(number)
        try:
            dtype = np.dtype(str(text["d"])).newbyteorder("<")
            shape = tuple(int(length) for length in text["s"])
            if frame.offset + frame.size > os.path.getsize(self.real_path):
                raise ValueError("the file ends before the end of the frame")
            stored = files.read_at(self._descriptors[0], frame.size, frame.offset)
            if len(stored) != frame.size or self.checksum(stored) != text["k"]:
                raise ValueError("the checksum of the stored bytes differs from the recorded one")
            pixels = self.decode(stored, shape, dtype, str(text["z"]))
            if self.checksum(pixels.reshape(-1).view(np.uint8).data) != frame.crc:
                raise ValueError("the checksum of the pixels differs from the recorded one")
        except UnsupportedOperationError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, OSError, MemoryError) as error:
            raise DatasetDamagedError(f"frame {number} of {self.path} is damaged: {error}") from None
        return pixels.astype(np.dtype(str(text["d"])), copy=False)


class EmptyFileReader(SpoolReader):
    """A reader for a dataset that is empty because its writer was killed before it created the spool."""

    reads_spool: ClassVar[bool] = False

    def open_files(self) -> Scan:
        return Scan(self.open_file(self.real_path), self.checksum, 0, 0)
