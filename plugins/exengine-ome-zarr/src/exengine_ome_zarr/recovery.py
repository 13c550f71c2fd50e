"""Repairs a dataset whose writer died: removes lost frames from the journal, and finishes the files."""

import os
from collections.abc import Collection, Mapping
from typing import Any

import crc32c
import orjson

from exengine.base_classes import NEW, DataCoordinates, OpenFile, read_at, sync_folder, write_at
from exengine_ome_zarr.finishing import finish_dataset
from exengine_ome_zarr.format import files, sizes
from exengine_ome_zarr.format.frame_files import encode_json, frame_line
from exengine_ome_zarr.format.images import Images
from exengine_ome_zarr.format.journal import HEADER, RECORD_BYTES, decode_record, encode_record
from exengine_ome_zarr.table import FrameTable

_BACKUP = f"{files.JOURNAL}.before-recovery"


def recover_in_place(
    path: str,
    lost: Collection[DataCoordinates],
    notes: Mapping[DataCoordinates, Any],
    elsewhere: Collection[str] = (),
) -> None:
    """Finish a dataset after its writer has died. If this function is killed, it can be called again.

    Parameters
    ----------
    path : str
        The folder of the dataset.
    lost : collection of DataCoordinates
        The frames that cannot be read. They are removed from the journal; the old journal is kept.
    notes : mapping of DataCoordinates to JSON value
        New metadata for the frames whose own metadata cannot be read.
    elsewhere : collection of str
        The finished shards that are not in the folder.
    """
    os.makedirs(os.path.join(path, files.OPEN), exist_ok=True)
    table = FrameTable(path)
    if table.journal is None or table.layout is None:
        return
    missing = {number for number in (table.find(frame.__dict__) for frame in lost) if number is not None}
    numbers = {table.find(frame.__dict__): (frame, note) for frame, note in notes.items()}
    noted = {number: place for number, place in numbers.items() if number is not None}
    lines = _append_lines(path, noted)
    journal = _rewrite(path, table.journal, len(table), missing, lines)
    layout_file = OpenFile(os.path.join(path, files.LAYOUT), os.O_RDWR)
    os.ftruncate(layout_file.descriptor, table.layout_bytes)
    os.fsync(layout_file.descriptor)
    images = Images(path, table.layout, table.facts, table.labels)
    images.windows = table.windows
    finish_dataset(path, table.layout, images, journal, elsewhere)
    for folder in files.folders_in(path):
        sync_folder(folder)


def _append_lines(
    path: str, notes: Mapping[int, tuple[DataCoordinates, Any]]
) -> dict[int, tuple[int, int, int]]:
    """Append new lines of metadata; return the offset, length and checksum of each."""
    file = OpenFile(os.path.join(path, files.FRAMES), os.O_RDWR)
    end = os.fstat(file.descriptor).st_size
    places = {}
    for number, (frame, note) in notes.items():
        line = frame_line(orjson.dumps(frame.__dict__), encode_json(note))
        places[number] = (end, len(line), crc32c.crc32c(line))
        end = write_at(file.descriptor, (line,), end)
    os.fsync(file.descriptor)
    return places


def _rewrite(
    path: str, journal: OpenFile, frames: int, missing: set[int], lines: Mapping[int, tuple[int, int, int]]
) -> OpenFile:
    """Return the journal without lost frames or reserved space, and with the new positions of the lines."""
    name = os.path.join(path, files.JOURNAL)
    if not missing and not lines:
        file = OpenFile(name, os.O_RDWR)
        os.ftruncate(file.descriptor, (frames + 1) * RECORD_BYTES)
        os.fsync(file.descriptor)
        return file
    backup, new = os.path.join(path, _BACKUP), files.temporary(path)
    if not os.path.lexists(backup):
        os.link(name, backup)
    file = OpenFile(new, NEW)
    end, kept = write_at(file.descriptor, (HEADER,), 0), 0
    for begin in range(0, frames, sizes.READ_RECORDS):
        count = min(sizes.READ_RECORDS, frames - begin)
        text = read_at(journal.descriptor, count * RECORD_BYTES, (begin + 1) * RECORD_BYTES)
        pieces = []
        for number in range(begin, begin + count):
            at = (number - begin) * RECORD_BYTES
            record = decode_record(text[at : at + RECORD_BYTES], number)
            if number not in missing and record is not None:
                line = lines.get(number, record[9:12])
                pieces.append(encode_record(kept, *record[1:9], *line, record[12]))
                kept += 1
        end = write_at(file.descriptor, (b"".join(pieces),), end)
    os.fsync(file.descriptor)
    os.replace(new, name)
    sync_folder(os.path.dirname(name))
    return file
