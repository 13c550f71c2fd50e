"""A small backend with checksums for tests: one index line and one file per frame.

The fixture ``checked`` installs this file as the module of a distribution.
"""

import json
import os
import zlib

import numpy as np

from exengine import DataCoordinates, DatasetReader, ManagedStorage, StorageCapabilities
from exengine.base_classes import CoordinateIndex, read_manifest, status_of, sync_folder
from exengine.errors import DatasetDamagedError

CAPABILITIES = StorageCapabilities(
    persistent=True, metadata=True, iterable=True, reopen=True, checksums=True, path_suffixes=(".checked",)
)


class CheckedStorage(ManagedStorage):
    """Store each frame in a file.

    Parameters
    ----------
    path : path
        The path of the dataset.
    summary_metadata : dict, optional
        Metadata of the whole dataset.
    """

    backend_name = "checked"
    capabilities = CAPABILITIES
    dataset_files = ("index", "index.new", "{number}.raw")

    def __init__(self, path: str | os.PathLike[str], summary_metadata: dict | None = None) -> None:
        super().__init__(path, summary_metadata=summary_metadata or {})
        self.annotate("summary_metadata", self.summary_metadata)

    @classmethod
    def can_open(cls, path):
        return os.path.isfile(os.path.join(path, "index"))

    @classmethod
    def open(cls, path):
        return CheckedReader.open(path)

    @classmethod
    def recover_in_place(cls, path, lost, notes=None):
        lines = [line for line in lines_of(path) if DataCoordinates(line["axes"]) not in lost]
        for line in lines:
            line["metadata"] = (notes or {}).get(DataCoordinates(line["axes"]), line["metadata"])
        new = os.path.join(path, "index.new")
        with open(new, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, os.path.join(path, "index"))
        for name in unnamed(path, lines):
            os.unlink(os.path.join(path, name))
        sync_folder(path)

    def write_frame(self, number, coordinates, data, checked):
        content = data.tobytes()
        with open(os.path.join(self.path, f"{number}.raw"), "wb") as file:
            file.write(content)
        line = {"axes": coordinates.coordinate_dict, "file": f"{number}.raw", "crc": zlib.crc32(content)}
        line |= {"shape": data.shape, "dtype": data.dtype.str, "metadata": checked}
        with open(os.path.join(self.path, "index"), "a") as file:
            file.write(json.dumps(line) + "\n")

    def read_frame(self, number):
        return read_pixels(self.path, lines_of(self.path)[number])

    def read_frame_metadata(self, number):
        return lines_of(self.path)[number]["metadata"]


class CheckedReader(DatasetReader):
    """A dataset that ``CheckedStorage`` wrote."""

    capabilities = CAPABILITIES

    @classmethod
    def open(cls, path):
        path = os.fspath(path)
        content, index = read_manifest(path), CoordinateIndex()
        lines = lines_of(path)
        for line in lines:
            index.add(line["axes"])
        reader = cls(path, index, status_of(content), content)
        reader.lines = lines
        return reader

    @property
    def summary_metadata(self):
        return self.annotations.get("summary_metadata")

    def check_structure(self):
        if not self.is_finished():
            return []
        return [f"{name} is not in the index" for name in unnamed(self.path, self.lines)]

    def read_frame(self, number):
        return read_pixels(self.path, self.lines[number])

    def read_frame_metadata(self, number):
        return self.lines[number]["metadata"]


def lines_of(path):
    """Return the complete lines of an index."""
    if not os.path.exists(os.path.join(path, "index")):
        return []
    with open(os.path.join(path, "index")) as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def unnamed(path, lines):
    """Return the names of the files that the index does not list."""
    named = {line["file"] for line in lines}
    return sorted(name for name in os.listdir(path) if name.endswith(".raw") and name not in named)


def read_pixels(path, line):
    """Return the pixels that an index line refers to, after verifying their checksum."""
    try:
        with open(os.path.join(path, line["file"]), "rb") as file:
            content = file.read()
    except OSError as error:
        raise DatasetDamagedError(f"{line['file']} cannot be read: {error.strerror}") from error
    if zlib.crc32(content) != line["crc"]:
        raise DatasetDamagedError(f"{line['file']} is not what was written")
    return np.frombuffer(content, line["dtype"]).reshape(line["shape"])
