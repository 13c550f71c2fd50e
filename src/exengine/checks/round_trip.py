"""Converts a dataset between backends and back, and reports the differences.

The dataset has the axes position, channel, z and time. Some frames are missing, and the positions on the axes
include names and numbers. The reports are shown on the page *Conversions between backends* of the
documentation.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.datasets.conversion.convert import convert
from exengine.datasets.conversion.frame_work import differences
from exengine.datasets.conversion.losses import TargetLimits
from exengine.datasets.creation import StoragePlan, open_storage
from exengine.datasets.opening import open_dataset
from exengine.kernel.capabilities import PlannedLayout
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import CoordinatesError, ExEngineError, UnsupportedDataError, message_of
from exengine.kernel.registry import plugins
from exengine.kernel.source_plan import PlannedChannel, PlannedPosition, SourcePlan
from exengine.kernel.storage.description import PLAN, plan_of, plan_to_json
from exengine.kernel.wording import listed

PLANNED = SourcePlan(
    pixel_size_um=(0.5, 0.25),
    z_step_um=2.0,
    interval_s=30.0,
    channels=(PlannedChannel("DAPI", "0000FF"), PlannedChannel("FITC", "00FF00")),
    stage_positions=(PlannedPosition(name="left", x_um=10.0, y_um=-5.0), PlannedPosition(name="right")),
)
SUMMARY = {"name": "démo", "list": [1, 2.0, True, None], "deep": {"a": {"b": -0.5}}}
LEDGER = {"offered": 20, "stored": 20, "dropped": 0, "failed": 0, "balanced": True}
REASON = "stopped by the user"


@dataclass
class RoundTrip:
    """The differences after a conversion from one backend to another and back.

    Attributes
    ----------
    source, target : str
        The names of the backends.
    there, back : dict of str to str
        Maps each aspect to a description of how the converted dataset differs from the original; the
        description is empty if the aspect is the same.
    lost : list of str
        The kinds of frames that the source can store but the target cannot. A conversion refuses them.
    """

    source: str
    target: str
    there: dict[str, str] = field(default_factory=dict)
    back: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether both conversions preserve every aspect."""
        return not any((*self.there.values(), *self.back.values()))


def disk_backends() -> list[str]:
    """Return the names of the installed backends that write to disk and can open a dataset again."""
    found = []
    for name in sorted(plugins.backends()):
        try:
            capabilities = plugins.BACKENDS.load(name).capabilities
        except ExEngineError:
            continue
        if capabilities.persistent and capabilities.reopen:
            found.append(name)
    return found


def round_trip(source: str, target: str, folder: str) -> RoundTrip:
    """Convert a dataset of one backend to another backend and back.

    Parameters
    ----------
    source, target : str
        The names of the backends.
    folder : str
        A folder for the datasets. The original is written to it only once.
    """
    first = os.path.join(folder, f"{source}{_suffix(source)}")
    there = os.path.join(folder, f"{source}-{target}{_suffix(target)}")
    back = os.path.join(folder, f"{source}-{target}-back{_suffix(source)}")
    if not os.path.exists(first):
        write(first, source)
    found = RoundTrip(source, target, lost=lost_frames(source, target))
    convert(first, there, backend=target)
    found.there = compare(first, there)
    convert(there, back, backend=source)
    found.back = compare(first, back)
    return found


def _suffix(backend: str) -> str:
    suffixes = plugins.BACKENDS.load(backend).capabilities.path_suffixes
    return suffixes[0] if suffixes else ""


# -- the dataset -----------------------------------------------------------------------------------


def write(path: str, backend: str) -> None:
    """Write the dataset with a backend, and abort the storage, so that the status has a reason."""
    storage = open_storage(backend, path, summary_metadata=SUMMARY)
    storage.expect(PLANNED)
    for coordinates, pixels, metadata in frames():
        storage.put(coordinates, pixels, metadata)
    storage.annotate("ledger", LEDGER)
    storage.annotate(PLAN, plan_to_json(PLANNED))
    storage.abort(REASON)
    storage.close()


def frames() -> Iterator[tuple[dict[str, int | str], npt.NDArray[np.uint16], dict[str, Any]]]:
    """Yield the coordinates, pixels and metadata of each frame. Each frame encodes its number."""
    y, x = np.indices((9, 12), np.uint16)
    number = 0
    for position in ("left", "right"):
        for time in (0, 1, 4):
            for channel in ("FITC", "DAPI"):
                for z in (-1, 3):
                    if (time, z) == (1, 3) or (position == "right" and time == 4 and channel == "DAPI"):
                        continue
                    axes: dict[str, int | str]
                    axes = {"position": position, "time": time, "channel": channel, "z": z}
                    metadata = {"n": number, "float": 1.0, "text": "µ", "none": None, "list": [1, [2.5]]}
                    yield axes, y * 17 + x + number * 300, metadata
                    number += 1


# -- the comparison --------------------------------------------------------------------------------


def _coordinates(dataset: DataStorage) -> Any:
    return [dict(each) for each in dataset]


def _axes(dataset: DataStorage) -> Any:
    return {axis: list(positions) for axis, positions in dataset.axes.items()}


