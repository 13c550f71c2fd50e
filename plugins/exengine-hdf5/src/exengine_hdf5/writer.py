"""The backend ``hdf5``: frames go to a spool first, and ``finish`` builds the HDF5 file from it."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import crc32c
import numpy as np
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
from exengine_hdf5.capabilities import BACKEND_NAME, CAPABILITIES

_MOST_CHUNK_BYTES = 2**32 - 1
_COMPRESSION = "compression"


class Hdf5Storage(SpooledStorage):
    """Write one HDF5 file, which h5py, MATLAB and most other programs for HDF5 can read.

    Frames with the same axes and layout form one N-dimensional dataset, in chunks of one frame. Until
    ``finish``, the frames are in a spool next to the file: when ``put`` returns, the operating system has
    received the frame, so the frame survives a crash of the program, whatever happens to the HDF5 file.
    ``finish`` builds the file, compares it with the spool, and deletes the spool. Checksums protect the
    frames and their metadata.

    Parameters
    ----------
    path : path
        The path of the file, such as ``data/scan.h5``.
    summary_metadata : JSON value, optional
        Metadata for the whole dataset.
    compression : {"none", "gzip", "lzf"}
        The compression of the pixels. ``gzip`` makes files smaller, and every program can read it. ``lzf`` is
        faster, but only h5py can read it.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from exengine.storage_backends.hdf5 import Hdf5Storage
    >>> path = f"{tempfile.mkdtemp()}/scan.h5"
    >>> with Hdf5Storage(path) as storage:
    ...     storage.put({"time": 0, "channel": "DAPI"}, np.full((4, 4), 7, np.uint16), {"exposure_ms": 10})
    >>> import h5py
    >>> with h5py.File(path) as file:
    ...     int(file["image"][0, 0, 0, 0])
    7
    """

    capabilities = CAPABILITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "gzip": {_COMPRESSION: "gzip"},
        "lzf": {_COMPRESSION: "lzf"},
    }
    backend_name = BACKEND_NAME
    overhead_bytes_per_frame = 8192

    def __init__(
        self,
        path: str | os.PathLike[str],
        summary_metadata: JsonValue = None,
        compression: Literal["none", "gzip", "lzf"] = "none",
    ) -> None:
        self._compression = compression
        self.capabilities = self.capabilities_for({_COMPRESSION: compression})
        super().__init__(path, summary_metadata=summary_metadata)

    @classmethod
    def capabilities_for(cls, options: Mapping[str, Any], path: str | None = None, /) -> StorageCapabilities:
        """Return the capabilities of a dataset with these options: only h5py has the filter for lzf."""
        if options.get(_COMPRESSION) == "lzf":
            return replace(CAPABILITIES, readers=("h5py",))
        return CAPABILITIES

    @staticmethod
    def checksum(data: Any) -> int:
        """Return the CRC-32C of the data."""
        return int(crc32c.crc32c(data))

    def initial_files(self) -> Mapping[str, bytes]:
        from exengine_hdf5.build import empty_file

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
        for shape, dtype in layouts:
            cls._refuse_size(math.prod(shape) * np.dtype(dtype).itemsize)

    @staticmethod
    def _refuse_size(size: int) -> None:
        if not 0 < size <= _MOST_CHUNK_BYTES:
            raise UnsupportedDataError(
                f"a frame has {size} bytes, but the backend hdf5 accepts 1 to {_MOST_CHUNK_BYTES} bytes"
            )

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: JsonValue) -> Any:
        self._refuse_size(data.nbytes)
        return super().check_frame(coordinates, data, metadata)

    # -- the file ----------------------------------------------------------------------------------

    def build_options(self) -> dict[str, Any]:
        return {_COMPRESSION: self._compression}

    @classmethod
    def options_of_frame(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        return {_COMPRESSION: str(description.get("z", "none")).replace("shuffle", "lzf")}

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
        from exengine_hdf5.build import build

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
        from exengine_hdf5.user_block import MAGIC, first_bytes

        return first_bytes(path).startswith(MAGIC)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        from exengine_hdf5.reader import open_hdf5

        return open_hdf5(path)

    @classmethod
    def resume(cls, path: str | os.PathLike[str], /, **options: Any) -> "Hdf5Storage":
        """Open a dataset in order to store its missing frames."""
        return _ContinuedStorage(path, **options)


class _ContinuedStorage(Hdf5Storage):
    __doc__ = Hdf5Storage.__doc__
    continues = True
