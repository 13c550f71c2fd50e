"""Writes NDTiff so that every acknowledged frame survives if the process dies.

The IFD, pixels and metadata are written with one gathered write, and then the index entry with another write.
The index is authoritative: data in a TIFF file is part of the dataset only if an entry refers to it. The
storage remembers where the last complete frame and its entry end. If a frame is written only partly, it is
overwritten by the next frame or, at the end of the file, cut off.
"""

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Self

import annotated_types
import crc32c
import numpy as np
import numpy.typing as npt
import orjson

from exengine.base_classes import (
    NEW,
    CoordinatesLike,
    DataCoordinates,
    DataStorage,
    FilePool,
    HelperThread,
    Job,
    OpenFile,
    PackableDatasets,
    PlannedLayout,
    clean_metadata,
    sync_folder,
    write_at,
)
from exengine.errors import MetadataError, OptionError, StorageFailedError, UnsupportedDataError
from exengine_ndstorage.ndtiff import limits, sizes
from exengine_ndstorage.ndtiff.files import checksum
from exengine_ndstorage.ndtiff.format import (
    BACKEND_NAME,
    CAPABILITIES,
    DATASET_FILES,
    FIRST_IFD_AT,
    INDEX_NAME,
    METADATA_PADDING,
    OTHER_FILES,
    FrameLayout,
    text_in_entry,
)
from exengine_ndstorage.ndtiff.frame_bytes import axes_checksum, encode_json
from exengine_ndstorage.ndtiff.header import encode_header, first_tiff, header_checksum_of
from exengine_ndstorage.ndtiff.limits import INT32
from exengine_ndstorage.ndtiff.opening import is_ndtiff, open_ndtiff
from exengine_ndstorage.ndtiff.recovery import recover_in_place
from exengine_ndstorage.ndtiff.written_frames import PLACE, WrittenFrames, find_end, remove_later_files

# Passed from check_frame to write_frame: the metadata and axes as JSON, the checksum of the axes, whether the
# axes are known from earlier frames, and the layout if an earlier frame has the same layout.
_Checked = tuple[bytes, bytes, int, bool, FrameLayout | None]


