"""All frames of a storage as one lazy array. This is the only module that uses dask."""

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import (
    CoordinatesError,
    CoordinatesNotFoundError,
    OptionError,
    UnsupportedOperationError,
)
from exengine.kernel.wording import human_count, listed


def as_array(storage: DataStorage, axes: Iterable[str] | None, missing: Any) -> Any:
    """Return a dask array ``(*axes, *frame)``; see ``DataStorage.as_array``.

    Raises
    ------
    UnsupportedOperationError
        If dask is not installed, or if frames differ in shape or dtype.
    CoordinatesError
        If ``axes`` are not the axes of the dataset.
    CoordinatesNotFoundError
        If frames are missing and ``missing`` is ``'raise'``.
    OptionError
        If ``missing`` is not a value that can replace a frame.
    """
    positions = storage.axes
    order = tuple(positions) if axes is None else tuple(axes)
    if sorted(order) != sorted(positions):
        raise CoordinatesError(f"axes must be {', '.join(positions)}, in any order; got {', '.join(order)}")
    values = [positions[axis] for axis in order]
    there, first = present_frames(storage, dict(zip(order, values, strict=True)))
    shape = there.shape
    if missing == "raise" and not there.all():
        gap = next(iter(np.argwhere(~there)))
        where = {axis: some[int(place)] for axis, some, place in zip(order, values, gap, strict=True)}
        absent = math.prod(shape) - int(there.sum())
        raise CoordinatesNotFoundError(
            f"{human_count(absent, 'frame')} {'is' if absent == 1 else 'are'} missing, the first at {where}; "
            "pass missing='mask', or a number as the fill value"
        )
    example = storage.get_data(first)
    refuse_filler(missing, example.dtype)
    masked = isinstance(missing, str) and missing == "mask"
    meta = np.ma.empty((0,) * (len(order) + example.ndim), example.dtype) if masked else None
    read = _ReadBlock(storage, order, values, missing, example.shape, example.dtype.str)
    try:
        import dask.array as da
    except ImportError:
        raise _NoDaskError(read, shape, example) from None
    return da.map_blocks(  # type: ignore[no-untyped-call]
        read,
        name=f"exengine-frames-{uuid.uuid4().hex}",  # otherwise dask pickles the storage to derive a name
        dtype=example.dtype,
        chunks=tuple((1,) * size for size in shape) + tuple((size,) for size in example.shape),
        meta=meta if masked else np.empty((0,) * (len(order) + example.ndim), example.dtype),
    )


def present_frames(
    storage: DataStorage, positions: Mapping[str, Sequence[int | str]]
) -> tuple[npt.NDArray[np.bool_], DataCoordinates]:
    """Return a mask of the frames that are present, and the coordinates of the first frame.

    Parameters
    ----------
    storage : DataStorage
    positions : mapping of str to sequence of int or str
        The positions on each axis of the array.

    Returns
    -------
    tuple of (numpy.ndarray, DataCoordinates)
        A bool array ``(*axes)``, and the coordinates.

    Raises
    ------
    UnsupportedOperationError
        If there are no frames, or if the frames do not all have the same axes.
    """
    places = {axis: {value: place for place, value in enumerate(some)} for axis, some in positions.items()}
    there = np.zeros([len(some) for some in positions.values()], dtype=bool)
    first = None
    for coordinates in storage:
        first = first or coordinates
        if len(coordinates) != len(places):
            raise UnsupportedOperationError(
                f"the axes of a frame ({listed(coordinates)}) differ from those of the dataset "
                f"({listed(places)}), so the frames cannot form one array"
            )
        there[tuple(some[coordinates[axis]] for axis, some in places.items())] = True
    if first is None:
        raise UnsupportedOperationError("the dataset has no frames, so the shape of the array is unknown")
    return there, first


def refuse_filler(missing: Any, dtype: "np.dtype[Any]") -> None:
    """Reject a value that cannot replace missing frames: an unknown string, or a number out of range.

    Raises
    ------
    OptionError
    """
    if isinstance(missing, str) and missing in ("raise", "mask"):
        return
    try:
        given = np.asarray(missing)
        fits = given.shape == () and given.dtype.kind in ("biufc" if dtype.kind == "c" else "biuf")
        if fits and dtype.kind not in "fc":
            with np.errstate(all="ignore"):
                fits = bool(given.astype(dtype) == given)
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise OptionError(
            f"missing must be 'raise', 'mask' or a number that {dtype} can represent, got {missing!r:.60}"
        )


class _NoDaskError(UnsupportedOperationError):
    """Raised if dask is not installed. The pixels can still be read into memory, which does not need dask."""

    def __init__(self, read: "_ReadBlock", shape: tuple[int, ...], example: npt.NDArray[Any]) -> None:
        super().__init__("as_array needs dask; install it with: pip install 'dask[array]'")
        self._read, self._shape, self._example = read, shape, example

    def read_all_frames(self) -> npt.NDArray[Any]:
        """Return the array ``(*axes, *frame)`` in memory."""
        pixels = np.empty(self._shape + self._example.shape, self._example.dtype)
        for places in np.ndindex(*self._shape):
            pixels[places] = self._read(places)[(0,) * len(places)]
        return pixels


class _ReadBlock:
    """Reads the frame of one block. Instances can be pickled if the storage can be pickled."""

    def __init__(
        self, storage: Any, order: Any, values: Any, missing: Any, shape: tuple[int, ...], dtype: str
    ) -> None:
        self._storage = storage
        self._order = order
        self._values = values
        self._missing = missing
        self._shape = shape
        self._dtype = dtype

    def __call__(self, block_id: tuple[int, ...] | None = None) -> Any:
        assert block_id is not None
        places = block_id[: len(self._order)]
        axes = {axis: self._values[k][places[k]] for k, axis in enumerate(self._order)}
        lead = (None,) * len(self._order)
        try:
            data = self._storage.get_data(axes)
        except CoordinatesNotFoundError:  # no other error means that the frame is missing
            if self._missing == "raise":
                raise
            if self._missing == "mask":
                return np.ma.masked_all(self._shape, np.dtype(self._dtype))[lead]  # type: ignore[no-untyped-call]
            return np.full(self._shape, self._missing, np.dtype(self._dtype))[lead]
        if data.shape != self._shape or data.dtype.str != self._dtype:
            raise UnsupportedOperationError(
                f"the frame at {axes} has shape {data.shape} and dtype {data.dtype}, but the first frame "
                f"has shape {self._shape} and dtype {self._dtype}, so they cannot form one array"
            )
        return np.ma.asarray(data)[lead] if self._missing == "mask" else data[lead]
