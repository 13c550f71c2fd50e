"""Writes OME-Zarr so that every acknowledged frame can be read at once, by this and by other programs.

For each frame, the pixels are written first, then a line with its coordinates and metadata, and then a record in
the journal. The journal is authoritative: a frame belongs to the dataset if its record is valid. Other programs
find the pixels through the indices of the shards.
"""

import os
from pathlib import Path
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal

import annotated_types
import crc32c
import numpy as np
import numpy.typing as npt
import orjson

from exengine.base_classes import (
    CoordinatesLike,
    DataCoordinates,
    DataStorage,
    HelperThread,
    JsonValue,
    ManagedStorage,
    PlannedLayout,
    SourcePlan,
    StorageCapabilities,
    check_options,
    clean_metadata,
    read_at,
    sync_folder,
    write_at,
)
from exengine.errors import (
    CoordinatesError,
    DatasetDamagedError,
    MetadataError,
    OptionError,
    StorageFailedError,
)
from exengine_ome_zarr import documents, files, planning, sizes
from exengine_ome_zarr.capabilities import BACKEND_NAME, capabilities_for, remote_capabilities
from exengine_ome_zarr.finishing import finish_dataset
from exengine_ome_zarr.frame_files import FrameFiles, encode_json, read_frame_line
from exengine_ome_zarr.images import Images
from exengine_ome_zarr.journal import JournalWriter, Record, encode_record
from exengine_ome_zarr.labels import Labels
from exengine_ome_zarr.layout import Layout
from exengine_ome_zarr.pixels import PixelCodec
from exengine_ome_zarr.remote.addresses import is_url
from exengine_ome_zarr.roles import assign_roles
from exengine_ome_zarr.shards import PartFiles, SlotFiles, part_path

Position = Annotated[int, annotated_types.Ge(1)]


