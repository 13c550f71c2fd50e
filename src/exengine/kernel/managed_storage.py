"""The base that keeps the storage promises, so that a backend only encodes and locates frames.

``ManagedStorage`` is responsible for: the states, the validation of a frame before anything is
changed, the set of coordinates, the place of the dataset and its lock, the manifest, the first I/O
error that stays, and what happens at the end of the process. It is not responsible for one byte of
the format: a subclass writes frame ``number`` and reads it back.

States::

    open --finish--> finished --close--> closed
      |                                    ^
      |--close (incomplete dataset)--------|
      |--abort--> finished (aborted)-------|
      '--I/O error--> failed --------------'

Threads: ``put`` and everything that changes the state hold one lock. Reads hold none.
"""

import os
import threading
import time
import warnings
from abc import abstractmethod
from typing import Any, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt

from exengine.kernel import exit_hooks, platform
from exengine.kernel.coordinate_index import CoordinateIndex
from exengine.kernel.data_coords import DataCoordinates, snapshot
from exengine.kernel.data_storage_base import CoordinatesLike, DatasetStatus, JsonValue
from exengine.kernel.dataset_place import DatasetPlace
from exengine.kernel.errors import (
    CoordinatesError,
    CoordinatesExistError,
    StorageClosedError,
    StorageFailedError,
    StorageFinishedError,
    StorageStateError,
    UnsupportedDataError,
    UnsupportedOperationError,
)
from exengine.kernel.indexed_storage import IndexedStorage
from exengine.kernel.metadata import clean_metadata


