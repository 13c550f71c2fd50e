"""Opens NDTiff datasets to read: of version 3 with our own index, older ones and pyramids too.

Reading writes nothing, and works while another process writes: the index is read on when
coordinates are asked for that were not there, and at ``len``, iteration and ``await_new_data``.
"""

import json
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt

from exengine.base_classes import (
    DataCoordinates,
    DatasetReader,
    DatasetStatus,
    DataStorage,
    JsonValue,
    has_writer,
    parse_json,
    read_at,
    read_manifest,
    status_of,
    wait_until,
)
from exengine.errors import DatasetDamagedError, DatasetNotFoundError
from exengine_ndstorage.ndtiff import format as layout
from exengine_ndstorage.ndtiff.files import CHUNK_BYTES, READ, FilePool, OpenFile
from exengine_ndstorage.ndtiff.frame_bytes import (
    axes_checksum,
    decode_metadata,
    read_checked_pixels,
    read_pixels,
)
from exengine_ndstorage.ndtiff.helper_thread import SecondThread
from exengine_ndstorage.ndtiff.index_table import Form, FrameTable
from exengine_ndstorage.ndtiff.writer import NDTiffStorage


def open_ndtiff(path: str) -> DataStorage:
    """Open a dataset of any version.

    Raises
    ------
    DatasetNotFoundError
        When no folder is there.
    DatasetDamagedError
        When it cannot be read at all.
    """
    path = os.path.abspath(path)  # whatever folder the program changes to
    if not os.path.isdir(path):
        raise DatasetNotFoundError(f"there is no dataset at {path}")
    full = os.path.join(path, layout.FULL_RESOLUTION)
    if not os.path.isdir(full):
        return NDTiffReader(path)
    refuse_link(full)
    name = _first_tiff(full)
    if name is not None and read_header(os.path.join(full, name))[0] < 3:
        from exengine_ndstorage.ndtiff.version2 import Version2Reader

        return Version2Reader(path)
    from exengine_ndstorage.ndtiff.pyramid import PyramidReader

    return PyramidReader(path)


def refuse_link(folder: str) -> None:
    """Refuse a folder of a dataset that leads to another place (promise D3).

    Raises
    ------
    DatasetDamagedError
    """
    if os.path.islink(folder):
        raise DatasetDamagedError(f"{folder} is a symbolic link, and not a folder of the dataset")


def _first_tiff(folder: str) -> str | None:
    """Return the name of the first TIFF file of a dataset, where one is there."""
    names = [name for name in os.listdir(folder) if name.endswith(".tif")]
    first = [name for name in names if name.endswith("NDTiffStack.tif")]
    return min(first or names, default=None)


def read_header(path: str) -> tuple[int, JsonValue]:
    """Return the major version and the summary metadata of a TIFF file.

    Raises
    ------
    DatasetDamagedError
        When it is no NDTiff file.
    """
    try:
        file = OpenFile(path, READ)
    except OSError as error:
        raise DatasetDamagedError(f"{path} cannot be read: {error.strerror}") from None
    descriptor = file.descriptor
    head = read_at(descriptor, 28, 0)
    if len(head) < 28 or head[:4] != b"II*\0":
        raise DatasetDamagedError(f"{path} is no little-endian TIFF file")
    magic, major, _minor, summary_magic, size = struct.unpack("<IIIII", head[8:])
    if magic != layout.MAGIC:
        raise DatasetDamagedError(f"{path} is a TIFF file, but no NDTiff")
    if major < 3 or summary_magic != layout.SUMMARY_MAGIC:
        return int(major), {}
    if size > min(layout.MAX_SUMMARY_BYTES, os.fstat(descriptor).st_size):
        raise DatasetDamagedError(
            f"{path}: the summary metadata are longer than the file, or than {layout.MAX_SUMMARY_BYTES} bytes"
        )
    try:
        return int(major), parse_json(read_at(descriptor, size, 28))
    except (ValueError, RecursionError) as error:
        raise DatasetDamagedError(f"{path}: the summary metadata cannot be understood: {error}") from None


