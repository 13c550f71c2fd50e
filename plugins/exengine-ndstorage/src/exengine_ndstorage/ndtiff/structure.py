"""Checks the structure of NDTiff files: headers, the chain of directories, and consistency with the index.

A file can contain arbitrary data. The check therefore never reads more directories than the index has frames,
and it does not follow an offset that lies outside the file.
"""

import os
import re
import struct
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from exengine.base_classes import OpenFile, open_packed, packed_names, read_at
from exengine.errors import DatasetDamagedError
from exengine_ndstorage.ndtiff.files import is_file_name
from exengine_ndstorage.ndtiff.format import (
    BACKUP_NAME,
    FIRST_IFD_AT,
    GRAY8,
    GRAY16,
    RGB8,
    EntryLayout,
    FrameLayout,
)
from exengine_ndstorage.ndtiff.header import read_header
from exengine_ndstorage.ndtiff.index_table import FrameTable
from exengine_ndstorage.ndtiff.sizes import MAX_FILE_BYTES, MAX_TAGS

MOST_SENTENCES = 50
"""The maximum number of faults that are listed. Any further faults are only counted."""

_STACK = re.compile(r"(?:.*_)?NDTiffStack(?:_\d+)?\.tif")
_STRIP_OFFSETS = 273


def check_structure(folder: str, table: FrameTable, *, written_here: bool, finished: bool) -> list[str]:
    """Return the faults in a dataset's files, with one sentence for each fault.

    Parameters
    ----------
    folder : str
        The folder that contains the index and the files.
    table : FrameTable
        The index.
    written_here : bool
        Whether this backend wrote the dataset. If so, every byte of each directory is known.
    finished : bool
        Whether each file must end with its last frame.
    """
    found: list[str] = []
    count = 0
    for sentence in _faults(folder, table, written_here=written_here, finished=finished):
        count += 1
        if count <= MOST_SENTENCES:
            found.append(sentence)
    if count > MOST_SENTENCES:
        found.append(f"and more faults of this kind: {count - MOST_SENTENCES}")
    return found


def _faults(folder: str, table: FrameTable, *, written_here: bool, finished: bool) -> Iterator[str]:
    if written_here and table.superseded:
        yield f"index entries with the same coordinates as a later entry: {len(table.superseded)}"
    if written_here and finished:
        yield from _own_empty_files(folder, table)
    for number, frames in table.in_file_order(table.superseded if written_here else ()).items():
        name = table.files[number]
        path = os.path.join(folder, name)
        if not is_file_name(name):
            yield f"the index refers to {name!r:.200}, which is not a file of the dataset"
            continue
        try:
            file = open_packed(path)
            read_header(path)
        except FileNotFoundError:
            yield f"the index refers to the file {name!r}, which does not exist"
            continue
        except (OSError, DatasetDamagedError) as error:
            yield f"{name}: {getattr(error, 'strerror', None) or error}"
            continue
        if written_here:
            yield from _own_directories(file, name, table, frames, finished=finished, folder=folder)
        else:
            yield from _foreign_directories(file, name, table, frames)


def _own_empty_files(folder: str, table: FrameTable) -> Iterator[str]:
    """Check the files without frames. Such a file must end with its header."""
    if BACKUP_NAME in packed_names(folder):
        return  # a recovery has removed the frames of these files from the index
    named = set(table.files)
    for name in sorted(packed_names(folder)):
        if not is_stack(name) or name in named:
            continue
        try:
            file = open_packed(os.path.join(folder, name))
        except OSError as error:
            yield f"{name}: {error}"
            continue
        if not file.size:
            yield f"{name}: the file is empty and has no header"
        elif read_link(file, FIRST_IFD_AT) != 0:
            yield f"{name}: the header refers to a frame, but the index lists no frames in this file"


def is_stack(name: str) -> bool:
    """Return whether a file name belongs to a TIFF file with frames."""
    return _STACK.fullmatch(name) is not None


def _own_directories(
    file: OpenFile,
    name: str,
    table: FrameTable,
    frames: npt.NDArray[np.intp],
    *,
    finished: bool,
    folder: str,
) -> Iterator[str]:
    """Compare every directory with the directory that this backend would write for its frame."""
    link, link_in = FIRST_IFD_AT, "the header"
    end = 0
    for directory in directories(table, frames):
        where = f"{name}: the directory of the frame at {table.coordinates(directory.number)}"
        if directory.begin < end:
            yield f"{where} overlaps the previous frame"
            continue
        if read_link(file, link) != directory.begin:
            yield f"{name}: {link_in} does not refer to the frame at {table.coordinates(directory.number)}"
        if directory.differs(
            read_at(file.descriptor, directory.layout.ifd_bytes, file.start + directory.begin)
        ):
            yield f"{where} differs from the one that was written"
        link, link_in = directory.begin + directory.layout.next_at, "the previous directory"
        end = directory.end
    if not finished:
        return
    if read_link(file, link) != 0:
        yield f"{name}: the chain of directories does not end with the last frame"
    size = file.size
    if end and size > end and BACKUP_NAME not in packed_names(folder):
        yield f"{name}: bytes after the last frame: {size - end}"


