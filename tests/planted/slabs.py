"""A sound backend with several files, in which the faults of ``faults.py`` are planted.

A dataset has a small ``header`` (options and summary metadata), an ``index`` to which lines are only appended,
the pixels in ``data-0``, ``data-1``, ... and the metadata of the frames in ``meta-0``, ``meta-1``, ... When it is
finished, ``end`` states the number of frames. Every part has a checksum. Everything that reads the format is a
class method of the writer, which the reader calls too, so that a fault in reading needs a single override.
"""

import json
import os
import zlib
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Interval

from exengine import DataCoordinates, DatasetReader, DatasetStatus, ManagedStorage, StorageCapabilities
from exengine.base_classes import CoordinateIndex, open_regular, read_manifest, status_of, sync_folder
from exengine.errors import (
    DatasetAccessError,
    DatasetDamagedError,
    DatasetNotFoundError,
    MetadataError,
    UnsupportedDataError,
)

MAGIC = b"SLAB1"
_NEW = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL


class Slabs(ManagedStorage):
    """Write frames to files that hold several frames each.

    Parameters
    ----------
    path : path
        The folder of the dataset.
    codec : {"none", "zlib"}
        The compression of the pixels.
    level : int
        The effort of the compression.
    frames_per_file : int
        The number of frames after which a new file begins.
    sync_every : int
        The number of frames after which everything is synced; 0 for never.
    summary_metadata : dict, optional
        Metadata of the whole dataset.
    """

    dataset_files = ("header", "index", "end", "data-{number}", "meta-{number}")
    capabilities = StorageCapabilities(
        persistent=True, string_axes=True, negative_indices=True, metadata=True, iterable=True, reopen=True,
        read_while_writing=True, concurrent_readers=True, checksums=True, safety_of_put="written",
        durable_flush=True, compression=("zlib",),
    )  # fmt: skip
    reader: ClassVar[Any]

    def __init__(
        self,
        path: str | os.PathLike[str],
        codec: Literal["none", "zlib"] = "none",
        level: Annotated[int, Interval(ge=0, le=9)] = 6,
        frames_per_file: Annotated[int, Interval(ge=1, le=10_000)] = 64,
        sync_every: Annotated[int, Ge(0)] = 0,
        summary_metadata: dict[str, Any] | None = None,
    ) -> None:
        self.codec, self.effort, self.sync_every = codec, level, sync_every
        self.frames_per_file = frames_per_file
        self.summary = summary_metadata or {}
        self.entries: list[dict[str, Any]] = []
        self.fds: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        super().__init__(path, summary_metadata=self.summary)
        try:
            self.open_new("index")
        except OSError as error:
            self.cannot_begin(error)
            raise DatasetAccessError(f"cannot write in {self.path}: {error}") from error

    def initial_files(self):
        about = {"codec": self.codec, "frames_per_file": self.frames_per_file, "summary": self.summary}
        return {"header": self.sealed(about)}

    @classmethod
    def can_open(cls, path):
        return os.path.isfile(os.path.join(path, "header"))

    @classmethod
    def open(cls, path):
        return cls.reader.of(cls, path)

    # -- writing ---------------------------------------------------------------------------------

    def open_new(self, name):
        self.fds[name] = os.open(os.path.join(self.path, name), _NEW, 0o666)
        self.sizes[name] = 0

    def append(self, name, content):
        """Append bytes to a file; count them only after all of them have been written."""
        left = memoryview(content)
        while left:
            left = left[os.write(self.fds[name], left) :]
        self.sizes[name] += len(content)

    def check_frame(self, coordinates, data, metadata):
        if data.dtype.kind not in "biufc" or data.dtype.itemsize > 16:
            raise UnsupportedDataError(f"slabs hold numbers of up to 16 bytes, got {data.dtype}")
        try:
            return json.dumps(metadata).encode()
        except ValueError as error:
            raise MetadataError(f"the metadata cannot be encoded: {error}") from None

    def encode(self, data):
        content = np.ascontiguousarray(data).tobytes()
        return zlib.compress(content, self.effort) if self.codec == "zlib" else content

    def write_frame(self, number, coordinates, data, checked):
        data_name, meta_name = self.files_of(number)
        if data_name not in self.fds:
            self.begin_files(number)
        entry = {"axes": coordinates.coordinate_dict, "shape": data.shape, "dtype": data.dtype.str}
        self.cut()
        for part, name, content in (
            ("data", data_name, self.encode(data)),
            ("meta", meta_name, checked),
        ):
            entry[part] = [name, self.sizes[name], len(content), zlib.crc32(content)]
            self.append(name, content)
        self.append("index", self.sealed(entry))
        self.entries.append(entry)
        if self.sync_every and (number + 1) % self.sync_every == 0:
            self.sync_frames()

    def files_of(self, number):
        part = number // self.frames_per_file
        return f"data-{part}", f"meta-{part}"

    def begin_files(self, number):
        for name in [name for name in self.fds if name != "index"]:
            os.fsync(self.fds[name])
            os.close(self.fds.pop(name))
        for name in self.files_of(number):
            self.open_new(name)

    def cut(self):
        """Cut off what a failed write left behind."""
        for name, fd in self.fds.items():
            if os.fstat(fd).st_size != self.sizes[name]:
                os.ftruncate(fd, self.sizes[name])

    def sync_frames(self):
        for fd in self.fds.values():
            os.fsync(fd)
        sync_folder(self.path)

    def finish_frames(self):
        self.cut()
        if "end" not in self.fds:
            self.open_new("end")
            self.append("end", self.sealed({"frames": len(self.entries)}))
        self.sync_frames()

    def release(self):
        while self.fds:
            os.close(self.fds.popitem()[1])

    # -- reading ---------------------------------------------------------------------------------

    def read_frame(self, number):
        return self.read_pixels(self.path, self.entries[number])

    def read_frame_metadata(self, number):
        return self.read_metadata(self.path, self.entries[number])

    @staticmethod
    def sealed(content):
        text = json.dumps(content).encode()
        return MAGIC + b" %08x " % zlib.crc32(text) + text + b"\n"

    @classmethod
    def unsealed(cls, line):
        magic, _, rest = line.partition(b" ")
        check, _, text = rest.rstrip(b"\n").partition(b" ")
        if magic != MAGIC or check != b"%08x" % zlib.crc32(text) or not line.endswith(b"\n"):
            raise DatasetDamagedError(f"not what was written: {line[:40]!r}")
        return json.loads(text)

    @classmethod
    def open_file(cls, path, name):
        return open_regular(os.path.join(path, name))

    @classmethod
    def read(cls, path, name, offset=0, size=-1):
        try:
            with os.fdopen(cls.open_file(path, name), "rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise DatasetDamagedError(f"{name} cannot be read: {error.strerror}") from None

    @classmethod
    def read_part(cls, path, entry, part):
        name, offset, size, check = entry[part]
        content = cls.read(path, name, offset, size)
        if zlib.crc32(content) != check:
            raise DatasetDamagedError(f"the {part} at {entry['axes']} is not what was written")
        return content

    @classmethod
    def read_header(cls, path):
        return cls.unsealed(cls.read(path, "header"))

    @classmethod
    def read_pixels(cls, path, entry):
        content = cls.read_part(path, entry, "data")
        if cls.read_header(path)["codec"] == "zlib":
            content = zlib.decompress(content)
        return np.frombuffer(content, entry["dtype"]).reshape(entry["shape"]).copy()

    @classmethod
    def read_metadata(cls, path, entry):
        return json.loads(cls.read_part(path, entry, "meta"))

    @classmethod
    def read_entries(cls, path):
        """Yield the entry of each line of the index, or None for a damaged line; skip a torn last line."""
        try:
            content = cls.read(path, "index")
        except DatasetDamagedError:
            if os.path.lexists(os.path.join(path, "index")):
                raise
            return  # the writer died before it made the index
        for line in content.splitlines(keepends=True):
            try:
                yield cls.unsealed(line)
            except DatasetDamagedError:
                if line.endswith(b"\n"):
                    yield None

    @classmethod
    def frames_at_the_end(cls, path):
        return cls.unsealed(cls.read(path, "end"))["frames"]


class SlabsReader(DatasetReader):
    """A dataset that ``Slabs`` wrote."""

    capabilities = Slabs.capabilities

    @classmethod
    def of(cls, writer, path):
        path = os.path.realpath(os.path.expanduser(path))
        if not os.path.isdir(path):
            raise DatasetNotFoundError(f"{path} is not a folder")
        manifest, index, entries = read_manifest(path), CoordinateIndex(), []
        status = status_of(manifest)
        header = writer.read_header(path)
        for entry in writer.read_entries(path):
            if entry is None or index.add(DataCoordinates(entry["axes"]).coordinate_dict) is None:
                status = DatasetStatus.DAMAGED
            else:
                entries.append(entry)
        known = manifest.get("frames", len(entries)) if manifest is not None else len(entries)
        if known != len(entries):
            status = DatasetStatus.DAMAGED
        elif status in (DatasetStatus.COMPLETE, DatasetStatus.ABORTED):
            try:
                known = writer.frames_at_the_end(path)
            except DatasetDamagedError:
                known = -1
            status = status if known == len(entries) else DatasetStatus.DAMAGED
        reader = cls(path, index, status, manifest)
        reader.writer, reader.entries, reader.header = writer, entries, header
        return reader

    @property
    def summary_metadata(self):
        return json.loads(json.dumps(self.header["summary"]))

    def read_frame(self, number):
        return self.writer.read_pixels(self.path, self.entries[number])

    def read_frame_metadata(self, number):
        return self.writer.read_metadata(self.path, self.entries[number])


Slabs.reader = SlabsReader
