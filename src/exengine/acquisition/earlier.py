"""Finds the dataset of earlier runs of an acquisition, and decides whether another run can continue it.

Nothing is changed. A dataset can be continued if the same config describes it: the same backend, source and
sequence, with the same options. The manifest of the dataset contains the config of the last run.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exengine.acquisition.comparing import differences
from exengine.config.layers import Config
from exengine.datasets.conversion.result import summary_of
from exengine.datasets.creation import StoragePlan
from exengine.datasets.opening import open_dataset
from exengine.frame_sources.sequence import parse_sequence
from exengine.frame_sources.sequence_events import point_plans
from exengine.kernel.data_coords import snapshot
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage, JsonValue
from exengine.kernel.errors import (
    ConfigError,
    DatasetDamagedError,
    DatasetLockedError,
    UnsupportedDataError,
    UnsupportedOperationError,
)
from exengine.kernel.frames.coordinate_index import CoordinateIndex
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage import manifest
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system import files

RUNS = "runs"
"""The dataset annotation that lists the runs."""

_OF_ONE_RUN = ("ledger", "recovery")
"""Annotations that describe a single run, or the recovery of the dataset after that run."""

_MOST_NAMED = 5  # maximum number of frames in each list of a run's record
_MOST_RUNS = 1000
_MOST_OF_A_REASON = 500  # in characters
_MOST_DIFFERENCES = 10


@dataclass(frozen=True)
class Earlier:
    """The frames and the earlier runs of a dataset that is continued.

    ``coordinates in earlier`` is True for each of these frames, and ``len(earlier)`` is their number.

    Attributes
    ----------
    path : str
    status : DatasetStatus
    frames : CoordinateIndex
    summary : JSON value
        The metadata of the dataset as a whole.
    layout : tuple of (shape, dtype), or None
        The layout of the first frame.
    runs : list of dict
        A record of each run, as in the annotation ``runs``.
    outdated : tuple of str
        The annotations that describe only the last run. They are now part of the record of that run.
    """

    path: str
    status: DatasetStatus
    frames: CoordinateIndex
    summary: JsonValue
    layout: tuple[tuple[int, ...], str] | None
    runs: list[dict[str, Any]]
    outdated: tuple[str, ...]

    def __contains__(self, coordinates: object) -> bool:
        axes = snapshot(coordinates).__dict__
        return self.frames.find(axes) is not None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def is_complete(self) -> bool:
        """Whether the dataset was finished with every frame of its plan."""
        return self.status is DatasetStatus.COMPLETE

    def runs_with_next(self) -> list[dict[str, Any]]:
        """Return the records of all runs, including the run that begins now."""
        begun = {"started": _now(), "first_frame": len(self), "time_restarted": True}
        return [*self.runs, begun]

    def refuse_other_frames(self, plan: SourcePlan) -> None:
        """Reject a plan that does not contain all frames of the dataset.

        Raises
        ------
        ConfigError
            If a frame of the dataset is not planned.
        UnsupportedDataError
            If the frames of the dataset have a layout that is not planned.
        """
        if self.layout is not None and plan.layouts and self.layout not in plan.layouts:
            planned = ", ".join(f"{shape} {dtype}" for shape, dtype in plan.layouts)
            raise UnsupportedDataError(
                f"{self.path} cannot be continued: its frames have the layout {self.layout[0]} "
                f"{self.layout[1]}, but the source now delivers {planned}"
            )
        if plan.coordinates is None:
            return
        planned_frames = CoordinateIndex()
        for coordinates in plan.coordinates():
            planned_frames.add(coordinates.__dict__)
        for coordinates in self.frames:
            if planned_frames.find(coordinates.__dict__) is None:
                raise ConfigError(
                    f"{self.path} cannot be continued: it has a frame at {dict(coordinates)}, where the "
                    "source plans no frame; acquire into a new dataset"
                )


def find_earlier(config: Config, storage: StoragePlan) -> Earlier | None:
    """Return the dataset of earlier runs at the path of the storage, or None if nothing exists there.

    Parameters
    ----------
    config : Config
        The config of the run that is about to begin.
    storage : StoragePlan

    Raises
    ------
    UnsupportedOperationError
        If the backend cannot continue a dataset, or this kind of acquisition cannot be continued.
    DatasetLockedError
        If the writer of the dataset is active.
    DatasetDamagedError
        If the dataset is damaged.
    ConfigError
        If the dataset was acquired with a different config. The message lists the differences.
    ExEngineError
        If the dataset cannot be opened.
    """
    path = storage.path
    if path is None:
        raise UnsupportedOperationError(
            f"backend {storage.name!r} keeps frames in memory, so its acquisitions cannot be continued"
        )
    if is_url(path):
        raise UnsupportedOperationError(
            f"{path} is in object storage, where an acquisition cannot be continued; finish the dataset with "
            "exengine recover, and acquire the remaining frames into a new dataset"
        )
    path = files.expanded(path)
    if not os.path.lexists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return None
    if manifest.has_writer(os.path.realpath(path)):
        raise DatasetLockedError(f"{path} is being written; wait until its writer has ended")
    dataset = open_dataset(path)
    try:
        return _examine(path, dataset, config, storage)
    finally:
        dataset.close()


def _examine(path: str, dataset: DataStorage, config: Config, storage: StoragePlan) -> Earlier:
    written = manifest.read_manifest(path)
    kept = dataset.annotations.get("config")
    if written is None or not isinstance(kept, Mapping):
        if written is not None and dataset.status is DatasetStatus.INCOMPLETE and not len(dataset):
            kept = None  # the writer was killed before it stored the config
        else:
            raise UnsupportedOperationError(
                f"{path} has no record of its config, so the missing frames are unknown; only datasets "
                "written by exengine acquire can be continued"
            )
    if dataset.status is DatasetStatus.DAMAGED:
        raise DatasetDamagedError(
            f"{path} is damaged: {dataset.status_reason}; repair it first with exengine recover --in-place"
        )
    found = [] if kept is None else differences(kept, config, storage)
    if found:
        more = f"\n  ... and {len(found) - _MOST_DIFFERENCES} more" if len(found) > _MOST_DIFFERENCES else ""
        listed = "".join(f"\n  {line}" for line in found[:_MOST_DIFFERENCES])
        raise ConfigError(f"{path} was acquired with a different config:{listed}{more}")
    frames = CoordinateIndex()
    for coordinates in dataset:
        frames.add(coordinates.__dict__)
    layout = None
    if dataset.status is not DatasetStatus.COMPLETE:
        _refuse_what_cannot_be_continued(path, config, storage)
        layout = _layout_of(dataset)
    runs = _runs(dataset, written, len(frames))
    outdated = tuple(name for name in _OF_ONE_RUN if dataset.annotations.get(name) is not None)
    return Earlier(path, dataset.status, frames, summary_of(dataset), layout, runs, outdated)


def _refuse_what_cannot_be_continued(path: str, config: Config, storage: StoragePlan) -> None:
    if not storage.capabilities.resumable:
        raise UnsupportedOperationError(
            f"backend {storage.name!r} cannot add frames to an existing dataset, so {path} cannot be "
            "continued; acquire into a new dataset"
        )
    if config["handler.process"] is not None:
        raise UnsupportedOperationError(
            f"{path} cannot be continued: handler.process changes the frames, so the stored frames cannot be "
            "matched with the plan; acquire into a new dataset"
        )
    plans = point_plans(parse_sequence(config.section("sequence")))
    if any(getattr(plan, "random_seed", 0) is None for plan in plans):
        raise UnsupportedOperationError(
            f"{path} cannot be continued, because its sequence has random points, which would be "
            "different in another run; set random_seed in the next acquisition"
        )


def _layout_of(dataset: DataStorage) -> tuple[tuple[int, ...], str] | None:
    for coordinates in dataset:
        first = dataset.get_data(coordinates)
        return tuple(int(side) for side in first.shape), first.dtype.name
    return None


def _runs(dataset: DataStorage, written: manifest.Manifest, count: int) -> list[dict[str, Any]]:
    """Return a record of each run. The last run is recorded as ended."""
    noted = dataset.annotations.get(RUNS)
    runs = [dict(run) for run in noted if isinstance(run, Mapping)] if isinstance(noted, list) else []
    last = runs.pop() if runs else {"started": written.get("created"), "first_frame": 0}
    last.update(status=dataset.status.value, frames=count)
    if dataset.status_reason:
        last["reason"] = dataset.status_reason[:_MOST_OF_A_REASON]
    for name in _OF_ONE_RUN:
        note = dataset.annotations.get(name)
        # A run that was killed leaves no ledger, so any ledger in its dataset comes from an earlier run.
        if isinstance(note, Mapping) and dataset.status is not DatasetStatus.INCOMPLETE:
            last[name] = {
                key: value[:_MOST_NAMED] if isinstance(value, list) else value for key, value in note.items()
            }
    return [*runs, last][-_MOST_RUNS:]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
