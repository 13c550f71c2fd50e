"""The reading half of a storage whose frames have numbers.

Responsible for coordinates -> number, errors about absent frames, and closing while others read.
A subclass locates frames by their number: ``read_frame`` and ``read_frame_metadata``.
:class:`exengine.kernel.storage.managed.ManagedStorage` adds the writing half;
:class:`DatasetReader` is what a backend's ``open`` returns.
"""

import threading
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol

import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates, snapshot
from exengine.kernel.data_storage_base import CoordinatesLike, DatasetStatus, DataStorage, JsonValue
from exengine.kernel.errors import (
    CoordinatesNotFoundError,
    StorageClosedError,
    StorageFinishedError,
)


class FrameIndex(Protocol):
    """What finds the number of a frame; ``CoordinateIndex`` is one."""

    @property
    def axes(self) -> tuple[str, ...]: ...
    def find(self, axes: Mapping[str, int | str]) -> int | None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[DataCoordinates]: ...
    def positions(self) -> dict[str, list[int | str]]: ...
    def describe_absence(self, axes: Mapping[str, int | str]) -> str: ...


class IndexedStorage(DataStorage):
    """Base of storages that know their frames by number; see the module.

    Reading is possible from any thread, also while frames are added and while the storage is
    being closed: closing waits for the reads that have begun.
    """

    def __init__(self, index: FrameIndex) -> None:
        self._index = index
        self._lock = threading.RLock()
        self._closed = False
        # One item per read in progress. Appending and popping are atomic, and a reader appends
        # before it looks at _closed, so that close() cannot miss it.
        self._reads: set[int] = set()  # threads that are reading

    # -- for subclasses --------------------------------------------------------------------------

    @abstractmethod
    def read_frame(self, number: int) -> npt.NDArray[Any]:
        """Return the pixels of frame ``number``, counted from 0 in the order of arrival.

        Returns
        -------
        numpy.ndarray
            Of the shape and dtype that were put. Changing it changes nothing stored.

        Raises
        ------
        DatasetDamagedError
            When the frame is not what was written.
        """

    @abstractmethod
    def read_frame_metadata(self, number: int) -> JsonValue:
        """Return the metadata of frame ``number``, as an object that the caller may change."""

    def release(self) -> None:
        """Close files and free memory. Called once."""

    # -- reading ---------------------------------------------------------------------------------

    def get_data(self, data_coordinates: CoordinatesLike) -> npt.NDArray[Any]:
        mine = threading.get_ident()
        try:
            self._reads.add(mine)
            return self.read_frame(self._number(data_coordinates))
        finally:
            self._reads.discard(mine)

    def get_metadata(self, data_coordinates: CoordinatesLike) -> JsonValue:
        mine = threading.get_ident()
        try:
            self._reads.add(mine)
            return self.read_frame_metadata(self._number(data_coordinates))
        finally:
            self._reads.discard(mine)

    def _number(self, coordinates: CoordinatesLike) -> int:
        self._refuse_if_closed()
        axes: Any = coordinates.__dict__ if type(coordinates) is DataCoordinates else coordinates
        number = self._find(axes)
        if number is None:
            axes = snapshot(coordinates).__dict__
            number = self._index.find(axes)
            if number is None:
                raise CoordinatesNotFoundError(
                    f"there is no frame at {axes}: {self._index.describe_absence(axes)}"
                )
        return number

    def _find(self, axes: Any) -> int | None:
        try:
            return self._index.find(axes)
        except (TypeError, AttributeError):  # no mapping, or positions that cannot be hashed
            return None

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StorageClosedError(f"the storage is closed; {self._how_to_reopen()}")

    def _how_to_reopen(self) -> str:
        return "what it held is gone"

    def __contains__(self, data_coordinates: object, /) -> bool:
        if self._closed:
            return False
        if type(data_coordinates) is DataCoordinates:
            return self._index.find(data_coordinates.__dict__) is not None
        try:
            return self._index.find(snapshot(data_coordinates).__dict__) is not None
        except Exception:  # no coordinates, or a mapping of somebody's own that raises
            return False

    def __iter__(self) -> Iterator[DataCoordinates]:
        self._refuse_if_closed()
        return iter(self._index)

    def __len__(self) -> int:
        self._refuse_if_closed()
        return len(self._index)

    @property
    def axes(self) -> dict[str, list[int | str]]:
        """The positions that occur on each axis; axes and positions in the order of arrival."""
        return self._index.positions()

    def as_array(
        self, axes: Iterable[str] | None = None, *, missing: Literal["raise", "mask"] | float = "raise"
    ) -> Any:
        from exengine.kernel.storage.array_view import as_array

        return as_array(self, axes, missing)

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # A read of this thread is over; an interrupt may have kept it from saying so.
        while self._reads - {threading.get_ident()}:
            time.sleep(0.0005)  # a read takes milliseconds, and close is rare
        self.release()


class DatasetReader(IndexedStorage):
    """An existing dataset, opened to read: what a backend's ``open`` returns.

    Parameters
    ----------
    path : str
        Of the dataset.
    index : FrameIndex
        Its frames.
    status : DatasetStatus
        What the manifest, or the format itself, says.
    manifest : dict or None
        The dataset's own ``exengine.json``.
    """

    backend_name: str = ""
    """The name of the backend that reads it; by default the one that the manifest names as its writer."""

    def __init__(
        self, path: str, index: FrameIndex, status: DatasetStatus, manifest: dict[str, Any] | None = None
    ) -> None:
        super().__init__(index)
        self.path = path
        self._status = status
        self._manifest = manifest or {}
        if not self.backend_name:
            self.backend_name = str(self._manifest.get("backend", ""))

    @property
    def status(self) -> DatasetStatus:
        return self._status

    @property
    def status_reason(self) -> str:
        """Why the status is what it is, for people; empty when complete."""
        return str(self._manifest.get("reason", ""))

    @property
    def annotations(self) -> dict[str, JsonValue]:
        """What was kept beside the dataset: its config, its ledger."""
        return dict(self._manifest.get("annotations", {}))

    @property
    def has_checksums(self) -> bool:
        """Whether a damaged frame of this dataset is recognised."""
        return self.capabilities.checksums

    def is_finished(self) -> bool:
        return self._status is not DatasetStatus.INCOMPLETE

    def put(self, data_coordinates: CoordinatesLike, data: npt.NDArray[Any], metadata: JsonValue) -> None:
        raise StorageFinishedError(
            f"{self.path} was opened to read; write a new dataset with exengine.open_storage(...)"
        )

    def finish(self) -> None:
        """Do nothing: the dataset was opened to read."""

    def _how_to_reopen(self) -> str:
        return f"open it again with exengine.open_dataset({self.path!r})"

    def __reduce__(self) -> Any:
        return type(self).open, (self.path,)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):  # half made: nothing to release
            self.close()


def wait_until(condition: Any, timeout: float | None, poll_s: float = 0.02) -> bool:
    """Return whether a condition became true in time; for readers of what another process writes."""
    end = None if timeout is None else time.monotonic() + timeout
    while not condition():
        if end is not None and time.monotonic() >= end:
            return False
        time.sleep(poll_s)
    return True
