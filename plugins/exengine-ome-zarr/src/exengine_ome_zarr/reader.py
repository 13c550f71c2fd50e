"""Reads datasets of this backend by means of the journal, even during writing or after a crash."""

import os
from typing import Any, Self

import numpy.typing as npt

from exengine.base_classes import (
    DatasetReader,
    DatasetStatus,
    DataStorage,
    JsonValue,
    OpenFile,
    SourcePlan,
    has_writer,
    read_at,
    read_manifest,
    status_of,
    wait_until,
)
from exengine.errors import DatasetDamagedError, DatasetNotFoundError
from exengine_ome_zarr.capabilities import BACKEND_NAME, capabilities_for
from exengine_ome_zarr.format import files
from exengine_ome_zarr.format.frame_files import FrameFiles, read_frame_line
from exengine_ome_zarr.format.frame_reading import FrameName
from exengine_ome_zarr.format.images import Images
from exengine_ome_zarr.format.journal import RECORD_BYTES, Record, decode_record
from exengine_ome_zarr.format.layout import Layout
from exengine_ome_zarr.pyramid import LevelReader, level_factors
from exengine_ome_zarr.structure import check_structure
from exengine_ome_zarr.table import FrameTable

FINISHED = (DatasetStatus.COMPLETE, DatasetStatus.ABORTED, DatasetStatus.FAILED)
"""The statuses of finished datasets."""


