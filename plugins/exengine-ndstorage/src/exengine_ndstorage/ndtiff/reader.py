"""Reads NDTiff datasets of version 3.

The reader does not write anything, and it works while another process is writing the dataset. It reads the
new part of the index when a lookup finds no frame, and whenever ``len``, iteration or ``await_new_data`` is
used.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Self

import crc32c
import numpy as np
import numpy.typing as npt

from exengine.base_classes import (
    DataCoordinates,
    DatasetReader,
    DatasetStatus,
    FilePool,
    HelperThread,
    JsonValue,
    OpenFile,
    SourcePlan,
    has_writer,
    open_packed,
    packed_names,
    packed_size,
    parse_foreign_json,
    read_at,
    read_manifest,
    status_of,
    wait_until,
)
from exengine.errors import DatasetDamagedError
from exengine_ndstorage.ndtiff.files import existing_folder, is_file_name
from exengine_ndstorage.ndtiff.format import (
    BACKEND_NAME,
    CAPABILITIES,
    DTYPES,
    GRAY16,
    INDEX_NAME,
    RGB8,
    FrameLayout,
    pixel_bytes,
)
from exengine_ndstorage.ndtiff.frame_bytes import (
    axes_checksum,
    decode_metadata,
    read_checked_pixels,
    read_pixels,
)
from exengine_ndstorage.ndtiff.header import first_tiff, header_checksum_of, read_header
from exengine_ndstorage.ndtiff.index_table import FrameTable
from exengine_ndstorage.ndtiff.sizes import CHUNK_BYTES, MAX_METADATA_BYTES, MAX_OPEN_FILES
from exengine_ndstorage.ndtiff.structure import check_structure


class _GrowingTable:
    """The frames of a dataset that may still grow: a ``FrameTable`` that follows the index.

    While the table is ``live``, a lock protects it. A table that is not live no longer changes.

    Attributes
    ----------
    table : FrameTable
    live : bool
    checksum : int
        The CRC-32C of the part of the index that has been read so far.
    """

    def __init__(self, folder: str) -> None:
        self.table = FrameTable()
        self.live = True
        self.checksum = 0
        self._path = os.path.join(folder, INDEX_NAME)
        self._read = 0
        self._lock = threading.RLock()
        self.refresh()

    @property
    def axes(self) -> tuple[str, ...]:
        return self.table.axes

    def refresh(self) -> bool:
        """Read the new part of the index, and return whether it contains any frames."""
        with self._lock:
            before = len(self.table)
            if not self.table.problem:
                self._read_rest()
            return len(self.table) > before

    def _read_rest(self) -> None:
        try:
            file = open_packed(self._path)
        except FileNotFoundError:  # the writer has just created the folder
            return
        except OSError as error:
            self.table.problem = f"the index cannot be opened: {error.strerror}"
            return
        size = file.size
        while self._read < size:
            # In an archive, other files follow the index. Outside an archive, the index may have grown since.
            most = min(CHUNK_BYTES, size - self._read) if file.start else CHUNK_BYTES
            chunk = read_at(file.descriptor, most, file.start + self._read)
            used = self.table.feed(chunk, expected_bytes=max(0, size - self._read - len(chunk)))
            self.checksum = crc32c.crc32c(memoryview(chunk)[:used], self.checksum)
            self._read += used
            if not used:
                break

    @property
    def torn_bytes(self) -> int:
        """The number of bytes at the end of the index that do not form a complete entry."""
        size = packed_size(self._path)
        return 0 if size is None else size - self._read

    @property
    def problem(self) -> str:
        return (
            f"the index cannot be read from byte {self._read} onward: {self.table.problem}"
            if self.table.problem
            else ""
        )

    def find(self, axes: Mapping[str, int | str]) -> int | None:
        if not self.live:
            return self.table.find(axes)
        with self._lock:
            number = self.table.find(axes)
            if number is None and self.refresh():
                number = self.table.find(axes)
            return number

    def __len__(self) -> int:
        with self._lock:
            return len(self._fresh())

    def __iter__(self) -> Iterator[DataCoordinates]:
        with self._lock:
            return iter(self._fresh())

    def since(self, start: int) -> Iterator[tuple[int, DataCoordinates]]:
        """Yield the numbers and coordinates of the frames currently present, starting at a given number."""
        with self._lock:
            return self._fresh().since(start)

    def positions(self) -> dict[str, list[int | str]]:
        with self._lock:
            return self._fresh().positions()

    def describe_absence(self, axes: Mapping[str, int | str]) -> str:
        with self._lock:
            return self.table.describe_absence(axes)

    def _fresh(self) -> FrameTable:
        if self.live:
            self.refresh()
        return self.table


class NDTiffReader(DatasetReader):
    """A reader for an NDTiff dataset of version 3.

    Parameters
    ----------
    path : str
        The folder of the dataset.
    folder : str, optional
        The folder that contains the index and the files. By default, it is the folder of the dataset.
    """

    capabilities = CAPABILITIES
    backend_name = BACKEND_NAME

    def __init__(self, path: str, folder: str | None = None) -> None:
        self._folder = path if folder is None else folder
        manifest = read_manifest(self._folder)
        self._growing = _GrowingTable(
            self._folder
        )  # after the manifest: if it is final, the index is complete
        super().__init__(path, self._growing, status_of(manifest), manifest)
        self._written_here = manifest is not None and manifest.backend == BACKEND_NAME
        self._pool = FilePool(MAX_OPEN_FILES)
        self._helper = HelperThread()
        self._layouts: dict[int, FrameLayout] = {}
        self._summary: JsonValue = None
        self._settling = threading.RLock()
        # A dataset that has lost its manifest may still have checksums. If so, they are verified.
        self._checked = self._written_here or (manifest is None and self._frames_have_checksums())
        self._settle()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a dataset of this version. ``NDTiffStorage.open`` opens any version."""
        return cls(existing_folder(path))

    # -- status ----------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Determine the status from the manifest, the lock, the index and the files."""
        table, manifest = self._growing, self.manifest
        status, reason = (manifest.status, manifest.reason) if manifest else (DatasetStatus.COMPLETE, "")
        problem = table.problem
        if status is DatasetStatus.INCOMPLETE:
            reason = (
                "the writer is still active"
                if has_writer(self._folder)
                else "the writer ended without calling finish()"
            )
            self._read_summary()
        else:
            table.table.settle()  # settle before other threads use the table without a lock
            table.live = False
            problem = problem or self._disagreement() or self._read_summary() or self._changed_header()
        if problem:
            status, reason = DatasetStatus.DAMAGED, problem
        self.set_status(status, reason)

    def _disagreement(self) -> str:
        """Return a contradiction between the index, the files and the manifest, or an empty text."""
        growing, table, manifest = self._growing, self._growing.table, self.manifest
        if INDEX_NAME not in packed_names(self._folder):
            # The writer failed while it was creating the index, and the manifest records this failure.
            if manifest is not None and manifest.status is DatasetStatus.FAILED and manifest.frames == 0:
                return ""
            return f"there is no {INDEX_NAME}"
        for name, end in table.ends().items():
            path = os.path.join(self._folder, name)
            size = packed_size(path) if is_file_name(name) and not os.path.islink(path) else None
            if size is None:
                return f"the index refers to the file {name!r}, which does not exist"
            if size < end:
                return f"{name} is {size} bytes long, but the index requires at least {end}"
        if growing.torn_bytes:
            return f"the index ends with an incomplete entry; its length in bytes: {growing.torn_bytes}"
        if manifest is None:
            return ""
        if manifest.frames is not None and manifest.frames != len(table):
            return f"the index lists {len(table)} frames, but {manifest.frames} were written"
        if manifest.facts.get("index_crc32c", growing.checksum) != growing.checksum:
            return "the index differs from the one that was written, so frames may have wrong coordinates"
        return ""

    def _changed_header(self) -> str:
        """Return a message if the header of the first file has changed, otherwise an empty string."""
        written = self.manifest.facts.get("header_crc32c") if self.manifest is not None else None
        name = self._first_file()
        if written is None or name is None:  # an earlier release wrote the dataset, or there is no TIFF file
            return ""
        try:
            found = header_checksum_of(os.path.join(self._folder, name))
        except DatasetDamagedError as error:
            return str(error)
        return "" if found == written else f"the header of {name} differs from the one that was written"

    def _first_file(self) -> str | None:
        names = [name for name in self._growing.table.files[:1] if is_file_name(name)]
        return names[0] if names else first_tiff(self._folder)

    def _read_summary(self) -> str:
        """Read the summary metadata. Return the reason if it cannot be read, otherwise an empty string."""
        if self._summary is None:
            name = self._first_file()
            if name is not None:
                try:
                    self._summary = read_header(os.path.join(self._folder, name))[1]
                except DatasetDamagedError as error:
                    return str(error)
        return ""

    @property
    def status(self) -> DatasetStatus:
        if super().status is DatasetStatus.INCOMPLETE:
            with self._settling:
                manifest = read_manifest(self._folder)
                if manifest is not None and manifest.status is not DatasetStatus.INCOMPLETE:
                    self._growing.refresh()  # the manifest is final, so the index is now complete
                    # The status is published by _settle, after the dataset has been checked.
                    self.set_status(DatasetStatus.INCOMPLETE, manifest=manifest)
                self._settle()
        return super().status

    @property
    def summary_metadata(self) -> JsonValue:
        if self._summary is None:
            self._read_summary()  # try again if an earlier attempt failed
        return self._summary

    @property
    def recorded_plan(self) -> SourcePlan:
        """The shapes and dtypes of the frames, as listed in the index."""
        layouts = dict.fromkeys(
            ((height, width, 3) if pixel_type == RGB8 else (height, width), np.dtype(DTYPES[pixel_type]).name)
            for width, height, pixel_type, *_ in self._growing.table.layouts
            if pixel_type in DTYPES
        )
        return SourcePlan(layouts=tuple(layouts))

    def is_finished(self) -> bool:
        """Return whether no more frames will arrive: the dataset is finished, or its writer has ended."""
        return self.status is not DatasetStatus.INCOMPLETE or not has_writer(self._folder)

    def await_new_data(self, timeout: float | None = None) -> bool:
        count = len(self._growing.table)

        def has_new_data() -> bool:
            finished = self.is_finished()  # first, so that refresh() finds the last frames
            return self._growing.refresh() or len(self._growing.table) > count or finished

        return wait_until(has_new_data, timeout)

    @property
    def has_checksums(self) -> bool:
        """Whether damaged frames are detected. Frames that this backend wrote have checksums."""
        return self._checked

    def check_structure(self) -> list[str]:
        finished = self.is_finished() and self.status is not DatasetStatus.INCOMPLETE
        return check_structure(
            self._folder, self._growing.table, written_here=self._written_here, finished=finished
        )

    # -- frames ----------------------------------------------------------------------------------

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        table = self._growing.table
        file, layout_number, begin, _, _ = table.place(number)
        opened = self._pool.get(file) or self._file(file)
        layout = self._layouts.get(layout_number) or self._layout(layout_number, opened)
        if self._checked:
            axes_crc = axes_checksum(table.coordinates(number))
            return read_checked_pixels(
                opened, begin, layout, axes_crc, self._helper, lambda: self._name(number)
            )
        return read_pixels(opened, begin, layout, self._helper, lambda: self._name(number))

    def read_frame_metadata(self, number: int) -> JsonValue:
        table = self._growing.table
        file, layout_number, begin, at, size = table.place(number)
        opened = self._pool.get(file) or self._file(file)
        descriptor, start = opened.descriptor, opened.start
        if at + size > opened.size:
            raise DatasetDamagedError(f"the metadata of {self._name(number)} is longer than the file")
        if size > MAX_METADATA_BYTES:
            raise DatasetDamagedError(
                f"the metadata of {self._name(number)} takes up {size} bytes, but the limit is "
                f"{MAX_METADATA_BYTES}"
            )
        data = read_at(descriptor, size, start + at)
        if self._checked:
            layout = self._layouts.get(layout_number) or self._layout(layout_number, opened)
            ifd = read_at(descriptor, layout.ifd_bytes, start + max(0, begin - layout.ifd_bytes))
            axes_crc = axes_checksum(table.coordinates(number))
            return decode_metadata(data, size, ifd, layout, axes_crc, lambda: self._name(number))
        try:
            return parse_foreign_json(data)
        except (ValueError, RecursionError) as error:
            damage = DatasetDamagedError(f"the metadata of {self._name(number)} cannot be parsed: {error}")
            damage.readable = data.decode(errors="replace")
            raise damage from None

    def _name(self, number: int) -> str:
        return f"the frame at {self._growing.table.coordinates(number)} of {self.path}"

    def _layout(self, number: int, file: OpenFile) -> FrameLayout:
        """Return a frame layout from the index. Refuse a layout that is invalid or too large for the file."""
        width, height, pixel_type, *compressions = self._growing.table.layouts[number]
        if pixel_type not in DTYPES or any(compressions) or not width or not height:
            raise DatasetDamagedError(
                f"{self.path}: a frame of {width} x {height} pixels with pixel type {pixel_type} and "
                f"compression {compressions} is not valid in NDTiff"
            )
        if pixel_bytes((width, height, pixel_type, 0, 0)) > file.size:
            raise DatasetDamagedError(
                f"{self.path}: a frame of {width} x {height} pixels is larger than its file"
            )
        if DTYPES[pixel_type] == "<u2":
            pixel_type = GRAY16
        layout = self._layouts[number] = FrameLayout(height, width, pixel_type)
        return layout

    def _frames_have_checksums(self) -> bool:
        """Return whether the first, middle or last frame has checksums.

        Three frames are examined, because any one of them may be damaged.
        """
        table = self._growing.table
        count = len(table)
        for number in {0, count // 2, count - 1} if count else ():
            file, layout_number, begin, _, _ = table.place(number)
            try:
                opened = self._file(file)
                layout = self._layouts.get(layout_number) or self._layout(layout_number, opened)
            except DatasetDamagedError:
                continue
            at = opened.start + max(0, begin - layout.ifd_bytes)
            ifd = read_at(opened.descriptor, layout.ifd_bytes, at)
            if len(ifd) == layout.ifd_bytes and layout.checksums(ifd) is not None:
                return True
        return False

    def _file(self, number: int) -> OpenFile:
        name = self._growing.table.files[number]
        if not is_file_name(name):
            raise DatasetDamagedError(
                f"{self.path}: the index refers to {name!r}, which is not a file of the dataset"
            )
        try:
            path = os.path.join(self._folder, name)
            return self._pool.get(number) or self._pool.hold(number, open_packed(path))
        except OSError as error:
            raise DatasetDamagedError(
                f"{self.path}: the file {name!r} cannot be read: {error.strerror}"
            ) from None

    def release(self) -> None:
        self._helper.end()
        self._pool.release()
