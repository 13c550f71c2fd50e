"""Opens NDTiff datasets to read: of version 3 with our own index, older ones and pyramids too.

Reading writes nothing, and works while another process writes: the index is read on when
coordinates are asked for that were not there, and at ``len``, iteration and ``await_new_data``.
"""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.base_classes import DatasetReader, DataStorage
from exengine.errors import DatasetDamagedError
from exengine.kernel import manifest, platform
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DatasetStatus, JsonValue
from exengine.kernel.managed_storage import wait_until
from exengine_ndstorage import layout
from exengine_ndstorage.index import CHUNK_BYTES, Form, FrameTable
from exengine_ndstorage.ndtiff import NDTiffStorage, axes_checksum, decode_metadata, decode_pixels

_MAX_SUMMARY_BYTES = 256 * 2**20
_FULL_RESOLUTION = "Full resolution"


def open_ndtiff(path: str) -> DataStorage:
    """Open a dataset of any version.

    Raises
    ------
    DatasetDamagedError
        When it cannot be read at all.
    """
    full = os.path.join(path, _FULL_RESOLUTION)
    if not os.path.isdir(full):
        return NDTiffReader(path)
    version = read_header(_first_tiff(full))[0]
    from exengine_ndstorage import legacy

    return legacy.PyramidReader(path) if version >= 3 else legacy.Version2Reader(path)


def _first_tiff(folder: str) -> str:
    names = sorted(name for name in os.listdir(folder) if name.endswith(".tif"))
    if not names:
        raise DatasetDamagedError(f"{folder} has no TIFF file")
    return os.path.join(folder, names[0])


def read_header(path: str) -> tuple[int, JsonValue]:
    """Return the major version and the summary metadata of a TIFF file.

    Raises
    ------
    DatasetDamagedError
        When it is no NDTiff file.
    """
    with open(path, "rb") as file:
        head = file.read(28)
        if len(head) < 28 or head[:4] != b"II*\0":
            raise DatasetDamagedError(f"{path} is no little-endian TIFF file")
        magic, major, _minor, summary_magic, size = struct.unpack("<IIIII", head[8:28])
        if magic != layout.MAGIC:
            raise DatasetDamagedError(f"{path} is a TIFF file, but no NDTiff")
        if major < 3 or summary_magic != layout.SUMMARY_MAGIC:
            return int(major), {}
        if size > min(_MAX_SUMMARY_BYTES, os.fstat(file.fileno()).st_size):
            raise DatasetDamagedError(f"{path}: the summary metadata are longer than the file")
        try:
            return int(major), json.loads(file.read(size))
        except (ValueError, RecursionError) as error:
            raise DatasetDamagedError(f"{path}: the summary metadata cannot be understood: {error}") from None


class _GrowingTable:
    """The frames of a dataset that may still be written: a ``FrameTable`` that reads on."""

    def __init__(self, path: str) -> None:
        self.table = FrameTable()
        self.live = True
        self._path = os.path.join(path, layout.INDEX_NAME)
        self._read = 0
        self.refresh()

    @property
    def axes(self) -> tuple[str, ...]:
        return self.table.axes

    def refresh(self) -> bool:
        """Read what was added; return whether there were frames in it."""
        if self.table.problem:
            return False
        before = len(self.table)
        try:
            file = open(self._path, "rb")  # noqa: SIM115 - closed below; the writer may be gone
        except FileNotFoundError:
            return False
        with file:
            size = os.fstat(file.fileno()).st_size
            chunk_bytes = CHUNK_BYTES
            while self._read < size:
                file.seek(self._read)
                chunk = file.read(chunk_bytes)
                taken = self.table.feed(chunk, expected_bytes=max(0, size - self._read - len(chunk)))
                self._read += taken
                if not taken:
                    break
        return len(self.table) > before

    @property
    def torn_bytes(self) -> int:
        """How many bytes at the end of the index make no whole entry."""
        return os.path.getsize(self._path) - self._read if os.path.exists(self._path) else 0

    @property
    def problem(self) -> str:
        return (
            f"the index cannot be read from byte {self._read} on: {self.table.problem}"
            if self.table.problem
            else ""
        )

    def find(self, axes: Mapping[str, int | str]) -> int | None:
        number = self.table.find(axes)
        if number is None and self.live and self.refresh():
            number = self.table.find(axes)
        return number

    def __len__(self) -> int:
        if self.live:
            self.refresh()
        return len(self.table)

    def __iter__(self) -> Iterator[DataCoordinates]:
        if self.live:
            self.refresh()
        return iter(self.table)

    def positions(self) -> dict[str, list[int | str]]:
        if self.live:
            self.refresh()
        return self.table.positions()

    def describe_absence(self, axes: Mapping[str, int | str]) -> str:
        return self.table.describe_absence(axes)


