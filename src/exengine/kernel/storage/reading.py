"""The reading half of a storage with numbered frames.

This module is responsible for finding a frame's number from its coordinates, for errors about missing frames,
and for closing while other threads are reading. A subclass implements ``read_frame`` and
``read_frame_metadata``, which locate a frame by its number.
:class:`exengine.kernel.storage.managed.ManagedStorage` adds the writing half. A backend's ``open`` returns a
:class:`DatasetReader`.
"""

import threading
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy.typing as npt

from exengine.kernel.axes import position_order
from exengine.kernel.data_coords import DataCoordinates, snapshot
from exengine.kernel.data_storage_base import CoordinatesLike, DatasetStatus, DataStorage, JsonValue
from exengine.kernel.errors import (
    CoordinatesNotFoundError,
    StorageFinishedError,
    UnsupportedOperationError,
)
from exengine.kernel.own_names import StorageMeta, refuse_hidden_methods
from exengine.kernel.storage import array_view
from exengine.kernel.storage.manifest import Manifest
from exengine.kernel.storage.state import DatasetState, FollowedIndex, FrameIndex, ReadState
from exengine.kernel.storage_views import follow
from exengine.kernel.system.files import expanded


class IndexedStorage(DataStorage, metaclass=StorageMeta):
    """The base class for storages with numbered frames; see the module's docstring.

    Any thread may read, even while frames are being added or the storage is being closed. Closing waits for
    reads in progress.

    Parameters
    ----------
    index : FrameIndex
        The index used to look up frame numbers.

    Notes
    -----
    The base classes keep their state in the attribute ``_exengine``. Subclasses may use any other name.
    """

    _exengine: ReadState

    def __init__(self, index: FrameIndex) -> None:
        self._exengine = ReadState(index)

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if "_exengine" in vars(cls):
            raise TypeError(
                f"{cls.__name__} defines _exengine, which {IndexedStorage.__name__} uses for its state; "
                "choose another name"
            )
        refuse_hidden_methods(cls)

    # -- for subclasses --------------------------------------------------------------------------

    @abstractmethod
    def read_frame(self, number: int) -> npt.NDArray[Any]:
        """Return the pixels of frame ``number``, counted from 0 in order of arrival.

        Returns
        -------
        numpy.ndarray
            The pixels, with the shape and dtype of the stored array. Modifying the returned array does not
            affect the storage.

        Raises
        ------
        DatasetDamagedError
            If the pixels differ from those that were written.
        """

    @abstractmethod
    def read_frame_metadata(self, number: int) -> JsonValue:
        """Return the metadata of frame ``number``, as an object that the caller may modify."""

    def release(self) -> None:
        """Close files and free memory.

        Called once, by ``close`` or by ``cannot_begin``. ``cannot_begin`` may call it before ``__init__`` has
        set all attributes; any error is then ignored. In a forked child, this method is called only if the
        child closes the storage, and must not write to the files.
        """

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
        except (TypeError, AttributeError):  # not a mapping, or a mapping with unhashable positions
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
        except Exception:  # not coordinates, or a mapping that raises an error
            return False

    def __iter__(self) -> Iterator[DataCoordinates]:
        self._exengine.refuse_if_closed(self.path)
        return iter(self._exengine.index)

    def follow(self, timeout: float | None = None) -> Iterator[DataCoordinates]:
        index: object = self._exengine.index
        if isinstance(index, FollowedIndex):
            self._exengine.refuse_if_closed(self.path)
            return follow(self, index.since, timeout)
        return super().follow(timeout)

    def __len__(self) -> int:
        self._exengine.refuse_if_closed(self.path)
        return len(self._exengine.index)

    @property
    def axes(self) -> dict[str, list[int | str]]:
        """The positions on each axis: integers in ascending order, then names in order of arrival.

        The axes themselves are in order of arrival. ``as_array`` arranges frames in the same order.
        """
        positions = self._exengine.index.positions()
        return {axis: sorted(values, key=position_order) for axis, values in positions.items()}

    def as_array(
        self, axes: Iterable[str] | None = None, *, missing: Literal["raise", "mask"] | float = "raise"
    ) -> Any:
        return array_view.as_array(self, axes, missing)

    def to_xarray(self) -> Any:
        """Return all frames as an ``xarray.Dataset`` that reads them lazily.

        Returns
        -------
        xarray.Dataset
            The variable ``image`` has the dimensions ``(*axes, y, x[, rgb])``. The positions are coordinates,
            so ``.sel(channel="DAPI", z=1)`` works. Missing frames are filled with 0, and are False in the
            coordinate ``present``. Where known, the coordinates ``y``, ``x`` and ``z_um`` are in micrometers,
            and ``time_s`` is in seconds. With dask, the array has one chunk per frame.

        Raises
        ------
        UnsupportedOperationError
            If xarray is not installed, or if frames differ in axes, shape or dtype.
        """
        try:
            from exengine.kernel.storage import xarray_view
        except ImportError:
            raise UnsupportedOperationError(
                "to_xarray needs xarray; install it with: pip install 'exengine[xarray]'"
            ) from None
        return xarray_view.to_chunked_dataset(self)

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        state = self._exengine
        with state.lock:
            if state.closed:
                return
            state.closed = True
        # Ignore this thread: it is not reading, although an interrupted read may have left it in the set.
        while state.reads - {threading.get_ident()}:
            time.sleep(0.0005)  # polling suffices, because a read takes milliseconds
        self.release()


