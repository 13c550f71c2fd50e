"""The reading half of a storage whose frames have numbers.

Responsible for coordinates -> number, errors about absent frames, and closing while other threads read.
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
from exengine.kernel.storage import array_view


class FrameIndex(Protocol):
    """The lookup of a frame's number; ``CoordinateIndex`` implements it."""

    @property
    def axes(self) -> tuple[str, ...]: ...
    def find(self, axes: Mapping[str, int | str]) -> int | None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[DataCoordinates]: ...
    def positions(self) -> dict[str, list[int | str]]: ...
    def describe_absence(self, axes: Mapping[str, int | str]) -> str: ...


class ReadState:
    """The state that these base classes keep for themselves.

    It lies in one attribute of the storage, ``_exengine``, so that a subclass may use any other name.
    """

    __slots__ = ("closed", "index", "lock", "reads")

    def __init__(self, index: FrameIndex) -> None:
        self.index = index
        self.lock = threading.RLock()
        self.closed = False
        # The threads that are reading. Adding and discarding are atomic, and a reader adds itself before it
        # looks at ``closed``, so that close() cannot miss it.
        self.reads: set[int] = set()

    def refuse_if_closed(self, path: str | None) -> None:
        """Raise where the storage is closed."""
        if self.closed:
            raise StorageClosedError(f"the storage is closed; {how_to_reopen(path)}")


def how_to_reopen(path: str | None) -> str:
    """Return a hint for the user of a closed storage."""
    if path is None:
        return "its frames were in memory and are gone"
    return f"open it again with exengine.open_dataset({path!r})"


class IndexedStorage(DataStorage):
    """Base of storages that know their frames by number; see the module.

    Any thread may read, also while frames are added and while the storage is being closed: closing waits
    for the reads that have begun.

    Parameters
    ----------
    index : FrameIndex
        The numbers of the frames.

    Notes
    -----
    The base classes keep their state in the attribute ``_exengine``. Every other name is free for subclasses.
    """

    _exengine: ReadState

    def __init__(self, index: FrameIndex) -> None:
        self._exengine = ReadState(index)

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if "_exengine" in vars(cls):
            raise TypeError(
                f"{cls.__name__} defines _exengine, which {IndexedStorage.__name__} keeps its state in; "
                "choose another name"
            )

    # -- for subclasses --------------------------------------------------------------------------

    @abstractmethod
    def read_frame(self, number: int) -> npt.NDArray[Any]:
        """Return the pixels of frame ``number``, counted from 0 in the order of arrival.

        Returns
        -------
        numpy.ndarray
            The pixels, with the shape and dtype that were put. Changing the array changes nothing stored.

        Raises
        ------
        DatasetDamagedError
            When the pixels differ from those that were written.
        """

    @abstractmethod
    def read_frame_metadata(self, number: int) -> JsonValue:
        """Return the metadata of frame ``number``, as an object that the caller may change."""

    def release(self) -> None:
        """Close files and free memory. Called once."""

    # -- reading ---------------------------------------------------------------------------------

    def get_data(self, data_coordinates: CoordinatesLike) -> npt.NDArray[Any]:
        reads, mine = self._exengine.reads, threading.get_ident()
        try:
            reads.add(mine)
            return self.read_frame(self.__number(data_coordinates))
        finally:
            reads.discard(mine)

    def get_metadata(self, data_coordinates: CoordinatesLike) -> JsonValue:
        reads, mine = self._exengine.reads, threading.get_ident()
        try:
            reads.add(mine)
            return self.read_frame_metadata(self.__number(data_coordinates))
        finally:
            reads.discard(mine)

    def __number(self, coordinates: CoordinatesLike) -> int:
        state = self._exengine
        if state.closed:
            state.refuse_if_closed(self.path)
        axes: Any = coordinates.__dict__ if type(coordinates) is DataCoordinates else coordinates
        try:
            number = state.index.find(axes)
        except (TypeError, AttributeError):  # not a mapping, or positions that cannot be hashed
            number = None
        if number is None:
            axes = snapshot(coordinates).__dict__
            number = state.index.find(axes)
            if number is None:
                raise CoordinatesNotFoundError(
                    f"there is no frame at {axes}: {state.index.describe_absence(axes)}"
                )
        return number

    def __contains__(self, data_coordinates: object, /) -> bool:
        state = self._exengine
        if state.closed:
            return False
        if type(data_coordinates) is DataCoordinates:
            return state.index.find(data_coordinates.__dict__) is not None
        try:
            return state.index.find(snapshot(data_coordinates).__dict__) is not None
        except Exception:  # not coordinates, or a foreign mapping that raises
            return False

    def __iter__(self) -> Iterator[DataCoordinates]:
        self._exengine.refuse_if_closed(self.path)
        return iter(self._exengine.index)

    def __len__(self) -> int:
        self._exengine.refuse_if_closed(self.path)
        return len(self._exengine.index)

    @property
    def axes(self) -> dict[str, list[int | str]]:
        """The positions that occur on each axis; axes and positions in the order of arrival."""
        return self._exengine.index.positions()

    def as_array(
        self, axes: Iterable[str] | None = None, *, missing: Literal["raise", "mask"] | float = "raise"
    ) -> Any:
        return array_view.as_array(self, axes, missing)

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        state = self._exengine
        with state.lock:
            if state.closed:
                return
            state.closed = True
        # A read of this thread is over, even where an interrupt kept it from discarding itself.
        while state.reads - {threading.get_ident()}:
            time.sleep(0.0005)  # a read takes milliseconds, and close is rare
        self.release()


