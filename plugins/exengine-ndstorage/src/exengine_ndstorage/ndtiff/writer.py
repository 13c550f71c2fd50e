"""The backend ``ndtiff``: writes NDTiff so that every acknowledged frame survives the process.

One gathered write of IFD, pixels and metadata, then one write of the index entry. The index is the
truth: bytes in a TIFF file that no entry names do not exist. Both writes go to places that are kept
here, so that a frame that failed half way is overwritten, or cut off at the end.
"""

import os
import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Self

import annotated_types
import crc32c
import numpy as np
import numpy.typing as npt
import orjson

from exengine.base_classes import (
    DataCoordinates,
    DataStorage,
    ManagedStorage,
    StorageCapabilities,
    clean_metadata,
    read_at,
    sync_folder,
    write_at,
)
from exengine.errors import (
    CoordinatesError,
    MetadataError,
    OptionError,
    StorageFailedError,
    UnsupportedDataError,
)
from exengine_ndstorage.ndtiff import format as layout
from exengine_ndstorage.ndtiff.files import CHUNK_BYTES, NEW, FilePool, OpenFile
from exengine_ndstorage.ndtiff.frame_bytes import axes_checksum, decode_metadata, encode_json, read_pixels
from exengine_ndstorage.ndtiff.helper_thread import WORTH_BYTES, Job, SecondThread

_INT32 = 2**31
_NAME = re.compile(r"[^/\\:\x00-\x1f\x7f]+")
_MAX_NAME_BYTES = 200  # a file name has 255 at most, and the files add to the name
_LEAST_MEMORY = 8192  # bytes, for the JSON of a frame
_BATCH_BYTES = 4 * 2**20  # gathered in one write; larger frames gain nothing from it
_SMALL_BYTES = 256 * 2**10  # pixels of a frame that leaves the disk idle meanwhile
_BEGIN_BYTES = 4 * 2**20  # the disk begins with so many at a time

# File, layout, offset of the pixels, length of the metadata, checksum of the axes, length of the entry.
_PLACE = struct.Struct("<6I")

