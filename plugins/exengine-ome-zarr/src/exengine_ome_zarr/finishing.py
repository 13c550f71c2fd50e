"""Finishes a dataset: corrects indices, sets the lengths of shards and arrays, and consolidates metadata.

The dataset can be read after every step, and any step can be repeated if the process is killed. The
journal lists the frames that exist.
"""

import os
from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

from exengine.base_classes import NEW, DatasetStatus, OpenFile, read_at, read_manifest, write_at
from exengine.errors import DatasetDamagedError, StorageStateError
from exengine_ome_zarr.format import documents, sizes
from exengine_ome_zarr.format.files import DOCUMENT, OPEN, place_document, temporary
from exengine_ome_zarr.format.frame_files import FrameFiles, read_index
from exengine_ome_zarr.format.images import Images, Method
from exengine_ome_zarr.format.journal import Record, read_records
from exengine_ome_zarr.format.layout import EMPTY, Indices, Layout, decode_index, encode_index
from exengine_ome_zarr.format.shards import part_path, rename_into_place
from exengine_ome_zarr.parquet import write_table
from exengine_ome_zarr.pyramid import build_shard, level_factors, level_layout, read_frames
from exengine_ome_zarr.table import FrameTable

Columns = npt.NDArray[np.void]
_COLUMNS = ("image", "t", "c", "z", "part", "offset", "length", "stored_crc", "pixels_crc")


def finish_dataset(
    folder: str, layout: Layout, images: Images, journal: OpenFile, elsewhere: Collection[str] = ()
) -> None:
    """Finish the shards and documents of a dataset, and sync them.

    Parameters
    ----------
    folder : str
    layout : Layout
    images : Images
    journal : OpenFile
        The journal, which contains the records of all frames and nothing else.
    elsewhere : collection of str
        The finished shards that are no longer in the folder.
    """
    frames = _read_columns(journal)
    for image, shard, rows in by_shard(layout, frames):
        name = f"{images.array_path(image)}/{layout.shard_name(*shard)}"
        path = os.path.join(folder, name)
        if name in elsewhere:
            continue
        if layout.is_compressed:
            _publish(folder, path, layout, frames[rows])
        else:
            _trim(folder, path, layout, frames[rows])
    if images.method is not None:
        _build_levels(folder, layout, images, frames, images.method)
    place_documents(folder, layout, images, _lengths(frames))
    write_table(folder)  # last, so that the dataset already has its final form if the disk is full
    _remove_leftovers(folder)


def add_pyramid(path: str | os.PathLike[str], method: Method = "mean") -> None:
    """Add resolution levels to a finished dataset, or replace them.

    Parameters
    ----------
    path : path
        The folder of a dataset that this backend wrote.
    method : {'mean', 'median', 'decimate'}
        How each level is computed from the previous level; see :func:`exengine_ome_zarr.pyramid.halve`.

    Raises
    ------
    StorageStateError
        If the dataset is not finished.
    """
    folder = os.path.abspath(path)
    manifest = read_manifest(folder)
    table = FrameTable(folder)
    if manifest is None or manifest.status is DatasetStatus.INCOMPLETE:
        raise StorageStateError(f"{folder} is not finished; finish it or run exengine recover first")
    if table.layout is None or table.journal is None:
        return
    images = Images(folder, table.layout, table.facts, table.labels)
    images.windows = table.windows
    frames = _read_columns(table.journal)
    _build_levels(folder, table.layout, images, frames, method, again=True)
    place_documents(folder, table.layout, images, _lengths(frames))


def _lengths(frames: Columns) -> dict[int, Indices]:
    """Return the lengths of each image along t, c and z."""
    found = {}
    for number in np.unique(frames["image"]).tolist():
        t, c, z = (int(frames[dim][frames["image"] == number].max()) + 1 for dim in ("t", "c", "z"))
        found[number] = (t, c, z)
    return found


def _build_levels(
    folder: str, layout: Layout, images: Images, frames: Columns, method: Method, *, again: bool = False
) -> None:
    """Write the shards of the resolution levels; replace existing shards only if ``again`` is true."""
    factors = level_factors(layout)
    files = FrameFiles(folder, layout, images.array_path)
    for image, shard, rows in by_shard(layout, frames):
        if len(factors) > 1:
            names = [
                f"{images.level_path(image, n)}/{layout.shard_name(*shard)}" for n in range(len(factors))
            ]
            if again or not all(os.path.exists(os.path.join(folder, each)) for each in names):
                build_shard(folder, layout, method, names, read_frames(files, _records(frames[rows])))
    files.release()
    images.levels = factors


