"""The backend ``ndtiff``: writes NDTiff so that every acknowledged frame survives the process.

One gathered write of IFD, pixels and metadata, then one write of the index entry. The index is the
truth: bytes in a TIFF file that no entry names do not exist. Both writes go to places that are kept
here, so that a frame that failed half way is overwritten, or cut off at the end.
"""

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import annotated_types
import crc32c
import numpy as np
import numpy.typing as npt
import orjson

from exengine.base_classes import DataStorage, ManagedStorage, StorageCapabilities
from exengine.errors import (
    CoordinatesError,
    DatasetDamagedError,
    MetadataError,
    OptionError,
    StorageFailedError,
    UnsupportedDataError,
)
from exengine.kernel import platform
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.metadata import clean_metadata
from exengine_ndstorage import layout

_INT32 = 2**31
_PLACE = struct.Struct("<HHIII")  # file, layout, offset of pixels, length of metadata, checksum of axes
_NAME = re.compile(r"[^/\\\0:]{1,200}")


class NDTiffStorage(ManagedStorage):
    """Write NDTiff, the fast TIFF format of Micro-Manager and Pycro-Manager.

    A dataset is a folder with TIFF files and an index. Each frame is on its way to the disk when
    ``put`` has returned, and survives the death of the program from then on; after ``finish`` it
    survives power loss. Frames and their metadata carry checksums.

    Parameters
    ----------
    directory : path
        Where the dataset will lie.
    name : str, optional
        Of the dataset: it then lies at ``directory/name``, and its files start with the name.
    summary_metadata : dict, optional
        Metadata of the whole dataset.
    max_file_bytes : int, default: 4294967296
        When a TIFF file would grow beyond this, the next one is begun.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from exengine.storage_backends.ndtiff import NDTiffStorage
    >>> folder = tempfile.mkdtemp()
    >>> with NDTiffStorage(folder) as storage:
    ...     storage.put({"time": 0, "channel": "DAPI"}, np.full((4, 4), 7, np.uint16), {"exposure_ms": 10})
    >>> import exengine
    >>> exengine.open_dataset(folder)[{"time": 0, "channel": "DAPI"}][0, 0]
    np.uint16(7)
    """

    capabilities = StorageCapabilities(
        persistent=True,
        dtypes=("uint8", "uint16"),
        ndim=(2, 3),
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
        pyramids=True,
        readers=("Micro-Manager", "Pycro-Manager", "ndstorage", "napari-ndtiff", "tifffile", "ImageJ"),
    )
    place_parameters = ("directory", "name")
    backend_name = "ndtiff"

    def __init__(
        self,
        directory: str | os.PathLike[str],
        name: str | None = None,
        summary_metadata: dict[str, Any] | None = None,
        max_file_bytes: Annotated[int, annotated_types.Interval(ge=4096, le=layout.MAX_FILE_BYTES)] = 2**32,
    ) -> None:
        summary = clean_metadata({} if summary_metadata is None else summary_metadata)
        if not isinstance(summary, dict):
            raise MetadataError(f"NDTiff's summary metadata is a dict, got {type(summary_metadata).__name__}")
        if name is not None and (not _NAME.fullmatch(name) or name.strip(". ") != name):
            raise OptionError(
                f"name {name!r:.80} is no name for a folder: it lies in directory, and is no path"
            )
        if not 4096 <= max_file_bytes <= layout.MAX_FILE_BYTES:
            raise OptionError(
                f"max_file_bytes is between 4096 and {layout.MAX_FILE_BYTES}, got {max_file_bytes}"
            )
        self._header = layout.header(_encode(summary))
        if len(self._header) > max_file_bytes // 2:
            raise MetadataError(
                f"the summary metadata takes {len(self._header)} bytes: too much for one file"
            )
        self._max_file_bytes = max_file_bytes
        self._prefix = "" if name is None else f"{name}_"
        self._files: list[int] = []
        self._file_names: list[bytes] = []
        self._index_file = -1
        self._end = self._index_end = 0
        self._last_next_at = -1  # where the last IFD of the file says where the next one is
        self._layouts: dict[tuple[tuple[int, ...], str], int] = {}
        self._layout_list: list[layout.FrameLayout] = []
        self._places = bytearray()
        self._kinds: dict[str, type] = {}
        super().__init__(Path(directory) / name if name else directory, summary_metadata=summary)
        try:
            self._index_file = self._open_new(layout.INDEX_NAME)
            self._begin_file()
        except OSError as error:
            self._fail(error)
            self.close()
            raise StorageFailedError(f"cannot write in {self.path}: {error}") from error

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None = None, /, **options: Any) -> Self:
        """Make a storage whose dataset lies at the path exactly."""
        assert path is not None  # the kernel gives one to a persistent backend
        return cls(path, None, **options)

    @classmethod
    def can_open(cls, path: str | os.PathLike[str]) -> bool:
        """Return whether the folder is an NDTiff dataset, of any version, or a pyramid of them."""
        return any(
            os.path.isfile(os.path.join(path, *parts))
            for parts in ((layout.INDEX_NAME,), ("Full resolution", layout.INDEX_NAME))
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        """Open a dataset to read: version 3 here, version 2 and pyramids through ``ndstorage``."""
        from exengine_ndstorage.reader import open_ndtiff

        return open_ndtiff(os.fspath(path))

    # -- writing ---------------------------------------------------------------------------------

    def check_frame(
        self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: Any
    ) -> tuple[bytes, bytes, int]:
        if data.ndim == 3 and (data.shape[2] != 3 or data.dtype.itemsize != 1):
            raise UnsupportedDataError(
                "NDTiff takes (Y, X) of uint8 or uint16, or (Y, X, 3) of uint8; got "
                f"{data.shape} {data.dtype}"
            )
        if not data.size or max(data.shape) >= _INT32:
            raise UnsupportedDataError(
                f"NDTiff takes frames of at least one pixel; got the shape {data.shape}"
            )
        for axis, value in coordinates.__dict__.items():
            if type(value) is not self._kinds.get(axis):
                self._check_axis(axis, value)
            if type(value) is int and not -_INT32 <= value < _INT32:
                raise CoordinatesError(f"NDTiff's positions have 32 bits; axis {axis!r} is {value}")
        encoded = _encode(metadata)
        if len(encoded) < layout.MD_PADDING:
            encoded = encoded.ljust(layout.MD_PADDING)
        if data.nbytes + len(encoded) + len(self._header) + 1024 > layout.MAX_FILE_BYTES:
            raise UnsupportedDataError(
                f"a frame of {data.nbytes} bytes is more than a TIFF file of 4 GiB holds"
            )
        return encoded, orjson.dumps(coordinates.__dict__), axes_checksum(coordinates.__dict__)

    def _check_axis(self, axis: str, value: int | str) -> None:
        if axis == "self":
            raise CoordinatesError("ndstorage cannot read an axis named 'self'; give it another name")
        known = self._kinds.get(axis)
        if known is not None:
            raise CoordinatesError(
                f"NDTiff takes either int or str along one axis: {axis!r} began with "
                f"{known.__name__}, got {value!r:.40}"
            )

    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        metadata, axes, axes_crc = checked
        kind = self._layouts.get((data.shape, data.dtype.char))
        if kind is None:
            kind = self._add_layout(data)
        form = self._layout_list[kind]
        pixels = np.ascontiguousarray(data, dtype=layout.DTYPES[form.pixel_type])
        begin = self._end
        size = form.ifd_bytes + form.pixel_bytes + len(metadata)
        if begin + size + 1 > self._max_file_bytes and begin > len(self._header):
            self._end_file()
            self._begin_file()
            begin = self._end
        ifd = form.ifd(begin, len(metadata), crc32c.crc32c(pixels.data), crc32c.crc32c(metadata, axes_crc))
        parts: list[Any] = [ifd, pixels, metadata]
        if size & 1:
            parts.append(b" ")
        end = platform.write_at(self._files[-1], parts, begin)
        at = begin + form.ifd_bytes
        entry = layout.index_entry(
            axes,
            self._file_names[-1],
            (at, form.width, form.height, form.pixel_type, 0, at + form.pixel_bytes, len(metadata), 0),
        )
        self._index_end = platform.write_at(self._index_file, [entry], self._index_end)
        self._end = end
        self._last_next_at = begin + form.next_at
        self._places += _PLACE.pack(len(self._files) - 1, kind, at, len(metadata), axes_crc)
        if len(self._kinds) < 64:
            for axis, value in coordinates.__dict__.items():
                self._kinds.setdefault(axis, type(value))

    def _add_layout(self, data: npt.NDArray[Any]) -> int:
        pixel_type = (
            layout.RGB8 if data.ndim == 3 else layout.GRAY8 if data.dtype.itemsize == 1 else layout.GRAY16
        )
        self._layout_list.append(layout.FrameLayout(data.shape[0], data.shape[1], pixel_type))
        number = self._layouts[data.shape, data.dtype.char] = len(self._layout_list) - 1
        return number

    def _open_new(self, name: str) -> int:
        assert self.path is not None
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        return os.open(os.path.join(self.path, name), flags, 0o666)

    def _begin_file(self) -> None:
        number = len(self._files)
        name = f"{self._prefix}NDTiffStack{f'_{number}' if number else ''}.tif"
        self._files.append(self._open_new(name))
        self._file_names.append(name.encode())
        self._last_next_at = -1
        self._end = platform.write_at(self._files[-1], [self._header], 0)

    def _end_file(self) -> None:
        """Say in the last IFD that no other follows, and cut off what failed behind it."""
        file = self._files[-1]
        os.ftruncate(file, self._end)
        at = self._last_next_at if self._last_next_at >= 0 else layout.FIRST_IFD_AT
        platform.write_at(file, [bytes(4)], at)

    def sync_frames(self) -> None:
        for file in self._files:
            os.fsync(file)
        os.fsync(self._index_file)

    def finish_frames(self) -> None:
        self._end_file()
        os.ftruncate(self._index_file, self._index_end)
        self.sync_frames()

    # -- reading what was written ----------------------------------------------------------------

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        file, kind, at, _, _ = _PLACE.unpack_from(self._places, number * _PLACE.size)
        form = self._layout_list[kind]
        begin = at - form.ifd_bytes
        data = platform.read_at(self._files[file], form.ifd_bytes + form.pixel_bytes, begin)
        return decode_pixels(data, form, f"frame {number} of {self.path}")

    def read_frame_metadata(self, number: int) -> Any:
        file, kind, at, size, axes_crc = _PLACE.unpack_from(self._places, number * _PLACE.size)
        form = self._layout_list[kind]
        ifd = platform.read_at(self._files[file], form.ifd_bytes, at - form.ifd_bytes)
        data = platform.read_at(self._files[file], size, at + form.pixel_bytes)
        return decode_metadata(data, size, ifd, form, axes_crc, f"frame {number} of {self.path}")

    def release(self) -> None:
        for file in (*self._files, self._index_file):
            if file >= 0:
                os.close(file)
        self._files = []
        self._index_file = -1


def axes_checksum(axes: Mapping[str, int | str]) -> int:
    """Return CRC-32C of coordinates, whatever the order of their axes."""
    return crc32c.crc32c(orjson.dumps(axes, option=orjson.OPT_SORT_KEYS))


def _encode(value: Any) -> bytes:
    """Return a checked JSON value as bytes; integers beyond 64 bits included."""
    try:
        return orjson.dumps(value)
    except TypeError:
        import json

        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def decode_pixels(data: bytes, form: layout.FrameLayout, what: str) -> npt.NDArray[Any]:
    """Return the pixels of a frame of ours from its IFD and pixels, having compared the checksum.

    Raises
    ------
    DatasetDamagedError
        When they are not what was written.
    """
    pixels = np.frombuffer(data, layout.DTYPES[form.pixel_type], offset=min(form.ifd_bytes, len(data)))
    checksums = form.checksums(data) if len(data) == form.ifd_bytes + form.pixel_bytes else None
    if checksums is None or crc32c.crc32c(pixels.data) != checksums[0]:
        raise DatasetDamagedError(f"the pixels of {what} are not those that were written")
    return pixels.reshape(form.shape)


def decode_metadata(
    data: bytes, size: int, ifd: bytes, form: layout.FrameLayout, axes_crc: int, what: str
) -> Any:
    """Return the metadata of a frame of ours, having compared the checksum.

    Raises
    ------
    DatasetDamagedError
        When they, or the coordinates, are not what was written.
    """
    checksums = form.checksums(ifd) if len(ifd) == form.ifd_bytes else None
    if checksums is None or len(data) != size or crc32c.crc32c(data, axes_crc) != checksums[1]:
        raise DatasetDamagedError(f"the metadata or coordinates of {what} are not those that were written")
    import json

    return json.loads(data)
