"""Looks at the structure of NDTiff: headers, the chain of directories, what the index says of both.

A file that is opened here may hold anything: no more is read of it than the index names frames, and
nothing is believed that leads out of the file.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from exengine.base_classes import read_at
from exengine.errors import DatasetDamagedError
from exengine_ndstorage.ndtiff import format as layout
from exengine_ndstorage.ndtiff.files import READ, OpenFile
from exengine_ndstorage.ndtiff.index_table import FrameTable

MOST_SENTENCES = 50
"""How many faults are told; the others are counted."""

BACKUP_NAME = layout.INDEX_NAME + ".before-recovery"
"""An index from which a recovery took entries; what only it names may lie in the files."""

_STACK = re.compile(r"(?:.*_)?NDTiffStack(?:_\d+)?\.tif")
_STRIP_OFFSETS = 273
_MOST_TAGS = 1000  # of a directory; NDTiff has about 15

ReadHeader = Callable[[str], object]


def check_structure(
    folder: str, table: FrameTable, read_header: ReadHeader, *, ours: bool, finished: bool
) -> list[str]:
    """Return what is not as it must be in the files of a dataset, a sentence each.

    Parameters
    ----------
    folder : str
        With the index and the files.
    table : FrameTable
        The index.
    read_header : callable
        Reads the header of a file; raises ``DatasetDamagedError``.
    ours : bool
        Whether ExEngine wrote the dataset: then each directory is known to the byte.
    finished : bool
        Whether nothing may follow the last frame.
    """
    found: list[str] = []
    count = 0
    for sentence in _faults(folder, table, read_header, ours, finished):
        count += 1
        if count <= MOST_SENTENCES:
            found.append(sentence)
    if count > MOST_SENTENCES:
        found.append(f"there are {count - MOST_SENTENCES} more such faults")
    return found


def _faults(
    folder: str, table: FrameTable, read_header: ReadHeader, ours: bool, finished: bool
) -> Iterator[str]:
    if ours and table.superseded:
        yield f"{len(table.superseded)} entries of the index have the coordinates of a later one"
    if ours and finished:
        yield from _own_empty_files(folder, table)
    for number, frames in table.in_file_order(table.superseded if ours else ()).items():
        name = table.files[number]
        path = os.path.join(folder, name)
        if os.path.basename(name) != name or "\0" in name or name in ("", ".", ".."):
            yield f"the index names {name!r:.200}, which is no file of the dataset"
            continue
        try:
            file = OpenFile(path, READ)
            read_header(path)
        except FileNotFoundError:
            yield f"the index names the file {name!r}, which is not there"
            continue
        except (OSError, DatasetDamagedError) as error:
            yield f"{name}: {getattr(error, 'strerror', None) or error}"
            continue
        if ours:
            yield from _own_directories(file, name, table, frames, finished, folder)
        else:
            yield from _foreign_directories(file, name, table, frames)


def _own_empty_files(folder: str, table: FrameTable) -> Iterator[str]:
    """Look at the files that hold no frame: such a file ends with its header."""
    if os.path.lexists(os.path.join(folder, BACKUP_NAME)):
        return  # their frames were taken out of the index
    named = set(table.files)
    for name in sorted(os.listdir(folder)):
        if not is_stack(name) or name in named:
            continue
        try:
            file = OpenFile(os.path.join(folder, name), READ)
        except OSError as error:
            yield f"{name}: {error}"
            continue
        if read_link(file, layout.FIRST_IFD_AT) != 0:
            yield f"{name}: the index names no frame in it, its header does"


def is_stack(name: str) -> bool:
    """Return whether a file is named like one that holds frames."""
    return _STACK.fullmatch(name) is not None


def _own_directories(
    file: OpenFile,
    name: str,
    table: FrameTable,
    frames: npt.NDArray[np.intp],
    finished: bool,
    folder: str,
) -> Iterator[str]:
    """Compare every directory with the one that is written for such a frame."""
    link, said_by = layout.FIRST_IFD_AT, "the header"
    end = 0
    for directory in directories(table, frames):
        where = f"{name}: the directory of the frame at {table.coordinates(directory.number)}"
        if directory.begin < end:
            yield f"{where} lies in the frame before it"
            continue
        if read_link(file, link) != directory.begin:
            yield f"{name}: {said_by} does not lead to the frame at {table.coordinates(directory.number)}"
        if directory.differs(read_at(file.descriptor, directory.form.ifd_bytes, directory.begin)):
            yield f"{where} is not as it was written"
        link, said_by = directory.begin + directory.form.next_at, "the directory before"
        end = directory.end
    if not finished:
        return
    if read_link(file, link) != 0:
        yield f"{name}: the chain of directories does not end with the last frame"
    size = os.fstat(file.descriptor).st_size
    if end and size > end and not os.path.lexists(os.path.join(folder, BACKUP_NAME)):
        yield f"{name}: {size - end} bytes lie behind the last frame"


class Directory:
    """Where the directory of a frame of ours lies, and what it must hold.

    Attributes
    ----------
    number : int
        Of the frame, in the index.
    form : FrameLayout
    begin, end : int
        Of the frame in its file: directory, pixels and metadata, with the byte that makes it even.
    """

    __slots__ = ("_metadata_bytes", "begin", "end", "form", "number")

    def __init__(self, number: int, form: layout.FrameLayout, pixels_at: int, metadata_bytes: int) -> None:
        self.number = number
        self.form = form
        self.begin = pixels_at - form.ifd_bytes
        self._metadata_bytes = metadata_bytes
        end = pixels_at + form.pixel_bytes + metadata_bytes
        self.end = end + (end & 1)

    def as_written(self, like: bytes, following: int) -> bytes:
        """Return the directory as it must be, with the checksums of the one that is there."""
        checksums = self.form.checksums(like)
        assert checksums is not None  # else the frame could not be read
        whole = bytearray(self.form.ifd(self.begin, self._metadata_bytes, *checksums))
        struct.pack_into("<I", whole, self.form.next_at, following)
        return bytes(whole)

    def differs(self, there: bytes) -> bool:
        """Return whether a directory is not as it must be, whatever follows it."""
        form = self.form
        if len(there) != form.ifd_bytes or form.checksums(there) is None:
            return True
        (following,) = struct.unpack_from("<I", there, form.next_at)
        return self.as_written(there, following) != there


def directories(table: FrameTable, frames: npt.NDArray[np.intp]) -> Iterator[Directory]:
    """Yield the directories of frames of ours; frames that can be none are passed over."""
    forms: dict[int, layout.FrameLayout | None] = {}
    for number in frames.tolist():
        _, form, pixels_at, metadata_at, metadata_bytes = table.place(number)
        if form not in forms:
            forms[form] = _layout(*table.forms[form])
        known = forms[form]
        if (
            known is not None
            and pixels_at >= known.ifd_bytes
            and metadata_at == pixels_at + known.pixel_bytes
            and metadata_at + metadata_bytes <= layout.MAX_FILE_BYTES
        ):
            yield Directory(number, known, pixels_at, metadata_bytes)


def _layout(width: int, height: int, pixel_type: int, *compressions: int) -> layout.FrameLayout | None:
    known = pixel_type in (layout.GRAY8, layout.GRAY16, layout.RGB8)
    if not known or any(compressions) or not 0 < width * height * 3 < layout.MAX_FILE_BYTES * 3:
        return None
    try:
        return layout.FrameLayout(height, width, pixel_type)
    except struct.error:  # larger than the tags hold
        return None


def read_link(file: OpenFile, at: int) -> int:
    """Return the offset that stands at a place of a file; -1 behind its end."""
    data = read_at(file.descriptor, 4, at)
    return int(struct.unpack("<I", data)[0]) if len(data) == 4 else -1


def _foreign_directories(
    file: OpenFile, name: str, table: FrameTable, frames: npt.NDArray[np.intp]
) -> Iterator[str]:
    """Follow the chain of directories: it must come to the pixels of every frame, and end."""
    wanted = {table.place(number)[2]: number for number in frames.tolist()}
    at = read_link(file, layout.FIRST_IFD_AT)
    for _ in range(len(wanted) + 1):
        if at <= 0:
            break
        strip, at = _read_directory(file, at)
        wanted.pop(strip, None)
    if at < 0:
        yield f"{name}: the chain of directories leads out of the file"
    elif at > 0:
        yield f"{name}: the chain of directories goes on behind the frames of the index"
    for number in wanted.values():
        yield f"{name}: no directory leads to the frame at {table.coordinates(number)}"


def _read_directory(file: OpenFile, at: int) -> tuple[int, int]:
    """Return where the pixels of a directory are and where the next directory is; -1 where it is none."""
    head = read_at(file.descriptor, 2, at)
    tags = struct.unpack("<H", head)[0] if len(head) == 2 else 0
    if not 0 < tags <= _MOST_TAGS:
        return -1, -1
    data = read_at(file.descriptor, 12 * tags + 4, at + 2)
    if len(data) != 12 * tags + 4:
        return -1, -1
    strip = -1
    for place in range(0, 12 * tags, 12):
        tag, _, _, value = struct.unpack_from("<HHII", data, place)
        if tag == _STRIP_OFFSETS:
            strip = value
    return strip, int(struct.unpack_from("<I", data, 12 * tags)[0])
