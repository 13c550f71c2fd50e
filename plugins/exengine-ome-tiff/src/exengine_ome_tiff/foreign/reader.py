"""Reads TIFF files that other programs wrote, without changing them."""

import os
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import tifffile

from exengine.base_classes import (
    CoordinateIndex,
    DatasetReader,
    DatasetStatus,
    JsonValue,
    PlannedChannel,
    PlannedPosition,
    SourcePlan,
    StorageCapabilities,
    clean_metadata,
)
from exengine.errors import DatasetDamagedError, ExEngineError, UnsupportedOperationError
from exengine_ome_tiff.bigtiff import METADATA_TAG, NOTES
from exengine_ome_tiff.capabilities import BACKEND_NAME, SUFFIXES
from exengine_ome_tiff.foreign.files import TiffFiles, as_damage, check_page, read_page, read_run
from exengine_ome_tiff.foreign.images import OmeImage, images_of, is_ome

_MOST_FAULTS = 100
_MOST_TEXT = 2**20
_AXES = {"T": "time", "C": "channel", "Z": "z", "P": "position"}
_FRAME_AXES = ("YXS", "SYX", "YX")
_IMAGEJ_UM = {"micron": 1.0, "um": 1.0, "µm": 1.0, "\\u00B5m": 1.0, "nm": 1e-3, "mm": 1e3}


class _Frame(NamedTuple):
    """A frame: the functions that read and check it, and its metadata."""

    read: Callable[[], npt.NDArray[Any]]
    check: Callable[[], None]
    metadata: dict[str, Any]


class ForeignReader(DatasetReader):
    """A TIFF file from another program: the Images of an OME-TIFF file, or the series that tifffile finds.

    Parameters
    ----------
    path : str

    Raises
    ------
    DatasetDamagedError, UnsupportedOperationError
    """

    capabilities = StorageCapabilities(
        persistent=True, string_axes=True, iterable=True, reopen=True, concurrent_readers=True
    )
    backend_name = BACKEND_NAME

    def __init__(self, path: str) -> None:
        self._index = CoordinateIndex()
        self._frames: list[_Frame] = []
        self._faults: list[str] = []
        self._plan = SourcePlan()
        self._files = TiffFiles(os.path.realpath(path))
        super().__init__(path, self._index, DatasetStatus.COMPLETE)
        try:
            chain = self._files.chain()
            self._note(chain.fault)
            first = self._files.page(None, 0)
            self._description = str(first.description)
            if METADATA_TAG in first.tags or self._description in NOTES:
                raise DatasetDamagedError(
                    f"{path} was written by ExEngine, but its beginning is damaged, so its frames cannot be "
                    "checked; other programs may still read it"
                )
            images = self._images(chain.pages)
            if not images and path.endswith(SUFFIXES):
                self._note(f"{path} has no OME-XML that describes images")
            with as_damage(path):
                for coordinates, frame in self._of_images(images) if images else self._of_series():
                    if self._index.find(coordinates) is not None:
                        raise DatasetDamagedError(f"{path} has two planes at {coordinates}")
                    self._index.add(coordinates)
                    self._frames.append(frame)
        except BaseException:
            self._files.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a file that another program wrote."""
        return cls(os.path.abspath(path))

    # -- OME-TIFF ------------------------------------------------------------------------------------

    def _images(self, pages: int) -> list[OmeImage]:
        if not is_ome(self._description):
            return []
        images = images_of(self._description, os.path.basename(self._files.path), pages)
        return [image for image in images if image.planes or image.metadata]

    def _of_images(self, images: list[OmeImage]) -> Iterator[tuple[dict[str, int | str], _Frame]]:
        names = [image.name for image in images]
        are_names = all(names) and len({*names}) == len(names)
        channel_names = [[name for name, _ in image.channels] for image in images]
        long = [max(lengths) > 1 for lengths in zip(*(image.sizes for image in images), strict=True)]
        self._plan = _plan_of(images, names if are_names else [*range(len(images))])
        pages: dict[str | None, int] = {}
        for number, (image, labels) in enumerate(zip(images, channel_names, strict=True)):
            are_labels = all(labels) and len({*labels}) == len(labels) == image.sizes[1]
            for indices in sorted(image.planes):
                file, page = image.planes[indices]
                if file not in pages:
                    pages[file] = self._pages_of(file)
                if page >= pages[file]:
                    self._note(f"page {page} of {file or self.path} is missing")
                    continue
                t, c, z = indices
                axes: dict[str, int | str] = {}
                if len(images) > 1:
                    axes["position"] = image.name if are_names else number
                if long[0]:
                    axes["time"] = t
                if long[1] or are_labels:
                    axes["channel"] = labels[c] if are_labels else c
                if long[2]:
                    axes["z"] = z
                yield axes or {"time": 0}, self._page_frame(file, page, image.metadata.get(indices, {}))

    def _pages_of(self, file: str | None) -> int:
        try:
            chain = self._files.chain(file)
        except ExEngineError as error:
            self._note(str(error))
            return 0
        self._note(chain.fault and f"{file}: {chain.fault}" if file else "")
        return chain.pages

    def _page_frame(self, file: str | None, number: int, metadata: dict[str, Any]) -> _Frame:
        def read() -> npt.NDArray[Any]:
            return read_page(self._files.page(file, number))

        return _Frame(read, lambda: check_page(self._files.page(file, number)), metadata)

    # -- other TIFF files ----------------------------------------------------------------------------

    def _of_series(self) -> Iterator[tuple[dict[str, int | str], _Frame]]:
        file = self._files.file()
        self._plan = _plan_of_imagej(file)
        every = file.series
        for number, series in enumerate(every):
            inner = next((axes for axes in _FRAME_AXES if series.axes.endswith(axes)), None)
            if inner is None:
                raise UnsupportedOperationError(f"{self.path} has an image with unusual axes: {series.axes}")
            lead = len(series.axes) - len(inner)
            names = [_axis(letter) for letter in series.axes[:lead]]
            if len({*names}) < len(names):
                names = [f"axis_{at}" for at in range(lead)]
            for at, indices in enumerate(product(*map(range, series.shape[:lead]))):
                frame = self._series_frame(series, at, inner, series.shape[lead:])
                if frame is None:
                    continue
                axes: dict[str, int | str] = {"series": number} if len(every) > 1 else {}
                axes.update(zip(names, indices, strict=True))
                yield axes or {"time": 0}, frame

    def _series_frame(self, series: Any, at: int, inner: str, shape: tuple[int, ...]) -> _Frame | None:
        if len(series.pages) * series.keyframe.size == series.size and series.keyframe.axes == inner:
            page = series.pages[at]
            return None if page is None else self._page_frame(None, page.index, {})
        if series.dataoffset is None:
            raise UnsupportedOperationError(
                f"{self.path} has pages that do not contain exactly one plane each"
            )
        dtype = np.dtype(series.dtype).newbyteorder(series.parent.byteorder)
        offset = series.dataoffset + at * int(np.prod(shape, dtype=object)) * dtype.itemsize

        def read() -> npt.NDArray[Any]:
            pixels = read_run(self._files.path, offset, shape, dtype)
            return np.moveaxis(pixels, 0, 2) if inner == "SYX" else pixels

        return _Frame(read, lambda: None, {})

    # -- the dataset ---------------------------------------------------------------------------------

    def _note(self, fault: str) -> None:
        if fault and fault not in self._faults and len(self._faults) < _MOST_FAULTS:
            self._faults.append(fault)

    @property
    def status(self) -> DatasetStatus:
        """The status: ``damaged`` if any fault has been found so far, otherwise ``complete``."""
        return DatasetStatus.DAMAGED if self._faults else super().status

    @property
    def status_reason(self) -> str:
        """The first fault that was found."""
        return self._faults[0] if self._faults else ""

    @property
    def summary_metadata(self) -> JsonValue:
        """A dict with the file's ImageDescription; empty if there is none, or if it exceeds 1 MiB."""
        is_short = 0 < len(self._description) <= _MOST_TEXT
        return {"image_description": self._description} if is_short else {}

    @property
    def recorded_plan(self) -> SourcePlan:
        """The pixel size, z step, interval, colors and stage positions, if the file contains them."""
        return self._plan

    def check_structure(self) -> list[str]:
        """Return the faults that were found, including pages whose pixels are not in the file."""
        for frame in self._frames:
            try:
                with self._files.lock:
                    frame.check()
            except ExEngineError as error:
                self._note(str(error))
        return list(self._faults)

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        try:
            with self._files.lock:
                return self._frames[number].read()
        except DatasetDamagedError as error:
            self._note(str(error))
            raise

    def read_frame_metadata(self, number: int) -> JsonValue:
        return clean_metadata(self._frames[number].metadata)

    def release(self) -> None:
        """Close the files."""
        self._files.close()