class OmeZarrReader(DatasetReader):
    """A reader for a dataset that this backend wrote.

    Parameters
    ----------
    path : str
        The folder of the dataset.
    """

    backend_name = BACKEND_NAME

    def __init__(self, path: str) -> None:
        self._folder = path
        manifest = read_manifest(path)
        self._table = FrameTable(path, manifest)  # after the manifest: if it is final, the table is complete
        super().__init__(path, self._table, status_of(manifest), manifest)
        layout = self._table.layout
        self.capabilities = capabilities_for({"codec": layout.codec} if layout is not None else {})
        self._files: FrameFiles | None = None
        self._lines: OpenFile | None = None
        self._settle()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a dataset of this backend. ``OmeZarrStorage.open`` opens any OME-Zarr dataset."""
        absolute = os.path.abspath(path)
        if not os.path.isdir(absolute):
            raise DatasetNotFoundError(f"there is no dataset at {absolute}")
        return cls(absolute)

    # -- status ----------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Determine the status from the manifest, the lock and the files."""
        table, manifest = self._table, self.manifest
        status, reason = (manifest.status, manifest.reason) if manifest else (DatasetStatus.COMPLETE, "")
        problem = table.problem
        if status is DatasetStatus.INCOMPLETE:
            reason = (
                "its writer is active"
                if has_writer(self._folder)
                else "its writer ended without calling finish()"
            )
        else:
            table.live = False
            problem = problem or self._disagreement()
        if problem:
            status, reason = DatasetStatus.DAMAGED, problem
        self._is_verified = status in FINISHED
        self._is_damaged = bool(problem)
        self.set_status(status, reason)

    def _disagreement(self) -> str:
        """Return how the files of a finished dataset contradict its manifest; empty if they do not."""
        manifest, table = self.manifest, self._table
        if manifest is None:
            return ""
        if table.journal is None:
            return "" if manifest.frames == 0 else "there is no journal"
        if manifest.frames is not None and manifest.frames != len(table):
            return f"the journal has {len(table)} frames, but {manifest.frames} were written"
        for fact, name, size in (
            ("journal_crc32c", files.JOURNAL, table.journal_bytes),
            ("layout_crc32c", files.LAYOUT, table.layout_bytes),
        ):
            expected = manifest.facts.get(fact)
            if expected is None or (table.verified and name == files.JOURNAL):
                continue
            if expected != self._checksum(name, size):
                return f"{name} differs from the file that was written, so frames may have wrong coordinates"
        return ""

    def _checksum(self, name: str, size: int) -> int | None:
        try:
            file = OpenFile(os.path.join(self._folder, name), os.O_RDONLY)
        except OSError:
            return None
        if os.fstat(file.descriptor).st_size != size:
            return None
        return files.checksum(file)

    @property
    def status(self) -> DatasetStatus:
        if super().status is DatasetStatus.INCOMPLETE:
            manifest = read_manifest(self._folder)
            if manifest is not None and manifest.status is not DatasetStatus.INCOMPLETE:
                self._table.refresh()  # the manifest is final, so the journal is now complete
                self.set_status(DatasetStatus.INCOMPLETE, manifest=manifest)
            self._settle()
        return super().status

    @property
    def summary_metadata(self) -> JsonValue:
        if self._table.summary is None:
            self._table.refresh()
        return self._table.summary

    def is_finished(self) -> bool:
        """Return whether no more frames will arrive: the dataset is finished, or its writer has ended."""
        return self.status is not DatasetStatus.INCOMPLETE or not has_writer(self._folder)

    def await_new_data(self, timeout: float | None = None) -> bool:
        count = len(self._table)

        def has_new_data() -> bool:
            finished = self.is_finished()  # first, so that len() counts the last frames
            return len(self._table) > count or finished

        return wait_until(has_new_data, timeout)

    @property
    def recorded_plan(self) -> SourcePlan:
        """The recorded pixel size, z step, time interval, channel colors, stage positions and well plate."""
        return self._table.facts.plan()

    @property
    def resolution_levels(self) -> tuple[int, ...]:
        """The resolution levels. Level 0 has full resolution; each further level is half as high and wide."""
        layout = self._table.layout
        if layout is None or self._table.live or not os.path.isfile(self._document_of_level(1)):
            return (0,)
        return tuple(range(len(level_factors(layout))))

    def _document_of_level(self, number: int) -> str:
        table = self._table
        assert table.layout is not None
        images = Images(self._folder, table.layout, table.facts, table.labels)
        image = table.place(0)[0] if len(table) else 0
        return os.path.join(self._folder, images.level_path(image, number), files.DOCUMENT)

    def level(self, number: int) -> DataStorage:
        """Return the frames at one resolution level."""
        if number == 0 or number not in self.resolution_levels:
            return super().level(number)
        return LevelReader(self._folder, number)

    def check_structure(self) -> list[str]:
        """Check the shards and documents; see :meth:`exengine.DataStorage.check_structure`."""
        finished = self.status is not DatasetStatus.INCOMPLETE
        return check_structure(self._folder, self._table, finished=finished)

    # -- frames ----------------------------------------------------------------------------------

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        frames = self._files
        if frames is None:
            frames = self._files = self._open_files()
        table = self._table
        offsets, checksums = table.slots
        if number < len(offsets) and self._is_verified:
            frame = frames.read_at_slot(table.place(number), offsets.item(number), checksums.item(number))
            if frame is not None:
                return frame
        record = self._record(number)
        if self._is_verified:
            frame = frames.read_slot(record)
            if frame is not None:
                return frame
        else:
            self._refuse_lost_labels(number, record)
        return frames.read(record, FrameName(self._name, number))

    def _refuse_lost_labels(self, number: int, record: Record) -> None:
        """Raise ``DatasetDamagedError`` if a frame was stored at coordinates other than those in the table.

        The coordinates differ if the end of the layout file was lost, because some positions then have no
        labels. The checksum in the manifest reveals this loss only if the dataset is finished.
        """
        try:
            line = self._read_line(number, record)
        except DatasetDamagedError:
            if self._is_damaged:
                raise
            return  # the metadata are lost, but the labels are probably complete
        self._compare_coordinates(number, line)

    def _compare_coordinates(self, number: int, line: dict[str, Any]) -> None:
        stored = line.get("coordinates")
        if stored != self._table.coordinates(number):
            raise DatasetDamagedError(
                f"{self._name(number)} was originally stored at {stored!r:.200}, but the labels of these "
                f"coordinates are missing from {files.LAYOUT}"
            )

    def _open_files(self) -> FrameFiles:
        table = self._table
        layout: Layout | None = table.layout
        assert layout is not None  # not None, because a frame was found
        images = Images(self._folder, layout, table.facts, table.labels)
        return FrameFiles(self._folder, layout, images.array_path)

    def read_frame_metadata(self, number: int) -> JsonValue:
        line = self._read_line(number, self._record(number))
        if not self._is_verified:
            self._compare_coordinates(number, line)
        return line["metadata"]

    def _read_line(self, number: int, record: Record) -> dict[str, Any]:
        """Return the coordinates and metadata that were stored with a frame."""
        lines = self._lines
        if lines is None:
            try:
                lines = OpenFile(os.path.join(self._folder, files.FRAMES), os.O_RDONLY)
            except OSError as error:
                raise DatasetDamagedError(f"{self.path}: {files.FRAMES} cannot be read: {error}") from None
            self._lines = lines
        return read_frame_line(lines, record, FrameName(self._name, number))

    def _record(self, number: int) -> Record:
        journal = self._table.journal
        assert journal is not None  # not None, because a frame was found
        text = read_at(journal.descriptor, RECORD_BYTES, (number + 1) * RECORD_BYTES)
        record = decode_record(text, number)
        if record is None:
            raise DatasetDamagedError(f"the journal no longer contains {self._name(number)}")
        return record

    def _name(self, number: int) -> str:
        return f"the frame at {self._table.coordinates(number)} of {self.path}"

    def release(self) -> None:
        """Close the files."""
        if self._files is not None:
            self._files.release()
        self._lines = self._files = None
        self._table.journal = None
