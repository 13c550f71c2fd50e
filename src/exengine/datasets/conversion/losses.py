"""Finds the frames of a source that a backend cannot store, before anything is written.

The backend's capabilities and its ``check_plan`` determine which frames it can store. First, each frame is
checked alone. Then all frames are checked together, because some formats require the same shape or the same
axes for all frames. The largest group of frames that the format can store together is kept.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from exengine.datasets.creation import StoragePlan
from exengine.kernel.capabilities import PlannedLayout
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import CoordinatesError, UnsupportedDataError, message_of
from exengine.kernel.registry.options import options_of
from exengine.kernel.storage.frame_checks import FrameChecks

_REFUSALS = (UnsupportedDataError, CoordinatesError)

PlannedFrames = Callable[[], Iterator[tuple[DataCoordinates, PlannedLayout]]]
"""Returns the coordinates and the layout of each frame in the result, in order."""


@dataclass
class Loss:
    """A part of the source that the result does not contain.

    Attributes
    ----------
    reason : str
        Why the backend cannot store it.
    frames : int
        The number of affected frames.
    first : dict of str to int or str
        The coordinates of the first affected frame.
    what : {'frames', 'metadata'}
        Whether the frames are lost, or only their metadata.
    """

    reason: str
    frames: int
    first: dict[str, int | str]
    what: str = "frames"

    def text(self, total: int) -> str:
        """Return the loss as a phrase, for a dataset with this number of frames."""
        if self.what == "metadata":
            return f"the metadata of {self.frames} of {total} frames: {self.reason}"
        return f"{self.frames} of {total} frames, the first at {self.first}: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return the loss as a JSON-serializable dict."""
        return {**vars(self)}


class TargetLimits:
    """The limits of a configured backend: which frames and metadata it can store.

    Parameters
    ----------
    target : StoragePlan
    """

    def __init__(self, target: StoragePlan) -> None:
        self._target = target
        self._owner = target.cls.__name__
        self._limits = target.capabilities

    @property
    def stores_metadata(self) -> bool:
        """Whether the metadata of the dataset and of its frames can be stored."""
        options = options_of(self._target.cls)
        return self._limits.metadata and any(each.name == "summary_metadata" for each in options)

    def refuse(
        self,
        layouts: Iterable[PlannedLayout],
        coordinates: Callable[[], Iterable[DataCoordinates]],
        pixel_bytes: int | None = None,
    ) -> None:
        """Raise the error that the backend would raise for one of these frames.

        Raises
        ------
        UnsupportedDataError, CoordinatesError
        """
        layouts = list(layouts)
        checks = FrameChecks(self._owner, self._limits)
        for coordinate in coordinates():
            checks.require_axes(coordinate)
            break
        for shape, dtype in layouts:
            pixels = checks.data(np.broadcast_to(np.zeros((), dtype), shape))
            checks.stored(DataCoordinates(), pixels)
        if checks.limits_axes:
            for coordinate in coordinates():
                checks.axes(coordinate)
        self._target.cls.check_plan(
            layouts, coordinates(), pixel_bytes=pixel_bytes, options=self._target.options
        )

    def _refusal(self, layouts: Iterable[PlannedLayout], coordinates: Iterable[DataCoordinates]) -> str:
        """Return the reason why the backend refuses frames; empty if it accepts them."""
        frames = list(coordinates)
        try:
            self.refuse(layouts, lambda: frames)
        except _REFUSALS as error:
            return message_of(error)
        return ""

    def losses(self, frames: PlannedFrames, count: int) -> tuple[bytearray, list[Loss]]:
        """Find the frames that the backend cannot store.

        Parameters
        ----------
        frames : callable
        count : int
            The number of frames.

        Returns
        -------
        kept : bytearray
            One byte per frame: whether the result contains the frame.
        losses : list of Loss
        """
        kept = bytearray(count)
        losses: dict[Any, Loss] = {}
        groups: dict[Any, list[Any]] = {}  # maps each group to its first coordinates and its size
        refused: dict[PlannedLayout, str] = {}
        for number, (coordinates, layout) in enumerate(frames()):
            if layout not in refused:
                refused[layout] = self._refusal([layout], ())
            group = _group_of(coordinates, layout)
            reason = refused[layout] or self._refusal((), [coordinates])
            if reason:
                _count(losses, layout if refused[layout] else group, reason, coordinates)
                continue
            kept[number] = True
            groups.setdefault(group, [coordinates, 0])[1] += 1
        together = self._together(groups)
        for number, (coordinates, layout) in enumerate(frames()):
            reason = together.get(_group_of(coordinates, layout), "") if kept[number] else ""
            if reason:
                kept[number] = False
                _count(losses, _group_of(coordinates, layout), reason, coordinates)
        return kept, list(losses.values())

    def _together(self, groups: dict[Any, list[Any]]) -> dict[Any, str]:
        """For each group of frames that cannot be stored together with larger groups, return the reason."""
        reasons: dict[Any, str] = {}
        layouts: list[PlannedLayout] = []
        firsts: list[DataCoordinates] = []
        for group in sorted(groups, key=lambda each: -groups[each][1]):
            layout, first = group[0], groups[group][0]
            more = [] if layout in layouts else [layout]
            reason = self._refusal([*layouts, *more], [*firsts, first])
            if reason:
                reasons[group] = reason
                continue
            layouts += more
            firsts.append(first)
        return reasons


def _group_of(coordinates: DataCoordinates, layout: PlannedLayout) -> tuple[Any, ...]:
    """Return a key that is equal for frames with the same layout, the same axes and the same axis types."""
    return layout, frozenset((axis, type(position)) for axis, position in coordinates.__dict__.items())


def _count(losses: dict[Any, Loss], key: Any, reason: str, coordinates: DataCoordinates) -> None:
    loss = losses.setdefault(key, Loss(reason, 0, dict(coordinates.__dict__)))
    loss.frames += 1


def kept_of(values: Iterable[Any], kept: bytearray | None) -> Iterable[Any]:
    """Return the values of the frames that are kept; all values if ``kept`` is None."""
    return values if kept is None else compress(values, kept)
