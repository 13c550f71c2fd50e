"""Builds a finished HDF5 file from frames, and compares the file with the frames.

The file begins with a user block of 512 bytes, which HDF5 leaves to applications. This block states where
ExEngine's records are in the file. As in a spool, each frame has a record with the location of the chunk,
checksums, coordinates and metadata. ExEngine reads the frames with these records alone, and does not depend
on HDF5's own index, which has no checksums. For other programs, the coordinates, the metadata and the
checksums are also stored in HDF5 datasets.
"""

import contextlib
import io
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import crc32c
import h5py
import numpy as np

from exengine.base_classes import (
    JOURNAL_HEADER,
    FrameToBuild,
    JsonValue,
    SourcePlan,
    encode_record,
    read_at,
    write_at,
)
from exengine_hdf5.chunks import LEVEL, IncompressibleError, encode
from exengine_hdf5.layout import Arrangement, Image
from exengine_hdf5.sink import Sink
from exengine_hdf5.user_block import USER_BLOCK_BYTES, user_block

_AHEAD = 8
_TEXT = h5py.string_dtype()


def empty_file() -> bytes:
    """Return the content of a new file. It has no frames, only a note for users of other programs."""
    memory = io.BytesIO()
    with h5py.File(memory, "w", userblock_size=USER_BLOCK_BYTES) as file:
        file.attrs["exengine_note"] = (
            "This dataset is not finished. Its frames are in other files in this folder. Their names begin "
            "with the name of this file and .exengine. If the writer has ended, run: "
            "exengine recover --in-place"
        )
    content = memory.getvalue()
    return user_block(0, 0) + content[USER_BLOCK_BYTES:]


def build(
    path: str,
    frames: Sequence[FrameToBuild],
    *,
    summary: JsonValue,
    manifest: bytes,
    plan: SourcePlan,
    compression: str,
) -> None:
    """Write, compare and sync a file; see ``SpooledStorage.build_file``."""
    arrangement = Arrangement(frames)
    with contextlib.closing(Sink(path)) as sink:
        content, offset = _write(sink, frames, arrangement, summary, manifest, plan, compression)
        sink.check()
        write_at(sink.descriptor, [content], offset)
        write_at(sink.descriptor, [user_block(offset, len(content))], 0)
        _compare(path, sink.descriptor, frames, arrangement, content, offset)
        os.fsync(sink.descriptor)


def _write(
    sink: Sink,
    frames: Sequence[FrameToBuild],
    arrangement: Arrangement,
    summary: JsonValue,
    manifest: bytes,
    plan: SourcePlan,
    compression: str,
) -> tuple[bytes, int]:
    """Write everything with the HDF5 library; return the records and their offset in the file."""
    with h5py.File(sink, "w", userblock_size=USER_BLOCK_BYTES) as file:
        file.attrs["exengine_hdf5"] = 1
        datasets = [_create(file, image, plan, compression) for image in arrangement.images]
        texts = _write_chunks(sink, datasets, frames, arrangement, compression)
        _write_tables(file, frames, arrangement)
        group = file.create_group("exengine")
        group.create_dataset("manifest", data=manifest.decode(), dtype=_TEXT)
        group.create_dataset("summary_metadata", data=json.dumps(summary), dtype=_TEXT)
        head = json.dumps({"summary": summary, "manifest": json.loads(manifest)}).encode()
        size = len(JOURNAL_HEADER) + len(encode_record(0, 0, 0, 0, head, crc32c.crc32c))
        size += sum(len(encode_record(0, 0, 0, 0, text, crc32c.crc32c)) for text in texts)
        # The records contain the offsets of the chunks, so they are written when the offsets are known.
        records = group.create_dataset("records", (size,), np.uint8, track_times=False)
        records[...] = 0
        file.flush()
        missing, missing_of_chunk = _missing_offsets(sink, file)
        offset = records.id.get_offset() + missing
        parts = [JOURNAL_HEADER, encode_record(0, 0, 0, 0, head, crc32c.crc32c)]
        for number, (frame, text) in enumerate(zip(frames, texts, strict=True)):
            dataset, index = arrangement.places[number]
            zeros = (0,) * len(frame.shape)
            chunk = datasets[dataset].id.get_chunk_info_by_coord((*index, *zeros))
            place = chunk.byte_offset + missing_of_chunk
            parts.append(encode_record(number + 1, place, chunk.size, frame.crc, text, crc32c.crc32c))
    return b"".join(parts), offset


