"""Frames in memory, compressed."""

import copy
import zlib
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from exengine import DataCoordinates, ManagedStorage, StorageCapabilities


class PackedStorage(ManagedStorage):
    """Keep frames in memory, compressed without loss.

    For long acquisitions of dark frames on a computer with little memory. The frames are lost when the
    program ends.

    Parameters
    ----------
    level : int
        Compression level of zlib, from 0 (none) to 9 (slow, smallest data).

    Examples
    --------
    >>> import numpy as np
    >>> from exengine_packed import PackedStorage
    >>> storage = PackedStorage(level=9)
    >>> storage.put({"time": 0}, np.zeros((512, 512), "uint16"), {"exposure_ms": 10})
    >>> storage.get_data({"time": 0}).shape
    (512, 512)
    """

    capabilities = StorageCapabilities(
        string_axes=True,
        negative_indices=True,
        metadata=True,
        iterable=True,
        concurrent_readers=True,
        compression=("zlib",),
    )

    def __init__(self, level: Annotated[int, Ge(0), Le(9)] = 6) -> None:
        super().__init__()
        self._level = level
        self._packed: list[tuple[bytes, np.dtype, tuple[int, ...], Any]] = []

    def write_frame(self, number: int, coordinates: DataCoordinates, data: np.ndarray, checked: Any) -> None:
        packed = zlib.compress(np.ascontiguousarray(data), self._level)
        self._packed.append((packed, data.dtype, data.shape, checked))

    def read_frame(self, number: int) -> np.ndarray:
        packed, dtype, shape, _ = self._packed[number]
        return np.frombuffer(bytearray(zlib.decompress(packed)), dtype).reshape(shape)

    def read_frame_metadata(self, number: int) -> Any:
        return copy.deepcopy(self._packed[number][3])

    def release(self) -> None:
        self._packed.clear()