# What check_frame hands to write_frame: metadata and axes as JSON, checksum of the axes, whether the frame
# brings nothing new to the axes, its layout where there was such a frame before.
_Checked = tuple[bytes, bytes, int, bool, layout.FrameLayout | None]


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
    batch_frames = 32

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
        if name is not None and not _is_name(name):
            raise OptionError(
                f"name {name!r:.80} is no name for a folder: it lies in directory, and is no path"
            )
        if type(max_file_bytes) is not int or not 4096 <= max_file_bytes <= layout.MAX_FILE_BYTES:
            raise OptionError(
                f"max_file_bytes is an int from 4096 to {layout.MAX_FILE_BYTES}, got {max_file_bytes!r:.40}"
            )
        self._header = layout.header(encode_json(summary))
        if len(self._header) > layout.MAX_SUMMARY_BYTES:
            raise MetadataError(
                f"the summary metadata takes {len(self._header)} bytes; readers take at most "
                f"{layout.MAX_SUMMARY_BYTES}"
            )
        if len(self._header) > max_file_bytes // 2:
            raise MetadataError(
                f"the summary metadata takes {len(self._header)} bytes, and stands in every file: it may "
                f"take half of max_file_bytes={max_file_bytes}"
            )
        self._max_file_bytes = max_file_bytes
        self._most_frame_bytes = layout.MAX_FILE_BYTES - len(self._header) - 1024  # pixels and metadata
        self._prefix = "" if name is None else f"{name}_"
        self._pool = FilePool()
        self._index_file: OpenFile | None = None
        self._file: OpenFile | None = None  # the one that is being written
        self._file_names: list[str] = []
        self._unsynced: list[int] = []  # files that are ended, and were not brought to the disk yet
        self._names_synced = False
        self._end = self._index_end = 0
        self._begun = 0  # up to where the disk was told to begin
        self._last_next_at = -1  # where the last IFD of the file says where the next one is
        self._layouts: dict[tuple[tuple[int, ...], str], layout.FrameLayout] = {}
        self._layout_list: list[layout.FrameLayout] = []  # by their number
        self._places = bytearray()
        self._kinds: dict[str, type] = {}
        self._second = SecondThread()
        super().__init__(Path(directory) / name if name else directory, summary_metadata=summary)
        try:
            self._index_file = OpenFile(self._path_of(layout.INDEX_NAME), NEW)
            self._begin_file()
        except BaseException as error:
            self.cannot_begin(error)
            if not isinstance(error, OSError):
                raise
            refusal = StorageFailedError(f"cannot write in {self.path}: {error}")
            refusal.errno = error.errno
            raise refusal from error

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
            for parts in ((layout.INDEX_NAME,), (layout.FULL_RESOLUTION, layout.INDEX_NAME))
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        """Open a dataset to read: version 3 and pyramids here, version 2 through ``ndstorage``."""
        from exengine_ndstorage.ndtiff.reader import open_ndtiff

        return open_ndtiff(os.fspath(path))

    @classmethod
    def recover_in_place(cls, path: str | os.PathLike[str], lost: Collection[DataCoordinates], /) -> None:
        """Mend index and files: what is lost is taken out of the index, which is kept beside it."""
        from exengine_ndstorage.ndtiff.recovery import recover_in_place

        recover_in_place(os.fspath(path), lost)

    # -- writing ---------------------------------------------------------------------------------

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: Any) -> _Checked:
        bytes(_LEAST_MEMORY)  # MemoryError; orjson ends the process where it gets none
        form = self._layouts.get((data.shape, data.dtype.char))
        if form is None:
            self._check_shape(data)
        positions = coordinates.__dict__
        axes = orjson.dumps(positions)
        if len(axes) > layout.MAX_TEXT_BYTES:
            raise CoordinatesError(
                f"NDTiff's coordinates take at most {layout.MAX_TEXT_BYTES} bytes as JSON, these {len(axes)}"
            )
        known = True
        known_kind = self._kinds.get
        for axis, value in positions.items():
            kind = type(value)
            if kind is not known_kind(axis):
                known = False
            if kind is int and not -_INT32 <= value < _INT32:
                raise CoordinatesError(f"NDTiff's positions have 32 bits; axis {axis!r} is {value}")
        if not known:
            self._check_axes_of(coordinates)
        encoded = encode_json(metadata)
        size = len(encoded)
        if size < layout.MD_PADDING:
            encoded = encoded.ljust(layout.MD_PADDING)
        elif size > layout.MAX_METADATA_BYTES:
            raise MetadataError(
                f"the metadata takes {size} bytes as JSON; NDTiff's readers here take at most "
                f"{layout.MAX_METADATA_BYTES}"
            )
        if data.nbytes + size > self._most_frame_bytes:
            raise UnsupportedDataError(
                f"a frame of {data.nbytes} bytes with {size} bytes of metadata is more than a TIFF "
                "file of 4 GiB holds"
            )
        return encoded, axes, axes_checksum(positions), known, form

    def _check_shape(self, data: npt.NDArray[Any]) -> None:
        if data.ndim == 3 and (data.shape[2] != 3 or data.dtype.itemsize != 1):
            raise UnsupportedDataError(
                "NDTiff takes (Y, X) of uint8 or uint16, or (Y, X, 3) of uint8; got "
                f"{data.shape} {data.dtype}"
            )
        if not data.size or max(data.shape) >= _INT32:
            raise UnsupportedDataError(
                f"NDTiff takes frames of at least one pixel; got the shape {data.shape}"
            )

    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        self.write_frames(number, [(coordinates, data, checked)])

    def write_frames(self, number: int, batch: list[tuple[DataCoordinates, npt.NDArray[Any], Any]]) -> int:
        """Write the first frames of a batch: as many as go into this file and one gathered write.

        Parameters
        ----------
        number : int
            Of the first frame.
        batch : list of (coordinates, data, checked)
            As :meth:`write_frame` takes them; at least one.

        Returns
        -------
        int
            How many were written; of the others nothing was.
        """
        parts: list[Any] = []
        entries: list[bytes] = []
        places: list[bytes] = []
        begin = end = self._end
        next_at = -1
        form: layout.FrameLayout | None = None
        kinds: dict[str, type] = {}
        for coordinates, data, (metadata, axes, axes_crc, known, form) in batch:
            if not known and not self._are_known(coordinates):
                if parts:
                    break  # what comes before is written first
                kinds = self._check_axes_of(coordinates)  # they count when the frame is written
            if form is None:
                form = self._layout_of(data)
            metadata_bytes = len(metadata)
            size = form.ifd_bytes + form.pixel_bytes + metadata_bytes
            if end + size + 2 > self._max_file_bytes and end > len(self._header):
                if parts:
                    break
                self._end_file()
                self._begin_file()
                begin = end = self._end
            elif parts and (end + size - begin > _BATCH_BYTES or form.pixel_bytes >= WORTH_BYTES):
                break
            pixels: Any = np.ascontiguousarray(data, form.dtype)
            at = end + form.ifd_bytes
            entry = layout.index_entry(
                axes,
                self._name_in_entries,
                (at, form.width, form.height, form.pixel_type, 0, at + form.pixel_bytes, metadata_bytes, 0),
            )
            entries.append(entry)
            places.append(
                _PLACE.pack(len(self._file_names) - 1, form.number, at, metadata_bytes, axes_crc, len(entry))
            )
            next_at = end + form.next_at
            running = (
                self._second.begin(crc32c.crc32c, pixels, axes_crc)
                if form.pixel_bytes >= WORTH_BYTES
                else None
            )
            if running is not None:
                self._write_large(end, form, pixels, metadata, axes_crc, running)
                end += size + (size & 1)
                break
            parts.append(
                form.ifd(
                    end, metadata_bytes, crc32c.crc32c(pixels, axes_crc), crc32c.crc32c(metadata, axes_crc)
                )
            )
            parts.append(pixels)
            parts.append(metadata)
            if size & 1:
                parts.append(b" ")
            end += size + (size & 1)
        assert self._file is not None and self._index_file is not None
        if parts:
            write_at(self._file.descriptor, parts, begin, end - begin)
        place, entry = (places[0], entries[0]) if len(places) == 1 else (b"".join(places), b"".join(entries))
        index_end = write_at(self._index_file.descriptor, (entry,), self._index_end, len(entry))
        if kinds:
            self._kinds.update(kinds)
        # No call stands between these, so that an interrupt leaves either all of them or none.
        self._places += place
        self._end = end
        self._index_end = index_end
        self._last_next_at = next_at
        if end - self._begun >= _BEGIN_BYTES:
            if form is not None and form.pixel_bytes < _SMALL_BYTES:
                self._second.begin_writing(self._file, self._begun, end - self._begun)
            self._begun = end
        return len(entries)

    def _write_large(
        self,
        offset: int,
        form: layout.FrameLayout,
        pixels: Any,
        metadata: bytes,
        axes_crc: int,
        running: Job[int],
    ) -> None:
        """Write pixels and metadata while the checksum is computed, then the IFD that holds it."""
        assert self._file is not None
        padding = b" " * ((form.ifd_bytes + form.pixel_bytes + len(metadata)) & 1)
        try:
            write_at(self._file.descriptor, (pixels, metadata, padding), offset + form.ifd_bytes)
        finally:
            pixels_crc = running.end()
        ifd = form.ifd(offset, len(metadata), pixels_crc, crc32c.crc32c(metadata, axes_crc))
        write_at(self._file.descriptor, (ifd,), offset, form.ifd_bytes)

    def _are_known(self, coordinates: DataCoordinates) -> bool:
        kinds = {axis: type(value) for axis, value in coordinates.__dict__.items()}
        return kinds.items() <= self._kinds.items()

    def _check_axes_of(self, coordinates: DataCoordinates) -> dict[str, type]:
        """Refuse axes that do not go with those of the frames before; return what they hold."""
        kinds = {axis: type(value) for axis, value in coordinates.__dict__.items()}
        for axis, kind in kinds.items():
            known = self._kinds.get(axis, kind)
            if kind is not known:
                raise CoordinatesError(
                    f"NDTiff takes either int or str along one axis: {axis!r} began with "
                    f"{known.__name__}, got {coordinates[axis]!r:.40}"
                )
        if "self" in kinds:
            raise CoordinatesError("ndstorage cannot read an axis named 'self'; give it another name")
        if len(self._kinds | kinds) > layout.MAX_AXES:
            raise CoordinatesError(f"NDTiff datasets have at most {layout.MAX_AXES} axes")
        return kinds

    def _layout_of(self, data: npt.NDArray[Any]) -> layout.FrameLayout:
        key = data.shape, data.dtype.char
        form = self._layouts.get(key)
        if form is not None:
            return form
        pixel_type = (
            layout.RGB8 if data.ndim == 3 else layout.GRAY8 if data.dtype.itemsize == 1 else layout.GRAY16
        )
        form = layout.FrameLayout(data.shape[0], data.shape[1], pixel_type, len(self._layout_list))
        self._layout_list.append(form)
        self._layouts[key] = form
        return form

    # -- files -----------------------------------------------------------------------------------

    def _path_of(self, name: str) -> str:
        assert self.path is not None
        return os.path.join(self.path, name)

    def _begin_file(self) -> None:
        number = len(self._file_names)
        name = f"{self._prefix}NDTiffStack{f'_{number}' if number else ''}.tif"
        path = self._path_of(name)
        file = OpenFile(path, NEW)
        try:
            end = write_at(file.descriptor, [self._header], 0)
        except BaseException:
            del file  # or the exception, which is kept, would keep it open, and its place on the disk taken
            os.unlink(path)  # nothing is in it
            raise
        name_in_entries = layout.text_in_entry(name.encode())
        self._pool.hold(number, file)
        if number:
            self._unsynced.append(number - 1)
        # No call stands between these, so that an interrupt leaves the old file or the new one.
        self._file_names = [*self._file_names, name]
        self._name_in_entries = name_in_entries
        self._end, self._last_next_at, self._names_synced = end, -1, False
        self._begun = 0
        self._file = file

    def _end_file(self) -> None:
        """Say in the last IFD that no other follows, and cut off what failed behind it."""
        if self._file is not None:
            os.ftruncate(self._file.descriptor, self._end)
            at = self._last_next_at if self._last_next_at >= 0 else layout.FIRST_IFD_AT
            write_at(self._file.descriptor, [bytes(4)], at)

    def sync_frames(self) -> None:
        assert self.path is not None
        while self._unsynced:
            number = self._unsynced[0]
            os.fsync(self._pool.open(number, self._path_of(self._file_names[number])).descriptor)
            del self._unsynced[0]
        # The index after all that it names. By number: an exception that is kept would keep a file open.
        for descriptor in [file.descriptor for file in (self._file, self._index_file) if file is not None]:
            os.fsync(descriptor)
        if not self._names_synced:
            sync_folder(self.path)
            sync_folder(os.path.dirname(self.path))
            self._names_synced = True

    def finish_frames(self) -> None:
        self._take_back(len(self))
        try:
            if self._index_file is not None:
                os.ftruncate(self._index_file.descriptor, self._index_end)
        finally:
            self._end_file()
        self.sync_frames()

    def finished_facts(self) -> dict[str, int]:
        """Return CRC-32C of the index: without it, coordinates that were changed there are seen when read."""
        checksum = at = 0
        if self._index_file is None:  # not even begun
            return {}
        while data := read_at(self._index_file.descriptor, CHUNK_BYTES, at):
            checksum, at = crc32c.crc32c(data, checksum), at + len(data)
        return {"index_crc32c": checksum}

    def _take_back(self, count: int) -> None:
        """Forget a last frame that was written, when an interrupt kept ``put`` from returning."""
        while len(self._places) > count * _PLACE.size:
            place = len(self._places) - _PLACE.size
            file, kind, at, _, _, entry_bytes = _PLACE.unpack_from(self._places, place)
            del self._places[place:]
            self._index_end -= entry_bytes
            self._end = at - self._layout_list[kind].ifd_bytes
            self._last_next_at = -1
            if place:
                before, kind, at, *_ = _PLACE.unpack_from(self._places, place - _PLACE.size)
                if before == file:
                    form = self._layout_list[kind]
                    self._last_next_at = at - form.ifd_bytes + form.next_at

    def release(self) -> None:
        self._second.end()
        self._pool.release()
        self._file = self._index_file = None

    # -- reading what was written ----------------------------------------------------------------

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        file, kind, at, *_ = _PLACE.unpack_from(self._places, number * _PLACE.size)
        form = self._layout_list[kind]
        # Not compared with its checksum: it comes from where this process has put it, while nobody else may
        # write. Whoever opens the dataset compares.
        return read_pixels(
            self._opened(file), at, form, self._second, lambda: f"frame {number} of {self.path}"
        )

    def read_frame_metadata(self, number: int) -> Any:
        file, kind, at, size, axes_crc, _ = _PLACE.unpack_from(self._places, number * _PLACE.size)
        form = self._layout_list[kind]
        opened = self._opened(file)
        ifd = read_at(opened.descriptor, form.ifd_bytes, at - form.ifd_bytes)
        data = read_at(opened.descriptor, size, at + form.pixel_bytes)
        return decode_metadata(data, size, ifd, form, axes_crc, lambda: f"frame {number} of {self.path}")

    def _opened(self, number: int) -> OpenFile:
        return self._pool.get(number) or self._pool.open(number, self._path_of(self._file_names[number]))


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.strip(". ") != name:
        return False
    try:
        return len(name.encode()) <= _MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False
