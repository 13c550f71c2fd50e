"""The backend ``npy-folder``: one ``.npy`` file per frame, and an index to which lines are only appended.

The index is authoritative: a file that has no line in the index is not part of the dataset. The backend
writes each line with a single call, after it has written the file that the line names. If the program dies,
it therefore leaves at most one extra file and one incomplete line. ExEngine's base classes handle the states,
the coordinates, the lock and the manifest.
"""

import errno
import io
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from annotated_types import Ge
from exengine import DataCoordinates, DatasetReader, DatasetStatus, ManagedStorage, StorageCapabilities
from exengine.base_classes import CoordinateIndex, open_regular, read_manifest, status_of
from exengine.errors import (
    DatasetAccessError,
    DatasetDamagedError,
    DatasetNotFoundError,
    MetadataError,
    OptionError,
    UnsupportedDataError,
)

INDEX_NAME = "npy-index.jsonl"


class NpyFolderStorage(ManagedStorage):
    """Write each frame to a ``.npy`` file, which ``numpy.load`` can open.

    The backend supports any dtype and any number of dimensions. It is intended for a moderate number of
    frames, because each frame needs its own file. A frame survives a crash of the program when ``put``
    returns, and a power failure after ``finish``. Checksums protect the frames and the index.

    Parameters
    ----------
    path : path, optional
        The folder of the dataset. By default, a new temporary folder is created, whose path is available as
        ``storage.path``. It is kept until you delete it.
    sync_every : int, default: 0
        The number of frames after which the data is synced to disk, so that it survives a power failure. With
        1, every frame is synced. With 0, only ``flush(durable=True)`` and ``finish`` sync the data.
    summary_metadata : dict, optional
        Metadata for the whole dataset.

    Examples
    --------
    >>> import numpy as np, exengine
    >>> from exengine_npy_folder import NpyFolderStorage
    >>> with NpyFolderStorage() as storage:
    ...     storage.put({"time": 0, "channel": "DAPI"}, np.array([1, 2, 3]), {"exposure_ms": 10})
    >>> dataset = exengine.open_dataset(storage.path)
    >>> dataset[{"time": 0, "channel": "DAPI"}]
    array([1, 2, 3])
    """

    backend_name = "npy-folder"
    dataset_files = (INDEX_NAME, "frame-{number}.npy")
    capabilities = StorageCapabilities(
        persistent=True,
        string_axes=True,
        negative_indices=True,
        metadata=True,
        iterable=True,
        reopen=True,
        read_while_writing=True,
        concurrent_readers=True,
        checksums=True,
        safety_of_put="written",
        durable_flush=True,
        readers=("numpy.load",),
    )

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        sync_every: Annotated[int, Ge(0)] = 0,
        summary_metadata: dict[str, Any] | None = None,
    ) -> None:
        if sync_every < 0:
            raise OptionError(f"sync_every is a number of frames from 0, got {sync_every}")
        self._sync_every = sync_every
        self._line_offsets: list[int] = []
        self._index_bytes = 0
        self._index_file = -1
        super().__init__(
            tempfile.mkdtemp(prefix="npy-folder-") if path is None else path,
            summary_metadata={} if summary_metadata is None else summary_metadata,
        )
        assert self.path is not None  # the base class has created the folder
        self._folder = self.path
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._index_file = os.open(os.path.join(self._folder, INDEX_NAME), flags, 0o666)
            self.annotate("summary_metadata", self.summary_metadata)
        except OSError as error:
            self.cannot_begin(error)
            raise DatasetAccessError(f"cannot write in {self._folder}: {error}") from error

    @classmethod
    def can_open(cls, path: str | os.PathLike[str]) -> bool:
        return os.path.isfile(os.path.join(path, INDEX_NAME))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "NpyFolderReader":
        return NpyFolderReader.open(path)

    # -- writing: the base class has checked the state, the coordinates and the metadata ------------

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: Any) -> str:
        if not _fits_npy(data.dtype):
            raise UnsupportedDataError(
                f"a .npy file cannot hold the dtype {data.dtype}: it would return another one; "
                "convert the array to a dtype of numpy"
            )
        try:
            return json.dumps(metadata)
        except ValueError as error:  # an int with thousands of digits
            raise MetadataError(f"the metadata cannot be encoded as JSON: {error}") from None

    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: str
    ) -> None:
        name, content = _file_name(number), io.BytesIO()
        np.save(content, data, allow_pickle=False)
        with open(os.path.join(self._folder, name), "wb") as file:
            file.write(content.getbuffer())
        text = (
            f'{{"number": {number}, "file": "{name}", "crc32": {zlib.crc32(content.getbuffer())}, '
            f'"coordinates": {coordinates.to_json()}, "metadata": {checked}'
        ).encode()
        line = text + f', "line_crc32": {zlib.crc32(text)}}}\n'.encode()
        if os.write(self._index_file, line) != len(line):
            raise OSError(errno.ENOSPC, "a line of the index was only partly written")
        if self._sync_every and (number + 1) % self._sync_every == 0:
            self.sync_frames()
        self._line_offsets.append(self._index_bytes)
        self._index_bytes += len(line)

    def finish_frames(self) -> None:
        if self._index_file >= 0:
            os.ftruncate(self._index_file, self._index_bytes)  # cut off the partial line of a failed write
        self.sync_frames()

    def release(self) -> None:
        if self._index_file >= 0:
            os.close(self._index_file)

    # -- reading written frames ------------------------------------------------------------------------

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        return _read_pixels(self._folder, self._line_offsets[number])

    def read_frame_metadata(self, number: int) -> Any:
        return _read_record(self._folder, self._line_offsets[number])["metadata"]


