"""The backend ``ndram``: frames in memory, in slabs.

A frame is copied into a slab of 64 MiB rather than into memory of its own: most of the cost of a
small allocation is the page faults, and a slab has them once. A frame larger than a quarter of a slab
gets its own.
"""

import copy
from typing import Annotated, Any

import annotated_types
import numpy as np
import numpy.typing as npt

from exengine.base_classes import DataCoordinates, ManagedStorage, StorageCapabilities
from exengine.errors import StorageFullError

SLAB_BYTES = 64 * 2**20
_ALIGNMENT = 64  # of a cache line, and of every numpy item


class NDRAMStorage(ManagedStorage):
    """Keep frames in memory, of any dtype and number of dimensions.

    For live views, for short acquisitions that are processed at once, and for trying things out:
    nothing is left when the program ends. Each frame is copied once, so that the caller may use its
    array again.

    Parameters
    ----------
    summary_metadata : dict or any JSON value, optional
        Metadata of the whole dataset.
    max_bytes : int, optional
        The most bytes that pixels may take. When a frame would exceed it, ``put`` raises a
        ``StorageFullError`` and the frames before stay. By default there is no bound.

    Examples
    --------
    >>> import numpy as np
    >>> from exengine.storage_backends.ndram import NDRAMStorage
    >>> storage = NDRAMStorage()
    >>> storage.put({"time": 0, "channel": "DAPI"}, np.array([1, 2, 3]), {"exposure_ms": 10})
    >>> storage[{"time": 0, "channel": "DAPI"}]
    array([1, 2, 3])
    """

    capabilities = StorageCapabilities(
        string_axes=True,
        negative_indices=True,
        metadata=True,
        iterable=True,
        concurrent_readers=True,
        safety_of_put="accepted",
    )
    backend_name = "ndram"

    def __init__(
        self,
        summary_metadata: dict[str, Any] | list[Any] | str | float | None = None,
        max_bytes: Annotated[int, annotated_types.Ge(1)] | None = None,
    ) -> None:
        super().__init__(summary_metadata={} if summary_metadata is None else summary_metadata)
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._slab = np.empty(0, np.uint8)
        self._used = 0
        self._frames_held: list[npt.NDArray[Any]] = []
        self._metadata_held: list[Any] = []

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: Any) -> Any:
        if self._max_bytes is not None and self._held_bytes + data.nbytes > self._max_bytes:
            raise StorageFullError(
                f"the frame at {coordinates.__dict__} needs {data.nbytes} bytes, and {self._held_bytes} of "
                f"max_bytes={self._max_bytes} are taken; raise max_bytes, or store on disk "
                "with backend 'ndtiff'"
            )
        return metadata

    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        held = self._room(data)
        held[...] = data
        # A view of it that cannot be written is what readers share.
        held.flags.writeable = False
        self._frames_held.append(held)
        self._metadata_held.append(checked)
        self._held_bytes += data.nbytes

    def _room(self, data: npt.NDArray[Any]) -> npt.NDArray[Any]:
        size = data.nbytes
        if size > SLAB_BYTES // 4 or not size:
            return np.empty(data.shape, data.dtype)
        begin = self._used
        if begin + size > self._slab.nbytes:
            self._slab = np.empty(SLAB_BYTES, np.uint8)
            begin = 0
        self._used = (begin + size + _ALIGNMENT - 1) & -_ALIGNMENT
        return np.ndarray(data.shape, data.dtype, self._slab, begin)

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        """Return the frame without a copy, as an array that cannot be written."""
        return self._frames_held[number]

    def read_frame_metadata(self, number: int) -> Any:
        return copy.deepcopy(self._metadata_held[number])

    def release(self) -> None:
        self._frames_held = []
        self._metadata_held = []
        self._slab = np.empty(0, np.uint8)