class NDTiffReader(DatasetReader):
    """An NDTiff dataset of version 3, opened to read.

    Parameters
    ----------
    path : str
        Of the folder.
    """

    capabilities = NDTiffStorage.capabilities
    backend_name = NDTiffStorage.backend_name

    def __init__(self, path: str) -> None:
        self._growing = _GrowingTable(path)
        content = manifest.read_manifest(path)
        super().__init__(path, self._growing, manifest.status_of(content), content)
        self._ours = bool(content and content["backend"] == NDTiffStorage.backend_name)
        self._files: dict[int, int] = {}
        self._layouts: dict[int, layout.FrameLayout] = {}
        self._reason = ""
        self._summary: JsonValue = None
        self._settle()
        names = self._growing.table.files
        first = names[0] if names and _is_plain(names[0]) else "NDTiffStack.tif"
        if os.path.isfile(os.path.join(path, first)):
            self._summary = read_header(os.path.join(path, first))[1]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        """Open a dataset; see ``NDTiffStorage.open``."""
        return NDTiffStorage.open(path)

    def _settle(self) -> None:
        """Decide on the status from manifest, lock, index and files."""
        table = self._growing
        status = manifest.status_of(self._manifest) if self._manifest else DatasetStatus.COMPLETE
        reason = str(self._manifest.get("reason", ""))
        if status is DatasetStatus.INCOMPLETE:
            reason = (
                "its writer is at work"
                if manifest.has_writer(self.path)
                else "its writer ended without finish()"
            )
        table.live = status is DatasetStatus.INCOMPLETE
        problem = table.problem or self._missing()
        if not problem and not table.live and table.torn_bytes:
            problem = f"the last {table.torn_bytes} bytes of the index are no whole entry"
        expected = self._manifest.get("frames")
        if not problem and not table.live and isinstance(expected, int) and expected != len(table):
            problem = f"the index has {len(table)} frames, {expected} were written"
        self._status, self._reason = (DatasetStatus.DAMAGED, problem) if problem else (status, reason)

    def _missing(self) -> str:
        table = self._growing.table
        for name, end in table.ends([_pixel_bytes(form) for form in table.forms]).items():
            path = os.path.join(self.path, name)
            if not _is_plain(name) or not os.path.isfile(path):
                return f"the index names the file {name!r}, which is not there"
            size = os.path.getsize(path)
            if size < end and self._status is not DatasetStatus.INCOMPLETE:
                return f"{name} has {size} bytes, the index needs {end}"
        return ""

    @property
    def status(self) -> DatasetStatus:
        if self._status is DatasetStatus.INCOMPLETE:
            content = manifest.read_manifest(self.path)
            if content is not None and content["status"] != DatasetStatus.INCOMPLETE:
                self._growing.refresh()
                self._manifest = content
            self._settle()
        return self._status

    @property
    def status_reason(self) -> str:
        return self._reason

    @property
    def summary_metadata(self) -> JsonValue:
        return self._summary

    def is_finished(self) -> bool:
        return self.status is not DatasetStatus.INCOMPLETE

    def await_new_data(self, timeout: float | None = None) -> bool:
        return wait_until(lambda: self._growing.refresh() or self.is_finished(), timeout)

    @property
    def has_checksums(self) -> bool:
        """Whether a damaged frame is recognised: the dataset was written by this backend."""
        return self._ours

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        file, form, begin, _, _ = self._growing.table.place(number)
        shape = self._layout(form)
        if self._ours:
            data = platform.read_at(
                self._file(file), shape.ifd_bytes + shape.pixel_bytes, max(0, begin - shape.ifd_bytes)
            )
            return decode_pixels(data, shape, self._name(number))
        data = platform.read_at(self._file(file), shape.pixel_bytes, begin)
        if len(data) != shape.pixel_bytes:
            raise DatasetDamagedError(f"the pixels of {self._name(number)} end too early")
        return np.frombuffer(data, layout.DTYPES[shape.pixel_type]).reshape(shape.shape)

    def read_frame_metadata(self, number: int) -> JsonValue:
        file, form, begin, at, size = self._growing.table.place(number)
        if size > os.fstat(self._file(file)).st_size:
            raise DatasetDamagedError(f"the metadata of {self._name(number)} are longer than the file")
        data = platform.read_at(self._file(file), size, at)
        if self._ours:
            shape = self._layout(form)
            ifd = platform.read_at(self._file(file), shape.ifd_bytes, max(0, begin - shape.ifd_bytes))
            axes_crc = axes_checksum(self._coordinates(number))
            return decode_metadata(data, size, ifd, shape, axes_crc, self._name(number))
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DatasetDamagedError(
                f"the metadata of {self._name(number)} cannot be understood: {error}"
            ) from None

    def _coordinates(self, number: int) -> dict[str, int | str]:
        return self._growing.table.coordinates(number)

    def _name(self, number: int) -> str:
        return f"the frame at {self._coordinates(number)} of {self.path}"

    def _layout(self, form: int) -> layout.FrameLayout:
        shape = self._layouts.get(form)
        if shape is None:
            width, height, pixel_type, *compressions = self._growing.table.forms[form]
            if (
                pixel_type not in layout.DTYPES
                or any(compressions)
                or width * height >= layout.MAX_FILE_BYTES
            ):
                raise DatasetDamagedError(
                    f"{self.path}: a frame of {width} x {height}, pixel type {pixel_type}, "
                    f"compression {compressions} "
                    "is not NDTiff"
                )
            if layout.DTYPES[pixel_type] == "<u2":
                pixel_type = layout.GRAY16
            shape = self._layouts[form] = layout.FrameLayout(height, width, pixel_type)
        return shape

    def _file(self, number: int) -> int:
        descriptor = self._files.get(number)
        if descriptor is None:
            name = self._growing.table.files[number]
            if not _is_plain(name):
                raise DatasetDamagedError(
                    f"{self.path}: the index names {name!r}, which is no file of the dataset"
                )
            try:
                descriptor = _open_regular(os.path.join(self.path, name))
            except OSError as error:
                raise DatasetDamagedError(
                    f"{self.path}: the file {name!r} cannot be read: {error.strerror}"
                ) from None
            with self._lock:
                if number in self._files:  # another thread was first
                    os.close(descriptor)
                descriptor = self._files.setdefault(number, descriptor)
        return descriptor

    def release(self) -> None:
        files, self._files = self._files, {}
        for descriptor in files.values():
            os.close(descriptor)


def _is_plain(name: str) -> bool:
    """Return whether this is the name of a file in the dataset's own folder (promise D3)."""
    return bool(name) and os.path.basename(name) == name and name not in (".", "..") and "\0" not in name


def _open_regular(path: str) -> int:
    """Open a regular file; anything else, such as a pipe or a device, is refused without waiting."""
    import stat

    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file")
    return descriptor


def _pixel_bytes(form: Form) -> int:
    width, height, pixel_type, *_ = form
    samples = 3 if pixel_type == layout.RGB8 else 1
    return width * height * samples * np.dtype(layout.DTYPES.get(pixel_type, "<u1")).itemsize
