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

import contextlib
import copy
import os
import threading
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NoReturn

import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates, snapshot
from exengine.kernel.data_storage_base import CoordinatesLike, DatasetStatus, Frame, JsonValue
from exengine.kernel.errors import (
    CoordinatesExistError,
    StorageClosedError,
    StorageFailedError,
    StorageFinishedError,
    StorageStateError,
    UnsupportedOperationError,
    from_os,
)
from exengine.kernel.frames.coordinate_index import CoordinateIndex
from exengine.kernel.frames.metadata import clean_metadata
from exengine.kernel.storage.frame_checks import FrameChecks
from exengine.kernel.storage.place import DatasetPlace
from exengine.kernel.storage.reading import IndexedStorage
from exengine.kernel.system import at_exit, files


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
    The hooks ``check_frame``, ``write_frame``, ``write_frames``, ``sync_frames`` and ``finish_frames``
    are called with the lock held, never two at once. ``read_frame`` and ``read_frame_metadata`` are
    called from any thread, also during ``write_frame``, for numbers whose ``write_frame`` has returned.
    """

    backend_name: ClassVar[str] = ""
    """The entry-point name, for the manifest; by default it keeps ``module:Class``, which is found too."""

    batch_frames: ClassVar[int] = 1
    """How many frames of :meth:`put_many` go to :meth:`write_frames` at once."""

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
        self._checks = FrameChecks(type(self).__name__, self.capabilities)
        self._summary = clean_metadata(summary_metadata)
        self._place: DatasetPlace | None = None
        if path is not None:
            self._place = DatasetPlace.claim(
                os.fspath(path), self.backend_name or f"{type(self).__module__}:{type(self).__qualname__}"
            )
        at_exit.watch_storage(self)

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

    def write_frames(self, number: int, batch: list[tuple[DataCoordinates, npt.NDArray[Any], Any]]) -> int:
        """Write the first frames of a batch; override together with ``batch_frames``.

        Parameters
        ----------
        number : int
            Of the first frame.
        batch : list of (coordinates, data, checked)
            At least one, as ``write_frame`` takes them. All were checked before the first is written.

        Returns
        -------
        int
            How many were written, at least one; the others come again.

        Raises
        ------
        OSError
            Makes the storage fail. Nothing of the batch counts as written then.
        UnsupportedDataError, CoordinatesError
            When the first of them does not go with frames of the batch that were written before it.
        """
        self.write_frame(number, *batch[0])
        return 1

    def sync_frames(self) -> None:
        """Bring every written frame to the disk (A2). By default the whole file system is synced."""
        if self._place is not None:
            files.sync_filesystem(self._place.path)

    def finish_frames(self) -> None:
        """Write what ends the format, and bring all to the disk. The manifest follows."""
        self.sync_frames()

    def finished_facts(self) -> dict[str, JsonValue]:
        """Return what whoever opens the finished dataset compares it with, such as a checksum.

        Called after ``finish_frames``, unless something has failed. The manifest keeps it as ``facts``.
        """
        return {}

    # -- identity --------------------------------------------------------------------------------

    @property
    def path(self) -> str | None:
        """Where the dataset lies; None for a backend that keeps nothing."""
        return self._place.path if self._place else None

    @property
    def status(self) -> DatasetStatus:
        return self._final_status or DatasetStatus.INCOMPLETE

    @property
    def frames_stored(self) -> int:
        """How many frames were put; known after ``close``, too."""
        return len(self._frames)

    @property
    def summary_metadata(self) -> JsonValue:
        return copy.deepcopy(self._summary)

    def is_finished(self) -> bool:
        return self._final_status is not None

    def annotate(self, name: str, value: JsonValue) -> None:
        if self._place is None:
            raise UnsupportedOperationError(f"{type(self).__name__} keeps no annotations")
        value = clean_metadata(value)
        with self._lock:
            failed = self._refused_state is StorageFailedError
            if failed and self._final_status is None and not self._closed:
                self._place.annotate_later(name, value)  # the ledger of what was lost, above all
                return
            if self._refused_state is not None:
                self._refuse_to_write()
            try:
                self._place.annotate(name, value)
            except OSError as error:
                self._fail(error)
                raise self._failed_error(f"{name!r} could not be kept") from error

    # -- writing ---------------------------------------------------------------------------------

    def put(self, data_coordinates: CoordinatesLike, data: npt.NDArray[Any], metadata: JsonValue) -> None:
        coordinates = snapshot(data_coordinates)
        with self._lock:
            if self._refused_state is not None:
                self._refuse_to_write()
            data = self._checks.data(data)
            metadata = clean_metadata(metadata)
            if self._checks.limits_axes:
                self._checks.axes(coordinates)
            checked = self.check_frame(coordinates, data, metadata)
            key = self._frames.reserve(coordinates.__dict__)
            if key is None:
                raise self._exists(coordinates)
            try:
                self.write_frame(len(self._frames), coordinates, data, checked)
                # From here on a reader may ask for it. An interrupt that comes before leaves a frame that is
                # written and has no number: nothing may be put behind it.
                self._frames.commit(key)
            except BaseException as error:
                self._write_failed(error, f"the frame at {coordinates.__dict__} was not stored")
                raise
            if self._checks.first is None:
                self._checks.stored(data)
            if self._waiting:
                self._new_data.notify_all()

    def put_many(self, frames: Iterable[Frame]) -> None:
        # The array of a frame that is made on the way is valid only until the next one is asked for.
        if self.batch_frames == 1 or not isinstance(frames, list | tuple):
            super().put_many(frames)
        else:
            self.put_counting(frames, [0])

    def put_counting(self, frames: Sequence[Frame], stored: list[int]) -> None:
        """Store frames as :meth:`put_many`, and count them, so that a caller knows when it raises.

        Parameters
        ----------
        frames : sequence of (coordinates, data, metadata)
        stored : list of one int
            Grows with each frame that is stored.

        Raises
        ------
        ExEngineError
            As :meth:`put`, for the first frame that is not stored.
        """
        begin = 0
        while begin < len(frames):
            # The first frame of all goes alone: it decides what the others are compared with.
            end = begin + (self.batch_frames if self._checks.first else 1)
            self._put_batch(frames[begin:end], stored)
            begin = end

    def _put_batch(self, frames: Sequence[Frame], stored: list[int]) -> None:
        """Check frames up to one that is refused, write those, then raise."""
        refusal: Exception | None = None
        batch: list[tuple[DataCoordinates, npt.NDArray[Any], Any]] = []
        keys: dict[int, None] = {}
        with self._lock:
            if self._refused_state is not None:
                self._refuse_to_write()
            try:
                for data_coordinates, data, metadata in frames:
                    coordinates = snapshot(data_coordinates)
                    data = self._checks.data(data)
                    metadata = clean_metadata(metadata)
                    if self._checks.limits_axes:
                        self._checks.axes(coordinates)
                    checked = self.check_frame(coordinates, data, metadata)
                    key = self._frames.reserve(coordinates.__dict__)
                    if key is None or key in keys:
                        raise self._exists(coordinates)
                    keys[key] = None
                    batch.append((coordinates, data, checked))
            except Exception as error:
                refusal = error
            self._write_batch(batch, list(keys), stored)
            if refusal is not None:
                raise refusal

    def _write_batch(
        self,
        batch: list[tuple[DataCoordinates, npt.NDArray[Any], Any]],
        keys: list[int],
        stored: list[int],
    ) -> None:
        while batch:
            try:
                written = self.write_frames(len(self._frames), batch)
                if not 0 < written <= len(batch):
                    raise ValueError(f"write_frames returned {written} for {len(batch)} frames")
                for key in keys[:written]:
                    self._frames.commit(key)
                    stored[0] += 1
            except BaseException as error:
                others = f" and {len(batch) - 1} that follow were" if len(batch) > 1 else " was"
                self._write_failed(error, f"the frame at {batch[0][0].__dict__}{others} not stored")
                raise
            self._checks.stored(batch[0][1])
            del batch[:written], keys[:written]
            if self._waiting:
                self._new_data.notify_all()

    def _exists(self, coordinates: DataCoordinates) -> CoordinatesExistError:
        return CoordinatesExistError(
            f"a frame is already at {coordinates.__dict__}; a frame is never replaced, put it elsewhere"
        )

    def _write_failed(self, error: BaseException, what: str) -> None:
        """Trust no more a write that failed, or that was interrupted half way. A refusal changes nothing."""
        self._frames.withdraw()
        if isinstance(error, OSError) or not isinstance(error, Exception):
            self._fail(error)
            if isinstance(error, OSError):
                raise self._failed_error(what) from error

    def _fail(self, error: BaseException, *, told: bool = True) -> None:
        """Enter the failed state, for good. The first error stays."""
        with self._lock:
            if self._failure is None:
                self._failure = error
                self._failure_told = told
                self._refused_state = StorageFailedError
                self._new_data.notify_all()

    def cannot_begin(self, error: BaseException) -> None:
        """End a storage that cannot be made after all: for ``__init__`` of a subclass, which then raises.

        The dataset says that it failed, and why, and its lock is free. Of the subclass only ``release`` is
        called, with what there is by then.
        """
        self._fail(error)
        self._final_status = DatasetStatus.FAILED  # ``close`` has nothing to finish
        if self._place is not None:
            with contextlib.suppress(OSError):  # without it the dataset is incomplete, and empty
                self._place.conclude(DatasetStatus.FAILED, self._why_failed(), len(self._frames), None)
        with contextlib.suppress(Exception):  # what ``release`` misses of a half-made object
            self.close()

    def _failed_error(self, what: str) -> StorageFailedError:
        self._failure_told = True
        where = f" {self.path}" if self.path else ""
        error = from_os(
            StorageFailedError,
            f"writing{where} failed: {self._why_failed()}; {what}. The {len(self._frames)} "
            "frames before are safe; go on in a new dataset"
            f"{', on a disk with space' if isinstance(self._failure, OSError) else ''}",
            self._failure,
        )
        error.__cause__ = self._failure
        return error

    def _why_failed(self) -> str:
        return str(self._failure) or f"interrupted by {type(self._failure).__name__}"

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
            if self._final_status is not None and self._refused_state is StorageFinishedError:
                return
            if self._refused_state not in (None, StorageFinishedError):
                self._refuse_to_write()
            if self._place is None:
                if durable:
                    raise UnsupportedOperationError(f"{type(self).__name__} keeps nothing after the process")
                return
            if durable:
                try:
                    self.sync_frames()
                    self._place.sync()
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
                self._conclude(DatasetStatus.FAILED, self._why_failed())
                raise self._failed_error("the dataset is marked as failed")
            if self._refused_state not in (None, StorageFinishedError):  # a finish may have been interrupted
                self._refuse_to_write()
            self._conclude(DatasetStatus.COMPLETE, "")
            if self._failure is not None:
                raise self._failed_error("the dataset could not be finished")

    def abort(self, reason: str = "", *, failed: bool = False) -> None:
        with self._lock:
            if self._final_status is None and self._refused_state in (
                None,
                StorageFailedError,
                StorageFinishedError,
            ):
                failed = failed or self._failure is not None
                self._conclude(DatasetStatus.FAILED if failed else DatasetStatus.ABORTED, reason)

    def _conclude(self, status: DatasetStatus, reason: str) -> None:
        """Write the end of the dataset, once; after a failure as far as the disk allows."""
        if self._final_status is not None:
            return
        if self._refused_state is None:
            # Nothing may be put any more, also when what follows is interrupted: it can be done again.
            self._refused_state = StorageFinishedError
        try:
            self.finish_frames()
        except OSError as error:
            self._fail(error)
            status, reason = DatasetStatus.FAILED, reason or str(error)
        try:
            if self._place is not None:
                facts = self.finished_facts() if self._failure is None else None
                self._place.conclude(status, reason, len(self._frames), facts)
        except OSError as error:
            self._fail(error)
            status = DatasetStatus.FAILED
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
                self._conclude(DatasetStatus.FAILED, self._why_failed())
            if self._refused_state is not StorageFailedError:
                self._refused_state = StorageClosedError
            self._new_data.notify_all()
        what = "some frames were not stored"
        try:
            super().close()
        except OSError as error:
            self._fail(error)
            if not untold:
                untold, what = True, "its files could not be closed"
        finally:  # whatever a backend's release raises, the next writer is let in
            at_exit.release(self)
            if self._place is not None:
                self._place.unlock()
        if untold:
            raise self._failed_error(what)

    def _how_to_reopen(self) -> str:
        return (
            f"open it again with exengine.open_dataset({self.path!r})"
            if self.path
            else "what it held is gone"
        )

    def conclude_at_exit(self) -> None:
        """Finish as aborted, with a warning: the program ended and had forgotten this storage."""
        if self._place is None:
            return  # nothing of it outlives the process
        forgotten = not self._closed and self._final_status is None
        try:
            if forgotten:
                self.abort("the program ended without finish()")
        finally:
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
        self._reads = set()
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