class ManagedStorage(IndexedStorage):
    """Base of backends: override the hooks, call ``super().__init__`` before opening files.

    Parameters
    ----------
    path : path, optional
        Where the dataset will lie. Claimed at once, together with the writer's lock: from here on
        it exists and can be opened, as empty and incomplete. None for a backend that keeps nothing.
    summary_metadata : JSON value, optional
        Metadata of the whole dataset.

    Raises
    ------
    DatasetExistsError, DatasetLockedError, DatasetAccessError
        When the path cannot be claimed; then nothing was changed.
    MetadataError
        When the summary metadata is not JSON.

    Notes
    -----
    The hooks ``check_frame``, ``write_frame``, ``sync_frames`` and ``finish_frames`` are called
    with the lock held, never two at once. ``read_frame`` and ``read_frame_metadata`` are called from
    any thread, also during ``write_frame``, for numbers whose ``write_frame`` has returned.
    """

    backend_name: ClassVar[str] = ""
    """The entry-point name, for the manifest; by default it keeps ``module:Class``, which is found too."""

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, summary_metadata: JsonValue = None
    ) -> None:
        self._frames = CoordinateIndex()
        super().__init__(self._frames)
        self._new_data = threading.Condition(self._lock)
        self._waiting = 0
        self._failure: BaseException | None = None
        self._failure_told = True
        self._final_status: DatasetStatus | None = None
        self._refused_state: type[StorageStateError] | None = None  # None: open
        self._accepted_dtypes: set[np.dtype[Any]] = set()
        self._first: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        self._summary = clean_metadata(summary_metadata)
        self._place: DatasetPlace | None = None
        if path is not None:
            self._place = DatasetPlace.claim(
                os.fspath(path), self.backend_name or f"{type(self).__module__}:{type(self).__qualname__}"
            )
            exit_hooks.watch_storage(self)

    # -- hooks for subclasses --------------------------------------------------------------------

    def check_frame(self, coordinates: DataCoordinates, data: npt.NDArray[Any], metadata: JsonValue) -> Any:
        """Refuse what the format cannot hold, before anything is changed.

        Parameters
        ----------
        coordinates : DataCoordinates
            Frozen to nobody else.
        data : numpy.ndarray
            Of an accepted dtype and number of dimensions; not contiguous perhaps.
        metadata : JSON value
            Plain Python objects, a copy.

        Returns
        -------
        object
            What ``write_frame`` receives as its last argument, such as the encoded metadata.

        Raises
        ------
        UnsupportedDataError, MetadataError, CoordinatesError
        """
        return metadata

    @abstractmethod
    def write_frame(
        self, number: int, coordinates: DataCoordinates, data: npt.NDArray[Any], checked: Any
    ) -> None:
        """Write frame ``number``, so that it survives the death of the process (A1).

        Parameters
        ----------
        number : int
            Counts from 0 without a gap. After a failure the same number comes again, if at all.
        coordinates : DataCoordinates
        data : numpy.ndarray
            The caller's array: valid only during this call.
        checked : object
            What ``check_frame`` returned.

        Raises
        ------
        OSError
            Makes the storage fail.
        """

    def sync_frames(self) -> None:
        """Bring every written frame to the disk (A2). By default the whole file system is synced."""
        if self._place is not None:
            platform.sync_filesystem(self._place.path)

    def finish_frames(self) -> None:
        """Write what ends the format, and bring all to the disk. The manifest follows."""
        self.sync_frames()

    # -- identity --------------------------------------------------------------------------------

    @property
    def path(self) -> str | None:
        """Where the dataset lies; None for a backend that keeps nothing."""
        return self._place.path if self._place else None

    @property
    def status(self) -> DatasetStatus:
        return self._final_status or DatasetStatus.INCOMPLETE

    @property
    def summary_metadata(self) -> JsonValue:
        return self._summary

    def is_finished(self) -> bool:
        return self._final_status is not None

    def annotate(self, name: str, value: JsonValue) -> None:
        if self._place is None:
            raise UnsupportedOperationError(f"{type(self).__name__} keeps no annotations")
        value = clean_metadata(value)
        with self._lock:
            if self._refused_state is not None:
                self._refuse_to_write()
            try:
                self._place.annotate(name, value)
            except OSError as error:
                self._fail(error)
                raise self._failed_error(f"{name!r} could not be kept") from error

    # -- writing ---------------------------------------------------------------------------------

    def put(self, data_coordinates: CoordinatesLike, data: npt.NDArray[Any], metadata: JsonValue, /) -> None:
        coordinates = snapshot(data_coordinates)
        with self._lock:
            if self._refused_state is not None:
                self._refuse_to_write()
            data = self._check_data(data)
            metadata = clean_metadata(metadata)
            self._check_axes(coordinates)
            checked = self.check_frame(coordinates, data, metadata)
            key = self._frames.reserve(coordinates.__dict__)
            if key is None:
                raise CoordinatesExistError(
                    f"a frame is already at {coordinates.__dict__}; a frame is never "
                    "replaced, put it elsewhere"
                )
            try:
                self.write_frame(len(self._frames), coordinates, data, checked)
            except BaseException as error:
                self._frames.withdraw()
                if isinstance(error, OSError) or not isinstance(error, Exception):
                    # A write that failed, or that was interrupted half way: trust it no more.
                    self._fail(error)
                    if isinstance(error, OSError):
                        raise self._failed_error(
                            f"the frame at {coordinates.__dict__} was not stored"
                        ) from error
                raise
            self._frames.commit(key)
            if self._first is None:
                self._first = (data.shape, data.dtype)
            if self._waiting:
                self._new_data.notify_all()

    def _check_data(self, data: Any) -> npt.NDArray[Any]:
        if type(data) is not np.ndarray:
            if not isinstance(data, np.ndarray):
                raise UnsupportedDataError(
                    f"data is a numpy array, got {type(data).__name__}; convert it with numpy.asarray(...)"
                )
            if isinstance(data, np.ma.MaskedArray):
                raise UnsupportedDataError("a masked array would lose its mask; pass data.filled(value)")
            data = np.asarray(data)
        dtype = data.dtype
        limits = self.capabilities
        if dtype not in self._accepted_dtypes:
            if dtype.hasobject:
                raise UnsupportedDataError(
                    "an array of Python objects cannot be stored; convert it to numbers"
                )
            if limits.dtypes is not None and dtype.name not in limits.dtypes:
                raise self._unsupported_data(data)
            self._accepted_dtypes.add(dtype)
        if limits.ndim is not None and data.ndim not in limits.ndim:
            raise self._unsupported_data(data)
        if limits.same_shape:
            if self._first is not None and self._first != (data.shape, dtype):
                raise UnsupportedDataError(
                    f"{type(self).__name__} takes frames of one shape and dtype: the first was "
                    f"{self._first[0]} {self._first[1]}, this one is {data.shape} {dtype}"
                )
        return data  # type: ignore[no-any-return]

    def _unsupported_data(self, data: npt.NDArray[Any]) -> UnsupportedDataError:
        limits = self.capabilities
        takes = []
        if limits.dtypes is not None:
            takes.append(f"dtype {' or '.join(limits.dtypes)}")
        if limits.ndim is not None:
            takes.append(f"{' or '.join(map(str, limits.ndim))} dimensions")
        return UnsupportedDataError(
            f"{type(self).__name__} takes {', '.join(takes)}; got {data.dtype}, shape {data.shape}. "
            "Convert the array, or choose another backend"
        )

    def _check_axes(self, coordinates: DataCoordinates) -> None:
        limits = self.capabilities
        if limits.string_axes and limits.negative_indices:
            return
        for axis, value in coordinates.__dict__.items():
            if type(value) is str:
                if not limits.string_axes:
                    raise CoordinatesError(
                        f"{type(self).__name__} takes int positions only; axis {axis!r} is {value!r}"
                    )
            elif value < 0 and not limits.negative_indices:
                raise CoordinatesError(
                    f"{type(self).__name__} takes positions from 0; axis {axis!r} is {value}"
                )

    def _fail(self, error: BaseException, *, told: bool = True) -> None:
        """Enter the failed state, for good. The first error stays."""
        with self._lock:
            if self._failure is None:
                self._failure = error
                self._failure_told = told
                self._refused_state = StorageFailedError
                self._new_data.notify_all()

    def _failed_error(self, what: str) -> StorageFailedError:
        self._failure_told = True
        where = f" {self.path}" if self.path else ""
        error = StorageFailedError(
            f"writing{where} failed: {self._failure}; {what}. The {len(self._frames)} "
            "frames before are safe; "
            "go on in a new dataset, on a disk with space"
        )
        error.errno = getattr(self._failure, "errno", None)
        error.__cause__ = self._failure
        return error

    def _refuse_to_write(self) -> NoReturn:
        if self._refused_state is StorageFailedError:
            raise self._failed_error("nothing more can be stored")
        if self._refused_state is StorageFinishedError:
            raise StorageFinishedError("the storage is finished: its dataset cannot be changed any more")
        if self._refused_state is StorageStateError:
            raise StorageStateError("this storage belongs to the process that forked this one")
        raise StorageClosedError(f"the storage is closed; {self._how_to_reopen()}")

    def flush(self, durable: bool = False) -> None:
        with self._lock:
            if self._refused_state is StorageFinishedError:
                return
            if self._refused_state is not None:
                self._refuse_to_write()
            if self._place is None:
                if durable:
                    raise UnsupportedOperationError(f"{type(self).__name__} keeps nothing after the process")
                return
            if durable:
                try:
                    self.sync_frames()
                except OSError as error:
                    self._fail(error)
                    raise self._failed_error("frames may not have reached the disk") from error

    def await_new_data(self, timeout: float | None = None) -> bool:
        with self._new_data:
            if self._refused_state is not None:
                return True
            count = len(self._frames)
            self._waiting += 1
            try:
                return self._new_data.wait_for(
                    lambda: len(self._frames) > count or self._refused_state is not None, timeout
                )
            finally:
                self._waiting -= 1

    # -- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        with self._lock:
            if self._final_status is not None and self._failure is None:
                return
            if self._failure is not None:
                self._conclude(DatasetStatus.FAILED, str(self._failure))
                raise self._failed_error("the dataset is marked as failed")
            if self._refused_state is not None:
                self._refuse_to_write()
            self._conclude(DatasetStatus.COMPLETE, "")
            if self._failure is not None:
                raise self._failed_error("the dataset could not be finished")

    def abort(self, reason: str = "", *, failed: bool = False) -> None:
        with self._lock:
            if self._final_status is None and self._refused_state in (None, StorageFailedError):
                failed = failed or self._failure is not None
                self._conclude(DatasetStatus.FAILED if failed else DatasetStatus.ABORTED, reason)

    def _conclude(self, status: DatasetStatus, reason: str) -> None:
        """Write the end of the dataset, once; after a failure as far as the disk allows."""
        if self._final_status is not None:
            return
        try:
            self.finish_frames()
            if self._place is not None:
                self._place.conclude(status, reason, len(self._frames))
        except OSError as error:
            self._fail(error)
            if status is not DatasetStatus.FAILED:
                self._conclude(DatasetStatus.FAILED, str(error))
            self._final_status = DatasetStatus.FAILED
            return
        self._final_status = status
        if self._failure is None:
            self._refused_state = StorageFinishedError
        self._new_data.notify_all()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            untold = not self._failure_told
            if self._failure is not None:
                self._conclude(DatasetStatus.FAILED, str(self._failure))
            if self._refused_state is not StorageFailedError:
                self._refused_state = StorageClosedError
            self._new_data.notify_all()
        super().close()
        exit_hooks.release(self)
        if self._place is not None:
            self._place.unlock()
        if untold:
            raise self._failed_error("some frames were not stored")

    def _how_to_reopen(self) -> str:
        return (
            f"open it again with exengine.open_dataset({self.path!r})"
            if self.path
            else "what it held is gone"
        )

    def conclude_at_exit(self) -> None:
        """Finish as aborted, with a warning: the program ended and had forgotten this storage."""
        forgotten = not self._closed and self._final_status is None
        if forgotten:
            self.abort("the program ended without finish()")
        self.close()
        if forgotten:
            warnings.warn(
                f"{self.path} was not finished before the program ended; it is finished as aborted",
                RuntimeWarning,
                stacklevel=2,
            )

    def disown(self) -> None:
        """Become unable to write: this process is a fork of the one that owns the storage."""
        # Whoever held the lock, or was reading, does so in the other process.
        self._lock = threading.RLock()
        self._new_data = threading.Condition(self._lock)
        self._reads = []
        self._failure = None
        self._failure_told = True
        self._refused_state = StorageStateError
        if self._place is not None:
            self._place.unlock()

    def __reduce__(self) -> Any:
        """Pickle as a reader of the same dataset, for the workers that compute on ``as_array``."""
        if self._place is None:
            raise UnsupportedOperationError(f"{type(self).__name__} lives in this process only")
        return type(self).open, (self._place.path,)

    def __del__(self) -> None:
        # Only a persistent storage has something to save; a half-made one has no _place.
        if (
            getattr(self, "_place", None) is not None
            and not self._closed
            and self._refused_state is not StorageStateError
        ):
            self.conclude_at_exit()


def wait_until(condition: Any, timeout: float | None, poll_s: float = 0.02) -> bool:
    """Return whether a condition became true in time; for readers of what another process writes."""
    end = None if timeout is None else time.monotonic() + timeout
    while not condition():
        if end is not None and time.monotonic() >= end:
            return False
        time.sleep(poll_s)
    return True