class _GrowingTable:
    """The frames of a dataset that may still be written: a ``FrameTable`` that reads on.

    While it is ``live``, one thread at a time looks into the table; later it does not change any more.
    """

    def __init__(self, folder: str) -> None:
        self.table = FrameTable()
        self.live = True
        self._path = os.path.join(folder, layout.INDEX_NAME)
        self._read = 0
        self.checksum = 0  # of what was read
        self._lock = threading.RLock()
        self.refresh()

    @property
    def axes(self) -> tuple[str, ...]:
        return self.table.axes

    def refresh(self) -> bool:
        """Read what was added; return whether there were frames in it."""
        with self._lock:
            before = len(self.table)
            if not self.table.problem:
                self._read_on()
            return len(self.table) > before

    def _read_on(self) -> None:
        try:
            file = OpenFile(self._path, READ)
        except FileNotFoundError:  # the writer has just made the folder
            return
        except OSError as error:
            self.table.problem = f"it cannot be opened: {error.strerror}"
            return
        size = os.fstat(file.descriptor).st_size
        while self._read < size:
            chunk = read_at(file.descriptor, CHUNK_BYTES, self._read)
            taken = self.table.feed(chunk, expected_bytes=max(0, size - self._read - len(chunk)))
            self.checksum = crc32c.crc32c(memoryview(chunk)[:taken], self.checksum)
            self._read += taken
            if not taken:
                break

    @property
    def torn_bytes(self) -> int:
        """How many bytes at the end of the index make no whole entry."""
        return os.path.getsize(self._path) - self._read if os.path.isfile(self._path) else 0

    @property
    def problem(self) -> str:
        return (
            f"the index cannot be read from byte {self._read} on: {self.table.problem}"
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
    """An NDTiff dataset of version 3, opened to read.

    Parameters
    ----------
    path : str
        Of the dataset.
    folder : str, optional
        Where its index and its files are, when that is not the path.
    """

    capabilities = NDTiffStorage.capabilities

    def __init__(self, path: str, folder: str | None = None) -> None:
        self._folder = path if folder is None else folder
        self._growing = _GrowingTable(self._folder)
        content = read_manifest(self._folder)
        super().__init__(path, self._growing, status_of(content), content)
        self._ours = bool(content and content["backend"] == NDTiffStorage.backend_name)
        self._pool = FilePool()
        self._second = SecondThread()
        self._layouts: dict[int, layout.FrameLayout] = {}
        self._reason = ""
        self._summary: JsonValue = None
        # Without a manifest, frames say it themselves: their checksums are compared all the same.
        self._checked = self._ours or (content is None and self._frames_have_checksums())
        self._settle()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        """Open a dataset; see ``NDTiffStorage.open``."""
        return NDTiffStorage.open(path)

    # -- status ----------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Decide on the status from manifest, lock, index and files."""
        table = self._growing
        status = status_of(self._manifest) if self._manifest else DatasetStatus.COMPLETE
        reason = str(self._manifest.get("reason", ""))
        problem = table.problem
        if status is DatasetStatus.INCOMPLETE:
            reason = (
                "its writer is at work" if has_writer(self._folder) else "its writer ended without finish()"
            )
            self._read_summary()
        else:
            table.table.settle()  # before other threads look without a lock
            table.live = False
            problem = problem or self._disagreement() or self._read_summary()
        self._status, self._reason = (DatasetStatus.DAMAGED, problem) if problem else (status, reason)

    def _disagreement(self) -> str:
        """Say where index, files and manifest of a finished dataset disagree."""
        growing, table = self._growing, self._growing.table
        if not os.path.lexists(os.path.join(self._folder, layout.INDEX_NAME)):
            # A disk that took no index made the writer fail, and the manifest says so.
            if self._manifest.get("status") == DatasetStatus.FAILED and self._manifest.get("frames") == 0:
                return ""
            return f"there is no {layout.INDEX_NAME}"
        for name, end in table.ends([pixel_bytes(form) for form in table.forms]).items():
            path = os.path.join(self._folder, name)
            if not _is_plain(name) or os.path.islink(path) or not os.path.isfile(path):
                return f"the index names the file {name!r}, which is not there"
            size = os.path.getsize(path)
            if size < end:
                return f"{name} has {size} bytes, the index needs {end}"
        if growing.torn_bytes:
            return f"the last {growing.torn_bytes} bytes of the index are no whole entry"
        expected = self._manifest.get("frames")
        if isinstance(expected, int) and expected != len(table):
            return f"the index has {len(table)} frames, {expected} were written"
        if self._manifest.get("facts", {}).get("index_crc32c", growing.checksum) != growing.checksum:
            return "the index is not the one that was written: frames may have other coordinates"
        return ""

    def _read_summary(self) -> str:
        """Read the summary metadata, and return why they cannot be read."""
        if self._summary is None:
            names = [name for name in self._growing.table.files[:1] if _is_plain(name)]
            name = names[0] if names else _first_tiff(self._folder)
            if name is not None:
                try:
                    self._summary = read_header(os.path.join(self._folder, name))[1]
                except DatasetDamagedError as error:
                    return str(error)
        return ""

    @property
    def status(self) -> DatasetStatus:
        if self._status is DatasetStatus.INCOMPLETE:
            with self._lock:
                content = read_manifest(self._folder)
                if content is not None and content["status"] != DatasetStatus.INCOMPLETE:
                    self._growing.refresh()  # after the manifest: nothing comes any more
                    self._manifest = content
                self._settle()
        return self._status

    @property
    def status_reason(self) -> str:
        return self._reason

    @property
    def summary_metadata(self) -> JsonValue:
        if self._summary is None:
            self._read_summary()  # the writer may have written it by now, and other damage may hide it
        return self._summary

    def is_finished(self) -> bool:
        """Return whether no more frames will come: finished, or its writer is gone."""
        return self.status is not DatasetStatus.INCOMPLETE or not has_writer(self._folder)

    def await_new_data(self, timeout: float | None = None) -> bool:
        # Whether the writer is gone is asked first: what it has written until then is seen after.
        count = len(self._growing.table)

        def something_came() -> bool:
            finished = self.is_finished()
            return self._growing.refresh() or len(self._growing.table) > count or finished

        return wait_until(something_came, timeout)

    @property
    def has_checksums(self) -> bool:
        """Whether a damaged frame is recognised: the frames were written by this backend."""
        return self._checked

    def check_structure(self) -> list[str]:
        from exengine_ndstorage.ndtiff.structure import check_structure

        finished = self.is_finished() and self.status is not DatasetStatus.INCOMPLETE
        return check_structure(
            self._folder, self._growing.table, read_header, ours=self._ours, finished=finished
        )

    # -- frames ----------------------------------------------------------------------------------

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        table = self._growing.table
        file, form, begin, _, _ = table.place(number)
        opened = self._pool.get(file) or self._file(file)
        shape = self._layouts.get(form) or self._layout(form, opened)
        if self._checked:
            axes_crc = axes_checksum(table.coordinates(number))
            return read_checked_pixels(
                opened, begin, shape, axes_crc, self._second, lambda: self._name(number)
            )
        return read_pixels(opened, begin, shape, self._second, lambda: self._name(number))

    def read_frame_metadata(self, number: int) -> JsonValue:
        table = self._growing.table
        file, form, begin, at, size = table.place(number)
        opened = self._pool.get(file) or self._file(file)
        descriptor = opened.descriptor
        if at + size > os.fstat(descriptor).st_size:
            raise DatasetDamagedError(f"the metadata of {self._name(number)} are longer than the file")
        if size > layout.MAX_METADATA_BYTES:
            raise DatasetDamagedError(
                f"the metadata of {self._name(number)} have {size} bytes; at most "
                f"{layout.MAX_METADATA_BYTES} are read"
            )
        data = read_at(descriptor, size, at)
        if self._checked:
            shape = self._layouts.get(form) or self._layout(form, opened)
            ifd = read_at(descriptor, shape.ifd_bytes, max(0, begin - shape.ifd_bytes))
            axes_crc = axes_checksum(table.coordinates(number))
            return decode_metadata(data, size, ifd, shape, axes_crc, lambda: self._name(number))
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DatasetDamagedError(
                f"the metadata of {self._name(number)} cannot be understood: {error}"
            ) from None

    def _name(self, number: int) -> str:
        return f"the frame at {self._growing.table.coordinates(number)} of {self.path}"

    def _layout(self, form: int, file: OpenFile) -> layout.FrameLayout:
        """Return how frames of a form lie in a file, unless this file cannot hold one."""
        width, height, pixel_type, *compressions = self._growing.table.forms[form]
        if pixel_type not in layout.DTYPES or any(compressions) or not width or not height:
            raise DatasetDamagedError(
                f"{self.path}: a frame of {width} x {height}, pixel type {pixel_type}, compression "
                f"{compressions} is not NDTiff"
            )
        if pixel_bytes((width, height, pixel_type, 0, 0)) > os.fstat(file.descriptor).st_size:
            raise DatasetDamagedError(f"{self.path}: a frame of {width} x {height} is larger than its file")
        if layout.DTYPES[pixel_type] == "<u2":
            pixel_type = layout.GRAY16
        shape = self._layouts[form] = layout.FrameLayout(height, width, pixel_type)
        return shape

    def _frames_have_checksums(self) -> bool:
        """Look at the first, the middle and the last frame: one of them may be damaged."""
        table = self._growing.table
        count = len(table)
        for number in {0, count // 2, count - 1} if count else ():
            file, form, begin, _, _ = table.place(number)
            try:
                opened = self._file(file)
                shape = self._layouts.get(form) or self._layout(form, opened)
            except DatasetDamagedError:
                continue
            ifd = read_at(opened.descriptor, shape.ifd_bytes, max(0, begin - shape.ifd_bytes))
            if len(ifd) == shape.ifd_bytes and shape.checksums(ifd) is not None:
                return True
        return False

    def _file(self, number: int) -> OpenFile:
        name = self._growing.table.files[number]
        if not _is_plain(name):
            raise DatasetDamagedError(
                f"{self.path}: the index names {name!r}, which is no file of the dataset"
            )
        try:
            return self._pool.open(number, os.path.join(self._folder, name))
        except OSError as error:
            raise DatasetDamagedError(
                f"{self.path}: the file {name!r} cannot be read: {error.strerror}"
            ) from None

    def release(self) -> None:
        self._second.end()
        self._pool.release()


def _is_plain(name: str) -> bool:
    """Return whether this is the name of a file in the dataset's own folder (promise D3)."""
    return bool(name) and os.path.basename(name) == name and name not in (".", "..") and "\0" not in name


def pixel_bytes(form: Form) -> int:
    """Return how many bytes the pixels of a frame of this form have."""
    width, height, pixel_type, *_ = form
    samples = 3 if pixel_type == layout.RGB8 else 1
    return width * height * samples * np.dtype(layout.DTYPES.get(pixel_type, "<u1")).itemsize
