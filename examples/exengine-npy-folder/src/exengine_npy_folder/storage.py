"""The backend ``npy-folder``: each frame a ``.npy`` file, and an index that is only appended to.

The index is the truth: a file that no line of it names does not exist. A line is written, in one
call, after the file that it names, so that a program that dies leaves at most a file too many and half
a line. What the kernel's base classes do (states, coordinates, lock, manifest) is not done again here.
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
    """Write each frame as a ``.npy`` file, which ``numpy.load`` opens.

    For frames of any dtype and any number of dimensions, in moderate numbers: each costs the system a
    file. A frame survives the death of the program as soon as ``put`` has returned, and power loss
    after ``finish``. Frames and the index carry checksums.

    Parameters
    ----------
    path : path, optional
        Where the dataset will lie. Without it, in a new folder for temporary files: its place is
        ``storage.path``, and it stays until you delete it.
    sync_every : int, default: 0
        After how many frames all that was written is brought to the disk, so that it survives power
        loss; 1 after each frame. With 0 only ``flush(durable=True)`` and ``finish`` do so.
    summary_metadata : dict, optional
        Metadata of the whole dataset.

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
        assert self.path is not None  # the base class has claimed it
        self._folder = self.path
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._index_file = os.open(os.path.join(self._folder, INDEX_NAME), flags, 0o666)
            self.annotate("summary_metadata", self.summary_metadata)
        except OSError as error:
            self.abort(f"the index could not be made: {error}", failed=True)
            self.close()
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
                f"a .npy file cannot hold the dtype {data.dtype}: it would come back as another; "
                "convert the array to a dtype of numpy's own"
            )
        try:
            return json.dumps(metadata)
        except ValueError as error:  # an int of thousands of digits
            raise MetadataError(f"metadata that JSON cannot hold: {error}") from None

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
            raise OSError(errno.ENOSPC, "a line of the index was written in part")
        if self._sync_every and (number + 1) % self._sync_every == 0:
            self.sync_frames()
        self._line_offsets.append(self._index_bytes)
        self._index_bytes += len(line)

    def finish_frames(self) -> None:
        if self._index_file >= 0:
            os.ftruncate(self._index_file, self._index_bytes)  # half a line, where a write has failed
        self.sync_frames()

    def release(self) -> None:
        if self._index_file >= 0:
            os.close(self._index_file)

    # -- reading what was written ---------------------------------------------------------------------

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        return _read_pixels(self._folder, self._line_offsets[number])

    def read_frame_metadata(self, number: int) -> Any:
        return _read_record(self._folder, self._line_offsets[number])["metadata"]


class NpyFolderReader(DatasetReader):
    """A dataset of ``npy-folder``, opened to read: with the frames that were there at that moment."""

    capabilities = NpyFolderStorage.capabilities

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Read the index; skip a torn last line, whose ``put`` never returned."""
        folder = os.path.realpath(path)
        if not os.path.isdir(folder):
            raise DatasetNotFoundError(f"{folder} is no folder, so no dataset of npy-folder")
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
        if not whole or (manifest is not None and manifest.get("frames", len(offsets)) != len(offsets)):
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
    """Yield the whole lines of the index; none where the writer died before it made one."""
    try:
        # Datasets come from strangers: a link, a pipe or a device is refused.
        with os.fdopen(open_regular(os.path.join(folder, INDEX_NAME)), "rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatasetDamagedError(f"the index of {folder} cannot be read: {error.strerror}") from None


def _parse(line: bytes) -> dict[str, Any]:
    """Return what a line of the index says, having compared its checksum."""
    text, _, check = line.rpartition(b', "line_crc32": ')
    if check != b"%d}\n" % zlib.crc32(text):
        raise DatasetDamagedError(f"a line of the index is not what was written: {line[:60]!r}")
    record: dict[str, Any] = json.loads(line)
    return record


def _read_record(folder: str, offset: int) -> dict[str, Any]:
    with os.fdopen(open_regular(os.path.join(folder, INDEX_NAME)), "rb") as file:
        file.seek(offset)
        return _parse(file.readline())


def _read_pixels(folder: str, offset: int) -> npt.NDArray[Any]:
    record = _read_record(folder, offset)
    # The name is made again, so that no index leads out of the folder.
    path = os.path.join(folder, _file_name(record["number"]))
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = file.read()
    except OSError as error:
        raise DatasetDamagedError(f"{path} cannot be read: {error.strerror}") from None
    if zlib.crc32(content) != record["crc32"]:
        raise DatasetDamagedError(f"the frame in {path} is not the one that was written")
    pixels: npt.NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return pixels
