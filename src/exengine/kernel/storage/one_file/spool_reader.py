"""Reads a single-file dataset from its spool, or from another file that contains the same kind of records."""

import os
import zlib
from typing import Any, ClassVar

import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DatasetStatus, JsonValue
from exengine.kernel.errors import DatasetAccessError, DatasetDamagedError, ExEngineError, from_os
from exengine.kernel.frames.coordinate_index import CoordinateIndex
from exengine.kernel.storage.manifest import Manifest, has_writer, read_manifest
from exengine.kernel.storage.one_file.spool import FRAMES, JOURNAL, Scan, SpooledFrame, read_pixels
from exengine.kernel.storage.one_file.spooled import FrameToBuild
from exengine.kernel.storage.reading import DatasetReader, wait_until
from exengine.kernel.system import files
from exengine.kernel.system.bounded import parse_json


class SpoolReader(DatasetReader):
    """A dataset that is read from its spool: while it is being written, after a crash, or after an I/O error.

    A subclass may override :meth:`open_files` to read another file that contains the same kind of records.

    Parameters
    ----------
    path : str
        The path of the dataset.
    manifest : Manifest or None
        The manifest next to the dataset.

    Raises
    ------
    DatasetDamagedError, DatasetAccessError
        If the spool cannot be read.
    """

    reads_spool: ClassVar[bool] = True
    """Whether the frames are in a spool rather than in the file itself."""

    def __init__(self, path: str, manifest: Manifest | None) -> None:
        self.real_path = os.path.realpath(path)
        """The path of the dataset, with symbolic links resolved."""
        self._index = CoordinateIndex()
        self._frames: list[SpooledFrame] = []
        self._descriptors: list[int] = []
        self._problem = ""
        super().__init__(path, self._index, DatasetStatus.INCOMPLETE, manifest)
        try:
            self._scan = self.open_files()
            self._refresh()
            self._settle()
        except PermissionError as error:
            self.release()
            raise from_os(DatasetAccessError, f"{path} cannot be read: {error}", error) from None
        except ExEngineError:
            self.release()
            raise
        except OSError as error:
            self.release()
            raise DatasetDamagedError(f"{path} cannot be read: {error}") from None

    @staticmethod
    def checksum(data: Any) -> int:
        """Return the checksum of pixels or of a record, as the writer computes it."""
        return zlib.crc32(data)

    def open_files(self) -> Scan:
        """Open the pixel file and the journal with :meth:`open_file`, and return a scan of the journal."""
        self.open_file(f"{self.real_path}.{FRAMES}")
        return Scan(self.open_file(f"{self.real_path}.{JOURNAL}"), self.checksum)

    def open_file(self, path: str) -> int:
        """Open a regular file, and return its descriptor, which is closed together with the dataset."""
        self._descriptors.append(files.open_regular(path))
        return self._descriptors[-1]

    def _refresh(self) -> None:
        for frame, description in self._scan.advance():
            try:
                coordinates = DataCoordinates(description["c"])
                if self._index.find(coordinates.__dict__) is not None:
                    raise ValueError("two frames have the same coordinates")
            except (ExEngineError, KeyError, TypeError, ValueError) as error:
                self._problem = self._problem or f"a journal record is not valid: {error}"
                continue
            self._frames.append(frame)
            self._index.add(coordinates.__dict__)
        self._problem = self._problem or self._scan.gap

    def _settle(self) -> None:
        manifest = self.manifest
        status = manifest.status if manifest is not None else DatasetStatus.INCOMPLETE
        reason = manifest.reason if manifest is not None else ""
        if status is DatasetStatus.INCOMPLETE:
            active = has_writer(self.real_path)
            reason = "its writer is active" if active else "its writer ended without calling finish()"
        elif manifest is not None and manifest.frames not in (None, len(self._frames)):
            self._problem = self._problem or (
                f"the number of frames is {len(self._frames)}, but the manifest records {manifest.frames}"
            )
        if self._problem:
            status, reason = DatasetStatus.DAMAGED, self._problem
        self.set_status(status, reason)

    @property
    def status(self) -> DatasetStatus:
        if super().status is DatasetStatus.INCOMPLETE and not self._exengine.closed:
            manifest = read_manifest(self.real_path)
            if manifest is not None and manifest.status is not DatasetStatus.INCOMPLETE:
                self._refresh()  # the manifest has its final status, so the journal is complete
                self.set_status(DatasetStatus.INCOMPLETE, manifest=manifest)
            self._settle()
        return super().status

    def is_finished(self) -> bool:
        """Return whether no more frames will arrive: the dataset is finished, or its writer has ended."""
        return self.status is not DatasetStatus.INCOMPLETE or not has_writer(self.real_path)

    def await_new_data(self, timeout: float | None = None) -> bool:
        count = len(self._index)

        def has_new_data() -> bool:
            finished = self.is_finished()  # before the refresh, so that it finds the last frames
            self._refresh()
            return len(self._index) > count or finished

        return wait_until(has_new_data, timeout)

    @property
    def summary_metadata(self) -> JsonValue:
        summary: JsonValue = self._scan.head.get("summary")
        return summary

    @property
    def head(self) -> dict[str, Any]:
        """The description of the dataset itself."""
        return self._scan.head

    def check_structure(self) -> list[str]:
        """Return the faults in the journal, and a note if the file of a failed dataset has not been built."""
        found = [self._problem] if self._problem else []
        if self.reads_spool and super().status is DatasetStatus.FAILED:
            found.append(
                "the frames are still in the spool; run exengine recover --in-place to build the file"
            )
        return found

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        name = f"frame {number} of {self.path}"
        return read_pixels(
            self._descriptors[0], self._frames[number], self.describe(number), self.checksum, name
        )

    def read_frame_metadata(self, number: int) -> JsonValue:
        metadata: JsonValue = self.describe(number).get("m")
        return metadata

    @property
    def faults(self) -> list[str]:
        """The reason why frames are missing from the records; empty if none are missing."""
        return [self._problem] if self._problem else []

    def place_of(self, number: int) -> SpooledFrame:
        """Return the locations of a frame's pixels and of its record."""
        return self._frames[number]

    def describe(self, number: int) -> dict[str, Any]:
        """Return the description of a frame, from its record.

        Raises
        ------
        DatasetDamagedError
            If the record cannot be read, or has changed since the dataset was opened.
        """
        frame = self._frames[number]
        try:
            text = files.read_at(self._descriptors[-1], frame.text_size, frame.text_at)
        except OSError as error:
            raise DatasetDamagedError(
                f"the record of frame {number} of {self.path} cannot be read: {error}"
            ) from None
        if len(text) != frame.text_size or self.checksum(text) != frame.text_crc:
            raise DatasetDamagedError(f"the journal of {self.path} no longer contains frame {number}")
        description: dict[str, Any] = parse_json(text)
        return description

    def frames_to_build(self) -> list[FrameToBuild]:
        """Return all frames in the form that ``build_file`` needs."""
        found = []
        for number, coordinates in enumerate(self):
            text = self.describe(number)
            found.append(
                FrameToBuild(
                    coordinates,
                    tuple(text["s"]),
                    text["d"],
                    self._frames[number].crc,
                    lambda number=number: self.read_frame(number),  # type: ignore[misc]
                    lambda number=number: self.read_frame_metadata(number),  # type: ignore[misc]
                )
            )
        return found

    def release(self) -> None:
        """Close the files."""
        while self._descriptors:
            os.close(self._descriptors.pop())
