"""A small backend whose datasets are one file of JSON lines, for tests.

While a dataset is written, its frames are in a journal next to the file. ``finish`` writes them to the file,
after a line with the manifest. The fixture ``lines`` installs this module as that of a distribution.
"""

import base64
import json
import os
import zlib

import numpy as np

from exengine import DataCoordinates, DatasetReader, ManagedStorage, StorageCapabilities
from exengine.base_classes import (
    CoordinateIndex,
    Manifest,
    open_new,
    open_regular,
    parse_foreign_json,
    parse_json,
    read_manifest,
    status_of,
    sync_folder,
)
from exengine.errors import DatasetDamagedError, DatasetNotFoundError

CAPABILITIES = StorageCapabilities(
    persistent=True, metadata=True, iterable=True, reopen=True, checksums=True, concurrent_readers=True,
    string_axes=True, negative_indices=True, safety_of_put="written", durable_flush=True,
    path_suffixes=(".lines", ".jsonl"), dtypes=("uint8", "uint16", "float32"),
)  # fmt: skip
JOURNAL = "exengine.journal"
_MAGIC = b'{"lines": 1, "manifest": '


class LinesStorage(ManagedStorage):
    """Store frames as lines of JSON in one file.

    Parameters
    ----------
    path : path
        The path of the dataset.
    summary_metadata : JSON value, optional
        Metadata of the whole dataset.

    Examples
    --------
    >>> import exengine, numpy as np, tempfile
    >>> path = f"{tempfile.mkdtemp()}/demo.lines"
    >>> with exengine.open_storage("lines", path) as storage:
    ...     storage.put({"time": 0}, np.zeros((2, 2), np.uint8), None)
    """

    backend_name = "lines"
    capabilities = CAPABILITIES
    dataset_files = ("{file}", "{file}.exengine.journal")

    def __init__(self, path: str | os.PathLike[str], summary_metadata: object = None) -> None:
        self._journal = None
        super().__init__(path, summary_metadata=summary_metadata)
        try:
            self.annotate("summary_metadata", self.summary_metadata)
            self._journal = os.fdopen(open_new(f"{self.path}.{JOURNAL}", os.O_RDWR), "w+b", buffering=0)
        except BaseException as error:
            self.cannot_begin(error)
            raise
        self._lines = []

    def initial_files(self):
        return {"{file}": _MAGIC + b"null}\n"}

    @classmethod
    def can_open(cls, path):
        return _first_line(path).startswith(_MAGIC)

    @classmethod
    def open(cls, path):
        return LinesReader.open(path)

    @classmethod
    def recover_in_place(cls, path, lost, notes=None):
        reader = LinesReader.open(path)
        lines = [line for line in reader.lines if DataCoordinates(line["axes"]) not in lost]
        for line in lines:
            line["metadata"] = (notes or {}).get(DataCoordinates(line["axes"]), line["metadata"])
        manifest = None if reader.manifest is None else dict(reader.manifest)
        new = f"{path}.exengine.new"
        _write_file(new, json.dumps(manifest).encode(), lines)
        os.replace(new, path)
        if os.path.exists(f"{path}.{JOURNAL}"):
            os.unlink(f"{path}.{JOURNAL}")
        sync_folder(os.path.dirname(path))

    def write_frame(self, number, coordinates, data, checked):
        content = data.tobytes()
        line = {"axes": coordinates.coordinate_dict, "crc": zlib.crc32(content), "dtype": data.dtype.name}
        line |= {"shape": data.shape, "metadata": checked, "pixels": base64.b64encode(content).decode()}
        text = json.dumps(line).encode()
        self._journal.write(b"%08x %b\n" % (zlib.crc32(text), text))
        self._lines.append(line)

    def read_frame(self, number):
        return _pixels(self._lines[number])

    def read_frame_metadata(self, number):
        return json.loads(json.dumps(self._lines[number]["metadata"]))

    def finish_frames(self):
        _write_file(self.new_file, self.manifest_for_file(), self._lines)
        self.publish_file()
        os.unlink(f"{self.path}.{JOURNAL}")
        sync_folder(os.path.dirname(self.path))

    def release(self):
        if self._journal is not None:
            self._journal.close()


class LinesReader(DatasetReader):
    """A dataset that ``LinesStorage`` wrote."""

    capabilities = CAPABILITIES

    @classmethod
    def open(cls, path):
        path = os.path.abspath(path)
        first = _first_line(path)
        if not first.startswith(_MAGIC):
            if not os.path.exists(path):
                raise DatasetNotFoundError(f"{path} does not exist")
            raise DatasetDamagedError(f"{path} does not begin as a file of lines")
        content = read_manifest(path)
        inside = None
        try:
            found = parse_json(first)["manifest"]
            inside = Manifest(found) if found is not None else None
        except (ValueError, KeyError, RecursionError) as error:
            if content is None:
                raise DatasetDamagedError(f"{path} has a damaged first line: {error}") from None
        if content is None or (inside is not None and inside.id != content.id):
            content = inside
        real = os.path.realpath(path)
        lines = _lines(f"{real}.{JOURNAL}") if content is None or content.frames is None else None
        index = CoordinateIndex()
        lines = _lines(real)[1:] if lines is None else lines
        for line in lines:
            try:
                index.add(DataCoordinates(line["axes"]).__dict__)
            except Exception as error:
                raise DatasetDamagedError(f"{path} has a damaged line: {error}") from error
        reader = cls(path, index, status_of(content), content)
        reader.lines = lines
        return reader

    @property
    def summary_metadata(self):
        return self.annotations.get("summary_metadata")

    def read_frame(self, number):
        return _pixels(self.lines[number])

    def read_frame_metadata(self, number):
        return json.loads(json.dumps(self.lines[number]["metadata"]))


def _write_file(path, manifest, lines):
    with os.fdopen(open_new(path), "wb") as file:
        file.write(_MAGIC + manifest.replace(b"\n", b"") + b"}\n")
        for line in lines:
            text = json.dumps(line).encode()
            file.write(b"%08x %b\n" % (zlib.crc32(text), text))
        file.flush()
        os.fsync(file.fileno())


def _first_line(path):
    try:
        with os.fdopen(open_regular(path, follow_links=True), "rb") as file:
            return file.readline(2**24)
    except OSError:
        return b""


def _lines(path):
    """Return the complete lines of a file; None if it does not exist. A damaged line is left out."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            texts = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetDamagedError(f"{path} cannot be read: {error.strerror}") from error
    found = []
    for text in texts:
        if text.startswith(_MAGIC):
            found.append(None)
        elif text[:9] == b"%08x " % zlib.crc32(text[9:]):
            found.append(parse_foreign_json(text[9:]))
    return found


def _pixels(line):
    """Return the pixels of a line, after verifying their checksum."""
    try:
        content = base64.b64decode(line["pixels"])
        if zlib.crc32(content) != line["crc"]:
            raise ValueError("the checksum differs")
        return np.frombuffer(content, line["dtype"]).reshape(line["shape"]).copy()
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetDamagedError(f"a frame is damaged: {error}") from error
