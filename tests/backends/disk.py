"""The backend ``disk``, a small persistent backend derived from ``ManagedStorage``."""

import json
import os
import threading

import numpy as np

from exengine.base_classes import (
    CoordinateIndex,
    DataCoordinates,
    DatasetReader,
    ManagedStorage,
    StorageCapabilities,
    read_manifest,
    status_of,
)

# numpy parses the header with ast, which is not thread-safe in Python 3.11.
_ONE_AT_A_TIME = threading.Lock()


class DiskStorage(ManagedStorage):
    """Write each frame as two files.

    Parameters
    ----------
    path : path
        The path of the dataset.
    fail_at : int, optional
        The number of the frame for which the disk reports an error.
    """

    capabilities = StorageCapabilities(
        persistent=True,
        string_axes=True,
        negative_indices=True,
        metadata=True,
        iterable=True,
        reopen=True,
        safety_of_put="written",
        durable_flush=True,
        resumable=True,
        path_suffixes=(".disk",),
    )
    backend_name = "disk"
    dataset_files = ("{number}.npy", "{number}.json")

    def __init__(self, path: str | os.PathLike[str], fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.calls = []
        super().__init__(path)
        if self.continues:
            self.begin_continuing()
            self.continue_from(DiskReader.open(path))

    @classmethod
    def resume(cls, path, /, **options):
        return _Continued(path, **options)

    @classmethod
    def can_open(cls, path):
        return os.path.isfile(os.path.join(path, "0.npy"))

    @classmethod
    def open(cls, path):
        return DiskReader.open(path)

    def write_frame(self, number, coordinates, data, checked):
        self.calls.append(("write", number))
        if number == self.fail_at:
            raise OSError(28, "No space left on device")
        np.save(os.path.join(self.path, f"{number}.npy"), data)
        with open(os.path.join(self.path, f"{number}.json"), "w") as file:
            json.dump([coordinates.coordinate_dict, checked], file)

    def sync_frames(self):
        self.calls.append(("sync", self.frames_stored))

    def finish_frames(self):
        self.calls.append(("finish", self.frames_stored))

    def read_frame(self, number):
        with _ONE_AT_A_TIME:
            return np.load(os.path.join(self.path, f"{number}.npy"))

    def read_frame_metadata(self, number):
        with open(os.path.join(self.path, f"{number}.json")) as file:
            return json.load(file)[1]


class DiskReader(DatasetReader):
    """A dataset that ``DiskStorage`` wrote."""

    read_frame = DiskStorage.read_frame
    read_frame_metadata = DiskStorage.read_frame_metadata

    @classmethod
    def open(cls, path):
        path = os.path.realpath(path)
        index, manifest = CoordinateIndex(), read_manifest(path)
        while os.path.isfile(name := os.path.join(path, f"{len(index)}.json")):
            with open(name) as file:
                try:
                    index.add(DataCoordinates(json.load(file)[0]).coordinate_dict)
                except ValueError:  # the writer was killed during the write
                    break
        return cls(path, index, status_of(manifest), manifest)


class _Continued(DiskStorage):
    __doc__ = DiskStorage.__doc__
    continues = True
