"""The backend ``ndram``: keeps frames in memory, in slabs of 64 MiB.

Page faults account for most of the cost of allocating a frame. With a slab, they occur only once for many
frames. A frame that is larger than a quarter of a slab is allocated separately.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import annotated_types
import numpy as np
import numpy.typing as npt

from exengine.base_classes import (
    CoordinatesLike,
    DataCoordinates,
    ManagedStorage,
    PlannedLayout,
    StorageCapabilities,
)
from exengine.errors import StorageFullError

SLAB_BYTES = 64 * 2**20
_LARGEST_BASE = 4 * 2**20  # the size in bytes of the arrays into which a data handler copies small frames
_ALIGNMENT = 64  # the size of a cache line, which is sufficient for every numpy dtype


class NDRAMStorage(ManagedStorage):
    """Keep frames of any dtype and number of dimensions in memory.

    This backend is suitable for live views, for short acquisitions that are processed immediately, and for
    first experiments. The frames are lost when the program ends. The storage copies each frame once, so the
    caller can reuse its array.

    Parameters
    ----------
    summary_metadata : dict or any JSON value, optional
        Metadata for the whole dataset.
    max_bytes : int, optional
        The maximum total size of the pixel data, in bytes. ``put`` raises ``StorageFullError`` for a frame
        that would exceed this limit, and the earlier frames are kept. The default is unlimited.

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
        """Refuse a plan if its frames would exceed ``max_bytes`` in total."""
        most = (options or {}).get("max_bytes")
        if most is not None and pixel_bytes is not None and pixel_bytes > most:
            raise StorageFullError(
                f"the planned frames need {pixel_bytes} bytes, but max_bytes is {most}; raise max_bytes, "
                "acquire fewer frames, or store them on disk with backend 'ndtiff'"
            )

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: Any) -> Any:
        if self._max_bytes is not None and self._held_bytes + data.nbytes > self._max_bytes:
            raise StorageFullError(
                f"the frame at {coordinates.__dict__} needs {data.nbytes} bytes, but {self._held_bytes} of "
                f"max_bytes={self._max_bytes} are in use; raise max_bytes, or store frames on disk with "
                "backend 'ndtiff'"
            )
        return metadata

    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        held = self._room(data)
        held[...] = data
        self._hold(held, checked)

    def write_owned_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        """Store the array itself, unless it is a view that would keep a larger array in memory."""
        base = data.base
        if data.flags.c_contiguous and (
            base is None or (type(base) is np.ndarray and base.nbytes <= max(data.nbytes, _LARGEST_BASE))
        ):
            self._hold(data.view(), checked)
        else:
            self.write_frame(number, coordinates, data, checked)

    def _hold(self, held: npt.NDArray[Any], metadata: Any) -> None:
        held.setflags(write=False)  # readers share this array
        self._frames_held.append(held)
        self._metadata_held.append(metadata)
        self._held_bytes += held.nbytes

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
        """Return the stored frame as a read-only array, without copying it."""
        return self._frames_held[number]

    def read_frame_metadata(self, number: int) -> Any:
        return copy.deepcopy(self._metadata_held[number])

    def release(self) -> None:
        self._frames_held = []
        self._metadata_held = []
        self._slab = np.empty(0, np.uint8)