class DatasetReader(IndexedStorage):
    """An existing dataset that has been opened for reading, as returned by a backend's ``open``.

    Parameters
    ----------
    path : str
        The path of the dataset.
    index : FrameIndex
        The index used to look up frame numbers.
    status : DatasetStatus
        The status according to the manifest or the format itself.
    manifest : Manifest or None
        The dataset's ``exengine.json``, as :func:`~exengine.base_classes.read_manifest` returns it.

    Notes
    -----
    A subclass declares the same ``capabilities`` as the storage that writes the dataset. For example,
    ``verify`` uses the capability ``checksums``.
    """

    backend_name: str = ""
    """The name of the backend that reads the dataset; by default, the name recorded in the manifest."""

    path: str  # an attribute that replaces the computed default

    _exengine: DatasetState

    def __init__(
        self, path: str, index: FrameIndex, status: DatasetStatus, manifest: Manifest | None = None
    ) -> None:
        self._exengine = DatasetState(index, status, manifest)
        self.path = expanded(path)
        if not self.backend_name and manifest is not None:
            self.backend_name = manifest.backend

    def set_status(
        self, status: DatasetStatus, reason: str = "", *, manifest: "Manifest | None" = None
    ) -> None:
        """Change the status. Subclasses call this if they find damage or if the writer changes the status.

        Parameters
        ----------
        status : DatasetStatus
        reason : str
            The human-readable reason; by default, the reason in the manifest.
        manifest : Manifest, optional
            A newer version of the manifest.
        """
        state = self._exengine
        state.status, state.reason = status, reason
        if manifest is not None:
            state.manifest = manifest

    @property
    def manifest(self) -> "Manifest | None":
        """The dataset's ``exengine.json``, as read when the dataset was opened; None if there is none."""
        return self._exengine.manifest

    @property
    def status(self) -> DatasetStatus:
        return self._exengine.status

    @property
    def status_reason(self) -> str:
        """The human-readable reason for the status; empty for a complete dataset."""
        state = self._exengine
        return state.reason or (state.manifest.reason if state.manifest is not None else "")

    @property
    def annotations(self) -> dict[str, JsonValue]:
        """The JSON values that the writer stored with the dataset, such as its config and its ledger."""
        manifest = self._exengine.manifest
        return manifest.annotations if manifest is not None else {}

    def is_finished(self) -> bool:
        return self._exengine.status is not DatasetStatus.INCOMPLETE

    def put(self, data_coordinates: CoordinatesLike, data: npt.NDArray[Any], metadata: JsonValue) -> None:
        raise StorageFinishedError(
            f"{self.path} is open only for reading; write a new dataset with exengine.open_storage(...)"
        )

    def finish(self) -> None:
        """Do nothing, because the dataset was opened for reading."""

    def __reduce__(self) -> Any:
        return type(self).open, (self.path,)

    def __del__(self) -> None:
        state = self.__dict__.get("_exengine")  # a partly created reader owns no resources
        if state is not None and not state.closed:
            self.close()


def wait_until(condition: Any, timeout: float | None, poll_s: float = 0.02) -> bool:
    """Wait until a condition is true, for example in a reader of a dataset that is being written.

    Parameters
    ----------
    condition : callable
        Returns whether to stop waiting.
    timeout : float or None
        The maximum time to wait, in seconds; None means no limit.
    poll_s : float
        The time between two calls of ``condition``, in seconds.

    Returns
    -------
    bool
        Whether the condition became true in time.
    """
    end = None if timeout is None else time.monotonic() + timeout
    while not condition():
        if end is not None and time.monotonic() >= end:
            return False
        time.sleep(poll_s)
    return True