def _records(frames: Columns) -> Iterator[Record]:
    """Yield the journal records of frames, without their metadata."""
    for image, t, c, z, part, offset, length, stored_crc, pixels_crc in frames.tolist():
        yield (0, image, t, c, z, part, offset, length, stored_crc, 0, 0, 0, pixels_crc)


def _read_columns(journal: OpenFile) -> Columns:
    """Return the locations of all frames."""
    pieces = []
    first = 0
    while len(records := read_records(journal.descriptor, first)):
        pieces.append(records[list(_COLUMNS)].copy())
        first += len(records)
    if not pieces:
        return np.zeros(0, [(name, "<u8") for name in _COLUMNS])
    packed = np.dtype([(name, "<u8" if name == "offset" else "<u4") for name in _COLUMNS])
    return np.concatenate([piece.astype(packed) for piece in pieces])


def by_shard(
    layout: Layout, frames: Columns
) -> Iterator[tuple[int, tuple[int, int, int], npt.NDArray[np.intp]]]:
    """For each shard, yield its image, its indices, and the rows of its frames."""
    if not len(frames):
        return
    keys = np.stack(
        [frames["image"].astype(np.int64)]
        + [frames[dim].astype(np.int64) // size for dim, size in zip("tcz", layout.shard, strict=True)]
    )
    order = np.lexsort(keys[::-1])
    ordered = keys[:, order]
    changes = np.flatnonzero((ordered[:, 1:] != ordered[:, :-1]).any(axis=0)) + 1
    for rows in np.split(order, changes):
        image, t, c, z = (int(value) for value in keys[:, rows[0]])
        yield image, (t, c, z), rows


def chunk_numbers(layout: Layout, frames: Columns) -> npt.NDArray[np.int64]:
    """For each frame, return the number of its first chunk in the shard, ``(frames,)`` int64."""
    t, c, z = (
        frames[dim].astype(np.int64) % shard // chunk
        for dim, shard, chunk in zip("tcz", layout.shard, layout.chunk, strict=True)
    )
    _, along_c, along_z = layout.chunks_along
    return np.asarray(((t * along_c + c) * along_z + z) * layout.tiles, np.int64)


def _trim(folder: str, path: str, layout: Layout, frames: Columns) -> None:
    """In a shard's index, mark unwritten chunks as missing. Shorten the shard if it is not full."""
    first = chunk_numbers(layout, frames)
    written = np.zeros(layout.chunks_in_shard, bool)
    written[(first[:, None] + np.arange(layout.tiles)).reshape(-1)] = True
    file = OpenFile(path, os.O_RDWR)
    size = layout.tile_bytes * layout.frames_per_chunk
    # If an earlier attempt has copied the shard, its chunks have moved.
    old = read_index(file, layout)
    slots = decode_index(layout.complete_index) if old is None else old
    assert slots is not None
    entries = np.where(written[:, None], slots, np.uint64(EMPTY))
    if (entries[written] == EMPTY).any():
        raise DatasetDamagedError(f"the index of {path} does not list all frames of the shard")
    end = int(entries[written, 0].max()) + size
    holes = end - int(written.sum()) * size
    if holes > sizes.COPY_BYTES and holes > end * sizes.COPY_SHARE:
        _copy(folder, path, file, entries)
        return
    index = encode_index(entries)
    old_at = os.fstat(file.descriptor).st_size - len(index)
    if old is not None and end + len(index) > old_at:
        # The new index would overlap the old one. Both have the same length, so the new index can replace the
        # old one with a single write.
        end = old_at
    if old_at == end and read_at(file.descriptor, len(index), end) == index:
        return
    write_at(file.descriptor, (index,), end, len(index))
    os.fsync(file.descriptor)  # sync before the old index is removed
    os.ftruncate(file.descriptor, end + len(index))
    os.fsync(file.descriptor)


def _copy(folder: str, path: str, file: OpenFile, entries: npt.NDArray[np.uint64]) -> None:
    """Replace a shard with a copy that has no holes between its chunks."""
    chunks = {number: (file, int(offset), int(length)) for number, (offset, length) in _present(entries)}
    _write_shard(folder, path, chunks, entries)


def _present(entries: npt.NDArray[np.uint64]) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
    for number in np.flatnonzero(entries[:, 0] != EMPTY).tolist():
        yield number, entries[number]


def _write_shard(
    folder: str,
    path: str,
    chunks: dict[int, tuple[OpenFile, int, int]],
    entries: npt.NDArray[np.uint64],
) -> None:
    """Write a new shard from chunks in other files, and rename it into place."""
    new = temporary(folder)
    target, at = OpenFile(new, NEW), 0
    placed = np.full(entries.shape, EMPTY, np.uint64)
    try:
        for number, (file, offset, length) in chunks.items():
            done = 0
            while done < length:
                text = read_at(file.descriptor, min(sizes.COPY_BYTES, length - done), offset + done)
                if not text:
                    raise OSError(f"{path} is too short to contain its frames")
                write_at(target.descriptor, (text,), at + done, len(text))
                done += len(text)
            placed[number] = at, length
            at += length
        index = encode_index(placed)
        write_at(target.descriptor, (index,), at, len(index))
        os.fsync(target.descriptor)
    except BaseException:
        os.unlink(new)
        raise
    rename_into_place(new, path)


def _publish(folder: str, path: str, layout: Layout, frames: Columns) -> None:
    """Combine the parts of a compressed shard into the shard."""
    numbers = [int(part) for part in np.unique(frames["part"])]
    parts = {number: part_path(folder, number) for number in numbers}
    opened = {number: OpenFile(part, os.O_RDWR) for number, part in parts.items() if os.path.exists(part)}
    if not opened:
        return  # the shard is already published
    first = chunk_numbers(layout, frames)
    entries = np.full((layout.chunks_in_shard, 2), EMPTY, np.uint64)
    chunks: dict[int, tuple[OpenFile, int, int]] = {}
    published = OpenFile(path, os.O_RDONLY) if os.path.exists(path) else None
    old = read_index(published, layout) if published is not None else None
    for row, number in enumerate(first.tolist()):
        file = opened.get(int(frames["part"][row]))
        if file is None:
            if published is not None and old is not None:
                for tile in range(layout.tiles):
                    offset, length = (int(value) for value in old[number + tile])
                    if offset != EMPTY:
                        chunks[number + tile] = (published, offset, length)
            continue
        at, whole = int(frames["offset"][row]), int(frames["length"][row])
        lengths = [whole]
        if layout.tiles > 1:
            lengths = np.frombuffer(read_at(file.descriptor, 4 * layout.tiles, at), "<u4").tolist()
            at += 4 * layout.tiles
        for tile, length in enumerate(lengths):
            chunks[number + tile] = (file, at, length)
            at += length
    if len(opened) == 1 and published is None:
        (part,) = opened
        file = opened[part]
        for number, (_, offset, length) in chunks.items():
            entries[number] = offset, length
        end = max(int(offset + length) for _, offset, length in chunks.values())
        index = encode_index(entries)
        write_at(file.descriptor, (index,), end, len(index))
        os.ftruncate(file.descriptor, end + len(index))
        os.fsync(file.descriptor)
        rename_into_place(parts[part], path)
        return
    _write_shard(folder, path, dict(sorted(chunks.items())), entries)
    for part in opened:
        os.unlink(parts[part])


def _remove_leftovers(folder: str) -> None:
    """Remove files that an interrupted write left behind."""
    place = os.path.join(folder, OPEN)
    for name in os.listdir(place):
        path = os.path.join(place, name)
        if os.path.isfile(path) and not os.path.islink(path):
            os.unlink(path)


def place_documents(
    folder: str, layout: Layout, images: Images, lengths: dict[int, tuple[int, int, int]]
) -> None:
    """Write the final documents. The root document is written last, and contains a copy of all others."""
    for image in list(images.extents):
        if image not in lengths:
            del images.extents[image]
    images.extents.update(lengths)
    found: dict[str, dict[str, object]] = {}
    for image, extents in sorted(lengths.items()):
        path = images.path(image)
        for number in range(len(images.levels)):
            shape = level_layout(layout, number) if number else layout
            found[f"{images.level_path(image, number)}/{DOCUMENT}"] = documents.array(shape, extents)
        found[f"{path}/{DOCUMENT}" if path else DOCUMENT] = images.image_document(image)
    if "p" in layout.roles:
        found.update(images.root_documents())
    root = found.pop(DOCUMENT, documents.group())
    consolidated = {
        name.removesuffix(f"/{DOCUMENT}"): {**document, "attributes": document.get("attributes", {})}
        for name, document in sorted(found.items())
    }
    root = {
        **root,
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": consolidated},
    }
    for name, document in found.items():
        place_document(folder, name, documents.encode(document), durable=True)
    images.place_ome_xml(durable=True)
    place_document(folder, DOCUMENT, documents.encode(root), durable=True)
