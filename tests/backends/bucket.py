"""The backend ``bucket``, which stores datasets at URLs. Its store is a dict in this process."""

from exengine.base_classes import (
    DatasetStatus,
    DataStorage,
    RecoveredRemote,
    RemoteDatasets,
    StorageCapabilities,
    is_url,
    snapshot,
)
from exengine.errors import CoordinatesNotFoundError, DatasetExistsError, DatasetNotFoundError

STORE = {}
CALLS = []


class BucketStorage(DataStorage, RemoteDatasets):
    """Store frames at a URL.

    Parameters
    ----------
    path : path
        The URL of the dataset.
    size : int
        The size that the dataset reports.
    """

    capabilities = StorageCapabilities(persistent=True, iterable=True, reopen=True, path_suffixes=(".b",))
    backend_name = "bucket"

    def __init__(self, path: str, size: int = 5) -> None:
        if path in STORE:
            raise DatasetExistsError(f"{path} already exists")
        self.at, self.frames = path, {}
        self._status = DatasetStatus.INCOMPLETE
        STORE[path] = self

    @property
    def path(self):
        return self.at

    @classmethod
    def capabilities_for(cls, options, path=None, /):
        is_remote = path is not None and is_url(path)
        return StorageCapabilities(**{**dict(cls.capabilities.items()), "remote": is_remote})

    @classmethod
    def can_open(cls, path):
        return path in STORE

    @classmethod
    def open(cls, path):
        if path not in STORE:
            raise DatasetNotFoundError(f"there is no dataset at {path}")
        return STORE[path]

    @classmethod
    def replace(cls, url, /, **options):
        CALLS.append(("replace", url))
        STORE.pop(url, None)
        return cls(url, **options)

    @classmethod
    def bytes_at(cls, url, /):
        return 12_345

    @classmethod
    def recover_remote(cls, url, /, *, dry_run, in_place):
        CALLS.append(("recover", url, dry_run, in_place))
        dataset = cls.open(url)
        if not dry_run:
            dataset._status = DatasetStatus.ABORTED
        return RecoveredRemote(len(dataset), [({"time": 7}, "it is gone")], "recovered for the test")

    @property
    def status(self):
        return self._status

    def is_finished(self):
        return self._status is not DatasetStatus.INCOMPLETE

    def put(self, data_coordinates, data, metadata, /):
        self.frames[snapshot(data_coordinates)] = (data.copy(), metadata)

    def get_data(self, data_coordinates, /):
        return self._find(data_coordinates)[0]

    def get_metadata(self, data_coordinates, /):
        return self._find(data_coordinates)[1]

    def _find(self, coordinates):
        try:
            return self.frames[snapshot(coordinates)]
        except KeyError:
            raise CoordinatesNotFoundError(f"there is no frame at {coordinates}") from None

    def __contains__(self, data_coordinates, /):
        return data_coordinates in self.frames

    def __iter__(self):
        return iter(list(self.frames))

    def __len__(self):
        return len(self.frames)

    def finish(self):
        self._status = DatasetStatus.COMPLETE

    def close(self):
        pass
