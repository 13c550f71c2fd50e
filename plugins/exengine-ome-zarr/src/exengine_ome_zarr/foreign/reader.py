"""Reads OME-Zarr datasets of versions 0.4 to 0.6 that other programs wrote, without changing them.

A foreign dataset does not record which frames were written. By the rules of Zarr, a chunk without a file, or
an empty chunk in a shard, has the fill value. Every frame within the shape of the array is therefore present.
A torn shard, in contrast, is reported: reading its frames raises an error, and ``check_structure`` lists it.
"""

import copy
import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import numpy.typing as npt

from exengine.base_classes import (
    DatasetReader,
    DatasetStatus,
    JsonValue,
    PlannedChannel,
    SourcePlan,
    StorageCapabilities,
)
from exengine.errors import (
    CoordinatesNotFoundError,
    DatasetDamagedError,
    ExEngineError,
    StorageClosedError,
)
from exengine_ome_zarr.foreign import lazy
from exengine_ome_zarr.foreign.images import ForeignDataset

MAX_FILES_TO_CHECK = 1_000_000
MAX_FAULTS = 100


class ForeignReader(DatasetReader):
    """A reader for an OME-Zarr dataset that another program wrote.

    Parameters
    ----------
    path : str
        The folder or the zip archive of the dataset.
    level : int
        The resolution level to read.
    dataset : ForeignDataset, optional
        The dataset, if it has already been parsed.
    """

    capabilities = StorageCapabilities(
        persistent=True,
        string_axes=True,
        iterable=True,
        reopen=True,
        concurrent_readers=True,
        pyramids=True,
    )
    backend_name = "ome-zarr"

    def __init__(self, path: str, level: int = 0, dataset: ForeignDataset | None = None) -> None:
        self._dataset = ForeignDataset(path) if dataset is None else dataset
        self._index = self._dataset.index(level)
        super().__init__(path, self._index, DatasetStatus.COMPLETE)
        self._level = level
        self._released = False
        self._place = self._dataset.level_numbers[level]
        self._frame_metadata: dict[int, dict[tuple[int, ...], JsonValue]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a dataset that another program wrote."""
        return cls(os.path.abspath(path))

    def __reduce__(self) -> Any:
        return type(self), (self.path, self._level)

    # -- status ----------------------------------------------------------------------------------

    @property
    def status(self) -> DatasetStatus:
        """The status: ``damaged`` if any fault has been found so far, otherwise ``complete``."""
        return DatasetStatus.DAMAGED if self._dataset.faults else super().status

    @property
    def status_reason(self) -> str:
        """The first fault that was found."""
        return self._dataset.faults[0] if self._dataset.faults else ""

    @property
    def summary_metadata(self) -> JsonValue:
        """The OME metadata, and the values in them that most programs need.

        A dict with the keys ``ome`` (of the root), ``image`` (of the first image, if it is not the root),
        ``pixel_size_um`` (``[y, x]``), ``z_step_um``, ``interval_s`` and ``channels``. Unknown values are
        left out.
        """
        image = self._dataset.images[0][1]
        summary: dict[str, JsonValue] = {"ome": copy.deepcopy(self._dataset.root.ome)}
        if image.key:
            own = image.attributes.get("ome") if image.zarr_format == 3 else image.attributes
            summary["image"] = copy.deepcopy(own)
        known = {
            "pixel_size_um": None if image.pixel_size_um is None else list(image.pixel_size_um),
            "z_step_um": image.z_step_um,
            "interval_s": image.interval_s,
            "channels": [
                {"name": name, "color": color} for name, color in zip(image.labels, image.colors, strict=True)
            ]
            if image.labels
            else None,
        }
        summary.update({name: value for name, value in known.items() if value is not None})
        return summary

    @property
    def recorded_plan(self) -> SourcePlan:
        """The pixel size, z step, interval and colors of the first image."""
        image = self._dataset.images[0][1]
        return SourcePlan(
            pixel_size_um=image.pixel_size_um,
            z_step_um=image.z_step_um,
            interval_s=image.interval_s,
            channels=tuple(map(PlannedChannel, image.labels, image.colors)),
        )

    def check_structure(self) -> list[str]:
        """Check the metadata of every array, the index of every shard and the size of raw chunks.

        No more than ``MAX_FILES_TO_CHECK`` files are checked, and no more than ``MAX_FAULTS`` faults are
        listed.
        """
        found: list[str] = []
        remaining = MAX_FILES_TO_CHECK
        for number, (_, image) in enumerate(self._dataset.images):
            for place in range(len(image.levels)):
                try:
                    array = self._dataset.array(number, place)
                except ExEngineError as error:
                    found.append(str(error))
                    continue
                prefix = array.layout.key
                for key in self._dataset.files.keys(prefix):
                    if not remaining or len(found) >= MAX_FAULTS:
                        break
                    remaining -= 1
                    problem = array.chunks.check_file(key[len(prefix) + 1 :])
                    if problem:
                        found.append(problem)
        faults = self._dataset.faults
        faults += [fault for fault in found if fault not in faults]
        return list(faults)

    # -- frames ----------------------------------------------------------------------------------

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        image, place = self._index.locate(number)
        data = self._read(image, place, [at + 1 for at in place])
        return data.reshape(data.shape[-2:])

    def read_block(self, image: int, begin: Sequence[int], end: Sequence[int]) -> npt.NDArray[Any]:
        """Return the frames of an image within a range of indices on each axis. ``as_array`` calls this.

        Returns
        -------
        numpy.ndarray
            ``(*axes, Y, X)``.
        """
        self._refuse_if_closed()
        data = self._read(image, begin, end)
        return data.reshape(
            [last - first for first, last in zip(begin, end, strict=True)] + [*data.shape[-2:]]
        )

    def _read(self, image: int, begin: Sequence[int], end: Sequence[int]) -> npt.NDArray[Any]:
        try:
            array = self._dataset.array(image, self._place)
            count = len(array.leading)  # without leading axes, an array is one frame, at time 0
            return array.read(begin[:count], end[:count])
        except DatasetDamagedError as error:
            if str(error) not in self._dataset.faults and len(self._dataset.faults) < MAX_FAULTS:
                self._dataset.faults.append(str(error))
            raise

    def read_frame_metadata(self, number: int) -> JsonValue:
        """Return the metadata that ``ome-writers`` stores for each frame; ``{}`` for other writers."""
        image, place = self._index.locate(number)
        if self._level:
            return {}
        known = self._frame_metadata.get(image)
        if known is None:
            known = self._frame_metadata[image] = _frame_metadata(self._dataset.images[image][1].attributes)
        return copy.deepcopy(known.get(place, {}))

    # -- resolution levels -----------------------------------------------------------------------

    @property
    def resolution_levels(self) -> tuple[int, ...]:
        """The resolution levels. Level n is smaller than level 0 by a factor of about ``2**n``."""
        return tuple(self._dataset.level_numbers) if not self._level else (0,)

    def level(self, number: int) -> "ForeignReader":
        """Return a reader for one resolution level. Its coordinates refer to the planes of that level.

        Raises
        ------
        CoordinatesNotFoundError
            If the dataset does not have this level.
        DatasetDamagedError
            If an array of this level cannot be read.
        """
        if number == 0:
            return self
        if self._level:
            raise CoordinatesNotFoundError(f"level must be one of {self.resolution_levels}, got {number}")
        self._refuse_if_closed()
        return type(self)(self.path, number, self._dataset)

    def as_array(
        self, axes: Iterable[str] | None = None, *, missing: Literal["raise", "mask"] | float = "raise"
    ) -> Any:
        """Return all frames as one dask array.

        Parameters
        ----------
        axes : iterable of str, optional
            The order of the leading axes; by default, the order in the file, after ``position``.
        missing : {'raise', 'mask'} or number
            How to treat missing frames. Frames can be missing only if images differ in their coordinates.

        Returns
        -------
        dask.array.Array
            ``(*axes, Y, X)``. Each block contains the frames of one chunk, or fewer if the chunk is large.
        """
        self._refuse_if_closed()
        arrays = [self._dataset.array(image, self._place) for image in range(len(self._dataset.images))]
        if not lazy.is_regular(self._index, arrays):
            return super().as_array(axes, missing=missing)
        return lazy.as_array(self, self._index, arrays[0], axes, missing)

    def _refuse_if_closed(self) -> None:
        if self._released:
            raise StorageClosedError(f"{self.path} is closed; open it again with exengine.open_dataset(...)")

    def release(self) -> None:
        self._released = True
        if not self._level:
            self._dataset.files.close()


def _frame_metadata(attributes: dict[str, Any]) -> dict[tuple[int, ...], JsonValue]:
    """Return the metadata that ``ome-writers`` stores in a group, as a dict with frame indices as keys."""
    own = attributes.get("ome_writers")
    listed = own.get("frame_metadata") if isinstance(own, dict) else None
    found: dict[tuple[int, ...], JsonValue] = {}
    for entry in listed if isinstance(listed, list) else ():
        place = entry.get("storage_index") if isinstance(entry, dict) else None
        if isinstance(place, list) and all(type(at) is int for at in place):
            found[tuple(place)] = {name: value for name, value in entry.items() if name != "storage_index"}
    return found
