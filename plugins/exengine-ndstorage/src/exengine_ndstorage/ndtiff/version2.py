"""Reads NDTiff version 2 through the ``ndstorage`` library.

The library prints to stdout when it opens a dataset, and raises generic exceptions. This module suppresses
the output and converts the exceptions to ExEngine errors.
"""

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from exengine.base_classes import (
    CoordinateIndex,
    DatasetReader,
    DatasetStatus,
    JsonValue,
    open_regular,
    read_at,
)
from exengine.errors import DatasetDamagedError
from exengine_ndstorage.ndtiff.files import READ, OpenFile, existing_folder, refuse_link
from exengine_ndstorage.ndtiff.format import BACKEND_NAME, CAPABILITIES, INDEX_NAME, pixel_bytes
from exengine_ndstorage.ndtiff.index_table import FrameTable
from exengine_ndstorage.ndtiff.sizes import CHUNK_BYTES, MAX_SUMMARY_BYTES

_opening = threading.Lock()


class _Silence:
    """A stdout that discards the output of one thread, and prints the output of all other threads."""

    def __init__(self, stdout: Any) -> None:
        self._stdout = stdout
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stdout.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    # stdout and the warning filters belong to the whole process, so only one thread at a time may
    # replace them.
    with _opening, warnings.catch_warnings(), contextlib.redirect_stdout(_Silence(sys.stdout)):
        warnings.simplefilter("ignore")
        yield


def _refuse_unsafe_files(path: str) -> None:
    """Refuse links, pipes, devices and impossible lengths, because the library does not check for them."""
    for folder in (path, *(entry.path for entry in list(os.scandir(path)) if entry.is_dir())):
        if folder != path:
            refuse_link(folder)
        for entry in list(os.scandir(folder)):
            if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
                raise DatasetDamagedError(f"{entry.path} was not read, because it is not a regular file")
            if entry.name.endswith(".tif"):
                size = os.stat(entry.path).st_size
                with os.fdopen(open_regular(entry.path), "rb") as file:
                    head = file.read(24)
                summary_bytes = int.from_bytes(head[20:24], "little")
                if len(head) < 24 or summary_bytes > min(size, MAX_SUMMARY_BYTES):
                    raise DatasetDamagedError(f"{entry.path}: the summary metadata is longer than the file")
        if os.path.lexists(os.path.join(folder, INDEX_NAME)):
            _refuse_impossible_lengths(folder)


def _refuse_impossible_lengths(folder: str) -> None:
    """Refuse an index that claims more bytes than a file has, because the library would allocate them."""
    file = OpenFile(os.path.join(folder, INDEX_NAME), READ)  # the index has the same format in all versions
    size = os.fstat(file.descriptor).st_size
    table = FrameTable()
    done = 0
    while done < size:
        used = table.feed(read_at(file.descriptor, CHUNK_BYTES, done))
        if not used:
            raise DatasetDamagedError(f"{folder}: the index cannot be read from byte {done} on")
        done += used
    names = [entry.name for entry in list(os.scandir(folder)) if entry.name.endswith(".tif")]
    most = max((os.stat(os.path.join(folder, name)).st_size for name in names), default=0)
    for number in range(len(table) + len(table.superseded)):
        _, layout, _, _, metadata_bytes = table.place(number)
        if max(pixel_bytes(table.layouts[layout]), metadata_bytes) > most:
            raise DatasetDamagedError(
                f"{folder}: according to the index, a frame has more bytes than its file"
            )


class Version2Reader(DatasetReader):
    """A reader for an NDTiff dataset of version 2.

    Parameters
    ----------
    path : str
        The folder of the dataset.
    """

    capabilities = CAPABILITIES
    backend_name = BACKEND_NAME

    def __init__(self, path: str) -> None:
        frames = CoordinateIndex()
        super().__init__(path, frames, DatasetStatus.COMPLETE)
        self._library = threading.Lock()  # the library's reads share one file position
        self._dataset: Any = None
        _refuse_unsafe_files(path)
        with self._translated(), _silence():
            import ndstorage  # type: ignore[import-untyped]

            self._dataset = ndstorage.Dataset(path)
            keys = [dict(sorted(dict(key).items())) for key in self._dataset.get_index_keys()]
        self._keys = sorted(keys, key=lambda key: [(name, str(type(at)), at) for name, at in key.items()])
        for key in self._keys:
            frames.add(key)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Convert any exception from the library to an ExEngine error."""
        with self._library:
            try:
                yield
            except Exception as error:
                raise DatasetDamagedError(
                    f"{self.path} cannot be read: {type(error).__name__}: {error}"
                ) from error

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a dataset of version 2. ``NDTiffStorage.open`` opens any version."""
        return cls(existing_folder(path))

    @property
    def has_checksums(self) -> bool:
        """False, because version 2 has no checksums."""
        return False

    @property
    def summary_metadata(self) -> JsonValue:
        return self._dataset.summary_metadata

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        with self._translated():
            return np.array(self._dataset.read_image(**self._keys[number]))

    def read_frame_metadata(self, number: int) -> JsonValue:
        with self._translated():
            return self._dataset.read_metadata(**self._keys[number])

    def release(self) -> None:
        if self._dataset is not None:
            with self._translated():
                self._dataset.close()
