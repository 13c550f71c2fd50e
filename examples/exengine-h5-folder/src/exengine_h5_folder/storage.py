"""The ``h5-folder`` backend: writes each frame to an HDF5 file, and appends a line per frame to an index.

HDF5 never writes to the disk itself. It encodes a frame in memory, and this module writes the bytes. An open
HDF5 file would keep parts of the dataset in the library until it is closed; it could not be read after the
program was killed or the disk was full, and a forked process would write the same parts again when it exits.
"""

import json
import os
import zlib
from typing import Annotated, Any, BinaryIO

import h5py
import numpy.typing as npt
from annotated_types import Ge, Le
from exengine import DataCoordinates, ManagedStorage
from exengine.base_classes import JsonValue, check_options
from exengine.errors import DatasetAccessError, MetadataError

from exengine_h5_folder.reader import INDEX_NAME, LINKS_NAME, FrameReading, H5FolderReader, frame_name


class H5FolderStorage(FrameReading, ManagedStorage):
    """Write each frame to an HDF5 file of its own, with its coordinates and its metadata.

    Once ``put`` has returned, a frame survives even if the program is killed. After ``finish``, the dataset
    also survives power loss, and ``dataset.h5`` links all frames. Checksums detect damage. Every frame needs
    its own file, so the backend suits thousands of frames, not millions.

    Parameters
    ----------
    path : path
        Path of the new dataset.
    level : int, default: 0
        Compression level of gzip: 0 stores frames uncompressed, 1 is fast, and 9 is slow.
    summary_metadata : dict, optional
        Metadata of the whole dataset.

    Examples
    --------
    >>> import tempfile, exengine
    >>> import numpy as np
    >>> from exengine_h5_folder import H5FolderStorage
    >>> path = tempfile.mkdtemp()
    >>> with H5FolderStorage(path, level=4) as storage:
    ...     storage.put({"time": 0, "channel": "DAPI"}, np.array([1, 2, 3]), {"exposure_ms": 10})
    >>> dataset = exengine.open_dataset(path)
    >>> dataset[{"time": 0, "channel": "DAPI"}]
    array([1, 2, 3])
    """

    backend_name = "h5-folder"
    # All files of a dataset, so that `if_exists: overwrite` can distinguish them from a user's own files.
    dataset_files = (INDEX_NAME, LINKS_NAME, "frame-{number}.h5")

    def __init__(
        self,
        path: str | os.PathLike[str],
        level: Annotated[int, Ge(0), Le(9)] = 0,
        summary_metadata: dict[str, Any] | None = None,
    ) -> None:
        check_options(H5FolderStorage, level=level)
        self._level = level
        self._lines: list[bytes] = []
        self._links_crc32: int | None = None
        super().__init__(path, summary_metadata=summary_metadata or {})
        self._folder = str(self.path)  # created by the base class
        try:
            # Unbuffered, so that written frames survive if the program is killed.
            self._index = open(os.path.join(self._folder, INDEX_NAME), "xb", buffering=0)  # noqa: SIM115
            self.annotate("summary_metadata", self.summary_metadata)
        except OSError as error:
            self.cannot_begin(error)
            raise DatasetAccessError(f"cannot write in {self.path}: {error}") from error

    @classmethod
    def can_open(cls, path: str | os.PathLike[str]) -> bool:
        return all(os.path.isfile(os.path.join(path, name)) for name in (INDEX_NAME, frame_name(0)))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> H5FolderReader:
        return H5FolderReader.open(path)

    # -- writing: the base class has checked state, coordinates and metadata ----------------------------

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: Any) -> str:
        try:
            return json.dumps(metadata)
        except ValueError as error:  # for example, an int with thousands of digits
            raise MetadataError(f"JSON cannot represent the metadata: {error}") from None

    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: str
    ) -> None:
        options: dict[str, Any] = {}
        if self._level and data.ndim and data.size:  # HDF5 cannot compress other arrays
            options = {"compression": "gzip", "compression_opts": self._level}
        with h5py.File.in_memory() as file:
            file.create_dataset("pixels", data=data, **options)
            file["coordinates"], file["metadata"] = coordinates.to_json(), checked
            image = _image(file)
        with open(os.path.join(self._folder, frame_name(number)), "wb", buffering=0) as frame_file:
            _write_all(frame_file, image)
        crc32 = zlib.crc32(image)
        line = f'{{"coordinates": {coordinates.to_json()}, "metadata": {checked}, "crc32": {crc32}}}'.encode()
        _write_all(self._index, b"%08x %s\n" % (zlib.crc32(line), line))
        self._lines.append(line)

    def finish_frames(self) -> None:
        # Also called after a failed write: the links then name the frames that were stored before it.
        with h5py.File.in_memory() as file:
            for number in range(len(self._lines)):
                file[str(number)] = h5py.ExternalLink(frame_name(number), "/")
            image = _image(file)
        with open(os.path.join(self._folder, LINKS_NAME), "wb", buffering=0) as links_file:
            _write_all(links_file, image)
        self._links_crc32 = zlib.crc32(image)
        self.sync_frames()

    def finished_facts(self) -> dict[str, JsonValue]:
        return {LINKS_NAME: self._links_crc32}

    def release(self) -> None:
        self._index.close()


def _image(file: h5py.File) -> bytes:
    """Return the bytes of an HDF5 file in memory."""
    file.flush()
    return bytes(file.id.get_file_image())


def _write_all(file: BinaryIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:  # the system may write only part of the content
        rest = rest[file.write(rest) :]
