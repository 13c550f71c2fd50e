"""The backend ``ome-zarr``: checks each frame before anything changes, and passes it to the frame writer."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import annotated_types
import numpy as np
import numpy.typing as npt
import orjson

from exengine.base_classes import (
    CoordinatesLike,
    DataCoordinates,
    DataStorage,
    JsonValue,
    ManagedStorage,
    PackableDatasets,
    PlannedLayout,
    RecoveredRemote,
    RemoteDatasets,
    SharedDatasets,
    SourcePlan,
    StorageCapabilities,
    UnitOf,
    check_options,
    clean_metadata,
    is_url,
)
from exengine.errors import (
    CoordinatesError,
    MetadataError,
    OptionError,
    StorageFailedError,
    UnsupportedOperationError,
)
from exengine_ome_zarr import planning
from exengine_ome_zarr.capabilities import BACKEND_NAME, capabilities_for, remote_capabilities
from exengine_ome_zarr.continued.writer import ContinuedWriter
from exengine_ome_zarr.format import documents, files, sizes
from exengine_ome_zarr.format.frame_files import encode_json, frame_line
from exengine_ome_zarr.format.roles import assign_roles
from exengine_ome_zarr.frame_writer import Batch, FrameWriter
from exengine_ome_zarr.remote.storage import RemoteStorage


class OmeZarrStorage(ManagedStorage, RemoteDatasets, PackableDatasets, SharedDatasets):
    """Write OME-Zarr, the open image format for large data and the web.

    A dataset is a folder of Zarr arrays that napari and web viewers can open, even during writing. When
    ``put`` returns, the operating system has received the frame, so the frame survives a crash of the
    program. After ``finish``, it also survives a power failure. Checksums protect the frames and their
    metadata.

    Parameters
    ----------
    path : path
        The folder of the dataset, such as ``data/demo.ome.zarr``.
    summary_metadata : dict, optional
        Metadata for the whole dataset.
    codec : {"none", "blosc-lz4", "blosc-zstd", "zstd", "gzip"}
        The compression of the pixels. Without compression, writing is fastest, and other programs see each
        frame as soon as it is stored. With compression, they see a frame when its shard is complete.
    level : int, optional
        The compression level: up to 22 for ``zstd``, and up to 9 for all other codecs. By default, 5 for
        ``blosc-lz4`` and 1 for all other codecs.
    chunk : int, optional
        The maximum height and width of a chunk, in pixels. By default, a chunk contains whole frames; with
        compression, a frame of 256 KiB or more is divided into chunks of whole rows, at most 2 MiB each, and
        two threads compress them.
    shard : int, optional
        The maximum number of frames in a shard; each shard is a file. By default, up to 4,096 frames or 256
        MiB.
    frames_per_chunk : int, optional
        The number of frames that share a chunk. By default, small frames form chunks of about 128 KiB. With
        compression, a chunk contains one frame.
    layout : {"auto", "image", "plate"}
        How the images are arranged: as a well plate, or in the order of their positions. By default, they are
        arranged as a plate if the sequence contains one.
    extra_axes : {"refuse", "fold", "split"}
        How to treat axes for which OME-Zarr has no dimension: refuse them, combine them with the channel, or
        create an image for each of their positions.
    pyramid : {"none", "mean", "median", "decimate"}
        How ``finish`` computes smaller copies of frames larger than 512 pixels: from the mean or median of
        2 x 2 pixels, or from every second pixel. With these copies, viewers can display large data as a
        whole. By default, ``finish`` creates no copies; ``exengine_ome_zarr.add_pyramid`` can add them later.
    spool : path, optional
        For a dataset in object storage: the folder on this machine that contains its frames until they are
        uploaded. By default, ``exengine-spool`` in the user's cache folder, or the folder in the environment
        variable ``EXENGINE_SPOOL``.
    spool_bytes : int
        For a dataset in object storage: the amount of pixel data in the spool at which ``put`` waits for
        uploads. Shards that are not full remain in the spool, even if they exceed this amount.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from exengine.storage_backends.ome_zarr import OmeZarrStorage
    >>> folder = tempfile.mkdtemp()
    >>> with OmeZarrStorage(folder) as storage:
    ...     storage.put({"time": 0, "channel": "DAPI"}, np.full((4, 4), 7, np.uint16), {"exposure_ms": 10})
    >>> import zarr
    >>> int(zarr.open_array(f"{folder}/0")[0, 0, 0, 0])
    7
    """

    capabilities = capabilities_for({})
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "blosc-lz4": {"codec": "blosc-lz4"},
        "split": {"extra_axes": "split"},
    }
    dataset_files = files.DATASET_FILES
    backend_name = BACKEND_NAME
    packed_suffix = files.PACKED_SUFFIX
    packed_first = files.DOCUMENT
    packed_comment = files.PACKED_COMMENT
    foreign_reader = "exengine_ome_zarr.zarr_python:read_frame"
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
        pyramid: Literal["none", "mean", "median", "decimate"] = "none",
        spool: Path | None = None,
        spool_bytes: Annotated[int, annotated_types.Ge(1)] = 4 * 2**30,
    ) -> None:
        if is_url(path):
            raise OptionError(
                f"{path} is a URL; create the dataset with open_storage or OmeZarrStorage.create"
            )
        options = {
            "codec": codec,
            "level": level,
            "chunk": chunk,
            "shard": shard,
            "frames_per_chunk": frames_per_chunk,
        }
        others = {"extra_axes": extra_axes, "pyramid": pyramid, "spool": spool, "spool_bytes": spool_bytes}
        check_options(OmeZarrStorage, **options, layout=layout, **others)
        planning.refuse_options(options)
        summary = clean_metadata({} if summary_metadata is None else summary_metadata)
        if not isinstance(summary, dict):
            raise MetadataError(f"summary_metadata must be a dict, got {type(summary_metadata).__name__}")
        self.capabilities = capabilities_for({"codec": codec, "extra_axes": extra_axes})
        method = None if pyramid == "none" else pyramid
        self._planning = planning.Planning(extra_axes, layout, method, **options)
        self._summary_line = files.encode_line({"summary": summary})
        if len(self._summary_line) > sizes.MAX_LINE_BYTES:
            raise MetadataError(f"the summary metadata takes up over {sizes.MAX_LINE_BYTES} bytes as JSON")
        self._writer: FrameWriter | None = None
        super().__init__(path, summary_metadata=summary)
        folder = super().path  # the folder of the files, even if ``path`` is a URL
        assert folder is not None
        try:
            self._writer = self._make_writer(folder, self._planning, len(self._summary_line))
        except BaseException as error:
            files.forget_variables(error)
            self.cannot_begin(error)
            if not isinstance(error, OSError):
                raise
            refusal = StorageFailedError(f"cannot write in {self.path}: {error}")
            refusal.errno = error.errno
            raise refusal from error

    def _make_writer(self, folder: str, plan: planning.Planning, layout_bytes: int) -> FrameWriter:
        """Return the writer for a dataset in a folder."""
        return FrameWriter(folder, plan, layout_bytes)

    @classmethod
    def resume(cls, path: str | os.PathLike[str], /, **options: Any) -> "OmeZarrStorage":
        """Open a dataset in a folder, in order to store its missing frames."""
        if is_url(path):
            raise UnsupportedOperationError(
                f"ome-zarr cannot continue {path}, because the dataset is in object storage; create a new one"
            )
        return _ContinuedStorage(path, **options)

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None = None, /, **options: Any) -> Self:
        """Create a storage for a new dataset in a folder or, if the path is a URL, in object storage."""
        if path is not None and is_url(path):
            check_options(OmeZarrStorage, **options)
            return RemoteOmeZarrStorage(os.fspath(path), **options)  # type: ignore[return-value]
        return super().create(path, **options)

    @classmethod
    def replace(cls, url: str, /, **options: Any) -> DataStorage:
        """Create a dataset in object storage in place of an old one."""
        check_options(OmeZarrStorage, **options)
        return RemoteOmeZarrStorage(url, overwrite=True, **options)

    @classmethod
    def bytes_at(cls, url: str, /) -> int:
        """Return the size of a dataset in object storage, in bytes."""
        from exengine_ome_zarr.remote.bucket import Bucket

        return sum(size for _, size in Bucket(url).objects())

    @classmethod
    def recover_remote(cls, url: str, /, *, dry_run: bool, in_place: bool) -> RecoveredRemote:
        """Upload the spool of a writer that died, and finish the dataset."""
        from exengine_ome_zarr.remote.recovery import recover_remote

        return recover_remote(url, dry_run=dry_run, in_place=in_place)

    @classmethod
    def capabilities_for(cls, options: Mapping[str, Any], path: str | None = None, /) -> StorageCapabilities:
        """Return the capabilities of a dataset with these options."""
        found = capabilities_for(options)
        if path is None or not is_url(path):
            return found
        planning.refuse_remote(options)
        return remote_capabilities(found)

    @classmethod
    def can_open(cls, path: str | os.PathLike[str]) -> bool:
        from exengine_ome_zarr.opening import is_ome_zarr

        return is_ome_zarr(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        """Open a dataset for reading, even if another program wrote it."""
        from exengine_ome_zarr.opening import open_ome_zarr

        return open_ome_zarr(path)

    @classmethod
    def recover_in_place(
        cls, path: str | os.PathLike[str], lost: Collection[DataCoordinates], notes: Any = None, /
    ) -> None:
        """Remove lost frames from the journal, and finish the files."""
        from exengine_ome_zarr.recovery import recover_in_place

        recover_in_place(os.fspath(path), lost, notes or {})

    @classmethod
    def unit_of(cls, plan: SourcePlan, options: Mapping[str, Any], /) -> UnitOf:
        """Return a function that maps a frame to its shard."""
        from exengine_ome_zarr.continued.joining import unit_of

        own = {name: options.get(name) for name in ("level", "chunk", "shard", "frames_per_chunk")}
        arrangement, extra_axes = options.get("layout", "auto"), options.get("extra_axes", "refuse")
        codec = options.get("codec", "none")
        return unit_of(plan, planning.Planning(extra_axes, arrangement, None, codec=codec, **own))

    @classmethod
    def join(
        cls, path: str | os.PathLike[str], parts: Sequence[str], owners: npt.NDArray[np.integer[Any]], /
    ) -> None:
        """Move the shards of several parts into one dataset, and write its journal."""
        from exengine_ome_zarr.continued.joining import join

        join(os.fspath(path), parts, owners)

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
                        f"ome-zarr needs the same axes for all frames, got frames with the axes "
                        f"({first}) and frames with the axes ({second})"
                    )

    def initial_files(self) -> dict[str, bytes]:
        """Return the root group and the layout file, so that the empty dataset can be opened."""
        return {files.DOCUMENT: documents.encode(documents.group()), files.LAYOUT: self._summary_line}

    # -- writing ---------------------------------------------------------------------------------

    def prepare_frames(self, plan: SourcePlan) -> None:
        """Use the plan when choosing the layout and the OME metadata."""
        self._planning.expect(plan)

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: Any) -> bytes:
        """Return the frame's line for the metadata file."""
        np.empty(sizes.LEAST_FREE_BYTES, np.uint8)  # a MemoryError here is better than a crash in orjson
        positions = coordinates.__dict__
        if self._writer is None or self._writer.layout is None:
            planning.refuse_shape(data.shape, data.dtype)
            self._planning.layout(positions, data.shape, data.dtype)
        if self._planning.facts.plate is not None:
            planning.refuse_no_well(positions.get("position", 0), self._planning.facts)
        axes = orjson.dumps(positions)
        if len(axes) > sizes.MAX_TEXT_BYTES:
            raise CoordinatesError(
                f"the coordinates take up {len(axes)} bytes as JSON; the limit is {sizes.MAX_TEXT_BYTES}"
            )
        encoded = encode_json(metadata)
        if len(encoded) > sizes.MAX_METADATA_BYTES:
            raise MetadataError(
                f"the metadata takes up {len(encoded)} bytes as JSON; readers accept at most "
                f"{sizes.MAX_METADATA_BYTES}"
            )
        return frame_line(axes, encoded)

    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        assert self._writer is not None
        try:
            self._writer.write(number, [(coordinates, data, checked)])
        except BaseException as error:
            files.forget_variables(error)
            raise

    def write_frames(self, number: int, batch: Batch) -> int:
        """Write as many frames from the beginning of a batch as one write can store. Return their number."""
        assert self._writer is not None
        try:
            return self._writer.write(number, batch)
        except BaseException as error:
            files.forget_variables(error)
            raise

    def sync_frames(self) -> None:
        """Sync the pixels, then the metadata, then the journal."""
        if self._writer is not None:
            try:
                self._writer.sync()
            except BaseException as error:
                files.forget_variables(error)
                raise

    def finish_frames(self) -> None:
        """Put the files into the form that other programs expect of a finished dataset."""
        if self._writer is not None:
            try:
                self._writer.finish(len(self))
            except BaseException as error:
                files.forget_variables(error)
                raise

    def finished_facts(self) -> dict[str, JsonValue]:
        """Return the checksums of the journal and the layout, for readers to verify."""
        return {} if self._writer is None else dict(self._writer.checksums())

    def release(self) -> None:
        """Close the files."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.release()

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        assert self._writer is not None  # the writer exists while the storage is open
        return self._writer.read(number)

    def read_frame_metadata(self, number: int) -> Any:
        assert self._writer is not None  # the writer exists while the storage is open
        return self._writer.read_metadata(number)


class RemoteOmeZarrStorage(RemoteStorage, OmeZarrStorage):
    """A dataset of this backend in object storage. ``OmeZarrStorage.create`` creates it."""


class _ContinuedStorage(OmeZarrStorage):
    __doc__ = OmeZarrStorage.__doc__
    continues = True

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        self._codec = options.get("codec", "none")
        super().__init__(path, **options)
        assert isinstance(self._writer, ContinuedWriter)
        self.continue_from(self._writer.existing)

    def _make_writer(self, folder: str, plan: planning.Planning, layout_bytes: int) -> FrameWriter:
        return ContinuedWriter(folder, plan, self._summary_line, self._codec, self.begin_continuing)
