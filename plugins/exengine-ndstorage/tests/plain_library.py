"""The plain ``ndstorage`` library behind the contract of a storage, without any corrections.

This is a separate file, so that other processes can import it.
"""

import contextlib
import io
import os
import warnings

from exengine.base_classes import DataStorage, StorageCapabilities, snapshot
from exengine.errors import CoordinatesNotFoundError, DatasetDamagedError, UnsupportedDataError


@contextlib.contextmanager
def _quietly():
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _translated(kind=UnsupportedDataError):
    try:
        yield
    except Exception as error:
        raise kind(f"{type(error).__name__}: {error}") from error


class PlainStorage(DataStorage):
    """Pass all calls to ``ndstorage``."""

    capabilities = StorageCapabilities(
        persistent=True, dtypes=("uint8", "uint16"), ndim=(2,), string_axes=True, metadata=True, reopen=True,
        safety_of_put="written",
    )  # fmt: skip

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import ndstorage

        self.path = os.fspath(path)
        os.makedirs(self.path, exist_ok=True)
        with _quietly():
            self.dataset = ndstorage.NDTiffDataset(self.path, summary_metadata={}, writable=True)
        self.dataset.initialize({})

    def put(self, coordinates, data, metadata):
        with _translated():
            self.dataset.put_image(dict(snapshot(coordinates)), data, metadata)

    def get_data(self, coordinates):
        return self._read(self.dataset.read_image, coordinates)

    def get_metadata(self, coordinates):
        return self._read(self.dataset.read_metadata, coordinates)

    def _read(self, read, coordinates):
        axes = dict(snapshot(coordinates))
        if axes not in self:
            raise CoordinatesNotFoundError(f"nothing at {axes}")
        with _translated(DatasetDamagedError):
            return read(**axes)

    def __contains__(self, coordinates):
        try:
            return self.dataset.has_image(**dict(snapshot(coordinates)))
        except Exception:
            return False

    def finish(self):
        with _translated():
            self.dataset.finish()

    def close(self):
        with _translated():
            self.dataset.close()

    @classmethod
    def open(cls, path):
        import ndstorage

        opened = cls.__new__(cls)
        opened.path = os.fspath(path)
        with _quietly(), _translated(DatasetDamagedError):
            opened.dataset = ndstorage.Dataset(os.fspath(path))
        return opened
