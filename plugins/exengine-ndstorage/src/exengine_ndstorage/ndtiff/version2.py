"""Reads NDTiff version 2 through the ``ndstorage`` library.

The library prints to stdout when it opens a dataset, and raises generic exceptions. This module suppresses
the output and converts the exceptions to ExEngine errors. When the library opens a dataset, it also reads
metadata and fails if they are not UTF-8. This module opens the files for the library and repairs the text, so
that pixels remain readable even if their metadata are not.
"""

import contextlib
import json
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from exengine.base_classes import (
    READ,
    CoordinateIndex,
    DatasetReader,
    DatasetStatus,
    JsonValue,
    OpenFile,
    open_regular,
    parse_foreign_json,
    read_at,
)
from exengine.errors import DatasetDamagedError
from exengine_ndstorage.ndtiff.files import existing_folder, refuse_link
from exengine_ndstorage.ndtiff.format import (
    BACKEND_NAME,
    CAPABILITIES,
    FULL_RESOLUTION,
    INDEX_NAME,
    pixel_bytes,
)
from exengine_ndstorage.ndtiff.index_table import FrameTable
from exengine_ndstorage.ndtiff.sizes import CHUNK_BYTES, MAX_SUMMARY_BYTES

_SUMMARY_AT = 24  # the offset of the summary metadata in a file of version 2

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
            _checked_index(folder)


def _checked_index(folder: str) -> FrameTable:
    """Return the index after checking its sizes, for which the library would allocate unlimited memory."""
    file = OpenFile(os.path.join(folder, INDEX_NAME), READ)  # the index has the same format in all versions
    size = os.fstat(file.descriptor).st_size
    table = FrameTable()
    done = 0
    while done < size:
        used = table.feed(read_at(file.descriptor, CHUNK_BYTES, done))
        if not used:
            raise DatasetDamagedError(f"{folder}: the index cannot be read from byte {done} onward")
        done += used
    names = [entry.name for entry in list(os.scandir(folder)) if entry.name.endswith(".tif")]
    most = max((os.stat(os.path.join(folder, name)).st_size for name in names), default=0)
    for number in range(len(table) + len(table.superseded)):
        _, layout, _, _, metadata_bytes = table.place(number)
        if max(pixel_bytes(table.layouts[layout]), metadata_bytes) > most:
            raise DatasetDamagedError(f"{folder}: according to the index, a frame is larger than its file")
    return table


class _Files:
    """Opens the files of a dataset for the library.

    Attributes
    ----------
    is_opening : bool
        Whether the library is opening the dataset. During opening, the library reads the metadata of frames
        only to get the names of channels, which are not used here.
    problem : str
        The reason why the summary metadata cannot be read, or an empty string.
    """

    def __init__(self, folder: str) -> None:
        self.is_opening = True
        self.problem = ""
        table = _checked_index(folder)
        self._metadata = {
            (table.files[file], at, size)
            for file, _, _, at, size in map(table.place, range(len(table) + len(table.superseded)))
        }

    def open(self, path: str, mode: str = "rb") -> Any:
        opened = os.fdopen(open_regular(path), mode)
        return _ReadableFile(self, os.path.basename(path), opened) if path.endswith(".tif") else opened

    def text(self, name: str, at: int, data: bytes) -> bytes:
        """Return bytes from a file, after converting any metadata to valid JSON in UTF-8."""
        if (name, at, len(data)) in self._metadata:
            return b'{"Channel": ""}' if self.is_opening else json.dumps(_parsed(data)).encode()
        if at == _SUMMARY_AT and self.is_opening:
            try:
                return json.dumps(_parsed(data)).encode()
            except DatasetDamagedError as error:
                self.problem = f"{name}: the summary {error}"
                return b"{}"
        return data


def _parsed(data: bytes) -> JsonValue:
    try:
        return parse_foreign_json(data)
    except (ValueError, RecursionError) as error:
        damage = DatasetDamagedError(f"metadata cannot be parsed: {error}")
        damage.readable = data.decode(errors="replace")
        raise damage from None


class _ReadableFile:
    """An open file with metadata that the library can always parse."""

    def __init__(self, files: _Files, name: str, file: Any) -> None:
        self._files, self._name, self._file = files, name, file
        self.seek, self.close = file.seek, file.close

    def read(self, size: int) -> bytes:
        at = self._file.tell()
        return self._files.text(self._name, at, self._file.read(size))


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
        self._library = threading.Lock()  # all reads by the library share one file position
        self._dataset: Any = None
        _refuse_unsafe_files(path)
        with self._translated(), _silence():
            import ndstorage  # type: ignore[import-untyped]
            from ndstorage.file_io import NDTiffFileIO  # type: ignore[import-untyped]

            files = _Files(os.path.join(path, FULL_RESOLUTION))
            self._dataset = ndstorage.Dataset(path, file_io=NDTiffFileIO(files.open))
            files.is_opening = False
            keys = [dict(sorted(dict(key).items())) for key in self._dataset.get_index_keys()]
        self._keys = sorted(keys, key=lambda key: [(name, str(type(at)), at) for name, at in key.items()])
        for key in self._keys:
            frames.add(key)
        if files.problem:
            self.set_status(DatasetStatus.DAMAGED, files.problem)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Convert any exception from the library to an ExEngine error."""
        with self._library:
            try:
                yield
            except Exception as error:
                damage = DatasetDamagedError(f"{self.path} cannot be read: {type(error).__name__}: {error}")
                damage.readable = getattr(error, "readable", None)
                raise damage from error

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