def _missing_offsets(sink: Sink, file: Any) -> tuple[int, int]:
    """Return the differences between actual and reported offsets, for datasets without and with chunks.

    Some versions of the HDF5 library include the user block in the offsets that they report, and others do
    not. The difference is measured with two datasets of known content. Frames would not be suitable, because
    a frame of zeros looks like the empty space before it.
    """
    mark = np.frombuffer(b"exengine-hdf5-offset-mark", np.uint8)
    group = file.create_group("exengine/marks")
    whole = group.create_dataset("whole", data=mark, track_times=False)
    chunked = group.create_dataset("chunked", mark.shape, mark.dtype, chunks=mark.shape, track_times=False)
    chunked.id.write_direct_chunk((0,), mark.tobytes())
    file.flush()
    try:
        return (
            _missing_at(sink, whole.id.get_offset(), mark.tobytes()),
            _missing_at(sink, chunked.id.get_chunk_info_by_coord((0,)).byte_offset, mark.tobytes()),
        )
    finally:
        del file["exengine/marks"]


def _missing_at(sink: Sink, offset: int, content: bytes) -> int:
    """Return how many bytes after the reported ``offset`` the file actually contains ``content``."""
    sink.check()
    for missing in (0, USER_BLOCK_BYTES):
        if read_at(sink.descriptor, len(content), offset + missing) == content:
            return missing
    raise OSError("this version of the HDF5 library reports offsets that do not match the file")


# -- the datasets ----------------------------------------------------------------------------------


def _create(file: Any, image: Image, plan: SourcePlan, compression: str) -> Any:
    filters: dict[str, Any] = {}
    if compression != "none":
        filters = {"compression": compression, "shuffle": True}
        if compression == "gzip":
            filters["compression_opts"] = LEVEL
    lengths = image.lengths
    dataset = file.create_dataset(
        image.name,
        (*lengths, *image.shape),
        np.dtype(image.dtype).newbyteorder("<"),
        chunks=(*(1 for _ in lengths), *image.shape),
        fillvalue=None,
        track_times=False,
        **filters,
    )
    within = ("y", "x", "rgb") if len(image.shape) == 3 else ("y", "x")
    names = (*image.axes, *(within if len(image.shape) in (2, 3) else ()))
    for number, name in enumerate(names):
        dataset.dims[number].label = _plain(name)
    group = file.require_group("axes" if image.name == "image" else f"axes_{image.name.rpartition('_')[2]}")
    for number, axis in enumerate(image.axes):
        scale = group.create_dataset(_name_of(axis, number), data=_positions(image.positions[axis]))
        scale.make_scale(_plain(axis))
        dataset.dims[number].attach_scale(scale)
    if plan.pixel_size_um is not None:
        dataset.attrs["pixel_size_um"] = plan.pixel_size_um
        dataset.attrs["element_size_um"] = (plan.z_step_um or 1.0, *plan.pixel_size_um)
    return dataset


def _plain(text: str) -> str:
    return text.replace("\0", "\\0")  # HDF5 strings end at the first NUL


def _name_of(axis: str, number: int) -> str:
    is_plain = axis and not set(axis) & set("/\0") and axis.strip(".")
    return axis if is_plain else f"axis_{number}"


def _positions(positions: list[int | str]) -> Any:
    """Return positions as integers or strings."""
    if all(isinstance(position, int) and -(2**63) <= position < 2**63 for position in positions):
        return np.array(positions, np.int64)
    return np.array([_plain(str(position)) for position in positions], _TEXT)