class NDTiffStorage(WrittenFrames, PackableDatasets):
    """Write NDTiff, the fast TIFF format of Micro-Manager and Pycro-Manager.

    A dataset is a folder with TIFF files and an index. When ``put`` returns, the operating system has
    received the frame, so the frame survives a crash of the program. After ``finish``, it also survives a
    power failure. Checksums protect the frames and their metadata.

    Parameters
    ----------
    directory : path
        The folder of the dataset.
    name : str, optional
        The name of the dataset. If given, the folder is ``directory/name``, and file names begin with it.
    summary_metadata : dict, optional
        Metadata for the whole dataset.
    max_file_bytes : int, default: 4294967296
        The size in bytes at which a TIFF file counts as full and the next file is started.

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

    capabilities = CAPABILITIES
    place_parameters = ("directory", "name")
    dataset_files = DATASET_FILES
    backend_name = BACKEND_NAME
    batch_frames = 256  # a frame has up to 4 parts, and one system call writes up to 1,024 parts

    def __init__(
        self,
        directory: str | os.PathLike[str],
        name: str | None = None,
        summary_metadata: dict[str, Any] | None = None,
        max_file_bytes: Annotated[
            int, annotated_types.Interval(ge=sizes.LEAST_FILE_BYTES, le=sizes.MAX_FILE_BYTES)
        ] = sizes.MAX_FILE_BYTES,
    ) -> None:
        summary = clean_metadata({} if summary_metadata is None else summary_metadata)
        if not isinstance(summary, dict):
            raise MetadataError(f"summary metadata must be a dict, got {type(summary_metadata).__name__}")
        if name is not None or max_file_bytes is not sizes.MAX_FILE_BYTES:
            limits.refuse_options(name, max_file_bytes)
        self._header = encode_header(summary, max_file_bytes)
        self._max_file_bytes = max_file_bytes
        self._most_frame_bytes = sizes.MAX_FILE_BYTES - len(self._header) - 1024  # for pixels and metadata
        self._prefix = "" if name is None else f"{name}_"
        self._pool = FilePool(sizes.MAX_OPEN_FILES)
        self._index_file: OpenFile | None = None
        self._file: OpenFile | None = None  # the file that is being written
        self._file_names: list[str] = []
        self._unsynced: list[int] = []  # complete files that have not been synced to disk yet
        self._names_synced = False
        self._end = self._index_end = 0
        self._started = 0  # the offset up to which the system was asked to begin writing the file to disk
        self._last_next_at = -1  # the position at which the last IFD stores the offset of the next IFD
        self._layouts: dict[tuple[tuple[int, ...], str], FrameLayout] = {}
        self._layout_list: list[FrameLayout] = []  # the layouts by number
        self._places = bytearray()
        self._axis_types: dict[str, type] = {}
        self._helper = HelperThread()
        super().__init__(Path(directory) / name if name else directory, summary_metadata=summary)
        try:
            if self.continues:
                self._continue()
            else:
                self._index_file = OpenFile(self._path_of(INDEX_NAME), NEW)
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
        """Create a storage with a dataset at exactly this path."""
        assert path is not None  # the kernel gives every persistent backend a path
        return cls(path, None, **options)

    @classmethod
    def resume(cls, path: str | os.PathLike[str], /, **options: Any) -> "NDTiffStorage":
        """Open a dataset in order to store the missing frames."""
        return _ContinuedStorage(path, None, **options)

    @classmethod
    def can_open(cls, path: str | os.PathLike[str]) -> bool:
        return is_ndtiff(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        """Open a dataset for reading. ``ndstorage`` reads version 2; this package reads everything else."""
        return open_ndtiff(path)

    @classmethod
    def recover_in_place(
        cls, path: str | os.PathLike[str], lost: Collection[DataCoordinates], notes: Any = None, /
    ) -> None:
        """Repair the index and the files. Lost frames are removed from the index; the old index is kept."""
        recover_in_place(os.fspath(path), lost, notes or {})

    @classmethod
    def check_plan(
        cls, layouts: Iterable[PlannedLayout], coordinates: Iterable[CoordinatesLike], /, **_: Any
    ) -> None:
        """Refuse planned frames that NDTiff cannot store."""
        limits.refuse_plan(layouts, coordinates)

    def claimed_files(self) -> tuple[str, ...]:
        """Return patterns that match only the files with this dataset's prefix."""
        prefix = self._prefix.replace("{", "{{").replace("}", "}}")
        return (*OTHER_FILES, f"{prefix}NDTiffStack.tif", f"{prefix}NDTiffStack_{{number}}.tif")

    # -- writing ---------------------------------------------------------------------------------

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: Any) -> _Checked:
        np.empty(sizes.LEAST_FREE_BYTES, np.uint8)  # a MemoryError here is better than a crash in orjson
        layout = self._layouts.get((data.shape, data.dtype.char))
        if layout is None:
            limits.refuse_shape(data.shape, data.dtype)
        positions = coordinates.__dict__
        axes = orjson.dumps(positions)
        if len(axes) > sizes.MAX_TEXT_BYTES:
            limits.refuse_text(axes)
        are_axes_known = True
        known_type = self._axis_types.get
        for axis, value in positions.items():
            value_type = type(value)
            if value_type is not known_type(axis):
                are_axes_known = False
            if value_type is int and not -INT32 <= value < INT32:
                limits.refuse_position(axis, value)
        if not are_axes_known:
            limits.refuse_axes(positions, self._axis_types)
        encoded = encode_json(metadata)
        size = len(encoded)
        if size < METADATA_PADDING:
            encoded = encoded.ljust(METADATA_PADDING)
        elif size > sizes.MAX_METADATA_BYTES:
            raise MetadataError(
                f"the metadata takes up {size} bytes as JSON, but this backend's readers accept at most "
                f"{sizes.MAX_METADATA_BYTES}"
            )
        if data.nbytes + size > self._most_frame_bytes:
            raise UnsupportedDataError(
                f"a frame of {data.nbytes} bytes with {size} bytes of metadata does not fit into a TIFF "
                "file of 4 GiB"
            )
        return encoded, axes, axes_checksum(positions), are_axes_known, layout

    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        self.write_frames(number, [(coordinates, data, checked)])

    def write_frames(self, number: int, batch: list[tuple[DataCoordinates, npt.NDArray[Any], Any]]) -> int:
        """Write as many frames from the start of a batch as fit in the current file and one gathered write.

        Parameters
        ----------
        number : int
            The number of the first frame.
        batch : list of (coordinates, data, checked)
            At least one frame, each with the same arguments as for :meth:`write_frame`.

        Returns
        -------
        int
            The number of frames that were written completely. No part of the other frames was written.
        """
        parts: list[Any] = []
        entries: list[bytes] = []
        places: list[bytes] = []
        begin = end = self._end
        next_at = -1
        layout: FrameLayout | None = None
        new_types: dict[str, type] = {}
        for coordinates, data, (metadata, axes, axes_crc, are_axes_known, layout) in batch:
            if not are_axes_known and not self._are_axes_known(coordinates):
                if parts:
                    break  # a new axis becomes known only when its first frame is written
                new_types = limits.refuse_axes(coordinates.__dict__, self._axis_types)
            if layout is None:
                layout = self._layout_of(data)
            metadata_bytes = len(metadata)
            size = layout.ifd_bytes + layout.pixel_bytes + metadata_bytes
            if end + size + 2 > self._max_file_bytes and end > len(self._header):
                if parts:
                    break
                self._end_file()
                self._begin_file()
                begin = end = self._end
            elif parts and (
                end + size - begin > sizes.BATCH_BYTES or layout.pixel_bytes >= sizes.SHARED_WRITE_BYTES
            ):
                break
            pixels: Any = np.ascontiguousarray(data, layout.dtype)
            at = end + layout.ifd_bytes
            entry = layout.index_entry(axes, self._name_in_entries, at, metadata_bytes)
            entries.append(entry)
            file = len(self._file_names) - 1
            places.append(PLACE.pack(file, layout.number, at, metadata_bytes, axes_crc, len(entry)))
            next_at = end + layout.next_at
            running = (
                self._helper.begin(crc32c.crc32c, pixels, axes_crc)
                if layout.pixel_bytes >= sizes.SHARED_WRITE_BYTES
                else None
            )
            if running is not None:
                self._write_large(end, layout, pixels, metadata, axes_crc, running)
                end += size + (size & 1)
                break
            pixels_crc = crc32c.crc32c(pixels, axes_crc)
            parts.append(layout.ifd(end, metadata_bytes, pixels_crc, crc32c.crc32c(metadata, axes_crc)))
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
        if new_types:
            self._axis_types.update(new_types)
        # These assignments contain no call, so an interrupt cannot separate them.
        self._places += place
        self._end = end
        self._index_end = index_end
        self._last_next_at = next_at
        if end - self._started >= sizes.EARLY_BYTES:
            if layout is not None and layout.pixel_bytes < sizes.SMALL_FRAME_BYTES:
                self._helper.begin_writing(self._file, self._started, end - self._started)
            self._started = end
        return len(entries)

    def _write_large(
        self,
        offset: int,
        layout: FrameLayout,
        pixels: Any,
        metadata: bytes,
        axes_crc: int,
        running: Job[int],
    ) -> None:
        """Write pixels and metadata while the helper thread computes the checksum. Then write the IFD."""
        assert self._file is not None
        padding = b" " * ((layout.ifd_bytes + layout.pixel_bytes + len(metadata)) & 1)
        try:
            write_at(self._file.descriptor, (pixels, metadata, padding), offset + layout.ifd_bytes)
        finally:
            pixels_crc = running.end()
        ifd = layout.ifd(offset, len(metadata), pixels_crc, crc32c.crc32c(metadata, axes_crc))
        write_at(self._file.descriptor, (ifd,), offset, layout.ifd_bytes)

    def _are_axes_known(self, coordinates: DataCoordinates) -> bool:
        types = {axis: type(value) for axis, value in coordinates.__dict__.items()}
        return types.items() <= self._axis_types.items()

    def _layout_of(self, data: npt.NDArray[Any]) -> FrameLayout:
        key = data.shape, data.dtype.char
        layout = self._layouts.get(key)
        if layout is None:
            layout = FrameLayout.of(data.shape, data.dtype, len(self._layout_list))
            self._layout_list.append(layout)
            self._layouts[key] = layout
        return layout

    # -- files -----------------------------------------------------------------------------------

    def _begin_file(self) -> None:
        number = len(self._file_names)
        name = f"{self._prefix}NDTiffStack{f'_{number}' if number else ''}.tif"
        path = self._path_of(name)
        file = OpenFile(path, NEW)
        try:
            end = write_at(file.descriptor, [self._header], 0, len(self._header))
        except BaseException:
            # Without this, a stored exception's traceback would keep the file open and its disk space in use.
            del file
            os.unlink(path)  # the file contains no frames
            raise
        name_in_entries = text_in_entry(name.encode())
        self._pool.hold(number, file)
        if number:
            self._unsynced.append(number - 1)
        # These assignments contain no call, so an interrupt leaves either the old or the new file.
        self._file_names = [*self._file_names, name]
        self._name_in_entries = name_in_entries
        self._end, self._last_next_at, self._names_synced = end, -1, False
        self._started = 0
        self._file = file

    def _continue(self) -> None:
        """Open the files of an existing dataset, to continue after its last frame."""
        assert self.path is not None
        found = find_end(self.path)
        if found.header != self._header:
            raise OptionError(f"{self.path} was created with other options and cannot be continued")
        self.begin_continuing()
        remove_later_files(self.path, found.files)
        self._index_file = OpenFile(self._path_of(INDEX_NAME), os.O_RDWR)
        last = len(found.files) - 1
        self._file = self._pool.hold(last, OpenFile(self._path_of(found.files[last]), os.O_RDWR))
        self._file_names, self._unsynced = found.files, list(range(last))
        self._name_in_entries = text_in_entry(found.files[last].encode())
        self._end = self._started = found.file_end
        self._index_end, self._last_next_at = found.index_end, found.last_next_at
        write_at(self._file.descriptor, [found.file_end.to_bytes(4, "little")], found.last_next_at)
        self._layout_list, self._places, self._axis_types = found.layouts, found.places, found.axis_types
        self._layouts = {(layout.shape, layout.dtype.char): layout for layout in found.layouts}
        self.continue_from(found.frames)

    def _end_file(self) -> None:
        """Mark the last IFD in the file as the end of the chain, and cut off any failed frame after it."""
        if self._file is not None:
            os.ftruncate(self._file.descriptor, self._end)
            at = self._last_next_at if self._last_next_at >= 0 else FIRST_IFD_AT
            write_at(self._file.descriptor, [bytes(4)], at)

    def sync_frames(self) -> None:
        assert self.path is not None
        while self._unsynced:
            number = self._unsynced[0]
            os.fsync(self._pool.open(number, self._path_of(self._file_names[number])).descriptor)
            del self._unsynced[0]
        # The index is synced after the files to which it refers. A local variable that holds a file would
        # stay alive in a stored traceback, so only the descriptors are kept.
        for descriptor in [file.descriptor for file in (self._file, self._index_file) if file is not None]:
            os.fsync(descriptor)
        if not self._names_synced:
            sync_folder(self.path)
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
        """Return checksums of the index and the header, so that readers can detect changes."""
        if self._index_file is None:  # the storage failed before creating the index
            return {}
        facts = {"index_crc32c": checksum(self._index_file)}
        assert self.path is not None
        name = first_tiff(self.path)
        if name is not None:
            # The header refers to the first frame, so the header changes if that frame is removed again.
            facts["header_crc32c"] = header_checksum_of(os.path.join(self.path, name))
        return facts

    def _take_back(self, count: int) -> None:
        """Remove the last frame if it was written but an interrupt prevented ``put`` from returning."""
        while len(self._places) > count * PLACE.size:
            place = len(self._places) - PLACE.size
            file, number, at, _, _, entry_bytes = PLACE.unpack_from(self._places, place)
            del self._places[place:]
            self._index_end -= entry_bytes
            self._end = at - self._layout_list[number].ifd_bytes
            self._last_next_at = -1
            if place:
                before, number, at, *_ = PLACE.unpack_from(self._places, place - PLACE.size)
                if before == file:
                    layout = self._layout_list[number]
                    self._last_next_at = at - layout.ifd_bytes + layout.next_at

    def release(self) -> None:
        self._helper.end()
        self._pool.release()
        self._file = self._index_file = None


class _ContinuedStorage(NDTiffStorage):
    __doc__ = NDTiffStorage.__doc__
    continues = True
