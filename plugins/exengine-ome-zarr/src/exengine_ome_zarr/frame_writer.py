"""Writes the files of a dataset: pixels, metadata, the journal, and the documents that other programs need.

For each frame, the pixels are written first, then a line with its coordinates and metadata, and then a record
in the journal. The journal is authoritative: a frame belongs to the dataset if its record is valid. Other
programs find the pixels through the indices of the shards.
"""

import os
from collections.abc import Collection, Mapping
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt

from exengine.base_classes import DataCoordinates, HelperThread, sync_folder, write_at
from exengine.errors import DatasetDamagedError
from exengine_ome_zarr import planning
from exengine_ome_zarr.finishing import finish_dataset
from exengine_ome_zarr.format import files, sizes
from exengine_ome_zarr.format.documents import Facts
from exengine_ome_zarr.format.frame_files import FrameFiles, read_frame_line
from exengine_ome_zarr.format.frame_reading import FrameName
from exengine_ome_zarr.format.images import Images
from exengine_ome_zarr.format.journal import JournalWriter, Record, encode_record
from exengine_ome_zarr.format.labels import Labels
from exengine_ome_zarr.format.layout import Indices, Layout
from exengine_ome_zarr.format.pixels import PixelCodec
from exengine_ome_zarr.format.shards import PartFiles, SlotFiles
from exengine_ome_zarr.pyramid import PyramidBuilder, level_factors

Batch = list[tuple[DataCoordinates, npt.NDArray[Any], bytes]]
"""Frames with their coordinates, pixels and lines for the metadata file."""