def _write_chunks(
    sink: Sink,
    datasets: list[Any],
    frames: Sequence[FrameToBuild],
    arrangement: Arrangement,
    compression: str,
) -> list[bytes]:
    """Write the pixels, and return the text of each frame's record."""
    texts = []
    for number, (frame, (chunk, mask)) in enumerate(zip(frames, _encoded(frames, compression), strict=True)):
        dataset, index = arrangement.places[number]
        offset = (*index, *(0 for _ in frame.shape))
        datasets[dataset].id.write_direct_chunk(offset, chunk, mask)
        sink.check()
        text: dict[str, Any] = {"c": frame.coordinates.coordinate_dict, "s": frame.shape, "d": frame.dtype}
        if compression != "none":
            text |= {"z": "shuffle" if mask else compression, "k": crc32c.crc32c(chunk)}
        text |= {"n": arrangement.images[dataset].name, "i": index, "m": frame.metadata()}
        texts.append(json.dumps(text, separators=(",", ":"), ensure_ascii=False).encode())
    return texts


def _encoded(frames: Sequence[FrameToBuild], compression: str) -> Iterator[tuple[Any, int]]:
    """Yield the chunk and the filter mask of each frame, while other threads compress the next frames."""

    def work(frame: FrameToBuild) -> tuple[Any, int]:
        pixels = frame.pixels()
        try:
            return encode(pixels, compression), 0
        except IncompressibleError as error:
            return error.args[0], 0b10

    if compression != "gzip":  # h5py compresses in one thread only
        yield from map(work, frames)
        return
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _AHEAD), "exengine-hdf5-gzip") as pool:
        rest = iter(frames)
        waiting = [pool.submit(work, frame) for frame in itertools.islice(rest, _AHEAD)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(work, frame) for frame in itertools.islice(rest, 1)]


def _write_tables(file: Any, frames: Sequence[FrameToBuild], arrangement: Arrangement) -> None:
    """Write a table of the frames in order of arrival, for programs that read HDF5."""
    group = file.create_group("frames")
    count = len(frames)
    coordinates = [json.dumps(frame.coordinates.coordinate_dict) for frame in frames]
    metadata = [json.dumps(frame.metadata()) for frame in frames]
    for name, texts in (("coordinates", coordinates), ("metadata", metadata)):
        group.create_dataset(name, data=np.array(texts, object), dtype=_TEXT, shape=(count,))
    names = np.array([arrangement.images[number].name for number, _ in arrangement.places], object)
    group.create_dataset("dataset", data=names, dtype=_TEXT, shape=(count,))
    most = max((len(index) for _, index in arrangement.places), default=0)
    indices = np.full((count, most), -1, np.int64)
    for number, (_, index) in enumerate(arrangement.places):
        indices[number, : len(index)] = index
    group.create_dataset("index", data=indices)
    group.create_dataset("crc32c", data=np.array([frame.crc for frame in frames], np.uint32))


# -- the comparison --------------------------------------------------------------------------------


def _compare(
    path: str,
    descriptor: int,
    frames: Sequence[FrameToBuild],
    arrangement: Arrangement,
    content: bytes,
    offset: int,
) -> None:
    """Raise an OSError unless the HDF5 library finds every frame and the records in the file."""
    if read_at(descriptor, len(content), offset) != content:
        raise OSError(f"the content of {path} differs from the data that was written")
    with h5py.File(path, "r") as file:
        if file["exengine/records"][...].tobytes() != content:
            raise OSError(f"the HDF5 library does not find the records in {path} at the expected offset")
        datasets = [file[image.name] for image in arrangement.images]
        for number, frame in enumerate(frames):
            dataset, index = arrangement.places[number]
            found = np.ascontiguousarray(datasets[dataset][index])
            if crc32c.crc32c(found.reshape(-1).view(np.uint8).data) != frame.crc:
                raise OSError(f"{path} differs from the spool in frame {number}")
