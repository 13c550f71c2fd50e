"""The frame source ``replay``: replays the frames of an existing dataset.

Use it to test a backend, a config or a disk with real frames but without a microscope. The dataset is only
read. Its coordinates, pixels and metadata are passed on unchanged, in the order in which they were stored.
"""

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Gt

from exengine.datasets.opening import open_dataset
from exengine.kernel.capabilities import PlannedLayout
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import SourceError, UnsupportedOperationError
from exengine.kernel.frame_source_base import FrameSource, Sink, SourcePlan
from exengine.kernel.frames.axis_collector import AxisCollector
from exengine.kernel.registry.options import check_options
from exengine.kernel.storage.description import plan_of
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system import files

if TYPE_CHECKING:
    import useq

_TIME_KEYS = ("elapsed_ms", "runner_time_ms", "ElapsedTime-ms")
"""The keys under which ExEngine, pymmcore-plus and Micro-Manager store the time since the start."""

_Due = Callable[[int, DataCoordinates, Any], float]
"""Takes the number, coordinates and metadata of a frame; returns its due time in seconds since the start."""


class ReplaySource(FrameSource):
    """Replays the frames of an existing dataset, at the recorded rate, a constant rate or the maximum rate.

    The dataset can have any format that an installed backend can open. It supplies the plan of the
    acquisition: the axes, the pixel size, the channels and the stage positions. A sequence is therefore
    refused.

    Parameters
    ----------
    path : str
        Path or URL of the dataset to replay.
    rate : {"recorded", "max"} or float
        Frames per second. With ``recorded``, frames are delivered at the times recorded in the dataset; with
        ``max``, as fast as they can be read and stored.

    Raises
    ------
    OptionError
        If an option has a wrong value.

    Notes
    -----
    The recorded time of a frame is ``elapsed_ms``, ``runner_time_ms`` or ``ElapsedTime-ms`` in its metadata.
    If the first frame has none of them, time points are replayed at the interval of the dataset.

    An acquisition that is continued with ``--resume`` replays only the missing frames.

    If the dataset is still being written, only the frames that it has at the start are replayed. A cancelled
    source cannot be used again. Create a new source instead.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import useq
    >>> import exengine
    >>> from exengine.frame_sources.replay import ReplaySource
    >>> path = tempfile.mkdtemp() + "/recorded"
    >>> with exengine.open_storage("ndtiff", path) as storage:
    ...     for time in range(2):
    ...         storage.put({"time": time}, np.full((4, 4), time, np.uint16), {"exposure_ms": 10})
    >>> source = ReplaySource(path)
    >>> plan = source.prepare(useq.MDASequence())
    >>> plan.frames, plan.shape, plan.dtype
    (2, (4, 4), 'uint16')
    >>> source.run(lambda coordinates, frame, metadata: print(coordinates, frame.max(), metadata))
    DataCoordinates({'time': 0}) 0 {'exposure_ms': 10}
    DataCoordinates({'time': 1}) 1 {'exposure_ms': 10}
    >>> source.close()
    """

    needs_sequence = False
    conformance_options = "exengine.testing.recorded:replay_options"

    def __init__(self, path: str, rate: Literal["recorded", "max"] | Annotated[float, Gt(0)] = "max") -> None:
        path = os.fspath(path)
        check_options(ReplaySource, path=path, rate=rate)
        self._path = path if is_url(path) else files.expanded(path)
        self._rate = rate
        self._dataset: DataStorage | None = None
        self._frames = 0
        self._due: _Due | None = None
        self._existing: Container[DataCoordinates] = ()
        self._cancelled = threading.Event()

    @property
    def paths_read(self) -> Sequence[str]:
        """The path of the dataset to replay."""
        return (self._path,)

    def prepare(self, sequence: "useq.MDASequence", /) -> SourcePlan:
        """Open the dataset, and return the plan of its frames.

        Parameters
        ----------
        sequence : useq.MDASequence
            An empty sequence.

        Returns
        -------
        SourcePlan
            The number, layout, axes and positions of the frames.

        Raises
        ------
        SourceError
            If the sequence is not empty, if the dataset has no frames, or if ``rate`` is ``recorded`` and the
            dataset has no times.
        ExEngineError
            If the dataset cannot be opened.
        """
        if fields := sequence.model_dump(exclude_unset=True, exclude={"uid"}):
            raise SourceError(
                f"the source 'replay' takes no sequence, because the dataset {self._path} supplies the plan; "
                f"remove {', '.join(f'sequence.{name}' for name in fields)}"
            )
        self._close_dataset()
        self._existing = ()
        self._dataset = dataset = open_dataset(self._path)
        axes = AxisCollector()
        self._frames = 0
        for coordinates in dataset:
            axes.add(coordinates)
            self._frames += 1
        if not self._frames:
            raise SourceError(f"the dataset {self._path} has no frames to play")
        facts = plan_of(dataset)
        self._due = self._clock(dataset, facts.interval_s)
        frames, layouts = self._frames, facts.layouts or _first_layout(dataset)
        shape, dtype = layouts[0] if len(layouts) == 1 else (None, None)
        return replace(
            facts,
            frames=frames,
            shape=shape,
            dtype=dtype,
            layouts=layouts,
            summary=_summary_of(dataset),
            axes=axes.axes(),
            coordinates=lambda: islice(dataset, frames),
        )

    def _clock(self, dataset: DataStorage, interval_s: float | None) -> _Due | None:
        """Return a function that computes when a frame is due; None if frames are delivered without delay."""
        rate = self._rate
        if rate == "max":
            return None
        if rate != "recorded":
            return lambda number, _coordinates, _metadata: number / rate
        first = next(iter(dataset))
        start_ms = _recorded_ms(dataset.get_metadata(first))
        if start_ms is not None:
            return lambda _number, _coordinates, metadata: ((_recorded_ms(metadata) or 0.0) - start_ms) / 1000
        point = first.get("time")
        if interval_s is not None and type(point) is int:
            return lambda _number, coordinates, _metadata: (_time_point(coordinates) - point) * interval_s
        raise SourceError(
            f"rate is 'recorded', but the dataset {self._path} has no times: the metadata of its first frame "
            f"has none of {', '.join(_TIME_KEYS)}, and there is no interval between time points; set rate to "
            "max, or to a number of frames per second"
        )

    def skip(self, existing: Container[DataCoordinates], /) -> None:
        """Leave out the frames that already exist; see :meth:`exengine.FrameSource.skip`.

        Raises
        ------
        SourceError
            If no sequence is prepared.
        """
        if self._dataset is None:
            raise SourceError("no sequence was prepared; call prepare(sequence) before skip(existing)")
        self._existing = existing

    def run(self, sink: Sink, /) -> None:
        """Deliver every frame of the dataset to the sink, then return.

        Parameters
        ----------
        sink : callable
            Called with coordinates, pixels and metadata. The sink owns the array, which is always new.

        Raises
        ------
        SourceError
            If no sequence is prepared.
        DatasetDamagedError
            If a frame cannot be read.
        """
        dataset, due = self._dataset, self._due
        if dataset is None:
            raise SourceError("no sequence was prepared; call prepare(sequence) before run(sink)")
        begin: float | None = None
        for number, coordinates in enumerate(islice(dataset, self._frames)):
            if coordinates in self._existing:
                continue
            pixels, metadata = dataset.get_data(coordinates), dataset.get_metadata(coordinates)
            if due is not None:
                # Compute each deadline from the first frame, so that a slow sink causes no drift.
                due_s = due(number, coordinates, metadata)
                if begin is None:
                    begin = time.perf_counter() - due_s
                wait_s = begin + due_s - time.perf_counter()
                if wait_s > 0:
                    self._cancelled.wait(wait_s)
            if self._cancelled.is_set():
                return
            sink(coordinates, pixels, metadata)

    def cancel(self) -> None:
        """End :meth:`run` soon, without an error. Any later run ends immediately."""
        self._cancelled.set()

    def close(self) -> None:
        """Close the dataset without changing it. Idempotent."""
        self._cancelled.set()
        self._close_dataset()

    def _close_dataset(self) -> None:
        dataset, self._dataset = self._dataset, None
        if dataset is not None:
            dataset.close()


def _recorded_ms(metadata: Any) -> float | None:
    """Return the time of a frame since the start of its acquisition, in milliseconds; None if unknown."""
    if isinstance(metadata, Mapping):
        for key in _TIME_KEYS:
            with contextlib.suppress(TypeError, ValueError, KeyError):
                time_ms = float(metadata[key])  # Micro-Manager writes some numbers as text
                if math.isfinite(time_ms):
                    return time_ms
    return None


def _time_point(coordinates: DataCoordinates) -> int:
    point = coordinates.get("time")
    return point if type(point) is int else 0


def _first_layout(dataset: DataStorage) -> tuple[PlannedLayout, ...]:
    """Return the layout that all frames have in common, or no layout if there may be several."""
    if not dataset.capabilities.same_shape:
        return ()
    pixels = dataset.get_data(next(iter(dataset)))
    return ((pixels.shape, pixels.dtype.name),)


def _summary_of(dataset: DataStorage) -> dict[str, Any] | None:
    with contextlib.suppress(UnsupportedOperationError):
        summary = dataset.summary_metadata
        return summary if isinstance(summary, dict) else None
    return None
