"""The images of a dataset, and their arrays at each resolution level.

A dataset is one image, a plate, a well or a series of images. If there are several images, each has a
position. Each axis of the arrays becomes an axis of the coordinates.
"""

import math
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.errors import (
    CoordinatesNotFoundError,
    DatasetDamagedError,
    DatasetNotFoundError,
    ExEngineError,
    UnsupportedOperationError,
)
from exengine_ome_zarr.foreign.arrays import ArrayLayout, read_layout
from exengine_ome_zarr.foreign.documents import (
    Group,
    Image,
    image_keys,
    kind_of_group,
    read_group,
    read_image,
)
from exengine_ome_zarr.foreign.encoded import ChunkFiles
from exengine_ome_zarr.foreign.files import Files, files_at
from exengine_ome_zarr.foreign.grid import POSITION, GridIndex, ImageGrid

MAX_FRAMES = 10_000_000
"""The maximum number of frames in a dataset."""
MAX_FRAME_BYTES = 2**32
"""The maximum size of a frame. A frame is read as a whole."""
MAX_CHUNKS_PER_FRAME = 100_000
"""The maximum number of chunks in a frame; zarr-python reads about 20,000 per second."""

_opening = threading.Lock()


class LevelArray:
    """One of an image's arrays (one resolution level), from which frames are read.

    Parameters
    ----------
    files : Files
    layout : ArrayLayout
    axes : tuple of str
        The axes of the array, including ``y`` and ``x``.

    Raises
    ------
    DatasetDamagedError
        If the array does not have one dimension per axis.
    """

    def __init__(self, files: Files, layout: ArrayLayout, axes: tuple[str, ...]) -> None:
        if len(layout.shape) != len(axes):
            raise DatasetDamagedError(
                f"{files.name(layout.key)} has {len(layout.shape)} dimensions, but its image has the axes "
                f"{', '.join(axes)}"
            )
        self.layout = layout
        self.chunks = ChunkFiles(files, layout)
        self._name = files.name(layout.key)
        self._array: Any = None
        leading = [place for place, axis in enumerate(axes) if axis not in ("y", "x")]
        self._order = (*leading, axes.index("y"), axes.index("x"))
        self.leading = tuple(axes[place] for place in leading)
        """The axes of the frames' coordinates."""
        self.shape = tuple(layout.shape[place] for place in self._order)
        """The shape of the array, with its axes in the order ``(*leading, y, x)``."""
        self.chunk = tuple(layout.chunk[place] for place in self._order)
        """The shape of a chunk, with its axes in the order ``(*leading, y, x)``."""

    def refuse_large_frames(self) -> None:
        """Raise UnsupportedOperationError if a frame is too large to be read as a whole."""
        frame_bytes = math.prod(self.shape[-2:]) * self.layout.dtype.itemsize
        if frame_bytes > MAX_FRAME_BYTES:
            raise UnsupportedOperationError(
                f"{self._name}: a frame has {frame_bytes} bytes; the limit is {MAX_FRAME_BYTES}"
            )
        chunks = math.prod(-(-a // b) for a, b in zip(self.shape[-2:], self.chunk[-2:], strict=True))
        if chunks > MAX_CHUNKS_PER_FRAME:
            raise UnsupportedOperationError(
                f"{self._name}: a frame has {chunks} chunks; the limit is {MAX_CHUNKS_PER_FRAME}"
            )

    def read(self, begin: Sequence[int], end: Sequence[int]) -> npt.NDArray[Any]:
        """Return whole frames.

        Parameters
        ----------
        begin, end : sequence of int
            The range of indices on each leading axis.

        Returns
        -------
        numpy.ndarray
            ``(*leading, Y, X)`` in native byte order. Chunks that were never written have the fill value.

        Raises
        ------
        DatasetDamagedError, UnsupportedOperationError
        """
        self.refuse_large_frames()
        selection = [slice(None)] * len(self._order)
        for axis, first, last in zip(self._order, begin, end, strict=False):
            selection[axis] = slice(first, last)
        try:
            array = self._array
            if array is None:
                array = self._array = self._open()
            data = np.asarray(array[tuple(selection)])
        except ExEngineError:
            raise
        except Exception as error:  # zarr-python and its codecs raise various errors
            raise DatasetDamagedError(
                f"{self._name} cannot be decoded at {self._files_of(begin)}: {type(error).__name__}: {error}"
            ) from error
        return np.ascontiguousarray(data.transpose(self._order), dtype=self.layout.dtype)

    def _open(self) -> Any:
        from exengine_ome_zarr.foreign.zarr_store import open_array

        # The warning filters belong to the whole process, so only one thread at a time may replace them.
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_array(self.layout, self.chunks)

    def _files_of(self, begin: Sequence[int]) -> str:
        """Return the name of the file that contains the first pixel of a frame."""
        place = [0] * len(self._order)
        for axis, first in zip(self._order, begin, strict=False):
            place[axis] = first // (self.layout.shard or self.layout.chunk)[axis]
        return self.layout.file_name(tuple(place))


class ForeignDataset:
    """A dataset that another program wrote.

    Parameters
    ----------
    path : str
        The absolute path of a folder or a zip archive.

    Attributes
    ----------
    files : Files
    root : Group
    images : list of (position, Image)
        The position is None if the dataset is a single image.
    faults : list of str
        The faults that were found. If there are any, the status of the dataset is ``damaged``.

    Raises
    ------
    DatasetNotFoundError
        If there is no OME-Zarr dataset at the path.
    DatasetDamagedError, UnsupportedOperationError
        If none of its images can be read.
    """

    def __init__(self, path: str) -> None:
        self.files = files_at(path)
        self.faults: list[str] = []
        self._levels: dict[tuple[int, int], LevelArray] = {}
        self._lock = threading.Lock()
        root = read_group(self.files, "")
        if root is None or not kind_of_group(root):
            raise DatasetNotFoundError(f"{path} does not contain an OME-Zarr dataset")
        self.root = root
        if kind_of_group(root) == "image":
            self.images: list[tuple[int | str | None, Image]] = [(None, read_image(self.files, root))]
        else:
            self.images = self._read_images()
        self.level_numbers = self._number_levels()

    def _read_images(self) -> list[tuple[int | str | None, Image]]:
        """Return the images of a plate, a well or a series. Record unreadable images as faults."""
        images: list[Image] = []
        first_error: ExEngineError | None = None
        for key in image_keys(self.files, self.root):
            try:
                group = read_group(self.files, key)
                if group is None or kind_of_group(group) != "image":
                    raise DatasetDamagedError(
                        f"{self.files.name(key)} is listed as an image, but it is not one"
                    )
                image = read_image(self.files, group)
                if POSITION in image.axes:
                    raise UnsupportedOperationError(f"{self.files.name(key)} has an axis {POSITION!r}")
                layout = read_layout(self.files, image.levels[0], image.zarr_format)
                self._levels[len(images), 0] = LevelArray(self.files, layout, image.axes)
            except ExEngineError as error:
                first_error = first_error or error
                self.faults.append(str(error))
            else:
                images.append(image)
        if not images:
            if first_error is not None:
                raise first_error
            raise DatasetDamagedError(f"{self.files.name('')} lists no images")
        names = [image.name for image in images]
        keys = [image.key for image in images]
        distinct = all(names) and len(set(names)) == len(names)
        if kind_of_group(self.root) == "series" and distinct and names != keys:
            return list(zip(names, images, strict=True))
        if all(key.isdecimal() and str(int(key)) == key and len(key) < 10 for key in keys):
            return [(int(image.key), image) for image in images]
        return [(image.key, image) for image in images]

    def _number_levels(self) -> dict[int, int]:
        """Return a mapping from the number of a level to its place in each image's list of levels.

        Level n is smaller than level 0 by a factor of about ``2**n``. Levels that some images lack are
        omitted.
        """
        numbers = {0: 0}
        full = max(self.array(0, 0).shape[-2:])
        for place in range(1, min(len(image.levels) for _, image in self.images)):
            try:
                size = max(self.array(0, place).shape[-2:])
            except ExEngineError as error:
                self.faults.append(str(error))
                continue
            number = round(math.log2(full / size)) if size and full else place
            if number > max(numbers):
                numbers[number] = place
        return numbers

    def array(self, image: int, place: int) -> LevelArray:
        """Return an image's array for the resolution level at ``place`` in the image's list of levels.

        Raises
        ------
        DatasetDamagedError, UnsupportedOperationError
        """
        known = self._levels.get((image, place))
        if known is not None:
            return known
        described = self.images[image][1]
        layout = read_layout(self.files, described.levels[place], described.zarr_format)
        with self._lock:
            return self._levels.setdefault((image, place), LevelArray(self.files, layout, described.axes))

    def index(self, level: int) -> GridIndex:
        """Return the index that finds the frames of a resolution level.

        Raises
        ------
        CoordinatesNotFoundError
            If the dataset does not have this level.
        DatasetDamagedError
            If it claims to have too many frames.
        """
        if level not in self.level_numbers:
            raise CoordinatesNotFoundError(f"level must be one of {tuple(self.level_numbers)}, got {level}")
        grids = []
        count = 0
        for number, (position, image) in enumerate(self.images):
            array = self.array(number, self.level_numbers[level])
            axes: dict[str, Sequence[int | str]] = {}
            for axis, length in zip(array.leading, array.shape, strict=False):
                named = axis == "channel" and len(image.labels) == length
                axes[axis] = image.labels if named else range(length)
            if not axes and position is None:
                axes["time"] = range(1)
            grids.append(ImageGrid(position, axes))
            count += math.prod(grids[-1].shape)
            if count > MAX_FRAMES:
                raise DatasetDamagedError(
                    f"{self.files.name('')} claims to have {count} frames or more; the limit is {MAX_FRAMES}"
                )
        return GridIndex(grids)


def is_foreign_dataset(path: str) -> bool:
    """Return whether a path is an OME-Zarr dataset; raise an error if its metadata cannot be read."""
    group: Group | None = read_group(files_at(path), "")
    return group is not None and bool(kind_of_group(group))