def _axis(letter: str) -> str:
    return _AXES.get(letter) or tifffile.TIFF.AXES_NAMES.get(letter, letter)


def _plan_of(images: list[OmeImage], names: list[Any]) -> SourcePlan:
    first = images[0]
    y, x = first.sizes_um.get("Y"), first.sizes_um.get("X")
    places = []
    for image, name in zip(images, names, strict=True):
        facts = next((facts for facts in image.metadata.values() if "position_um" in facts), {})
        stage = facts.get("position_um", {})
        places.append(PlannedPosition(name=name, **{f"{axis}_um": stage.get(axis) for axis in "xyz"}))
    return SourcePlan(
        pixel_size_um=None if y is None or x is None else (y, x),
        z_step_um=first.sizes_um.get("Z"),
        interval_s=first.interval_s,
        channels=tuple(PlannedChannel(name, color) for name, color in first.channels if name),
        stage_positions=tuple(places) if len(images) > 1 else (),
    )


def _plan_of_imagej(file: tifffile.TiffFile) -> SourcePlan:
    """Return the sizes that ImageJ wrote. Other programs often store the print resolution in these tags."""
    about = file.imagej_metadata or {}
    factor = _IMAGEJ_UM.get(str(about.get("unit")))
    if factor is None:
        return SourcePlan()
    tags = file.pages[0].aspage().tags
    sizes = []
    for name in ("YResolution", "XResolution"):
        pixels, units = tags[name].value if name in tags else (0, 1)
        if pixels and units:
            sizes.append(factor * units / pixels)
    spacing, interval = about.get("spacing"), about.get("finterval")
    return SourcePlan(
        pixel_size_um=(sizes[0], sizes[1]) if len(sizes) == 2 else None,
        z_step_um=float(spacing) * factor if spacing else None,
        interval_s=float(interval) if interval else None,
    )
