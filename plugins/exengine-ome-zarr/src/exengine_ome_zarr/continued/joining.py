"""Joins the parts of a dataset that was written by several processes, without copying any pixels.

Each shard belongs to one part, and is renamed into the joined dataset. The journal and the metadata are
written anew, in the order of the frames. If the process is killed, every step can be repeated.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import crc32c
import numpy as np
import numpy.typing as npt

from exengine.base_classes import (
    NEW,
    READ,
    DataCoordinates,
    OpenFile,
    SourcePlan,
    UnitOf,
    read_at,
    sync_folder,
    write_at,
)
from exengine.errors import DatasetDamagedError, UnsupportedOperationError
from exengine_ome_zarr.continued.writer import read_all_records
from exengine_ome_zarr.finishing import by_shard
from exengine_ome_zarr.format import files, sizes
from exengine_ome_zarr.format.images import Images
from exengine_ome_zarr.format.journal import HEADER, RECORD, RECORD_BYTES
from exengine_ome_zarr.format.layout import FRAME_DIMENSIONS
from exengine_ome_zarr.format.shards import part_path, rename_into_place
from exengine_ome_zarr.planning import Planning, begin_labels, label_line
from exengine_ome_zarr.table import FrameTable

Records: TypeAlias = npt.NDArray[np.void]


def unit_of(plan: SourcePlan, planning: Planning) -> UnitOf:
    """Return a function that maps a frame to its image and its shard.

    Raises
    ------
    UnsupportedOperationError
        If the place of a frame depends on the frames before it.
    """
    planning.expect(plan)
    assert plan.coordinates is not None
    first = next(iter(plan.coordinates()))
    layout = planning.layout(dict(first), plan.shape or (), np.dtype(plan.dtype))
    declared = planning.declared(layout)
    if declared.keys() != layout.roles.keys():
        raise UnsupportedOperationError(
            "jobs cannot share a dataset in which several axes form one dimension; leave out extra_axes"
        )
    labels, _ = begin_labels(layout, declared)
    dims = [(labels[dim], layout.roles.get(dim, ("",))[0]) for dim in ("p", *FRAME_DIMENSIONS)]

    def unit(frame: DataCoordinates) -> tuple[int, ...]:
        image, t, c, z = ((some.find(frame[axis]) or 0) if axis else 0 for some, axis in dims)
        return (image, *layout.shard_at(t, c, z))

    return unit


def join(folder: str, parts: Sequence[str], owners: npt.NDArray[np.integer[Any]]) -> None:
    """Move the frames of several parts into one dataset; see ``SharedDatasets.join``."""
    counts = np.bincount(owners, minlength=len(parts))
    tables = {number: FrameTable(part) for number, part in enumerate(parts) if counts[number]}
    for number, table in tables.items():
        if table.problem or len(table) != counts[number]:
            raise DatasetDamagedError(
                f"{parts[number]} cannot be joined; frames expected: {counts[number]}, "
                f"frames found: {len(table)}"
                f"{'; ' if table.problem else ''}{table.problem}"
            )
    first = tables[int(owners[0])]
    layout = first.layout
    assert layout is not None  # this part has frames, so it has a layout
    for number, table in tables.items():
        if (table.layout, table.facts) != (layout, first.facts) or _labels(table) != _labels(first):
            raise DatasetDamagedError(f"{parts[number]} has a different layout from the other parts")
    records = np.zeros(len(owners), RECORD)
    for number, table in tables.items():
        records[owners == number] = read_all_records(table)
    sources = {number: OpenFile(os.path.join(parts[number], files.FRAMES), READ) for number in tables}
    images = Images(folder, layout, first.facts, first.labels)
    _move_shards(folder, parts, owners, images, layout.is_compressed, records, layout)
    _place(folder, files.FRAMES, _copy_lines(records, owners, sources))
    _place(folder, files.LAYOUT, iter([_layout_lines(folder, first, tables, owners, records)]))
    _place(folder, files.JOURNAL, _journal(records))
    for path in files.folders_in(folder):
        sync_folder(path)


def _labels(table: FrameTable) -> list[Any]:
    return [dict(table.labels[dim].labelled()) for dim in ("p", *FRAME_DIMENSIONS)]


def _move_shards(
    folder: str,
    parts: Sequence[str],
    owners: npt.NDArray[np.integer[Any]],
    images: Images,
    is_compressed: bool,
    records: Records,
    layout: Any,
) -> None:
    """Move the shards and the unpublished parts of shards into the dataset, and renumber the parts."""
    os.makedirs(os.path.join(folder, files.OPEN), exist_ok=True)
    stride = int(records["part"].max()) + 1 if is_compressed else 0
    for image, shard, rows in by_shard(layout, records):
        (number,) = np.unique(owners[rows]).tolist()
        name = f"{images.array_path(image)}/{layout.shard_name(*shard)}"
        moves = [(os.path.join(parts[number], name), os.path.join(folder, name))]
        if is_compressed:
            (old,) = np.unique(records["part"][rows]).tolist()
            new = old + number * stride
            moves.append((part_path(parts[number], old), part_path(folder, new)))
            records["part"][rows] = new
        moved = [_move(*move) for move in moves]
        if not any(moved):
            raise DatasetDamagedError(f"{parts[number]} lacks the shard {name}")


def _move(source: str, target: str) -> bool:
    """Rename a file unless an earlier attempt has renamed it; return whether ``target`` exists afterwards."""
    if os.path.exists(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        rename_into_place(source, target)
        return True
    return os.path.exists(target)


def _copy_lines(
    records: Records, owners: npt.NDArray[np.integer[Any]], sources: dict[int, OpenFile]
) -> Iterator[bytes]:
    """Yield the line of each frame, and set its new offset in the records."""
    ends = np.cumsum(records["line_bytes"], dtype=np.uint64)
    begins = records["line_at"].tolist()
    lengths = records["line_bytes"].tolist()
    for owner, begin, length in zip(owners.tolist(), begins, lengths, strict=True):
        yield read_at(sources[owner].descriptor, length, begin)
    records["line_at"] = ends - records["line_bytes"]


def _layout_lines(
    folder: str,
    first: FrameTable,
    tables: dict[int, FrameTable],
    owners: npt.NDArray[np.integer[Any]],
    records: Records,
) -> bytes:
    """Return the layout file. The first frame of a channel determines its contrast."""
    assert first.layout is not None
    lines: list[object] = [
        {"summary": FrameTable(folder).summary},
        {"layout": first.layout.to_json(), "facts": first.facts.to_json()},
    ]
    for dim in first.layout.roles:
        for index, key in first.labels[dim].labelled().items():
            lines.append(label_line(dim, index, key))
    channels, rows = np.unique(records["c"], return_index=True)
    for channel, row in sorted(zip(channels.tolist(), rows.tolist(), strict=True), key=lambda pair: pair[1]):
        window = tables[int(owners[row])].windows.get(channel)
        if window is not None:
            lines.append({"window": [channel, *window]})
    return b"".join(map(files.encode_line, lines))


def _journal(records: Records) -> Iterator[bytes]:
    """Yield the header and the records, with their new numbers and checksums."""
    yield HEADER
    records["sequence"] = np.arange(1, len(records) + 1, dtype=np.uint32)
    for begin in range(0, len(records), sizes.READ_RECORDS):
        some = records[begin : begin + sizes.READ_RECORDS]
        text = memoryview(some.tobytes())
        some["crc"] = [
            crc32c.crc32c(text[at : at + RECORD_BYTES - 4]) for at in range(0, len(text), RECORD_BYTES)
        ]
        yield some.tobytes()


def _place(folder: str, name: str, pieces: Iterator[bytes]) -> None:
    """Create or replace a file so that its content survives power loss."""
    new = files.temporary(folder)
    file = OpenFile(new, NEW)
    waiting: list[bytes] = []
    end = size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= sizes.MIB:
            end, waiting, size = write_at(file.descriptor, (b"".join(waiting),), end, size), [], 0
    write_at(file.descriptor, (b"".join(waiting),), end, size)
    os.fsync(file.descriptor)
    os.replace(new, os.path.join(folder, name))
