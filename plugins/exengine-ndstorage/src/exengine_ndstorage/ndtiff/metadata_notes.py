"""Replaces the damaged metadata of frames in a recovery in place, so that their pixels are kept.

A frame's metadata lie between its pixels and the next frame, so only this room can be used. The bytes that
are overwritten are saved first, in a file next to the index.
"""

import itertools
import json
import os
import struct
from collections.abc import Mapping
from typing import NamedTuple

import crc32c

from exengine.base_classes import (
    READ,
    DataCoordinates,
    JsonValue,
    OpenFile,
    open_regular,
    read_at,
    sync_folder,
    write_at,
)
from exengine_ndstorage.ndtiff.files import replacing
from exengine_ndstorage.ndtiff.format import (
    DAMAGED_METADATA_NAME,
    METADATA_CRC_AT,
    METADATA_PADDING,
)
from exengine_ndstorage.ndtiff.frame_bytes import axes_checksum, encode_json
from exengine_ndstorage.ndtiff.index_table import FrameTable
from exengine_ndstorage.ndtiff.sizes import MAX_FILE_BYTES, MAX_METADATA_BYTES
from exengine_ndstorage.ndtiff.structure import directories


class Replacement(NamedTuple):
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


def replacements(table: FrameTable, notes: Mapping[DataCoordinates, JsonValue]) -> dict[int, Replacement]:
    """Return the new metadata of frames, by the numbers of the frames.

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
            found[number] = Replacement(coordinates, _fitted(note, size, room), size)
    return found


def _fitted(note: JsonValue, size: int, room: int) -> bytes:
    """Return a note that fits into a frame, as long as the old metadata if these have a possible length."""
    possible = METADATA_PADDING <= size <= min(room, MAX_METADATA_BYTES)
    data = encode_json(note)
    if len(data) > (size if possible else room):
        data = b"{}"
    return data.ljust(size if possible else METADATA_PADDING)


def save_damaged(folder: str, table: FrameTable, replaced: Mapping[int, Replacement]) -> None:
    """Save the bytes that will be overwritten in a file next to the index.

    Each line is a JSON object with the coordinates and the metadata, in which each byte is one character.
    """
    lines = []
    for number, (coordinates, data, old_bytes) in replaced.items():
        name, _, _, at, _ = table.place(number)
        file = OpenFile(os.path.join(folder, table.files[name]), READ)
        old = read_at(file.descriptor, max(len(data), min(old_bytes, MAX_METADATA_BYTES)), at)
        line = {"coordinates": coordinates.coordinate_dict, "metadata": old.decode("latin-1")}
        if not old.startswith(data):  # a recovery that was killed has saved and overwritten them
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


def write_replacements(folder: str, table: FrameTable, replaced: Mapping[int, Replacement]) -> None:
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
        assert number is not None  # the new index has this frame
        name, _, _, at, _ = table.place(number)
        (directory,) = directories(table, [number])
        file = OpenFile(os.path.join(folder, table.files[name]), os.O_RDWR)
        write_at(file.descriptor, [data], at)
        checksum = crc32c.crc32c(data, axes_checksum(coordinates.__dict__))
        crc_at = directory.begin + directory.layout.checksums_at + METADATA_CRC_AT
        write_at(file.descriptor, [struct.pack("<I", checksum)], crc_at)
