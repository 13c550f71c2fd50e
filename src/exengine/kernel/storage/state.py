"""The private state of the storage base classes.

It is kept in a single attribute of a storage, ``_exengine``, so that subclasses may use any other name.
"""

import threading
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DatasetStatus, JsonValue
from exengine.kernel.errors import StorageClosedError
from exengine.kernel.frames.coordinate_index import CoordinateIndex
from exengine.kernel.storage.frame_checks import FrameChecks
from exengine.kernel.storage.lifecycle import Lifecycle
from exengine.kernel.storage.manifest import Manifest
from exengine.kernel.storage.place import DatasetPlace


class FrameIndex(Protocol):
    """The interface for finding a frame's number; ``CoordinateIndex`` implements it.

    A format with its own index may implement this, so that a large index need not be copied. Frames are
    numbered from 0, in the order in which they were stored. Any thread may call these methods.
    """

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes, in the order in which they first appeared."""

    def find(self, axes: Mapping[str, int | str]) -> int | None:
        """Return the number of the frame at these coordinates, or None."""

    def __len__(self) -> int:
        """Return the number of frames."""

    def __iter__(self) -> Iterator[DataCoordinates]:
        """Yield the coordinates of every frame, in the order of their numbers."""

    def positions(self) -> dict[str, list[int | str]]:
        """Return the positions that occur on each axis, in order of arrival."""

    def describe_absence(self, axes: Mapping[str, int | str]) -> str:
        """Return a clause that lists the existing positions, for the error about a missing frame."""


@runtime_checkable
class FollowedIndex(Protocol):
    """An index that can return new frames without iterating over the earlier frames."""

    def since(self, start: int) -> Iterator[tuple[int, DataCoordinates]]:
        """Yield the number and coordinates of each frame, starting with frame ``start``."""
        ...


class ReadState:
    """The state that is needed for reading."""

    __slots__ = ("closed", "index", "lock", "reads")

    def __init__(self, index: FrameIndex) -> None:
        self.index = index
        self.lock = threading.RLock()
        self.closed = False
        # The threads that are reading. Adding and discarding are atomic, and a reader adds itself before it
        # checks ``closed``, so close() cannot miss a reader.
        self.reads: set[int] = set()

    def refuse_if_closed(self, path: str | None) -> None:
        """Raise ``StorageClosedError`` if the storage is closed."""
        if self.closed:
            raise StorageClosedError(f"the storage is closed; {how_to_reopen(path)}")


def how_to_reopen(path: str | None) -> str:
    """Return a hint about reopening a closed storage."""
    if path is None:
        return "its frames were only in memory and are lost"
    return f"open the dataset again with exengine.open_dataset({path!r})"


class DatasetState(ReadState):
    """The state of an existing dataset that is open for reading."""

    __slots__ = ("manifest", "reason", "status")

    def __init__(self, index: FrameIndex, status: DatasetStatus, manifest: Manifest | None) -> None:
        super().__init__(index)
        self.status = status
        self.reason = ""
        self.manifest = manifest


class WriteState(ReadState):
    """The state that is needed for reading and storing frames while a dataset is being written."""

    __slots__ = ("checks", "expected", "frames", "life", "new_data", "place", "summary", "waiting")

    def __init__(self, checks: FrameChecks, summary: JsonValue) -> None:
        self.frames = CoordinateIndex()
        super().__init__(self.frames)
        self.life = Lifecycle()
        self.checks = checks
        self.expected = False  # whether a source plan was accepted
        self.summary = summary
        self.place: DatasetPlace | None = None
        self.new_data = threading.Condition(self.lock)
        self.waiting = 0  # number of threads in await_new_data
