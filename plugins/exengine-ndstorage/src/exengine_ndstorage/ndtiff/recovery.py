"""Repairs an NDTiff dataset in place, so that it looks as if it had been finished after its last frame.

Recovery first replaces the index and keeps a copy of the old index in the same folder. It then makes the
files consistent with the new index. Each step checks the files and does only the work that remains, so if a
recovery is killed, the next call continues it.

Recovery removes only data that a writer had begun to write when it died and that the index does not list. If
the index itself was damaged, or if frames are removed from it, all bytes of the files are kept so that the
data can be rescued by hand later. In this case, the old index is also kept. Damaged metadata are replaced
with a note, and their bytes are saved next to the index. The metadata of a frame lie between its pixels and
the next frame, so a note must fit into the same space.
"""

import itertools
import json
import os
import struct
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import crc32c
import numpy as np

from exengine.base_classes import (
    READ,
    DataCoordinates,
    FilePatterns,
    JsonValue,
    OpenFile,
    open_regular,
    read_at,
    read_manifest,
    sync_folder,
    write_at,
)
from exengine.errors import DatasetDamagedError
from exengine_ndstorage.ndtiff.files import replacing
from exengine_ndstorage.ndtiff.format import (
    BACKUP_NAME,
    DAMAGED_METADATA_NAME,
    FIRST_IFD_AT,
    INDEX_NAME,
    MAJOR_VERSION,
    METADATA_CRC_AT,
    METADATA_PADDING,
    header,
)
from exengine_ndstorage.ndtiff.frame_bytes import axes_checksum, encode_json
from exengine_ndstorage.ndtiff.header import SUMMARY_AT, SUMMARY_BYTES_AT, read_header
from exengine_ndstorage.ndtiff.index_entries import prove_chain, with_metadata_length
from exengine_ndstorage.ndtiff.index_table import FrameTable
from exengine_ndstorage.ndtiff.sizes import CHUNK_BYTES, MAX_FILE_BYTES, MAX_METADATA_BYTES, MAX_TORN_BYTES
from exengine_ndstorage.ndtiff.structure import Directory, directories, is_stack, read_link

_LEAST_HEADER = SUMMARY_AT + 2


def recover_in_place(
    path: str, lost: Collection[DataCoordinates], notes: Mapping[DataCoordinates, JsonValue]
) -> None:
    """Remove lost frames from the index of a dataset, and make the files consistent with the index.

    Parameters
    ----------
    path : str
        The folder of a dataset that this backend wrote. The caller must hold the dataset's lock.
    lost : collection of DataCoordinates
        The frames whose pixels cannot be read.
    notes : mapping of DataCoordinates to JSON value
        The new metadata of the frames whose own metadata cannot be read.

    Raises
    ------
    OSError
        If a file cannot be written. The next call continues the recovery.
    """
    index = os.path.join(path, INDEX_NAME)
    table, whole_bytes = _read_index(index)
    dropped = set(table.superseded)
    for coordinates in lost:
        number = table.find(coordinates.__dict__)
        if number is not None:
            dropped.add(number)
    replaced = _replacements(table, notes)
    if replaced:
        _save_damaged(path, table, replaced)
    lengths = {number: len(new.data) for number, new in replaced.items() if len(new.data) != new.old_bytes}
    if dropped or lengths or whole_bytes != _size(index):
        _replace_index(path, whole_bytes, dropped, lengths)
        table, _ = _read_index(index)
        dropped = set()
    _write_replacements(path, table, replaced)
    kept = {table.files[number]: frames for number, frames in table.in_file_order(dropped).items()}
    headers = _Headers(path, [*kept])
    for name in _stacks(path, kept):
        frames = [*directories(table, kept.get(name, np.zeros(0, np.intp)))]
        file = _RepairedFile(path, name, frames)
        if file.is_an_attempt and kept:
            os.unlink(os.path.join(path, name))
        else:
            file.repair(headers)
    sync_folder(path)


# -- the index -----------------------------------------------------------------------------------


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.lexists(path) else -1


def _read_index(path: str) -> tuple[FrameTable, int]:
    """Return the frames in an index, and the total size of their entries in bytes."""
    table = FrameTable()
    done = 0
    for chunk in _chunks(path):
        done += table.feed(chunk)
        if table.problem:
            break
    return table, done


def _chunks(path: str) -> Iterator[bytes]:
    """Yield an index in pieces, each of which begins at the start of an entry."""
    if not os.path.lexists(path):
        return
    file = OpenFile(path, READ)
    at = 0
    while chunk := read_at(file.descriptor, CHUNK_BYTES, at):
        yield chunk
        _, ends = prove_chain(chunk)
        if not len(ends):
            return
        at += int(ends[-1])


