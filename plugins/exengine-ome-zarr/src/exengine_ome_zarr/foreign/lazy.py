"""Combines all frames of a dataset into one lazy dask array, with blocks that match the stored chunks."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from exengine.base_classes import refuse_filler
from exengine.errors import CoordinatesError, UnsupportedOperationError
from exengine_ome_zarr.foreign.grid import GridIndex
from exengine_ome_zarr.foreign.images import LevelArray


class BlockReader(Protocol):
    """A picklable function that reads part of an image's array."""

    def read_block(self, image: int, begin: Sequence[int], end: Sequence[int], /) -> npt.NDArray[Any]: ...


BLOCK_BYTES = 2**27
"""The maximum size of a block, unless a single frame is larger."""


def is_regular(index: GridIndex, arrays: list[LevelArray]) -> bool:
    """Return whether all images have the same coordinates and layout, and can therefore form one array."""
    first = index.grids[0]
    return bool(len(index)) and all(
        grid.axes == first.axes
        and array.shape == arrays[0].shape
        and array.layout.dtype == arrays[0].layout.dtype
        for grid, array in zip(index.grids, arrays, strict=True)
    )


def as_array(
    reader: BlockReader, index: GridIndex, array: LevelArray, axes: Iterable[str] | None, missing: Any
) -> Any:
    """Return a dask array ``(*axes, Y, X)`` of images that all have the same set of coordinates.

    A block contains the frames of one chunk, or fewer if the chunk is large.

    Raises
    ------
    CoordinatesError
        If ``axes`` are not the axes of the dataset.
    OptionError
        If ``missing`` is not a value that can replace a frame.
    UnsupportedOperationError
        If dask is not installed, or if a frame is too large to be read as a whole.
    """
    try:
        import dask.array as da
    except ImportError:
        raise UnsupportedOperationError(
            "as_array needs dask; install it with: pip install 'dask[array]'"
        ) from None
    stored = index.axes
    order = stored if axes is None else tuple(axes)
    if sorted(order) != sorted(stored):
        raise CoordinatesError(f"axes must be {', '.join(stored)}, in any order; got {', '.join(order)}")
    array.refuse_large_frames()
    dtype = array.layout.dtype
    refuse_filler(missing, dtype)
    masked = isinstance(missing, str) and missing == "mask"
    grid = index.grids[0]
    steps = _block_lengths(array) if array.leading else (1,) * len(grid.axes)
    chunks: list[tuple[int, ...]] = [] if grid.position is None else [(1,) * len(index.grids)]
    chunks += [_pieces(length, step) for length, step in zip(grid.shape, steps, strict=True)]
    chunks += [(size,) for size in array.shape[-2:]]
    empty = np.ma.empty if masked else np.empty
    blocks = da.map_blocks(  # type: ignore[no-untyped-call]
        _ReadBlock(reader, grid.position is not None, tuple(chunks), masked),
        name=f"exengine-foreign-{os.urandom(8).hex()}",
        dtype=dtype,
        chunks=tuple(chunks),
        meta=empty((0,) * len(chunks), dtype),
    )
    places = [stored.index(axis) for axis in order]
    return blocks.transpose([*places, len(places), len(places) + 1])


def _block_lengths(array: LevelArray) -> tuple[int, ...]:
    """Return the number of frames in a block along each leading axis."""
    steps = [min(chunk, size) for chunk, size in zip(array.chunk[:-2], array.shape[:-2], strict=True)]
    frame_bytes = array.shape[-2] * array.shape[-1] * array.layout.dtype.itemsize
    for place in range(len(steps)):
        while steps[place] > 1 and frame_bytes * int(np.prod(steps, dtype=float)) > BLOCK_BYTES:
            steps[place] = (steps[place] + 1) // 2
    return tuple(steps)


def _pieces(length: int, step: int) -> tuple[int, ...]:
    """Return the lengths of blocks along an axis."""
    return (*((step,) * (length // step)), *((length % step,) if length % step else ()))


class _ReadBlock:
    """A callable that reads one block. Dask pickles it."""

    def __init__(
        self, reader: BlockReader, has_positions: bool, chunks: tuple[tuple[int, ...], ...], masked: bool
    ) -> None:
        self._reader, self._has_positions, self._chunks, self._masked = reader, has_positions, chunks, masked

    def __call__(self, block_id: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
        assert block_id is not None
        first = 1 if self._has_positions else 0
        begin, end = [], []
        for lengths, number in zip(self._chunks[first:-2], block_id[first:-2], strict=True):
            begin.append(sum(lengths[:number]))
            end.append(begin[-1] + lengths[number])
        data = self._reader.read_block(block_id[0] if self._has_positions else 0, begin, end)
        if self._has_positions:
            data = data[np.newaxis]
        return np.ma.asarray(data) if self._masked else data