class FrameWriter:
    """Writes the frames of a new dataset.

    Parameters
    ----------
    folder : str
        The folder of the dataset.
    plan : Planning
        The known facts about the frames. They determine the layout when the first frame arrives.
    layout_bytes : int
        The size of the existing layout file.
    line_bytes, frames : int, optional
        If the dataset is continued: the size of the lines in ``frames.jsonl``, and the number of frames.

    Raises
    ------
    OSError
        If the files cannot be created.
    """

    def __init__(
        self,
        folder: str,
        plan: planning.Planning,
        layout_bytes: int,
        *,
        line_bytes: int | None = None,
        frames: int | None = None,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self.layout: Layout | None = None
        """The layout of the dataset, or None before the first frame."""
        self._slots: SlotFiles | None = None
        self._parts: PartFiles | None = None
        self._pyramid: PyramidBuilder | None = None
        self._helper = HelperThread()
        self._started: dict[str, int] = {}  # the offset in each shard up to which writing has begun
        self._names: dict[tuple[int, int, int, int], str] = {}
        self._grown: dict[int, Indices] = {}
        self._channels: set[int] = set()  # the channels whose contrast has been chosen
        os.makedirs(os.path.join(folder, files.OPEN), exist_ok=True)
        self._lines = files.AppendFile(os.path.join(folder, files.FRAMES), line_bytes)
        self._layout_lines = files.AppendFile(os.path.join(folder, files.LAYOUT), layout_bytes)
        self._journal = JournalWriter(os.path.join(folder, files.JOURNAL), frames)

    def write(self, number: int, batch: Batch) -> int:
        """Write as many frames from the beginning of a batch as one write can store.

        Parameters
        ----------
        number : int
            The number of the first frame.
        batch : list of (coordinates, data, checked)

        Returns
        -------
        int
            The number of frames that were written.
        """
        layout = self.layout
        if layout is None:
            layout = self._begin(*batch[0][:2])
        if self._parts is not None:
            return self._write_compressed(number, layout, self._parts, batch)
        assert self._slots is not None
        (shard_t, shard_c, shard_z), frame_bytes, line_at = layout.shard, layout.frame_bytes, self._lines.end
        arrays: list[npt.NDArray[Any]] = []
        lines: list[bytes] = []
        records: list[bytes] = []
        shard, begin, end = "", 0, 0
        for coordinates, data, line in batch:
            image, t, c, z = self._place(coordinates.__dict__, data)
            key = (image, t // shard_t, c // shard_c, z // shard_z)
            name = self._names.get(key) or self.shard_name(key)
            offset = layout.slot(t, c, z) * frame_bytes
            if not arrays:
                shard, begin, end = name, offset, offset
            elif name != shard or offset != end or end - begin >= sizes.BATCH_BYTES:
                break
            pixels: Any = self._codec.arrange(data)
            arrays.append(pixels)
            end += frame_bytes
            running = (
                self._helper.begin(crc32c.crc32c, pixels) if frame_bytes >= sizes.SHARED_WRITE_BYTES else None
            )
            if running is not None:
                try:
                    self._write_slots(shard, arrays, begin, end)
                finally:
                    pixels_crc = running.end()
                arrays = []
            else:
                pixels_crc = crc32c.crc32c(pixels)
            lines.append(line)
            record = encode_record(
                number, image, t, c, z, 0, offset, frame_bytes, pixels_crc,
                line_at, len(line), crc32c.crc32c(line), pixels_crc,
            )  # fmt: skip
            line_at += len(line)
            records.append(record)
            number += 1
            if running is not None:
                break
        if arrays:
            self._write_slots(shard, arrays, begin, end)
        self._lines.append(lines[0] if len(lines) == 1 else b"".join(lines))
        self._journal.append(records[0] if len(records) == 1 else b"".join(records))
        if self._pyramid is not None:
            self._pyramid.stored(records)
        return len(records)

    def _write_slots(self, name: str, arrays: list[npt.NDArray[Any]], begin: int, end: int) -> None:
        """Write consecutive frames to their slots in a shard."""
        slots = self._slots
        assert slots is not None
        file = slots.get(name)
        if file is None or name not in slots.unsynced:
            file = slots.open(name)
        write_at(file.descriptor, arrays, begin, end - begin)
        if end - self._started.get(name, 0) >= sizes.EARLY_BYTES:
            if arrays[0].nbytes < sizes.SMALL_FRAME_BYTES:
                started = self._started.get(name, 0)
                self._helper.begin_writing(file, started, end - started)
            self._started[name] = end

    def _write_compressed(self, number: int, layout: Layout, parts: PartFiles, batch: Batch) -> int:
        """Append the first frames of a batch to their parts; return the number of frames written."""
        lines: list[bytes] = []
        records: list[bytes] = []
        line_at, bytes_left = self._lines.end, sizes.COMPRESSED_BATCH_BYTES
        for coordinates, data, line in batch:
            arranged: Any = self._codec.arrange(data)
            chunks = self._compress(arranged, layout.tiles)
            image, t, c, z = self._place(coordinates.__dict__, data)
            key = (image, *layout.shard_at(t, c, z))
            name = self._names.get(key) or self.shard_name(key)
            lengths = [len(chunk) for chunk in chunks]
            # The lengths of the chunks precede the chunks, because the journal has room for only one length.
            head = np.asarray(lengths, "<u4").tobytes() if len(chunks) > 1 else b""
            if head:
                chunks.insert(0, head)
            size = len(head) + sum(lengths)
            part = parts.get(name)
            begin = part.end
            is_shared = size >= sizes.SHARED_WRITE_BYTES
            running = self._helper.begin(crc32c.crc32c, arranged) if is_shared else None
            try:
                write_at(part.file.descriptor, chunks, begin, size)
                checksum = 0
                for chunk in chunks:
                    checksum = crc32c.crc32c(chunk, checksum)
            finally:
                pixels_crc = running.end() if running is not None else crc32c.crc32c(arranged)
            records.append(
                encode_record(
                    number, image, t, c, z, part.number, begin, size, checksum,
                    line_at, len(line), crc32c.crc32c(line), pixels_crc,
                )
            )  # fmt: skip
            full = self._frames_in_shard(image, t, c, z)
            parts.added(name, part, layout.chunk_number(t, c, z), begin + len(head), lengths, full)
            if part.end - part.started >= sizes.EARLY_BYTES:
                self._helper.begin_writing(part.file, part.started, part.end - part.started)
                part.started = part.end
            lines.append(line)
            line_at += len(line)
            number += 1
            bytes_left -= size
            if bytes_left < 0:
                break
        self._lines.append(b"".join(lines))
        self._journal.append(b"".join(records))
        if self._pyramid is not None:
            self._pyramid.stored(records)
        return len(records)

    def _compress(self, arranged: npt.NDArray[Any], tiles: int) -> list[bytes]:
        """Return the compressed chunks of a frame. If there are several, two threads compress them."""
        codec, half = self._codec, tiles // 2
        running = self._helper.submit(codec.compress, arranged, half) if half else None
        if running is None:
            return codec.compress(arranged)
        try:
            first = codec.compress(arranged, 0, half)
        finally:
            second = running.end()
        return first + second

    # -- places in the arrays --------------------------------------------------------------------

    def _begin(self, coordinates: DataCoordinates, data: npt.NDArray[Any]) -> Layout:
        """Store the layout of the dataset when its first frame arrives."""
        plan = self._plan
        layout = plan.layout(coordinates.__dict__, data.shape, data.dtype)
        labels, lines = planning.begin_labels(layout, plan.declared(layout))
        self._layout_lines.append(
            b"".join(
                map(
                    files.encode_line,
                    [{"layout": layout.to_json(), "facts": plan.facts.to_json()}, *lines],
                )
            )
        )
        self._use_layout(layout, plan.facts, labels, plan.lengths(layout))
        return layout

    def _use_layout(
        self, layout: Layout, facts: Facts, labels: dict[str, Labels], planned: Mapping[str, int]
    ) -> None:
        """Prepare to write frames with a layout that has already been stored.

        Parameters
        ----------
        layout : Layout
        facts : Facts
        labels : dict of str to Labels
            The labels of each dimension.
        planned : mapping of str to int
            The planned lengths of the dimensions whose lengths are known.
        """
        self._images = Images(self._folder, layout, facts, labels)
        self._codec = PixelCodec(layout)
        self._lengths = (planned.get("t", 0), planned.get("c", 0), planned.get("z", 0))
        self._single = [
            (labels[dim], axes[0]) if len(axes) == 1 else (labels[dim], axes)
            for dim, axes in ((dim, layout.roles.get(dim, ())) for dim in ("p", "t", "c", "z"))
        ]
        if layout.is_compressed:
            self._parts = PartFiles(self._folder, layout)
        else:
            self._slots = SlotFiles(self._folder, layout)
        self._files = FrameFiles(self._folder, layout, self._images.array_path)
        if self._images.method is not None and len(level_factors(layout)) > 1:
            self._pyramid = PyramidBuilder(
                self._folder, layout, self._images, self._images.method, self._frames_in_shard
            )
        self.layout = layout

    def _place(self, positions: dict[str, Any], data: npt.NDArray[Any]) -> tuple[int, int, int, int]:
        """Return the image of a frame and its indices; grow the arrays if necessary."""
        found = []
        for (labels, axes), dim in zip(self._single, "ptcz", strict=True):
            if not axes:
                found.append(0)
                continue
            key = positions[axes] if type(axes) is str else tuple(positions[axis] for axis in axes)
            index, is_label = labels.assign(key)
            if is_label:
                # Store the label before the frames that need it. Without the label, readers would find these
                # frames at other coordinates.
                line = planning.label_line(dim, index, key)
                self._layout_lines.append(files.encode_line(line))
                labels.add(key, index)
            found.append(index)
        image, t, c, z = found
        if c not in self._channels:
            self._add_channel(c, data)
        extents = self._grown.get(image)
        if extents is None or t >= extents[0] or c >= extents[1] or z >= extents[2]:
            self._grow(image, t, c, z, extents or self._lengths)
        return image, t, c, z

    def _add_channel(self, c: int, data: npt.NDArray[Any]) -> None:
        """Choose the contrast of a channel from its first frame."""
        self._channels.add(c)
        window = window_of(data)
        if window is not None:
            self._layout_lines.append(files.encode_line({"window": [c, *window]}))
            self._images.windows[c] = window

    def _grow(
        self,
        image: int,
        t: int,
        c: int,
        z: int,
        extents: Indices,
    ) -> None:
        """Extend an image's array, so that the array has room for the frame that is written next."""
        assert self.layout is not None
        shard = self.layout.shard
        lengths = []
        for index, length, step in zip((t, c, z), extents, shard, strict=True):
            # Growing by whole shards keeps the number of changes small.
            lengths.append(length if index < length else -(-(index + 1) // step) * step)
        grown = (lengths[0], lengths[1], lengths[2])
        self._images.place(image, grown)
        self._grown[image] = grown

    def shard_name(self, key: tuple[int, int, int, int]) -> str:
        """Return the path of a shard from its image and its indices along t, c and z."""
        name = self._names.get(key)
        if name is not None:
            return name
        assert self.layout is not None
        image, *place = key
        name = f"{self._images.array_path(image)}/{self.layout.shard_name(*place)}"
        if len(self._names) >= sizes.MAX_OPEN_FILES:
            del self._names[next(iter(self._names))]
        self._names[key] = name
        return name

    def _frames_in_shard(self, image: int, t: int, c: int, z: int) -> int:
        """Return how many frames the shard of a frame can contain, given the current lengths of the array."""
        assert self.layout is not None
        count = 1
        for index, length, size in zip((t, c, z), self._grown[image], self.layout.shard, strict=True):
            count *= min(size, length - index // size * size)
        return count

    # -- syncing and finishing -------------------------------------------------------------------

    def sync(self) -> None:
        """Sync the pixels, then the metadata, then the journal."""
        for source in (self._slots, self._parts):
            if source is not None:
                for name in source.unsynced:
                    self._files.sync(name)
                source.unsynced.clear()
        if self._parts is not None:
            for descriptor in self._parts.descriptors():
                os.fsync(descriptor)
        for file in (self._layout_lines, self._lines, self._journal):
            os.fsync(file.file.descriptor)
        if self.layout is not None:
            self._files.sync_folders(self._grown)
        sync_folder(os.path.join(self._folder, files.OWN_FOLDER))

    def finish(self, frames: int) -> None:
        """Put the files into the form that other programs expect of a finished dataset.

        Parameters
        ----------
        frames : int
            The number of frames. Any later record belongs to a frame whose ``put`` did not return.
        """
        if self._pyramid is not None:
            self._pyramid.end()
        self._journal.take_back(frames)
        self._lines.finish()
        self._layout_lines.finish()
        self.sync()
        if self.layout is not None:
            self._files.release()
            if self._slots is not None:
                self._slots.release()
            finish_dataset(
                self._folder, self.layout, self._images, self._journal.file, self._shards_elsewhere()
            )

    def _shards_elsewhere(self) -> Collection[str]:
        """Return the finished shards that are no longer in the folder."""
        return ()

    def checksums(self) -> dict[str, int]:
        """Return the checksums of the files that list the frames of the dataset."""
        return {
            "journal_crc32c": files.checksum(self._journal.file),
            "layout_crc32c": files.checksum(self._layout_lines.file),
        }

    def release(self) -> None:
        """Close the files and stop the helper thread."""
        self._helper.end()
        if self._pyramid is not None:
            self._pyramid.end()
        for source in (self._slots, self._parts):
            if source is not None:
                source.release()
        if self.layout is not None:
            self._files.release()

    # -- reading written frames ------------------------------------------------------------------

    def read(self, number: int) -> npt.NDArray[Any]:
        """Return the pixels of a frame."""
        return self._files.read(self._record(number), FrameName(self._name, number))

    def read_metadata(self, number: int) -> Any:
        """Return the metadata of a frame."""
        return read_frame_line(self._lines.file, self._record(number), FrameName(self._name, number))[
            "metadata"
        ]

    def _record(self, number: int) -> Record:
        record = self._journal.read(number)
        if record is None:
            raise DatasetDamagedError(f"the journal no longer contains {self._name(number)}")
        return record

    def _name(self, number: int) -> str:
        return f"frame {number} of {self._folder}"


def window_of(data: npt.NDArray[Any]) -> tuple[float, float] | None:
    """For one frame, return the pixel values that viewers should show as black and as white."""
    step = max(1, max(data.shape[:2]) // 128)
    sample = data[::step, ::step]
    if sample.dtype.kind == "f":
        sample = sample[np.isfinite(sample)]
    if not sample.size:
        return None
    low, high = (float(value) for value in np.percentile(sample, (0.5, 99.8)))
    return (low, high) if high > low else None