ASPECTS: dict[str, Callable[[DataStorage], Any]] = {
    "coordinates": _coordinates,
    "axes": _axes,
    "dtype": lambda dataset: [f"{dataset[each].dtype} {dataset[each].shape}" for each in dataset],
    "pixels": lambda dataset: [dataset[each].tolist() for each in dataset],
    "frame metadata": lambda dataset: [dataset.get_metadata(each) for each in dataset],
    "summary metadata": lambda dataset: dataset.summary_metadata,
    "channel names": lambda dataset: [each.name for each in plan_of(dataset).channels],
    "channel colors": lambda dataset: [each.color for each in plan_of(dataset).channels],
    "pixel size": lambda dataset: list(plan_of(dataset).pixel_size_um or ()),
    "z step and interval": lambda dataset: [plan_of(dataset).z_step_um, plan_of(dataset).interval_s],
    "stage positions": lambda dataset: [
        [each.name, each.x_um, each.y_um] for each in plan_of(dataset).stage_positions
    ],
    "ledger": lambda dataset: dataset.annotations.get("ledger"),
    "status": lambda dataset: [str(dataset.status), dataset.status_reason],
}
"""The aspects that are compared, each with a function that returns a JSON value for a dataset."""


def compare(first: str, other: str) -> dict[str, str]:
    """Return, for each aspect, how the second dataset differs from the first; empty if it is the same."""
    with open_dataset(first) as one, open_dataset(other) as two:
        found = {}
        for aspect, value_of in ASPECTS.items():
            one_value, other_value = value_of(one), value_of(two)
            # JSON distinguishes the values 1, 1.0 and true, but not the keys 1 and "1".
            found[aspect] = next(differences(one_value, other_value), "")
            if not found[aspect] and json.dumps(one_value) != json.dumps(other_value):
                found[aspect] = "the order differs"
        return found


# -- frames that a format cannot store ------------------------------------------------------------------

_DTYPES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
_ONE = ((8, 8), "uint16")
_AT: dict[str, int | str] = {"time": 0, "channel": "DAPI"}

PROBES: dict[str, tuple[list[PlannedLayout], list[dict[str, int | str]]]] = {
    "frames with one dimension": ([((8,), "uint16")], [_AT]),
    "color frames (Y, X, 3) of uint8": ([((8, 8, 3), "uint8")], [_AT]),
    "color frames (Y, X, 3) of uint16": ([((8, 8, 3), "uint16")], [_AT]),
    "frames with three dimensions": ([((4, 8, 8), "uint16")], [_AT]),
    "frames of different shapes": ([_ONE, ((8, 9), "uint16")], [_AT, {**_AT, "time": 1}]),
    "frames of different dtypes": ([_ONE, ((8, 8), "uint8")], [_AT, {**_AT, "time": 1}]),
    "frames with different axes": ([_ONE], [_AT, {"time": 0}]),
    "an axis other than position, time, channel and z": ([_ONE], [{**_AT, "angle": 1}]),
    "negative positions": ([_ONE], [{"time": 0, "z": -1}]),
    "positions that are names": ([_ONE], [{"time": 0, "channel": "DAPI"}]),
    "names and numbers on one axis": ([_ONE], [_AT, {"time": "end", "channel": "DAPI"}]),
    "positions of more than 32 bits": ([_ONE], [{"time": 2**40}]),
}
"""Kinds of frames that some formats cannot store, each with its layouts and coordinates."""


def lost_frames(source: str, target: str) -> list[str]:
    """Return phrases for the kinds of frames that the first backend can store but the second cannot."""
    one, other = (TargetLimits(StoragePlan(name, _place(name), options={})) for name in (source, target))
    dtypes = [
        dtype
        for dtype in _DTYPES
        if _accepts(one, [((8, 8), dtype)], [_AT]) and not _accepts(other, [((8, 8), dtype)], [_AT])
    ]
    found = [f"frames of {listed(dtypes)}"] if dtypes else []
    for phrase, (layouts, coordinates) in PROBES.items():
        if _accepts(one, layouts, coordinates) and not _accepts(other, layouts, coordinates):
            found.append(phrase)
    return found


def _place(backend: str) -> str:
    return f"probe{_suffix(backend)}"  # only a name; nothing is created there


def _accepts(
    limits: TargetLimits, layouts: list[PlannedLayout], coordinates: list[dict[str, int | str]]
) -> bool:
    frames = [DataCoordinates(each) for each in coordinates]
    try:
        limits.refuse(layouts, lambda: frames)
    except (UnsupportedDataError, CoordinatesError):
        return False
    return True


# -- all pairs -------------------------------------------------------------------------------------


def all_round_trips(folder: str) -> list[RoundTrip]:
    """Convert between every pair of installed backends that write to disk.

    Parameters
    ----------
    folder : str
        An empty folder for the datasets.
    """
    names, found = disk_backends(), []
    for source in names:
        for target in names:
            try:
                found.append(round_trip(source, target, folder))
            except ExEngineError as error:
                failed = {aspect: message_of(error) for aspect in ASPECTS}
                found.append(RoundTrip(source, target, failed, failed))
    return found