class Directory:
    """The location and content of the directory for a frame that this backend wrote.

    Parameters
    ----------
    number : int
        The frame's number in the index.
    layout : FrameLayout
    pixels_at : int
        The offset of the pixels in the file.
    metadata_bytes : int

    Attributes
    ----------
    begin, end : int
        The location of the frame in its file. A frame consists of its directory, pixels and metadata, padded
        to an even length.
    """

    __slots__ = ("_metadata_bytes", "begin", "end", "layout", "number")

    def __init__(self, number: int, layout: FrameLayout, pixels_at: int, metadata_bytes: int) -> None:
        self.number = number
        self.layout = layout
        self.begin = pixels_at - layout.ifd_bytes
        self._metadata_bytes = metadata_bytes
        end = pixels_at + layout.pixel_bytes + metadata_bytes
        self.end = end + (end & 1)

    def expected(self, found: bytes, following: int) -> bytes:
        """Return the expected directory, with the checksums from the directory in the file.

        Parameters
        ----------
        found : bytes
            The directory in the file.
        following : int
            The offset of the next directory.
        """
        checksums = self.layout.checksums(found)
        assert checksums is not None  # the caller passes only directories with checksums
        whole = bytearray(self.layout.ifd(self.begin, self._metadata_bytes, *checksums))
        struct.pack_into("<I", whole, self.layout.next_at, following)
        return bytes(whole)

    def differs(self, found: bytes) -> bool:
        """Return whether a directory differs from the expected one, ignoring the link to the next frame."""
        layout = self.layout
        if len(found) != layout.ifd_bytes or layout.checksums(found) is None:
            return True
        (following,) = struct.unpack_from("<I", found, layout.next_at)
        return self.expected(found, following) != found


def directories(table: FrameTable, frames: Iterable[int]) -> Iterator[Directory]:
    """Yield the directory of each frame, except for frames that this backend cannot have written."""
    layouts: dict[int, FrameLayout | None] = {}
    for frame in map(int, frames):
        _, number, pixels_at, metadata_at, metadata_bytes = table.place(frame)
        if number not in layouts:
            layouts[number] = _layout(table.layouts[number])
        layout = layouts[number]
        if (
            layout is not None
            and pixels_at >= layout.ifd_bytes
            and metadata_at == pixels_at + layout.pixel_bytes
            and metadata_at + metadata_bytes <= MAX_FILE_BYTES
        ):
            yield Directory(frame, layout, pixels_at, metadata_bytes)


def _layout(entry: EntryLayout) -> FrameLayout | None:
    width, height, pixel_type, *compressions = entry
    written = pixel_type in (GRAY8, GRAY16, RGB8) and not any(compressions)
    if not written or not 0 < width * height < MAX_FILE_BYTES:
        return None
    try:
        return FrameLayout(height, width, pixel_type)
    except struct.error:  # the tags cannot store such large values
        return None


def read_link(file: OpenFile, at: int) -> int:
    """Return the offset stored at a position in a file, or -1 if the file ends before this position."""
    data = read_at(file.descriptor, 4, file.start + at)
    return int(struct.unpack("<I", data)[0]) if len(data) == 4 else -1


def _foreign_directories(
    file: OpenFile, name: str, table: FrameTable, frames: npt.NDArray[np.intp]
) -> Iterator[str]:
    """Yield the faults in the chain of directories: it must reach the pixels of every frame, and then end."""
    wanted = {table.place(number)[2]: number for number in frames.tolist()}
    at = read_link(file, FIRST_IFD_AT)
    for _ in range(len(wanted) + 1):
        if at <= 0:
            break
        strip, at = _read_directory(file, at)
        wanted.pop(strip, None)
    if at < 0:
        yield f"{name}: the chain of directories leads outside the file"
    elif at > 0:
        yield f"{name}: the chain of directories continues after the last frame in the index"
    for number in wanted.values():
        yield f"{name}: no directory refers to the frame at {table.coordinates(number)}"


def _read_directory(file: OpenFile, at: int) -> tuple[int, int]:
    """Return the offsets of the pixels and of the next directory; both are -1 for an invalid directory."""
    head = read_at(file.descriptor, 2, file.start + at)
    tags = struct.unpack("<H", head)[0] if len(head) == 2 else 0
    if not 0 < tags <= MAX_TAGS:
        return -1, -1
    data = read_at(file.descriptor, 12 * tags + 4, file.start + at + 2)
    if len(data) != 12 * tags + 4:
        return -1, -1
    strip = -1
    for place in range(0, 12 * tags, 12):
        tag, _, _, value = struct.unpack_from("<HHII", data, place)
        if tag == _STRIP_OFFSETS:
            strip = value
    return strip, int(struct.unpack_from("<I", data, 12 * tags)[0])