class OmeZarrStorage(ManagedStorage):
    """Write OME-Zarr, the open image format for large data and the web.

    A dataset is a folder of Zarr arrays that napari, Fiji and web viewers open, also while it is written.
    When ``put`` returns, the operating system has received the frame, and it survives a crash of the program.
    After ``finish``, it also survives a power failure. Checksums protect the frames and their metadata.

    Parameters
    ----------
    path : path
        The folder of the dataset, such as ``data/demo.ome.zarr``.
    summary_metadata : dict, optional
        Metadata for the whole dataset.
    codec : {"none", "blosc-lz4", "blosc-zstd", "zstd", "gzip"}
        The compression of the pixels. Without compression, writing is fastest, and other programs see each
        frame as soon as it is stored. With compression, they see it when its shard is complete.
    level : int, optional
        The compression level. By default, 5 for ``blosc-lz4`` and 1 for the others.
    chunk : int, optional
        The maximum height and width of a chunk, in pixels. By default, a chunk contains whole frames.
    shard : int, optional
        The maximum number of frames in a shard, which is a file. By default, up to 4,096 frames or 256 MiB.
    frames_per_chunk : int, optional
        The number of frames that share a chunk. By default, small frames form chunks of about 128 KiB. With
        compression, a chunk contains one frame.
    layout : {"auto", "image", "plate"}
        How the images are arranged: as a well plate, or in the order of their positions. By default, the
        layout is that of a plate if the sequence states one.
    extra_axes : {"refuse", "fold", "split"}
        What to do with axes for which OME-Zarr has no dimension: refuse them, combine them with the channel,
        or make an image for each of their positions.
    spool : path, optional
        For a dataset in object storage: the folder on this machine that contains its frames until they are
        uploaded. By default, ``exengine-spool`` in the user's cache folder, or the folder that the environment
        variable ``EXENGINE_SPOOL`` names.
    spool_bytes : int
        For a dataset in object storage: the amount of pixel data in the spool at which ``put`` waits for
        uploads. Shards that are not full remain in the spool, even if they exceed it.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from exengine.storage_backends.ome_zarr import OmeZarrStorage
    >>> folder = tempfile.mkdtemp()
    >>> with OmeZarrStorage(folder) as storage:
    ...     storage.put({"time": 0, "channel": "DAPI"}, np.full((4, 4), 7, np.uint16), {"exposure_ms": 10})
    >>> import zarr
    >>> zarr.open_array(f"{folder}/0")[0, 0, 0, 0]
    np.uint16(7)
    """

    capabilities = capabilities_for({})
    variants = {
        "blosc-lz4": {"codec": "blosc-lz4"},
        "split": {"extra_axes": "split"},
    }
    dataset_files = files.DATASET_FILES
    backend_name = BACKEND_NAME
    batch_frames = 32
    overhead_bytes_per_frame = 8192

    def __init__(
        self,
        path: str | os.PathLike[str],
        summary_metadata: dict[str, Any] | None = None,
        codec: Literal["none", "blosc-lz4", "blosc-zstd", "zstd", "gzip"] = "none",
        level: Annotated[int, annotated_types.Interval(ge=0, le=22)] | None = None,
        chunk: Annotated[int, annotated_types.Ge(16)] | None = None,
        shard: Annotated[int, annotated_types.Interval(ge=1, le=sizes.MAX_SHARD_CHUNKS)] | None = None,
        frames_per_chunk: Annotated[int, annotated_types.Interval(ge=1, le=65536)] | None = None,
        layout: Literal["auto", "image", "plate"] = "auto",
        extra_axes: Literal["refuse", "fold", "split"] = "refuse",
        spool: Path | None = None,
        spool_bytes: Annotated[int, annotated_types.Ge(1)] = 4 * 2**30,
    ) -> None:
        if is_url(path):
            raise OptionError(f"{path} is a URL; create the dataset with OmeZarrStorage.create or open_storage")
        options = {
            "codec": codec,
            "level": level,
            "chunk": chunk,
            "shard": shard,
            "frames_per_chunk": frames_per_chunk,
        }
        check_options(OmeZarrStorage, **options, layout=layout, extra_axes=extra_axes, spool=spool, spool_bytes=spool_bytes)
        planning.refuse_options(options)
        summary = clean_metadata({} if summary_metadata is None else summary_metadata)
        if not isinstance(summary, dict):
            raise MetadataError(f"summary_metadata is a dict, got {type(summary_metadata).__name__}")
        self.capabilities = capabilities_for({"codec": codec, "extra_axes": extra_axes})
        self._extra_axes = extra_axes
        self._planning = planning.Planning(extra_axes, layout, **options)
        self._summary_line = files.encode_line({"summary": summary})
        if len(self._summary_line) > sizes.MAX_LINE_BYTES:
            raise MetadataError(f"the summary metadata exceeds {sizes.MAX_LINE_BYTES} bytes as JSON")
        self._helper = HelperThread()
        self._layout: Layout | None = None
        self._slots: SlotFiles | None = None
        self._parts: PartFiles | None = None
        self._started: dict[str, int] = {}  # the offset up to which the disk has begun to store each shard
        self._facts: dict[str, JsonValue] = {}
        self._elsewhere: Collection[str] = ()  # finished shards that are no longer in the folder
        super().__init__(path, summary_metadata=summary)
        folder = super().path  # of the files, also if ``path`` is a URL
        assert folder is not None
        self._folder = folder
        try:
            os.makedirs(os.path.join(self._folder, files.OPEN), exist_ok=True)
            self._lines = files.AppendFile(os.path.join(self._folder, files.FRAMES))
            self._layout_lines = files.AppendFile(
                os.path.join(self._folder, files.LAYOUT), len(self._summary_line)
            )
            self._journal = JournalWriter(os.path.join(self._folder, files.JOURNAL))
        except BaseException as error:
            self.cannot_begin(error)
            if not isinstance(error, OSError):
                raise
            refusal = StorageFailedError(f"cannot write in {self.path}: {error}")
            refusal.errno = error.errno
            raise refusal from error

    @classmethod
    def capabilities_for(cls, options: Mapping[str, Any], path: str | None = None, /) -> StorageCapabilities:
        """Return the capabilities of a dataset with these options."""
        found = capabilities_for(options)
        return remote_capabilities(found) if path is not None and is_url(path) else found

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None = None, /, **options: Any) -> "OmeZarrStorage":  # type: ignore[override]
        """Create a storage for a new dataset in a folder or in object storage."""
        if path is not None and is_url(path):
            from exengine_ome_zarr.remote.storage import RemoteOmeZarrStorage

            return RemoteOmeZarrStorage(os.fspath(path), **options)
        return cls(path, **options)  # type: ignore[arg-type]  # the kernel passes a path

    @classmethod
    def can_open(cls, path: str | os.PathLike[str]) -> bool:
        from exengine_ome_zarr.opening import is_ome_zarr

        return is_ome_zarr(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        """Open a dataset for reading, also one that another program wrote."""
        from exengine_ome_zarr.opening import open_ome_zarr

        return open_ome_zarr(path)

    @classmethod
    def recover_in_place(cls, path: str | os.PathLike[str], lost: Collection[DataCoordinates], /) -> None:
        """Remove lost frames from the journal, and finish the files."""
        from exengine_ome_zarr.recovery import recover_in_place

        recover_in_place(os.fspath(path), lost)

    @classmethod
    def check_plan(
        cls,
        layouts: Iterable[PlannedLayout],
        coordinates: Iterable[CoordinatesLike],
        /,
        *,
        options: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Refuse planned frames that OME-Zarr cannot store with these options."""
        given = options or {}
        planning.refuse_options(given)
        for shape, dtype in layouts:
            planning.refuse_shape(shape, np.dtype(dtype))
        seen: set[frozenset[str]] = set()
        for frame in coordinates:
            axes = frozenset(frame)
            if axes not in seen:
                assign_roles(frame, given.get("extra_axes", "refuse"))
                seen.add(axes)
                if len(seen) > 1:
                    first, second = (", ".join(sorted(each)) for each in seen)
                    raise CoordinatesError(
                        f"ome-zarr needs the same axes for all frames; some have {first}, others {second}"
                    )

    def initial_files(self) -> dict[str, bytes]:
        """Return the root group and the layout file, so that the empty dataset can be opened."""
        return {files.DOCUMENT: documents.encode(documents.group()), files.LAYOUT: self._summary_line}

    # -- writing ---------------------------------------------------------------------------------

    def prepare_frames(self, plan: SourcePlan) -> None:
        """Use the plan for the layout and the OME metadata."""
        self._planning.expect(plan)

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: Any) -> bytes:
        """Return the frame's line for the file of metadata."""
        bytes(sizes.LEAST_FREE_BYTES)  # raises MemoryError, whereas orjson would end the process
        positions = coordinates.__dict__
        if self._layout is None:
            planning.refuse_shape(data.shape, data.dtype)
            self._planning.layout(positions, data.shape, data.dtype)
        if self._planning.facts.plate is not None:
            planning.refuse_no_well(positions.get("position", 0), self._planning.facts)
        axes = orjson.dumps(positions)
        if len(axes) > sizes.MAX_TEXT_BYTES:
            raise CoordinatesError(
                f"the coordinates have {len(axes)} bytes as JSON; at most {sizes.MAX_TEXT_BYTES} are accepted"
            )
        encoded = encode_json(metadata)
        if len(encoded) > sizes.MAX_METADATA_BYTES:
            raise MetadataError(
                f"the metadata has {len(encoded)} bytes as JSON; readers accept at most "
                f"{sizes.MAX_METADATA_BYTES}"
            )
        return b'{"coordinates":%b,"metadata":%b}\n' % (axes, encoded)

    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        self.write_frames(number, [(coordinates, data, checked)])

    def write_frames(self, number: int, batch: list[tuple[DataCoordinates, npt.NDArray[Any], Any]]) -> int:
        """Write the first frames of a batch, as many as form one piece of a shard.

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
        layout = self._layout
        if layout is None:
            layout = self._begin(*batch[0][:2])
        if self._parts is not None:
            record, line = self._write_compressed(number, layout, self._parts, *batch[0])
            self._lines.append(line)
            self._journal.append(record)
            return 1
        assert self._slots is not None
        frame_bytes, line_at = layout.frame_bytes, self._lines.end
        arrays: list[npt.NDArray[Any]] = []
        lines: list[bytes] = []
        records: list[bytes] = []
        shard, begin, end = "", 0, 0
        for coordinates, data, line in batch:
            image, t, c, z = self._place(coordinates.__dict__, data)
            name = self._shard_name(image, *layout.shard_at(t, c, z))
            offset = layout.slot(t, c, z) * frame_bytes
            if not arrays:
                shard, begin, end = name, offset, offset
            elif name != shard or offset != end or end - begin >= sizes.BATCH_BYTES:
                break
            pixels = self._codec.arrange(data)
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
            at, size = line_at + sum(map(len, lines)) if lines else line_at, len(line)
            lines.append(line)
            records.append(
                encode_record(
                    number, image, t, c, z, 0, offset, frame_bytes, pixels_crc, at, size, crc32c.crc32c(line)
                )
            )
            number += 1
            if running is not None:
                break
        if arrays:
            self._write_slots(shard, arrays, begin, end)
        self._lines.append(lines[0] if len(lines) == 1 else b"".join(lines))
        self._journal.append(records[0] if len(records) == 1 else b"".join(records))
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
            if end - begin < sizes.SMALL_FRAME_BYTES:
                started = self._started.get(name, 0)
                self._helper.begin_writing(file, started, end - started)
            self._started[name] = end

    def _write_compressed(
        self,
        number: int,
        layout: Layout,
        parts: PartFiles,
        coordinates: DataCoordinates,
        data: npt.NDArray[Any],
        line: bytes,
    ) -> tuple[bytes, bytes]:
        """Append a compressed frame to a part; return its journal record and its line."""
        image, t, c, z = self._place(coordinates.__dict__, data)
        name = self._shard_name(image, *layout.shard_at(t, c, z))
        chunks = self._codec.compress(self._codec.arrange(data))
        lengths = [len(chunk) for chunk in chunks]
        stored = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        part = parts.get(name)
        begin = part.end
        # The lengths of the chunks precede them, because the journal has room for one length.
        head = np.asarray(lengths, "<u4").tobytes() if layout.tiles > 1 else b""
        pixels_crc = crc32c.crc32c(stored, crc32c.crc32c(head))
        size = len(head) + len(stored)
        write_at(part.file.descriptor, (head, stored), begin, size)
        record = encode_record(
            number, image, t, c, z, part.number, begin, size, pixels_crc,
            self._lines.end, len(line), crc32c.crc32c(line),
        )  # fmt: skip
        full = self._frames_in_shard(image, t, c, z)
        parts.added(name, part, layout.chunk_number(t, c, z), begin + len(head), lengths, full)
        return record, line

    # -- places in the arrays --------------------------------------------------------------------

    def _begin(self, coordinates: DataCoordinates, data: npt.NDArray[Any]) -> Layout:
        """Store the layout of the dataset when its first frame arrives."""
        plan = self._planning
        layout = plan.layout(coordinates.__dict__, data.shape, data.dtype)
        declared = plan.declared(layout)
        labels, lines = planning.begin_labels(layout, declared)
        self._layout_lines.append(
            b"".join(
                map(
                    files.encode_line,
                    [{"layout": layout.to_json(), "facts": plan.facts.to_json()}, *lines],
                )
            )
        )
        self._labels: dict[str, Labels] = labels
        self._images = Images(self._folder, layout, plan.facts, labels)
        self._codec = PixelCodec(layout)
        planned = plan.lengths(layout)
        self._lengths = (planned.get("t", 0), planned.get("c", 0), planned.get("z", 0))
        self._single = [
            (labels[dim], axes[0]) if len(axes) == 1 else (labels[dim], axes)
            for dim, axes in ((dim, layout.roles.get(dim, ())) for dim in ("p", "t", "c", "z"))
        ]
        self._names: dict[tuple[int, int, int, int], str] = {}
        self._grown: dict[int, tuple[int, int, int]] = {}
        if layout.is_compressed:
            self._parts = PartFiles(self._folder, layout)
        else:
            self._slots = SlotFiles(self._folder, layout)
        self._files = FrameFiles(self._folder, layout, self._images.array_path)
        self._layout = layout
        return layout

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
                line = planning.label_line(dim, index, key)
                self._layout_lines.append(files.encode_line(line))
            found.append(index)
        image, t, c, z = found
        extents = self._grown.get(image)
        if extents is None or t >= extents[0] or c >= extents[1] or z >= extents[2]:
            self._grow(image, t, c, z, extents or self._lengths, data)
        return image, t, c, z

    def _grow(
        self,
        image: int,
        t: int,
        c: int,
        z: int,
        extents: tuple[int, int, int],
        data: npt.NDArray[Any],
    ) -> None:
        """Make the array of an image long enough for a frame, before the frame is written."""
        assert self._layout is not None
        shard = self._layout.shard
        lengths = []
        for index, length, step in zip((t, c, z), extents, shard, strict=True):
            # Growing by whole shards keeps the number of changes small.
            lengths.append(length if index < length else -(-(index + 1) // step) * step)
        grown = (lengths[0], lengths[1], lengths[2])
        for channel in range(grown[1]):
            if channel not in self._images.windows and channel == c:
                window = window_of(data)
                if window is not None:
                    self._layout_lines.append(files.encode_line({"window": [c, *window]}))
                    self._images.windows[c] = window
        self._images.place(image, grown)
        self._grown[image] = grown

    def _shard_name(self, image: int, t: int, c: int, z: int) -> str:
        key = (image, t, c, z)
        name = self._names.get(key)
        if name is None:
            assert self._layout is not None
            name = f"{self._images.array_path(image)}/{self._layout.shard_name(t, c, z)}"
            if len(self._names) >= sizes.MAX_OPEN_FILES:
                del self._names[next(iter(self._names))]
            self._names[key] = name
        return name

    def _frames_in_shard(self, image: int, t: int, c: int, z: int) -> int:
        """Return how many frames the shard of a frame can contain in an array of this length."""
        assert self._layout is not None
        count = 1
        for index, length, size in zip((t, c, z), self._grown[image], self._layout.shard, strict=True):
            count *= min(size, length - index // size * size)
        return count

    # -- syncing and finishing -------------------------------------------------------------------

    def sync_frames(self) -> None:
        """Sync the pixels, then the metadata, then the journal."""
        for name in self._unsynced():
            self._files.sync(name)
        if self._slots is not None:
            self._slots.unsynced.clear()
        if self._parts is not None:
            for descriptor in self._parts.descriptors():
                os.fsync(descriptor)
            self._parts.unsynced.clear()
        for file in (self._layout_lines, self._lines, self._journal):
            os.fsync(file.file.descriptor)
        if self._layout is not None:
            self._files.sync_folders(self._grown)
        sync_folder(os.path.join(self._folder, files.OWN_FOLDER))

    def _unsynced(self) -> list[str]:
        return [
            name for source in (self._slots, self._parts) if source is not None for name in source.unsynced
        ]

    def finish_frames(self) -> None:
        """Put the files into the form that other programs expect of a finished dataset."""
        if not hasattr(self, "_journal"):
            return
        self._journal.take_back(len(self))
        self._lines.finish()
        self._layout_lines.finish()
        self.sync_frames()
        if self._layout is not None:
            self._files.release()
            if self._slots is not None:
                self._slots.release()
            finish_dataset(self._folder, self._layout, self._images, self._labels, self._journal.file, self._elsewhere)
        self._facts = self._checksums()

    def _checksums(self) -> dict[str, JsonValue]:
        """Return the checksums of the files that say which frames belong to the dataset."""
        found: dict[str, JsonValue] = {}
        for name, file in (("journal", self._journal.file), ("layout", self._layout_lines.file)):
            checksum = at = 0
            while text := read_at(file.descriptor, 2 * sizes.MIB, at):
                checksum, at = crc32c.crc32c(text, checksum), at + len(text)
            found[f"{name}_crc32c"] = checksum
        return found

    def finished_facts(self) -> dict[str, JsonValue]:
        """Return the checksums of the journal and the layout, which readers compare."""
        return self._facts

    def release(self) -> None:
        """Close the files."""
        self._helper.end()
        for source in (self._slots, self._parts):
            if source is not None:
                source.release()
        if self._layout is not None:
            self._files.release()
        for name in ("_lines", "_layout_lines", "_journal"):
            self.__dict__.pop(name, None)

    # -- reading written frames ------------------------------------------------------------------

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        return self._files.read(self._record(number), self._name(number))

    def read_frame_metadata(self, number: int) -> Any:
        record = self._record(number)
        return read_frame_line(self._lines.file, record, self._name(number))["metadata"]

    def _record(self, number: int) -> Record:
        record = self._journal.read(number)
        if record is None:
            raise DatasetDamagedError(f"the journal has lost {self._name(number)}")
        return record

    def _name(self, number: int) -> str:
        return f"frame {number} of {self.path}"


def window_of(data: npt.NDArray[Any]) -> tuple[float, float] | None:
    """Return the pixel values of a frame that viewers should show as black and as white."""
    step = max(1, max(data.shape[:2]) // 128)
    sample = data[::step, ::step]
    if sample.dtype.kind == "f":
        sample = sample[np.isfinite(sample)]
    if not sample.size:
        return None
    low, high = (float(value) for value in np.percentile(sample, (0.5, 99.8)))
    return (low, high) if high > low else None


__all__ = ["OmeZarrStorage", "part_path"]
