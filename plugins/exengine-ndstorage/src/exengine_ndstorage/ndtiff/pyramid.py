"""Multi-resolution pyramids: one folder of tiles per resolution level, and the mosaic of the tiles.

Micro-Manager writes pyramids in its explore mode. Each tile has a ``row`` and a ``column``. Tiles at full
resolution overlap by the number of pixels given in the summary metadata. Tiles at the other levels do not
overlap.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from exengine.base_classes import DatasetReader, DatasetStatus, IndexedStorage, refuse_filler
from exengine.errors import (
    CoordinatesError,
    CoordinatesNotFoundError,
    DatasetDamagedError,
    UnsupportedOperationError,
)
from exengine_ndstorage.ndtiff.files import refuse_link
from exengine_ndstorage.ndtiff.format import FULL_RESOLUTION
from exengine_ndstorage.ndtiff.reader import NDTiffReader
from exengine_ndstorage.ndtiff.sizes import MAX_TILES


class PyramidReader(NDTiffReader):
    """A reader for a pyramid. It presents the tiles at full resolution as frames.

    Parameters
    ----------
    path : str
        The folder that contains one folder per resolution level.
    """

    def __init__(self, path: str) -> None:
        self._levels: dict[int, NDTiffReader] = {0: self}
        super().__init__(path, os.path.join(path, FULL_RESOLUTION))
        self.capabilities = replace(self.capabilities, pyramids=True)
        for name in sorted(os.listdir(path)):
            match = re.fullmatch(r"Downsampled_x(\d{1,9})", name)
            if match and os.path.isdir(os.path.join(path, name)):
                refuse_link(os.path.join(path, name))
                factor = int(match[1])
                if factor & (factor - 1) or factor < 2:
                    raise DatasetDamagedError(
                        f"{path}: the downsampling factor in the name {name} must be 2 or a higher power of 2"
                    )
                self._levels[factor.bit_length() - 1] = NDTiffReader(os.path.join(path, name))
        for tiles in self._levels.values():
            if tiles.status is DatasetStatus.DAMAGED and self.status is not DatasetStatus.DAMAGED:
                reason = f"{os.path.basename(tiles.path)}: {tiles.status_reason}"
                self.set_status(DatasetStatus.DAMAGED, reason)

    def check_structure(self) -> list[str]:
        found = super().check_structure()
        for number, tiles in self._levels.items():
            if number:
                found += [f"{os.path.basename(tiles.path)}: {text}" for text in tiles.check_structure()]
        return found

    @property
    def resolution_levels(self) -> tuple[int, ...]:
        """The resolution levels. Level 0 has full resolution; level n is smaller by a factor of ``2**n``."""
        return tuple(sorted(self._levels))

    def level(self, number: int) -> DatasetReader:
        """Return a reader for the tiles of one resolution level.

        Raises
        ------
        CoordinatesNotFoundError
            If the pyramid does not have this level.
        """
        if number not in self._levels:
            raise CoordinatesNotFoundError(f"level must be one of {self.resolution_levels}, got {number}")
        return self._levels[number]

    def as_array(
        self,
        axes: Iterable[str] | None = None,
        *,
        missing: Literal["raise", "mask"] | float = "raise",
        stitched: bool = False,
        level: int = 0,
    ) -> Any:
        """Return a resolution level as one dask array.

        Parameters
        ----------
        axes : iterable of str, optional
            The order of the leading axes. For a stitched view, omit ``row`` and ``column``. By default, the
            axes are in the order in which they first appeared.
        missing : {'raise', 'mask'} or number
            The result for positions without a tile: an error, masked pixels, or pixels with this value.
        stitched : bool
            Whether to join the tiles into one image, without their overlap. Otherwise, ``row`` and ``column``
            are axes of the array.
        level : int
            The resolution level.

        Returns
        -------
        dask.array.Array
            An array of shape ``(*axes, Y, X[, 3])``, with one chunk per tile.

        Raises
        ------
        CoordinatesNotFoundError
            If the pyramid does not have this level, or if tiles are missing and ``missing`` is ``'raise'``.
        """
        tiles = self.level(level)
        if not stitched:
            return IndexedStorage.as_array(tiles, axes, missing=missing)
        return _stitched(tiles, axes, missing, self._overlap() if level == 0 else (0, 0))

    def _overlap(self) -> tuple[int, int]:
        summary = self.summary_metadata if isinstance(self.summary_metadata, dict) else {}
        overlap = tuple(summary.get(f"GridPixelOverlap{axis}") for axis in "YX")
        if not all(type(pixels) is int and pixels >= 0 for pixels in overlap):
            raise UnsupportedOperationError(
                f"{self.path} cannot be stitched, because the summary metadata does not specify the overlap "
                "of the tiles"
            )
        return overlap  # type: ignore[return-value]  # two ints, checked above

    def release(self) -> None:
        super().release()
        for number, tiles in self._levels.items():
            if number:
                tiles.close()


def _stitched(
    tiles: DatasetReader, axes: Iterable[str] | None, missing: Any, overlap: tuple[int, int]
) -> Any:
    """Return the stitched mosaic of a level as a lazy array."""
    import dask.array as da

    positions = tiles.axes
    if not {"row", "column"} <= positions.keys():
        raise UnsupportedOperationError("tiles without the axes row and column cannot be stitched")
    others = tuple(axis for axis in positions if axis not in ("row", "column"))
    order = others if axes is None else tuple(axes)
    if sorted(order) != sorted(others):
        raise CoordinatesError(f"axes must be {', '.join(others)}, in any order; got {', '.join(order)}")
    if not len(tiles):
        raise CoordinatesNotFoundError(f"{tiles.path} has no tiles")
    values: list[Any] = [
        sorted(positions[axis], key=lambda value: (isinstance(value, str), value)) for axis in order
    ]
    for axis in ("row", "column"):
        numbers = [value for value in positions[axis] if isinstance(value, int)]
        if len(numbers) != len(positions[axis]):
            raise UnsupportedOperationError(
                f"tiles can be stitched only if all positions on the axis {axis} are numbers"
            )
        values.append(range(min(numbers), max(numbers) + 1))
    shape = [len(some) for some in values]
    count = int(np.prod(shape, dtype=float))
    if count > MAX_TILES:
        raise UnsupportedOperationError(f"a mosaic of {' x '.join(map(str, shape))} tiles is too large")
    if missing == "raise" and count != len(tiles):
        raise CoordinatesNotFoundError(
            f"tiles that were not acquired: {count - len(tiles)} of {count}; pass missing='mask', or a "
            "number as the fill value"
        )
    example = tiles.get_data(next(iter(tiles)))
    refuse_filler(missing, example.dtype)
    # Cut off half of the overlap on each side. If the overlap is odd, the extra pixel is cut at the end.
    cut = tuple(
        slice(pixels // 2, size - (pixels + 1) // 2)
        for pixels, size in zip(overlap, example.shape, strict=False)
    )
    inside = example[cut]
    if not inside.size:
        raise UnsupportedOperationError("the tiles overlap by more than their size")
    masked = isinstance(missing, str)
    empty = np.ma.empty if masked else np.empty
    rows, columns = shape[-2:]
    return da.map_blocks(  # type: ignore[no-untyped-call]
        _ReadTile(tiles, (*order, "row", "column"), values, missing, example, cut),
        name=f"exengine-mosaic-{os.urandom(8).hex()}",
        dtype=example.dtype,
        chunks=(
            *((1,) * size for size in shape[:-2]),
            (inside.shape[0],) * rows,
            (inside.shape[1],) * columns,
            *((size,) for size in inside.shape[2:]),
        ),
        meta=empty((0,) * (len(order) + inside.ndim), example.dtype),
    )


class _ReadTile:
    """A callable that reads one tile of a mosaic. Dask pickles it."""

    def __init__(
        self,
        tiles: DatasetReader,
        axes: tuple[str, ...],
        values: list[Any],
        missing: Any,
        example: npt.NDArray[Any],
        cut: tuple[slice, ...],
    ) -> None:
        self._tiles, self._axes, self._values = tiles, axes, values
        self._missing, self._shape, self._dtype, self._cut = missing, example.shape, example.dtype, cut

    def __call__(self, block_id: tuple[int, ...] | None = None) -> Any:
        assert block_id is not None
        axes = {axis: some[k] for axis, some, k in zip(self._axes, self._values, block_id, strict=False)}
        masked = isinstance(self._missing, str)
        try:
            data = self._tiles.get_data(axes)
        except CoordinatesNotFoundError:  # only this error means that a tile is missing
            if self._missing == "raise":
                raise
            tile = (
                np.ma.masked_all(self._shape, self._dtype)  # type: ignore[no-untyped-call]
                if masked
                else np.full(self._shape, self._missing, self._dtype)
            )
        else:
            if data.shape != self._shape or data.dtype != self._dtype:
                raise UnsupportedOperationError(
                    f"the tile at {axes} has shape {data.shape} and dtype {data.dtype}, but the first "
                    f"tile has shape {self._shape} and dtype {self._dtype}"
                )
            tile = np.ma.asarray(data) if masked else data
        return tile[self._cut][(None,) * (len(self._axes) - 2)]
