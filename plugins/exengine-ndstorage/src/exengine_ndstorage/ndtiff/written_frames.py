"""Reads back the frames that a writer has written, and finds them again after a crash.

The index is authoritative: a torn entry at its end, and any data in a TIFF file after the last frame in the
index, belong to frames that were never acknowledged. The next frame overwrites them.
"""

import os
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exengine.base_classes import (
    READ,
    DataCoordinates,
    FilePool,
    HelperThread,
    ManagedStorage,
    OpenFile,
    read_at,
)
from exengine.errors import DatasetDamagedError
from exengine_ndstorage.ndtiff.format import FIRST_IFD_AT, INDEX_NAME, FrameLayout
from exengine_ndstorage.ndtiff.frame_bytes import axes_checksum, decode_metadata, read_pixels
from exengine_ndstorage.ndtiff.index_entries import prove_chain
from exengine_ndstorage.ndtiff.index_table import FrameTable
from exengine_ndstorage.ndtiff.sizes import CHUNK_BYTES
from exengine_ndstorage.ndtiff.structure import directories, is_stack

PLACE = struct.Struct("<6I")
"""The file, layout, pixel offset, metadata length, checksum of the axes, and entry length of a frame."""


class WrittenFrames(ManagedStorage):
    """The part of a storage that reads back the frames it has written."""

    _places: bytearray
    _layout_list: list[FrameLayout]
    _file_names: list[str]
    _pool: FilePool
    _helper: HelperThread

    def _path_of(self, name: str) -> str:
        return os.path.join(self.path or "", name)

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        file, layout, at, *_ = PLACE.unpack_from(self._places, number * PLACE.size)
        # The checksum is not verified here, because this process wrote the frame, and no other process can
        # write to the dataset. Readers of the dataset verify it.
        return read_pixels(
            self._opened(file), at, self._layout_list[layout], self._helper, lambda: self._name(number)
        )

    def read_frame_metadata(self, number: int) -> Any:
        file, layout_number, at, size, axes_crc, _ = PLACE.unpack_from(self._places, number * PLACE.size)
        layout = self._layout_list[layout_number]
        opened = self._opened(file)
        ifd = read_at(opened.descriptor, layout.ifd_bytes, at - layout.ifd_bytes)
        data = read_at(opened.descriptor, size, at + layout.pixel_bytes)
        return decode_metadata(data, size, ifd, layout, axes_crc, lambda: self._name(number))

    def _name(self, number: int) -> str:
        return f"frame {number} of {self.path}"

    def _opened(self, number: int) -> OpenFile:
        return self._pool.get(number) or self._pool.open(number, self._path_of(self._file_names[number]))


class UnfinishedFrames(NamedTuple):
    """The frames of an unfinished dataset, with all information that the writer had in memory.

    Attributes
    ----------
    frames : list of DataCoordinates
        The coordinates of the frames.
    places : bytearray
        A ``PLACE`` for each frame.
    layouts : list of FrameLayout
        The layouts, indexed by number.
    axis_types : dict of str to type
        The type of the positions on each axis.
    files : list of str
        The names of the TIFF files with frames.
    index_end : int
        The total size of the complete index entries, in bytes.
    file_end : int
        The offset just after the last frame in the last file.
    last_next_at : int
        The place in the last file where the last directory stores the offset of the next directory.
    header : bytes
        The header of every file.
    """

    frames: list[DataCoordinates]
    places: bytearray
    layouts: list[FrameLayout]
    axis_types: dict[str, type]
    files: list[str]
    index_end: int
    file_end: int
    last_next_at: int
    header: bytes


def find_end(folder: str) -> UnfinishedFrames:
    """Return the frames of an unfinished dataset that this backend wrote.

    Raises
    ------
    DatasetDamagedError
        If the dataset has no frames, or was written by another program.
    """
    table, sizes, index_end = _read_index(os.path.join(folder, INDEX_NAME))
    found = {each.number: each for each in directories(table, range(len(sizes)))}
    if not len(sizes) or len(found) != len(sizes) or table.superseded:
        raise DatasetDamagedError(f"{folder} contains no frames, or was not written by this backend")
    files = sorted(table.files, key=lambda name: (len(name), name))
    layouts = [
        FrameLayout(height, width, kind, n) for n, (width, height, kind, *_) in enumerate(table.layouts)
    ]
    frames, places = [], bytearray()
    axis_types: dict[str, type] = {}
    for number, coordinates in enumerate(table):
        axes = coordinates.__dict__
        file, layout, at, _, metadata_bytes = table.place(number)
        file = files.index(table.files[file]) if len(files) > 1 else 0
        places += PLACE.pack(file, layout, at, metadata_bytes, axes_checksum(axes), int(sizes[number]))
        axis_types.update((axis, type(position)) for axis, position in axes.items())
        frames.append(coordinates)
    (last,) = (rows[-1] for number, rows in table.in_file_order().items() if table.files[number] == files[-1])
    final = found[int(last)]
    first = OpenFile(os.path.join(folder, files[0]), READ)
    (header_bytes,) = struct.unpack("<I", read_at(first.descriptor, 4, FIRST_IFD_AT))
    return UnfinishedFrames(
        frames=frames,
        places=places,
        layouts=layouts,
        axis_types=axis_types,
        files=files,
        index_end=index_end,
        file_end=final.end,
        last_next_at=final.begin + final.layout.next_at,
        header=read_at(first.descriptor, header_bytes, 0),
    )


def remove_later_files(folder: str, files: list[str]) -> None:
    """Remove the TIFF file that the writer had begun when it died, because the file contains no frames."""
    prefix = files[0].removesuffix("NDTiffStack.tif")
    for name in os.listdir(folder):
        if name.startswith(prefix) and is_stack(name) and name not in files:
            os.unlink(os.path.join(folder, name))


def _read_index(path: str) -> tuple[FrameTable, npt.NDArray[np.int64], int]:
    """Return the frames in an index, the size of each entry and the total size of all entries, in bytes."""
    table = FrameTable()
    file = OpenFile(path, READ)
    sizes = [np.zeros(0, np.int64)]
    end = 0
    while data := read_at(file.descriptor, CHUNK_BYTES, end):
        used = table.feed(data)
        starts, ends = prove_chain(data)
        sizes.append((ends - starts)[ends <= used])
        if not used:
            break
        end += used
    return table, np.concatenate(sizes), end
