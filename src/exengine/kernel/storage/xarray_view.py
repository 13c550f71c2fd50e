"""All frames of a storage as one xarray Dataset, which reads them lazily.

This is the only module of the kernel that uses xarray. It is imported only when it is needed, because it
loads xarray.
"""

import itertools
import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr  # type: ignore[import-not-found, unused-ignore]
from xarray.backends import BackendArray  # type: ignore[import-not-found, unused-ignore]
from xarray.core import indexing  # type: ignore[import-not-found, unused-ignore]

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import UnsupportedOperationError
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.array_view import present_frames
from exengine.kernel.storage.description import plan_of

_COLORS = "rgb"
"""The name of the dimension for the colors of a frame ``(Y, X, 3)``."""


def to_dataset(storage: DataStorage) -> Any:
    """Return a Dataset with a variable ``image`` that reads frames lazily, without dask.

    Raises
    ------
    UnsupportedOperationError
        If the frames cannot form one array, because their axes or their shapes differ.
    """
    frames = LazyFrames(storage)
    image = xr.Variable(
        frames.dims,
        indexing.LazilyIndexedArray(frames),
        encoding={"preferred_chunks": frames.chunks},
    )
    coordinates = _coordinates(frames, plan_of(storage))
    return xr.Dataset({"image": image}, coordinates, _attributes(storage))


def to_chunked_dataset(storage: DataStorage) -> Any:
    """Return the same Dataset with a dask array, in chunks of one frame, if dask is installed."""
    dataset = to_dataset(storage)
    try:
        import dask.array  # noqa: F401 - whether it is installed
    except ImportError:
        return dataset
    image = dataset["image"].variable
    return dataset.assign(image=image.chunk(image.encoding["preferred_chunks"]))


class LazyFrames(BackendArray):  # type: ignore[misc, unused-ignore]
    """An array ``(*axes, Y, X[, 3])`` that reads frames when it is indexed. Missing frames are 0.

    It can be pickled if the storage can be pickled.

    Attributes
    ----------
    dims : tuple of str
    shape : tuple of int
    dtype : numpy.dtype
    positions : dict of str to list of int or str
        The positions on each axis.
    present : numpy.ndarray
        A bool array ``(*axes)``, which is True where a frame exists.
    """

    def __init__(self, storage: DataStorage) -> None:
        self._storage = storage
        self.positions = {axis: list(positions) for axis, positions in storage.axes.items()}
        self.present, first = present_frames(storage, self.positions)
        example = storage.get_data(first)
        self._frame_shape = example.shape
        self.dtype = example.dtype
        self.shape = (*self.present.shape, *example.shape)
        of_frame = _dims_of_frame(example.shape)
        for axis in self.positions:
            if axis in (*of_frame, "image", "present"):
                raise UnsupportedOperationError(
                    f"the axis {axis!r} has the same name as another part of the Dataset; rename the axis "
                    "with exengine convert --rename"
                )
        self.dims = (*self.positions, *of_frame)

    @property
    def chunks(self) -> dict[str, int]:
        """The size of a chunk along each dimension. Each chunk is one frame."""
        frame = dict(zip(self.dims[self.present.ndim :], self._frame_shape, strict=True))
        return {**dict.fromkeys(self.positions, 1), **frame}

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Return the part of the array that integers and slices select."""
        leading, inside = key[: self.present.ndim], key[self.present.ndim :]
        chosen: list[Any] = [
            [int(part)] if isinstance(part, int | np.integer) else range(*part.indices(size))
            for part, size in zip(leading, self.present.shape, strict=True)
        ]
        shape = np.broadcast_to(np.zeros((), self.dtype), self._frame_shape)[inside].shape
        found = np.zeros((math.prod(map(len, chosen)), *shape), self.dtype)
        for number, place in enumerate(itertools.product(*chosen)):
            if self.present[place]:
                found[number] = self._frame(place)[inside]
        kept = [
            len(some)
            for some, part in zip(chosen, leading, strict=True)
            if not isinstance(part, int | np.integer)
        ]
        return found.reshape(*kept, *shape)

    def _frame(self, place: tuple[int, ...]) -> npt.NDArray[Any]:
        axes = {axis: some[at] for (axis, some), at in zip(self.positions.items(), place, strict=True)}
        data = self._storage.get_data(axes)
        if data.shape != self._frame_shape or data.dtype != self.dtype:
            raise UnsupportedOperationError(
                f"the frame at {axes} has shape {data.shape} and dtype {data.dtype}, but the first frame "
                f"has shape {self._frame_shape} and dtype {self.dtype}, so they cannot form one array"
            )
        return data


def _dims_of_frame(shape: tuple[int, ...]) -> tuple[str, ...]:
    if len(shape) == 2:
        return "y", "x"
    if len(shape) == 3 and shape[2] in (3, 4):
        return "y", "x", _COLORS
    return tuple(f"dim_{number}" for number in range(len(shape)))


def _coordinates(frames: LazyFrames, plan: SourcePlan) -> dict[str, Any]:
    """Return the coordinates: positions, their values in physical units if known, and ``present``."""
    found: dict[str, Any] = {}
    for axis, positions in frames.positions.items():
        found[axis] = (axis, _as_array(positions))
    found["present"] = (tuple(frames.positions), frames.present)
    lengths = dict(zip(frames.dims, frames.shape, strict=True))
    if plan.pixel_size_um is not None and "y" in lengths and "x" in lengths:
        for axis, size in zip("yx", plan.pixel_size_um, strict=True):
            found[axis] = (axis, np.arange(lengths[axis]) * size, {"units": "micrometer"})
    for axis, name, step, unit in (
        ("z", "z_um", plan.z_step_um, "micrometer"),
        ("time", "time_s", plan.interval_s, "second"),
    ):
        positions = frames.positions.get(axis, [])
        if step is not None and positions and all(isinstance(position, int) for position in positions):
            found[name] = (axis, np.asarray(positions) * step, {"units": unit})
    colors = {channel.name: channel.color or "" for channel in plan.channels}
    if any(colors.values()):
        channels = frames.positions.get("channel", [])
        found["channel_color"] = ("channel", _as_array([colors.get(str(name), "") for name in channels]))
    places = {place.name: place for place in plan.stage_positions}
    for axis in "xyz" if "position" in frames.positions else "":
        each = [getattr(places.get(name), f"{axis}_um", None) for name in frames.positions["position"]]
        if any(value is not None for value in each):
            values = np.asarray([math.nan if value is None else value for value in each], float)
            found[f"stage_{axis}_um"] = ("position", values, {"units": "micrometer"})
    return {name: value for name, value in found.items() if name not in frames.positions or value[0] == name}


def _as_array(values: list[Any]) -> npt.NDArray[Any]:
    """Return positions as an array. Its dtype is object if the positions mix integers and names."""
    kinds = {type(value) for value in values}
    return np.asarray(values, None if len(kinds) == 1 else object)


def _attributes(storage: DataStorage) -> dict[str, str]:
    found = {"path": storage.path or "", "backend": storage.backend_name}
    for name in ("status", "summary_metadata"):
        try:
            value = getattr(storage, name)
        except UnsupportedOperationError:
            continue
        found[name] = str(value) if name == "status" else json.dumps(value) if value else ""
    return {name: value for name, value in found.items() if value}
