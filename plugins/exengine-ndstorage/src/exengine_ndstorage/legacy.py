"""NDTiff of version 2, and multi-resolution pyramids: what the ``ndstorage`` library knows best.

The library prints to stdout and raises bare exceptions; neither gets out of here.
"""

import contextlib
import io
import os
import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from exengine.base_classes import DatasetReader, DataStorage, IndexedStorage
from exengine.errors import CoordinatesNotFoundError, DatasetDamagedError, UnsupportedOperationError
from exengine.kernel.coordinate_index import CoordinateIndex
from exengine.kernel.data_storage_base import DatasetStatus, JsonValue
from exengine_ndstorage.ndtiff import NDTiffStorage
from exengine_ndstorage.reader import NDTiffReader

_quiet_lock = threading.Lock()


@contextlib.contextmanager
def _library(path: str) -> Iterator[None]:
    """Silence the library, and turn whatever it raises into an error of ours."""
    # Redirecting stdout is for the whole process: one at a time.
    with _quiet_lock, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:
            raise DatasetDamagedError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


class Version2Reader(DatasetReader):
    """A dataset of NDTiff version 2, opened to read through ``ndstorage``."""

    capabilities = NDTiffStorage.capabilities
    backend_name = NDTiffStorage.backend_name

    def __init__(self, path: str) -> None:
        frames = CoordinateIndex()
        super().__init__(path, frames, DatasetStatus.COMPLETE)
        with _library(path):
            import ndstorage  # type: ignore[import-untyped]

            self._dataset: Any = ndstorage.Dataset(path)
            self._keys = [dict(key) for key in self._dataset.get_index_keys()]
        self._keys.sort(key=lambda key: tuple(sorted(key.items())))
        for key in self._keys:
            frames.add(key)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        """Open a dataset; see ``NDTiffStorage.open``."""
        return NDTiffStorage.open(path)

    @property
    def summary_metadata(self) -> JsonValue:
        return self._dataset.summary_metadata

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        with _library(self.path):
            return np.array(self._dataset.read_image(**self._keys[number]))

    def read_frame_metadata(self, number: int) -> JsonValue:
        with _library(self.path):
            return self._dataset.read_metadata(**self._keys[number])

    def release(self) -> None:
        with _library(self.path):
            self._dataset.close()


class PyramidReader(NDTiffReader):
    """A pyramid, opened to read: its frames are the tiles at full resolution.

    Parameters
    ----------
    path : str
        Of the folder that holds one folder per resolution level.
    """

    def __init__(self, path: str) -> None:
        super().__init__(os.path.join(path, "Full resolution"))
        self.root = path
        self._levels: dict[int, DatasetReader] = {0: self}
        self._stitcher: Any = None
        for name in sorted(os.listdir(path)):
            match = re.fullmatch(r"Downsampled_x(\d{1,9})", name)
            if match and os.path.isdir(os.path.join(path, name)):
                factor = int(match[1])
                if factor & (factor - 1) or factor < 2:
                    raise DatasetDamagedError(f"{path}: {name} is no power of 2")
                self._levels[factor.bit_length() - 1] = NDTiffReader(os.path.join(path, name))

    @property
    def resolution_levels(self) -> tuple[int, ...]:
        """The levels: 0 is full resolution, level n is smaller by ``2**n``."""
        return tuple(sorted(self._levels))

    def level(self, number: int) -> DatasetReader:
        """Return the tiles of one resolution level.

        Raises
        ------
        CoordinatesNotFoundError
            When there is no such level.
        """
        if number not in self._levels:
            raise CoordinatesNotFoundError(f"the levels are {self.resolution_levels}, got {number}")
        return self._levels[number]

    def as_array(
        self,
        axes: Iterable[str] | None = None,
        *,
        missing: Literal["raise", "mask"] | float = "raise",
        stitched: bool = False,
        level: int = 0,
    ) -> Any:
        """Return a level as one dask array.

        Parameters
        ----------
        axes, missing
            As for every storage; not for the stitched view.
        stitched : bool
            Lay the tiles side by side, without their overlap, instead of along ``row`` and ``column``.
            Tiles that were not acquired are 0.
        level : int
            Resolution level.
        """
        tiles = self.level(level)
        if not stitched:
            return IndexedStorage.as_array(tiles, axes, missing=missing)
        if axes is not None:
            raise UnsupportedOperationError("the stitched view has its axes in the order of the dataset")
        with _library(self.root):
            if self._stitcher is None:
                import ndstorage

                self._stitcher = ndstorage.Dataset(self.root)
            return self._stitcher.as_array(stitched=True, res_level=level)

    def release(self) -> None:
        super().release()
        if self._stitcher is not None:
            with _library(self.root):
                for tiles in self._stitcher.res_levels.values():  # its own close() raises
                    tiles.close()
        for number, tiles in self._levels.items():
            if number:
                tiles.close()
