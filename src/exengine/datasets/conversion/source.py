"""The frames of the dataset to convert. Each frame is read once before the conversion begins.

Unreadable frames are therefore found before anything is written. This first pass also computes a checksum of
each frame's pixels; the later comparison with the result uses these checksums.
"""

import array
import json
import math
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from exengine.datasets.conversion.losses import kept_of
from exengine.datasets.conversion.selection import Selection
from exengine.datasets.verification import OnProgress
from exengine.kernel.capabilities import PlannedLayout
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import DatasetDamagedError, ExEngineError, message_of
from exengine.kernel.frames.axis_collector import AxisCollector
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.description import plan_of
from exengine.kernel.system import files
from exengine.kernel.system.bounded import parse_json

_MOST_BAD = 1000  # number of damaged frames after which the check stops
_MOST_HEADER_BYTES = 2**20
_MOST_THREADS = 4
_LEAST_SHARED_BYTES = 2**18  # frames smaller than this are read by a single thread
_MOST_BYTES = 2**28  # total size of the frames that are read at the same time

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class SourceFrames:
    """The selected frames of a dataset.

    Parameters
    ----------
    dataset : DataStorage
    path : str
        The path of the dataset, for messages.
    selection : Selection

    Attributes
    ----------
    layouts : list of (shape, dtype)
        The distinct layouts of the frames.
    checksums, layout_numbers : array of int
        The CRC-32 of each frame's pixels, and the number of its layout. Empty until the frames are checked.
    without_metadata : bool
        Whether the result contains no metadata.
    """

    def __init__(self, dataset: DataStorage, path: str, selection: Selection) -> None:
        self.dataset = dataset
        self.path = path
        self.selection = selection
        self.layouts: list[PlannedLayout] = []
        self.checksums: array.array[int] = array.array("I")
        self.layout_numbers: array.array[int] = array.array("I")
        self.without_metadata = False
        self._kept: bytearray | None = None
        self._count()
        self.count_before_losses = self.count
        """The number of selected frames, whether or not the result can contain them."""

    def _count(self) -> None:
        self._collector = AxisCollector()
        self.count = 0
        for _, new in self.pairs():
            self._collector.add(new)
            self.count += 1

    def pairs(self) -> Iterator[tuple[DataCoordinates, DataCoordinates]]:
        """Yield each frame's coordinates in the dataset, and its coordinates in the result."""
        return iter(kept_of(self.selection.pairs(self.dataset), self._kept))

    @property
    def is_whole(self) -> bool:
        """Whether the result contains every frame of the dataset, with the same axes."""
        return self.selection.is_whole and self._kept is None

    def with_layouts(self) -> Iterator[tuple[DataCoordinates, PlannedLayout]]:
        """Yield each frame's coordinates in the result, and its layout. The frames must have been checked."""
        for (_, new), number in zip(self.pairs(), self.layout_numbers, strict=True):
            yield new, self.layouts[number]

    def leave_out(self, kept: bytearray) -> None:
        """Leave out frames, after they have been checked.

        Parameters
        ----------
        kept : bytearray
            One byte per frame: whether to keep it.
        """
        numbers = array.array("I", kept_of(self.layout_numbers, kept))
        used = sorted(set(numbers))
        self.layouts = [self.layouts[number] for number in used]
        self.layout_numbers = array.array("I", map(used.index, numbers))
        self.checksums = array.array("I", kept_of(self.checksums, kept))
        self._kept = kept
        self._count()
        self.count_before_losses = len(kept)

    @property
    def pixel_bytes(self) -> int:
        """The size of all pixels, in bytes."""
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.layouts]
        return sum(sizes[number] for number in self.layout_numbers)

    @property
    def largest_bytes(self) -> int:
        """The size of the largest frame, in bytes."""
        return max(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.layouts)

    def check(self, on_progress: OnProgress) -> None:
        """Read every frame.

        Raises
        ------
        DatasetDamagedError
            If frames cannot be read. The message gives the first one.
        """
        numbers: dict[PlannedLayout, int] = {}
        bad: list[str] = []
        count = 0
        for layout, checksum, problem in in_order(self._examine, self.pairs(), self.threads):
            count += 1
            if layout is None:
                bad.append(problem)
                if len(bad) == _MOST_BAD:
                    break
                continue
            if layout not in numbers:
                numbers[layout] = len(numbers)
                self.layouts.append(layout)
            self.checksums.append(checksum)
            self.layout_numbers.append(numbers[layout])
            on_progress(count, self.count)
        if bad:
            least = "at least " if len(bad) == _MOST_BAD else ""
            raise DatasetDamagedError(
                f"{least}{len(bad)} of {self.count} frames of {self.path} cannot be read, the first at "
                f"{bad[0]}. Nothing was written; run exengine recover, and convert the recovered dataset"
            )

    def _examine(
        self, pair: tuple[DataCoordinates, DataCoordinates]
    ) -> tuple[PlannedLayout | None, int, str]:
        """Read a frame; return its layout and checksum, or None and a description of the problem."""
        coordinates, _ = pair
        try:
            pixels = self.dataset.get_data(coordinates)
            self.dataset.get_metadata(coordinates)
        except Exception as error:  # any error, even from a library that the backend uses
            return None, 0, f"{coordinates.coordinate_dict}: {message_of(error)}"
        return layout_of(pixels), checksum_of(pixels), ""

    @property
    def threads(self) -> int:
        """The number of threads that read frames. Several threads are faster only for large frames."""
        shape, dtype = self.layouts[0] if self.layouts else self.first_layout()
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < _LEAST_SHARED_BYTES or not self.dataset.capabilities.concurrent_readers:
            return 1
        return max(1, min(_MOST_THREADS, os.cpu_count() or 1, _MOST_BYTES // size))

    def assume(self, layout: PlannedLayout) -> None:
        """Assume, instead of checking, that all frames can be read and have the same layout."""
        self.layouts = [layout]
        self.layout_numbers = array.array("I", bytes(self.count * self.layout_numbers.itemsize))
        self.checksums = array.array("I")

    def forget(self) -> None:
        """Discard the assumed layouts, so that the frames can be checked."""
        self.layouts = []
        self.layout_numbers, self.checksums = array.array("I"), array.array("I")

    @property
    def is_assumed(self) -> bool:
        """Whether the layouts are only assumed."""
        return len(self.checksums) != self.count

    def first_layout(self) -> PlannedLayout:
        """Return the layout of the first frame.

        Raises
        ------
        DatasetDamagedError
            If the frame cannot be read.
        """
        first, _ = next(self.pairs())
        try:
            return layout_of(self.dataset.get_data(first))
        except ExEngineError as error:
            raise DatasetDamagedError(
                f"the frame at {first.coordinate_dict} of {self.path} cannot be read: {error}; run exengine "
                "recover, and convert the recovered dataset"
            ) from error

    def plan(self) -> SourcePlan:
        """Return the plan of the result."""
        shape, dtype = self.layouts[0] if len(self.layouts) == 1 else (None, None)
        return replace(
            self.facts(),
            frames=self.count,
            shape=shape,
            dtype=dtype,
            layouts=tuple(self.layouts),
            pixel_bytes=self.pixel_bytes,
            axes=self._collector.axes(),
            coordinates=lambda: (new for _, new in self.pairs()),
        )

    def facts(self) -> SourcePlan:
        """Return the pixel size, the channels and the positions of the result.

        Facts about a renamed axis are omitted. If only some positions on an axis are selected, the distance
        between positions is also omitted.
        """
        found, chosen, rename = plan_of(self.dataset), self.selection.chosen, self.selection.rename
        if "z" in chosen or "z" in rename:
            found = replace(found, z_step_um=None)
        if "time" in chosen or "time" in rename:
            found = replace(found, interval_s=None)
        names = chosen.get("channel")
        if "channel" in rename or names is not None:
            kept = set() if "channel" in rename else {str(name) for name in names or ()}
            channels = tuple(each for each in found.channels if each.name in kept)
            found = replace(found, channels=channels)
        if "position" in rename:
            found = replace(found, stage_positions=(), plate=None)
        elif "position" in chosen:
            places = tuple(each for each in found.stage_positions if each.name in chosen["position"])
            found = replace(found, stage_positions=places)
        return found

    # -- the result of the check, for a second attempt -------------------------------------------

    def save(self, path: str) -> None:
        """Store the checksums in a file, so that a second attempt need not check the frames again."""
        header = json.dumps({"count": self.count, "layouts": self.layouts}).encode() + b"\n"
        body = self.checksums.tobytes() + self.layout_numbers.tobytes()
        write_durably(path, header + body + zlib.crc32(header + body).to_bytes(4, "little"))

    def load(self, path: str) -> bool:
        """Read the checksums that :meth:`save` stored; return whether they are complete."""
        try:
            with os.fdopen(files.open_regular(path), "rb") as file:
                header = file.readline(_MOST_HEADER_BYTES)
                body = file.read()
        except OSError:
            return False
        body, checksum = body[:-4], body[-4:]
        if zlib.crc32(header + body).to_bytes(4, "little") != checksum:
            return False
        value = parse_json(header)
        size = self.count * self.checksums.itemsize
        if value["count"] != self.count or len(body) != 2 * size:
            return False
        self.layouts = [(tuple(shape), dtype) for shape, dtype in value["layouts"]]
        self.checksums = array.array("I", body[:size])
        self.layout_numbers = array.array("I", body[size:])
        return True

    def differs(self, number: int, coordinates: DataCoordinates, pixels: npt.NDArray[Any]) -> bool:
        """Return whether pixels differ from those of a frame.

        Parameters
        ----------
        number : int
            The number of the frame.
        coordinates : DataCoordinates
            Its coordinates in the dataset. The frame is read if its checksum is not known.
        pixels : numpy.ndarray
        """
        if self.is_assumed:
            mine = self.dataset.get_data(coordinates)
            return layout_of(pixels) != layout_of(mine) or checksum_of(pixels) != checksum_of(mine)
        layout = self.layouts[self.layout_numbers[number]]
        return layout_of(pixels) != layout or checksum_of(pixels) != self.checksums[number]


def in_order(work: Callable[[_Item], _Result], items: Iterable[_Item], threads: int) -> Iterator[_Result]:
    """Yield the result of a function for each item, in order, while threads work on the next items."""
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="exengine-convert-read") as pool:
        running: deque[Future[_Result]] = deque()
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) > threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for each in running:
                each.cancel()


def layout_of(pixels: npt.NDArray[Any]) -> PlannedLayout:
    """Return the shape and dtype of a frame."""
    return pixels.shape, pixels.dtype.newbyteorder("=").name


def checksum_of(pixels: npt.NDArray[Any]) -> int:
    """Return the CRC-32 of the pixels of a frame, in native byte order."""
    native: Any = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
    return zlib.crc32(native.reshape(-1).view(np.uint8)) if native.size else 0


def write_durably(path: str, content: bytes) -> None:
    """Create or replace a file, so that either its old or its new content survives power loss."""
    new = f"{path}.new"
    with os.fdopen(files.open_new(new), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    files.sync_folder(os.path.dirname(path))