def _replace_index(
    folder: str, whole_bytes: int, dropped: Collection[int], lengths: Mapping[int, int]
) -> None:
    """Write a new index without dropped entries and without a torn last entry. Keep the old index.

    ``lengths`` maps the number of a frame to the new length of its metadata.
    """
    index = os.path.join(folder, INDEX_NAME)
    _keep_index(folder)
    with replacing(index) as descriptor:
        at = number = done = 0
        for chunk in _chunks(index):
            starts, ends = prove_chain(chunk)
            parts = []
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                if done + end > whole_bytes:
                    break
                if number not in dropped:
                    parts.append(chunk[start:end])
                    if number in lengths:
                        parts[-1] = with_metadata_length(parts[-1], lengths[number])
                number += 1
            if parts:
                at = write_at(descriptor, [b"".join(parts)], at)
            done += int(ends[-1]) if len(ends) else 0
    sync_folder(folder)


def _keep_index(folder: str) -> None:
    """Copy the index, unless an earlier recovery has already copied the original index."""
    index = os.path.join(folder, INDEX_NAME)
    backup = os.path.join(folder, BACKUP_NAME)
    if os.path.lexists(backup) or not os.path.lexists(index):
        return
    with replacing(backup) as descriptor:
        file = OpenFile(index, READ)
        at = 0
        while data := read_at(file.descriptor, CHUNK_BYTES, at):
            at = write_at(descriptor, [data], at)
    sync_folder(folder)


# -- damaged metadata -----------------------------------------------------------------------------------


class _Replacement(NamedTuple):
    """The new metadata of a frame.

    Attributes
    ----------
    coordinates : DataCoordinates
    data : bytes
        The metadata as JSON, padded with spaces.
    old_bytes : int
        The length of the old metadata according to the index.
    """

    coordinates: DataCoordinates
    data: bytes
    old_bytes: int


def _replacements(table: FrameTable, notes: Mapping[DataCoordinates, JsonValue]) -> dict[int, _Replacement]:
    """Return a mapping from frame number to the new metadata of the frame.

    Parameters
    ----------
    table : FrameTable
        The index.
    notes : mapping
        See :meth:`exengine.base_classes.DataStorage.recover_in_place`.
    """
    following: dict[int, int] = {}
    for frames in table.in_file_order().values() if notes else ():
        every = [*directories(table, frames)]
        following.update((frame.number, after.begin) for frame, after in itertools.pairwise(every))
    found = {}
    for coordinates, note in notes.items():
        number = table.find(coordinates.__dict__)
        if number is not None:
            _, _, _, at, size = table.place(number)
            room = following.get(number, MAX_FILE_BYTES) - at
            found[number] = _Replacement(coordinates, _fitted(note, size, room), size)
    return found


def _fitted(note: JsonValue, size: int, room: int) -> bytes:
    """Return a note that fits into ``room`` bytes, padded to ``size`` (the old length) if possible."""
    possible = METADATA_PADDING <= size <= min(room, MAX_METADATA_BYTES)
    data = encode_json(note)
    if len(data) > (size if possible else room):
        data = b"{}"
    return data.ljust(size if possible else METADATA_PADDING)


def _save_damaged(folder: str, table: FrameTable, replaced: Mapping[int, _Replacement]) -> None:
    """Before the damaged bytes are overwritten, copy them to a file next to the index.

    Each line is a JSON object with the coordinates and the old metadata. Each byte of the metadata is encoded
    as one character.
    """
    lines = []
    for number, (coordinates, data, old_bytes) in replaced.items():
        name, _, _, at, _ = table.place(number)
        file = OpenFile(os.path.join(folder, table.files[name]), READ)
        old = read_at(file.descriptor, max(len(data), min(old_bytes, MAX_METADATA_BYTES)), at)
        line = {"coordinates": coordinates.coordinate_dict, "metadata": old.decode("latin-1")}
        if not old.startswith(data):  # otherwise, an earlier recovery has already saved them
            lines.append(json.dumps(line).encode() + b"\n")
    path = os.path.join(folder, DAMAGED_METADATA_NAME)
    saved = _lines_of(path)
    new = [line for line in lines if line not in saved]
    if new:
        with replacing(path) as descriptor:
            write_at(descriptor, [b"".join(saved), b"".join(new)], 0)
        sync_folder(folder)


def _lines_of(path: str) -> list[bytes]:
    if not os.path.lexists(path):
        return []
    with os.fdopen(open_regular(path), "rb") as file:
        return file.readlines()


def _write_replacements(folder: str, table: FrameTable, replaced: Mapping[int, _Replacement]) -> None:
    """Write the new metadata and their checksums. The caller syncs the files.

    Parameters
    ----------
    folder : str
    table : FrameTable
        The index with the new lengths.
    replaced : mapping
    """
    for coordinates, data, _ in replaced.values():
        number = table.find(coordinates.__dict__)
        assert number is not None  # the new index lists this frame
        name, _, _, at, _ = table.place(number)
        (directory,) = directories(table, [number])
        file = OpenFile(os.path.join(folder, table.files[name]), os.O_RDWR)
        write_at(file.descriptor, [data], at)
        checksum = crc32c.crc32c(data, axes_checksum(coordinates.__dict__))
        crc_at = directory.begin + directory.layout.checksums_at + METADATA_CRC_AT
        write_at(file.descriptor, [struct.pack("<I", checksum)], crc_at)