class NpyFolderReader(DatasetReader):
    """A reader for an ``npy-folder`` dataset. It contains the frames that existed when it was opened."""

    capabilities = NpyFolderStorage.capabilities

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Read the index, and skip an incomplete last line, because its ``put`` never returned."""
        folder = os.path.realpath(os.path.expanduser(path))
        if not os.path.isdir(folder):
            raise DatasetNotFoundError(f"{folder} is not a folder, and not an npy-folder dataset")
        manifest = read_manifest(folder)
        status = status_of(manifest)
        index = CoordinateIndex()
        offsets: list[int] = []
        whole, names, offset = True, set(os.listdir(folder)), 0
        for line in _index_lines(folder):
            try:
                record = _parse(line)
                if index.add(DataCoordinates(record["coordinates"]).coordinate_dict) is None:
                    raise DatasetDamagedError("two lines of the index have the same coordinates")
                offsets.append(offset)
                whole &= _file_name(record["number"]) in names
            except DatasetDamagedError:
                whole = False  # the other frames can still be read
            offset += len(line)
        if not whole or (manifest is not None and manifest.frames not in (None, len(offsets))):
            status = DatasetStatus.DAMAGED
        reader = cls(folder, index, status, manifest)
        reader._line_offsets = offsets
        return reader

    _line_offsets: list[int]

    @property
    def summary_metadata(self) -> Any:
        return self.annotations.get("summary_metadata", {})

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        return _read_pixels(self.path, self._line_offsets[number])

    def read_frame_metadata(self, number: int) -> Any:
        return _read_record(self.path, self._line_offsets[number])["metadata"]


# -- the format --------------------------------------------------------------------------------------


def _file_name(number: int) -> str:
    return f"frame-{number:09d}.npy"


def _fits_npy(dtype: np.dtype[Any]) -> bool:
    try:
        return np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) == dtype
    except (TypeError, ValueError):
        return False


def _index_lines(folder: str) -> Iterator[bytes]:
    """Yield the complete lines of the index.

    There are no lines if the writer died before it created the index.
    """
    try:
        # A dataset is untrusted, so links, pipes and devices are refused.
        with os.fdopen(open_regular(os.path.join(folder, INDEX_NAME)), "rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatasetDamagedError(f"the index of {folder} cannot be read: {error.strerror}") from None


def _parse(line: bytes) -> dict[str, Any]:
    """Verify the checksum of an index line, and return the content of the line."""
    text, _, check = line.rpartition(b', "line_crc32": ')
    if check != b"%d}\n" % zlib.crc32(text):
        raise DatasetDamagedError(f"a line of the index differs from the written one: {line[:60]!r}")
    record: dict[str, Any] = json.loads(line)
    return record


def _read_record(folder: str, offset: int) -> dict[str, Any]:
    with os.fdopen(open_regular(os.path.join(folder, INDEX_NAME)), "rb") as file:
        file.seek(offset)
        return _parse(file.readline())


def _read_pixels(folder: str, offset: int) -> npt.NDArray[Any]:
    record = _read_record(folder, offset)
    # The file name is built from the frame number, so an index cannot lead to a file outside the folder.
    path = os.path.join(folder, _file_name(record["number"]))
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = file.read()
    except OSError as error:
        raise DatasetDamagedError(f"{path} cannot be read: {error.strerror}") from None
    if zlib.crc32(content) != record["crc32"]:
        raise DatasetDamagedError(f"the frame in {path} differs from the one that was written")
    pixels: npt.NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return pixels