class DatasetReader(IndexedStorage):
    """An existing dataset, opened to read: the result of a backend's ``open``.

    Parameters
    ----------
    path : str
        The path of the dataset.
    index : FrameIndex
        Its frames.
    status : DatasetStatus
        The status according to the manifest or the format itself.
    manifest : dict or None
        The content of the dataset's ``exengine.json``.
    """

    backend_name: str = ""
    """The name of the reading backend; by default that of the writer, from the manifest."""

    def __init__(
        self, path: str, index: FrameIndex, status: DatasetStatus, manifest: dict[str, Any] | None = None
    ) -> None:
        super().__init__(index)
        self.path = path  # type: ignore[misc]  # replaces the computed default
        self._status = status
        self._manifest = manifest or {}
        if not self.backend_name:
            self.backend_name = str(self._manifest.get("backend", ""))

    @property
    def status(self) -> DatasetStatus:
        return self._status

    @property
    def status_reason(self) -> str:
        """The cause of the status, for people; empty for a complete dataset."""
        return str(self._manifest.get("reason", ""))

    @property
    def annotations(self) -> dict[str, JsonValue]:
        """The JSON values that the writer kept with the dataset, such as its config and its ledger."""
        return dict(self._manifest.get("annotations", {}))

    def is_finished(self) -> bool:
        return self._status is not DatasetStatus.INCOMPLETE

    def put(self, data_coordinates: CoordinatesLike, data: npt.NDArray[Any], metadata: JsonValue) -> None:
        raise StorageFinishedError(
            f"{self.path} was opened to read; write a new dataset with exengine.open_storage(...)"
        )

    def finish(self) -> None:
        """Do nothing: the dataset was opened to read."""

    def __reduce__(self) -> Any:
        return type(self).open, (self.path,)

    def __del__(self) -> None:
        state = self.__dict__.get("_exengine")  # a half-made reader holds nothing
        if state is not None and not state.closed:
            self.close()


def wait_until(condition: Any, timeout: float | None, poll_s: float = 0.02) -> bool:
    """Return whether a condition became true in time; for readers of a dataset that is being written."""
    end = None if timeout is None else time.monotonic() + timeout
    while not condition():
        if end is not None and time.monotonic() >= end:
            return False
        time.sleep(poll_s)
    return True
