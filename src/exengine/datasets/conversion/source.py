"""The frames of the dataset to convert. Each frame is read once before the conversion begins.

Unreadable frames are therefore found before anything is written. This first pass also computes a checksum of
each frame's pixels; the later comparison with the result uses these checksums.
"""

import array
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from exengine.datasets.conversion.cluster import Cluster
from exengine.datasets.conversion.frame_work import Datasets, Expected, examine, in_order, layout_of
from exengine.datasets.conversion.losses import kept_of
from exengine.datasets.conversion.selection import Selection
from exengine.datasets.opening import open_dataset
from exengine.datasets.verification import OnProgress
from exengine.kernel.capabilities import PlannedLayout
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import DatasetDamagedError, ExEngineError
from exengine.kernel.frames.axis_collector import AxisCollector
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.description import plan_of
from exengine.kernel.system import files
from exengine.kernel.system.bounded import parse_json

_MOST_BAD = 1000  # number of damaged frames after which the check stops
_MOST_HEADER_BYTES = 2**20
_MOST_THREADS = 4
_LEAST_SHARED_BYTES = 2**18  # frames smaller than this are read by a single thread
_MOST_BYTES = 2**28  # maximum total size of the frames that threads read at the same time
_MOST_TASK_FRAMES, _MOST_TASK_BYTES = 64, 16 * 2**20  # maximum size of a task of a cluster

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
        Whether the result omits the metadata of the frames.
    cluster : Cluster or None
        The workers that read the frames; None if threads of this process read them.
    """

    def __init__(self, dataset: DataStorage, path: str, selection: Selection) -> None:
        self.dataset = dataset
        self.path = path
        self.selection = selection
        self.cluster: Cluster | None = None
        self.layouts: list[PlannedLayout] = []
        self.checksums: array.array[int] = array.array("I")
        self.layout_numbers: array.array[int] = array.array("I")
        self.without_metadata = False
        self._kept: bytearray | None = None
        self._whole: SourcePlan | None = None
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

    def restrict(self, kept: bytearray, whole: SourcePlan) -> None:
        """Select the frames of one job, before they are checked.

        Parameters
        ----------
        kept : bytearray
            One byte per frame: whether to keep it.
        whole : SourcePlan
            The plan of the frames of all jobs.
        """
        self._kept, self._whole = kept, whole
        self._count()
        self.count_before_losses = self.count

    @property
    def pixel_bytes(self) -> int:
        """The total size of the pixels, in bytes."""
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
            If any frame cannot be read. The message describes the first such frame.
        """
        numbers: dict[PlannedLayout, int] = {}
        bad: list[str] = []
        count = 0
        for layout, checksum, problem in self.each(examine, self.pairs()):
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

    def each(
        self,
        work: Callable[[Datasets, _Item], _Result],
        items: Iterable[_Item],
        *,
        result: DataStorage | None = None,
        reopen: Callable[[], DataStorage] | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[_Result]:
        """Yield the result of ``work`` for each item, in order.

        Parameters
        ----------
        work : callable
            A function of :mod:`~exengine.datasets.conversion.frame_work`.
        items : iterable
        result : DataStorage, optional
            The result of the conversion, if the work reads it.
        reopen : callable, optional
            Opens the result a second time, on a worker of the cluster.
        is_stopped : callable
            Returns whether to end early.
        """
        if self.cluster is not None:
            openers: list[Callable[[], DataStorage]] = [partial(open_dataset, self.path)]
            if reopen is not None:
                openers.append(reopen)
            batch = max(1, min(_MOST_TASK_FRAMES, _MOST_TASK_BYTES // max(1, self._frame_bytes)))
            return self.cluster.in_order(work, openers, items, batch, is_stopped)
        datasets: Datasets = (self.dataset,) if result is None else (self.dataset, result)
        threads = self._threads if all(each.capabilities.concurrent_readers for each in datasets) else 1
        return in_order(partial(work, datasets), items, threads)

    @property
    def _threads(self) -> int:
        """The number of threads that read frames. Several threads are faster only for large frames."""
        size = self._frame_bytes
        if size < _LEAST_SHARED_BYTES:
            return 1
        return max(1, min(_MOST_THREADS, os.cpu_count() or 1, _MOST_BYTES // size))

    @property
    def _frame_bytes(self) -> int:
        """The size of the first frame, in bytes."""
        shape, dtype = self.layouts[0] if self.layouts else self.first_layout()
        return math.prod(shape) * np.dtype(dtype).itemsize

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
        """Return the plan of the result, or of the dataset that several jobs write."""
        shape, dtype = self.layouts[0] if len(self.layouts) == 1 else (None, None)
        if self._whole is not None:
            return replace(self._whole, shape=shape, dtype=dtype, layouts=tuple(self.layouts))
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
        found = read_checked(path, self.count)
        if found is None:
            return False
        self.layouts, self.checksums, self.layout_numbers = found
        return True

    def expected(self) -> Iterator[Expected]:
        """Yield each frame's coordinates; its layout and checksum if the frames have been checked."""
        if self.is_assumed:
            yield from map(Expected, self.pairs())
            return
        facts = zip(self.pairs(), self.layout_numbers, self.checksums, strict=True)
        for pair, number, checksum in facts:
            yield Expected(pair, self.layouts[number], checksum)


def read_checked(
    path: str, count: int
) -> tuple[list[PlannedLayout], "array.array[int]", "array.array[int]"] | None:
    """Return the layouts, the checksums and the layout numbers that :meth:`SourceFrames.save` stored.

    Parameters
    ----------
    path : str
    count : int
        The number of frames.

    Returns
    -------
    tuple or None
        None if the file is missing or damaged, or is for a different number of frames.
    """
    try:
        with os.fdopen(files.open_regular(path), "rb") as file:
            header = file.readline(_MOST_HEADER_BYTES)
            body = file.read()
    except OSError:
        return None
    body, checksum = body[:-4], body[-4:]
    if zlib.crc32(header + body).to_bytes(4, "little") != checksum:
        return None
    value = parse_json(header)
    size = count * array.array("I").itemsize
    if value["count"] != count or len(body) != 2 * size:
        return None
    layouts = [(tuple(shape), dtype) for shape, dtype in value["layouts"]]
    return layouts, array.array("I", body[:size]), array.array("I", body[size:])


def write_durably(path: str, content: bytes) -> None:
    """Create or replace a file, so that either its old or its new content survives power loss."""
    new = f"{path}.new"
    with os.fdopen(files.open_new(new), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    files.sync_folder(os.path.dirname(path))