# -- the files -----------------------------------------------------------------------------------


def _stacks(folder: str, named: Collection[str]) -> list[str]:
    """Return the names of the files with frames, as listed in the index or the manifest."""
    names = set(os.listdir(folder))
    return sorted(
        names & ({*named} | {name for name in names if is_stack(name) and _is_own(folder, name, named)})
    )


def _is_own(folder: str, name: str, named: Collection[str]) -> bool:
    """Return whether a file that the index does not list belongs to this dataset."""
    manifest = read_manifest(folder)
    if manifest is not None and manifest.files is not None:
        return FilePatterns(manifest.files).match_file(name)
    own = {other.rpartition("NDTiffStack")[0] for other in named} or {"", f"{os.path.basename(folder)}_"}
    return name.rpartition("NDTiffStack")[0] in own


class _Headers:
    """Headers for files that have lost theirs. They are copied from another file or created without metadata.

    Parameters
    ----------
    folder : str
    names : list of str
        The names of the files. They all have the same header, apart from its last bytes.
    """

    def __init__(self, folder: str, names: list[str]) -> None:
        self._good: dict[int, bytes] = {}
        for name in names:
            path = os.path.join(folder, name)
            if _has_header(path):
                file = OpenFile(path, READ)
                summary_bytes = read_at(file.descriptor, 4, SUMMARY_BYTES_AT)
                size = SUMMARY_AT + int.from_bytes(summary_bytes, "little")
                size += size & 1
                self._good[size] = read_at(file.descriptor, size, 0)
                return

    def of(self, size: int) -> bytes:
        """Return a header of ``size`` bytes, to which the first directory can be appended."""
        good = self._good.get(size)
        if good is None:
            good = header(b"{}" + b" " * (size - _LEAST_HEADER))
        return good


def _has_header(path: str) -> bool:
    try:
        return read_header(path)[0] == MAJOR_VERSION
    except (DatasetDamagedError, OSError):
        return False


class _RepairedFile(OpenFile):
    """A file to repair.

    The header must refer to the first frame, and each frame to the next frame. The last frame ends the chain.

    Parameters
    ----------
    folder, name : str
    frames : list of Directory
        The frames to keep.
    """

    __slots__ = ("_folder", "_frames", "_path")

    def __init__(self, folder: str, name: str, frames: list[Directory]) -> None:
        self._folder = folder
        self._path = os.path.join(folder, name)
        self._frames = frames
        super().__init__(self._path, os.O_RDWR)

    @property
    def is_an_attempt(self) -> bool:
        """Whether the writer died before it had written the complete header."""
        small = self._size() <= MAX_TORN_BYTES
        return small and not self._frames and not self._index_was_changed() and not _has_header(self._path)

    def repair(self, headers: "_Headers") -> None:
        """Replace all bytes that differ from the expected bytes."""
        first = self._frames[0].begin if self._frames else 0
        if not _has_header(self._path) and (first >= _LEAST_HEADER or not self._frames):
            self._put(headers.of(first or _LEAST_HEADER), 0)
        if read_link(self, FIRST_IFD_AT) != first:
            self._put(first.to_bytes(4, "little"), FIRST_IFD_AT)
        links = [*(directory.begin for directory in self._frames[1:]), 0]
        for directory, link in zip(self._frames, links, strict=False):
            found = read_at(self.descriptor, directory.layout.ifd_bytes, directory.begin)
            expected = directory.expected(found, link)
            if found != expected:
                self._put(expected, directory.begin)
        self._cut()
        os.fsync(self.descriptor)

    def _cut(self) -> None:
        """Cut off any data that the writer had begun to write when it died."""
        if self._index_was_changed():
            return
        end = max((directory.end for directory in self._frames), default=0)
        if not end:
            summary_bytes = int.from_bytes(read_at(self.descriptor, 4, SUMMARY_BYTES_AT), "little")
            end = SUMMARY_AT + summary_bytes + (summary_bytes & 1)
        torn = self._size() - end
        largest = max((directory.end - directory.begin for directory in self._frames), default=0)
        if 0 < torn <= max(MAX_TORN_BYTES, 2 * largest):
            os.ftruncate(self.descriptor, end)
        elif torn > 0:
            _keep_index(self._folder)

    def _index_was_changed(self) -> bool:
        return os.path.lexists(os.path.join(self._folder, BACKUP_NAME))

    def _size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def _put(self, data: bytes, at: int) -> None:
        write_at(self.descriptor, [data], at)
