"""The backend ``ome-tiff``: frames go to a spool first, and ``finish`` builds the OME-TIFF file from it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import crc32c
import numpy.typing as npt

from exengine.base_classes import (
    CoordinatesLike,
    DataCoordinates,
    DataStorage,
    FrameToBuild,
    JsonValue,
    PlannedLayout,
    SourcePlan,
    SpooledStorage,
    StorageCapabilities,
)
from exengine.errors import UnsupportedDataError
from exengine_ome_tiff.capabilities import BACKEND_NAME, CAPABILITIES

_MOST_SAMPLES = 2**16 - 1
_COMPRESSION = "compression"


class OmeTiffStorage(SpooledStorage):
    """Write one OME-TIFF file, which Bio-Formats, tifffile and most microscopy programs read.

    Each frame is a page of a BigTIFF file. The OME-XML in the file contains the stage positions, channels and
    pixel sizes. Until ``finish``, the frames are in a spool next to the file: when ``put`` returns, the
    operating system has received the frame, so the frame survives a crash of the program, whatever happens to
    the TIFF file. ``finish`` builds the file, compares it with the spool, and deletes the spool. Checksums
    protect the frames and their metadata.

    Parameters
    ----------
    path : path
        The path of the file, such as ``data/scan.ome.tif``.
    summary_metadata : JSON value, optional
        Metadata for the whole dataset.
    compression : {"none", "zlib", "zstd"}
        The compression of the pixels: most programs read ``zlib``; ``zstd`` is faster and makes smaller
        files, but fewer programs read it. ``zstd`` needs ``pip install 'exengine-ome-tiff[zstd]'``.

    Raises
    ------
    UnsupportedOperationError
        If ``zstd`` is not installed.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from exengine.storage_backends.ome_tiff import OmeTiffStorage
    >>> path = f"{tempfile.mkdtemp()}/scan.ome.tif"
    >>> with OmeTiffStorage(path) as storage:
    ...     for channel in ("DAPI", "FITC"):
    ...         frame = np.full((4, 4), 7, np.uint16)
    ...         storage.put({"time": 0, "channel": channel}, frame, {"exposure_ms": 10})
    >>> import tifffile
    >>> tifffile.imread(path).shape
    (2, 4, 4)
    """

    capabilities = CAPABILITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "zlib": {_COMPRESSION: "zlib"},
        "zstd": {_COMPRESSION: "zstd"},
    }
    backend_name = BACKEND_NAME
    overhead_bytes_per_frame = 2048

    def __init__(
        self,
        path: str | os.PathLike[str],
        summary_metadata: JsonValue = None,
        compression: Literal["none", "zlib", "zstd"] = "none",
    ) -> None:
        self._compression = compression
        _check_compression(compression)
        self.capabilities = self.capabilities_for({_COMPRESSION: compression})
        super().__init__(path, summary_metadata=summary_metadata)

    @classmethod
    def capabilities_for(cls, options: Mapping[str, Any], path: str | None = None, /) -> StorageCapabilities:
        """Return the capabilities of a dataset with these options: not every program reads zstd."""
        if options.get(_COMPRESSION) == "zstd":
            return replace(CAPABILITIES, readers=("tifffile", "bioio"))
        return CAPABILITIES

    @staticmethod
    def checksum(data: Any) -> int:
        """Return the CRC-32C of the data."""
        return int(crc32c.crc32c(data))

    def initial_files(self) -> Mapping[str, bytes]:
        from exengine_ome_tiff.build import empty_file

        return {"{file}": empty_file()}

    @classmethod
    def check_plan(
        cls,
        layouts: Iterable[PlannedLayout],
        coordinates: Iterable[CoordinatesLike],
        /,
        *,
        pixel_bytes: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        _check_compression((options or {}).get(_COMPRESSION, "none"))
        for shape, _ in layouts:
            _check_shape(shape)

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: JsonValue) -> Any:
        _check_shape(data.shape)
        return super().check_frame(coordinates, data, metadata)

    # -- the file ----------------------------------------------------------------------------------

    def build_options(self) -> dict[str, Any]:
        return {_COMPRESSION: self._compression}

    @classmethod
    def options_of_frame(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        return {_COMPRESSION: str(description.get("z", "none"))}

    @classmethod
    def build_file(
        cls,
        path: str,
        frames: Sequence[FrameToBuild],
        *,
        summary: JsonValue,
        manifest: bytes,
        plan: SourcePlan,
        options: dict[str, Any],
    ) -> None:
        from exengine_ome_tiff.build import build

        build(
            path,
            frames,
            summary=summary,
            manifest=manifest,
            plan=plan,
            compression=options.get(_COMPRESSION, "none"),
        )

    # -- existing datasets ---------------------------------------------------------------------------

    @classmethod
    def can_open(cls, path: str | os.PathLike[str]) -> bool:
        from exengine_ome_tiff.bigtiff import first_bytes, is_tiff

        return is_tiff(first_bytes(path))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        from exengine_ome_tiff.reader import open_tiff

        return open_tiff(path)

    @classmethod
    def resume(cls, path: str | os.PathLike[str], /, **options: Any) -> "OmeTiffStorage":
        """Open a dataset in order to store its missing frames."""
        return _ContinuedStorage(path, **options)


class _ContinuedStorage(OmeTiffStorage):
    __doc__ = OmeTiffStorage.__doc__
    continues = True


def _check_compression(compression: str) -> None:
    if compression == "zstd":
        from exengine_ome_tiff.codecs import zstd

        zstd()


def _check_shape(shape: tuple[int, ...]) -> None:
    if 0 in shape:
        raise UnsupportedDataError(f"a frame of shape {shape} has no pixels, so it cannot be a TIFF page")
    if len(shape) == 3 and shape[2] > _MOST_SAMPLES:
        raise UnsupportedDataError(
            f"a frame of shape {shape} has {shape[2]} values per pixel, but TIFF allows at most "
            f"{_MOST_SAMPLES}"
        )
