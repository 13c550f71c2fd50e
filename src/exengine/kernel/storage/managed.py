"""The base class that keeps the storage promises, so that a backend need only encode and locate frames.

``ManagedStorage`` is responsible for the life cycle (:mod:`exengine.kernel.storage.lifecycle`), the
validation of a frame before anything changes, the set of coordinates, the location of the dataset and its
lock, the manifest, the first I/O error, and process exit. It does not know the format; a subclass writes
frame ``number`` and reads it back.

Threads: ``put`` and every change of state hold a single lock. Reads hold no lock.

Interrupts: CPython raises KeyboardInterrupt between bytecode instructions of the main thread. Decision record
0013 describes where this may happen in ``put`` and why no acknowledged frame is lost.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import numpy.typing as npt

from exengine.kernel.data_coords import snapshot
from exengine.kernel.data_storage_base import CoordinatesLike, DatasetStatus, Frame, JsonValue
from exengine.kernel.errors import (
    StorageClosedError,
    StorageFailedError,
    StorageFinishedError,
    StorageStateError,
    UnsupportedOperationError,
    frames_stored_before,
    from_os,
    note_stored,
)
from exengine.kernel.frames.metadata import clean_metadata
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.format_hooks import CheckedFrame
from exengine.kernel.storage.frame_checks import (
    FrameChecks,
    OwnedFrame,
    Parts,
    checked_parts,
    exists_already,
    unchecked_parts,
)
from exengine.kernel.storage.one_file.place import KINDS, reclaim
from exengine.kernel.storage.state import WriteState, how_to_reopen
from exengine.kernel.storage.written import WrittenStorage
from exengine.kernel.system import at_exit


class ManagedStorage(WrittenStorage):
    """The base class for backends. Override the hooks, and call ``super().__init__`` before opening files.

    Parameters
    ----------
    path : path, optional
        The path of the new dataset. It is claimed immediately, together with the writer's lock. From then on,
        the dataset exists and can be opened, although it is empty and incomplete. None if the backend is not
        persistent.
    summary_metadata : JSON value, optional
        Metadata of the dataset as a whole.

    Raises
    ------
    DatasetExistsError, DatasetLockedError, DatasetAccessError
        If the path cannot be claimed; nothing is changed in this case.
    MetadataError
        If the summary metadata is not a JSON value.

    Notes
    -----
    The hooks ``prepare_frames``, ``check_frame``, ``write_frame``, ``write_frames``, ``sync_frames`` and
    ``finish_frames`` are called with the lock held, so that no two of them run at the same time.
    ``read_frame`` and ``read_frame_metadata`` may be called from any thread, even during ``write_frame``, but
    only for frames that ``write_frame`` has already written.

    If the capabilities depend on the options, set ``self.capabilities`` before you call ``super().__init__``.

    The base class keeps its state in the attribute ``_exengine``. Subclasses may use any other name.
    """

    backend_name: str = ""
    """The entry-point name recorded in the manifest. If it is empty, ``module:Class`` is recorded instead."""

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, summary_metadata: JsonValue = None
    ) -> None:
        checks = FrameChecks(type(self).__name__, self.capabilities)
        self._exengine = state = WriteState(checks, clean_metadata(summary_metadata))
        if path is not None:
            name = self.backend_name or f"{type(self).__module__}:{type(self).__qualname__}"
            if self.continues:
                state.place = reclaim(os.fspath(path))
            else:
                initial, claimed = self.initial_files(), self.claimed_files()
                state.place = KINDS["{file}" in claimed].claim(os.fspath(path), name, claimed, initial)
        at_exit.watch_storage(self)

    # -- annotations and the plan -----------------------------------------------------------------

    def annotate(self, name: str, value: JsonValue) -> None:
        state = self._exengine
        if state.place is None:
            raise UnsupportedOperationError(f"{type(self).__name__} cannot store annotations")
        value = clean_metadata(value)
        with state.lock:
            if state.life.refusal is StorageFailedError and state.life.status is None and not state.closed:
                state.place.annotate_later(name, value)  # for example, the ledger of lost frames
                return
            if state.life.refusal is not None:
                self.__refuse()
            try:
                state.place.annotate(name, value)
            except OSError as error:
                self.__fail(error)
                raise self.__failed_error(f"the annotation {name!r} could not be stored") from error

    def expect(self, plan: SourcePlan, /) -> None:
        state = self._exengine
        with state.lock:
            if state.life.refusal is not None:
                self.__refuse()
            if state.expected or len(state.frames):
                before = (
                    f"frames stored so far: {len(state.frames)}"
                    if len(state.frames)
                    else "a plan has already been given"
                )
                raise StorageStateError(f"a storage accepts only one plan, before the first frame; {before}")
            try:
                self.prepare_frames(plan)
            except BaseException as error:
                self.__write_failed(error, "the planned frames could not be prepared")
                raise
            state.expected = True

    # -- writing ---------------------------------------------------------------------------------

    def put(self, data_coordinates: CoordinatesLike, data: npt.NDArray[Any], metadata: JsonValue) -> None:
        state = self._exengine
        coordinates = snapshot(data_coordinates)
        with state.lock:
            if state.life.refusal is not None:
                self.__refuse()
            data = state.checks.data(data)
            metadata = clean_metadata(metadata)
            if state.checks.limits_axes:
                state.checks.axes(coordinates)
            checked = self.check_frame(coordinates, data, metadata)
            key = state.frames.reserve(coordinates.__dict__)
            if key is None:
                raise exists_already(coordinates)
            try:
                self.write_frame(len(state.frames), coordinates, data, checked)
                # After the commit, readers can find the frame. An interrupt before the commit leaves a
                # written frame without a number, so nothing may be written after that frame.
                state.frames.commit(key)
            except BaseException as error:
                self.__write_failed(error, f"the frame at {coordinates.__dict__} was not stored")
                raise
            if state.checks.first is None:
                state.checks.stored(coordinates, data)
            if state.waiting:
                state.new_data.notify_all()

    def __put_checked(self, frames: Sequence[OwnedFrame]) -> None:
        """Store frames that a data handler has checked; see :func:`checked_put_of`."""
        if self.batch_frames > 1:
            self.__put_batches(frames, checked_parts)
            return
        state, stored = self._exengine, 0
        held, checks = state.frames, state.checks
        try:
            with state.lock:
                if state.life.refusal is not None:
                    self.__refuse()
                for frame in frames:
                    coordinates, data, metadata = checked_parts(frame)
                    data = checks.data(data)
                    if checks.limits_axes:
                        checks.axes(coordinates)
                    checked = self.check_frame(coordinates, data, metadata)
                    key = held.reserve(coordinates.__dict__)
                    if key is None:
                        raise exists_already(coordinates)
                    write = self.write_frame if frame.shared else self.write_owned_frame
                    try:
                        write(len(held), coordinates, data, checked)
                        held.commit(key)
                    except BaseException as error:
                        self.__write_failed(error, f"the frame at {coordinates.__dict__} was not stored")
                        raise
                    if checks.first is None:
                        checks.stored(coordinates, data)
                    stored += 1
                    if state.waiting:
                        state.new_data.notify_all()
        except BaseException as error:
            note_stored(error, stored)
            raise

    def put_many(self, frames: Iterable[Frame]) -> None:
        # A generator may reuse the array of one frame for the next, so only sequences are stored in batches.
        if self.batch_frames == 1 or not isinstance(frames, list | tuple):
            super().put_many(frames)
        else:
            self.__put_batches(frames, unchecked_parts)

    def __put_batches(self, frames: Sequence[Any], parts: Callable[[Any], Parts]) -> None:
        begin = 0
        try:
            while begin < len(frames):
                # The very first frame is stored alone, because the others are compared with its shape and
                # dtype.
                end = begin + (self.batch_frames if self._exengine.checks.first else 1)
                self.__put_batch(frames[begin:end], parts)
                begin = end
        except BaseException as error:
            note_stored(error, begin + frames_stored_before(error))
            raise

    def __put_batch(self, frames: Sequence[Any], parts: Callable[[Any], Parts]) -> None:
        """Check frames until one is rejected, write the frames before it, then raise the error."""
        state = self._exengine
        refusal: Exception | None = None
        batch: list[CheckedFrame] = []
        keys: dict[int, None] = {}
        with state.lock:
            if state.life.refusal is not None:
                self.__refuse()
            try:
                for frame in frames:
                    coordinates, data, metadata = parts(frame)
                    data = state.checks.data(data)
                    if state.checks.limits_axes:
                        state.checks.axes(coordinates)
                    checked = self.check_frame(coordinates, data, metadata)
                    key = state.frames.reserve(coordinates.__dict__)
                    if key is None or key in keys:
                        raise exists_already(coordinates)
                    keys[key] = None
                    batch.append((coordinates, data, checked))
            except Exception as error:
                refusal = error
            self.__write_batch(batch, list(keys))
            if refusal is not None:
                note_stored(refusal, len(keys))
                raise refusal

    def __write_batch(self, batch: list[CheckedFrame], keys: list[int]) -> None:
        state, stored = self._exengine, 0
        try:
            while batch:
                try:
                    written = self.write_frames(len(state.frames), batch)
                    if not 0 < written <= len(batch):
                        raise ValueError(f"write_frames returned {written} for a batch of {len(batch)}")
                    for key in keys[:written]:
                        state.frames.commit(key)
                        stored += 1
                except BaseException as error:
                    others = f" and {len(batch) - 1} more after it were" if len(batch) > 1 else " was"
                    self.__write_failed(error, f"the frame at {batch[0][0].__dict__}{others} not stored")
                    raise
                state.checks.stored(*batch[0][:2])
                del batch[:written], keys[:written]
                if state.waiting:
                    state.new_data.notify_all()
        except BaseException as error:
            note_stored(error, stored)
            raise

    def __write_failed(self, error: BaseException, what: str) -> None:
        """Enter the failed state after an I/O error or an interrupt, unless the frame was only rejected."""
        self._exengine.frames.withdraw()
        if isinstance(error, OSError) or not isinstance(error, Exception):
            self.__fail(error)
            if isinstance(error, OSError):
                raise self.__failed_error(what) from error

    def __fail(self, error: BaseException) -> None:
        """Enter the failed state permanently, and record the first error."""
        state = self._exengine
        with state.lock:
            if state.life.fail(error):
                state.new_data.notify_all()

    def cannot_begin(self, error: BaseException) -> None:
        """End a storage whose creation failed. A subclass's ``__init__`` calls this, then raises the error.

        The dataset is marked as failed, with the reason, and its lock is released. ``release`` is the only
        hook of the subclass that is called; it can use only attributes that already exist.
        """
        state = self._exengine
        self.__fail(error)
        state.life.end(DatasetStatus.FAILED, state.life.failure)  # so that ``close`` has nothing to finish
        if state.place is not None and not self.continues:  # an existing dataset is left as it is
            with contextlib.suppress(OSError):  # otherwise the dataset remains incomplete and empty
                state.place.conclude(DatasetStatus.FAILED, state.life.failure, len(state.frames), None)
        with contextlib.suppress(Exception):  # ``release`` may need an attribute that does not exist yet
            self.close()

    def __failed_error(self, what: str) -> StorageFailedError:
        life = self._exengine.life
        life.reported = True
        where = f" {self.path}" if self.path else ""
        error = from_os(
            StorageFailedError,
            f"writing{where} failed: {life.failure}; {what}. All frames stored earlier "
            f"({self.frames_stored}) are safe; "
            f"{'resume this dataset later, or ' if self.capabilities.resumable else ''}continue in a new "
            f"dataset{', on another disk' if isinstance(life.error, OSError) else ''}",
            life.error,
        )
        error.__cause__ = life.error
        return error

    def __refuse(self) -> NoReturn:
        refusal = self._exengine.life.refusal
        if refusal is StorageFailedError:
            raise self.__failed_error("no more frames can be stored")
        if refusal is StorageFinishedError:
            raise StorageFinishedError("the storage is finished, so its dataset can no longer be changed")
        if refusal is StorageStateError:
            raise StorageStateError("this process was forked, and the storage belongs to the parent process")
        raise StorageClosedError(f"the storage is closed; {how_to_reopen(self.path)}")

    def flush(self, durable: bool = False) -> None:
        state = self._exengine
        with state.lock:
            if state.life.refusal is StorageFinishedError:
                if state.life.status is not None:
                    return
            elif state.life.refusal is not None:
                self.__refuse()
            if state.place is None:
                if durable:
                    raise UnsupportedOperationError(f"{type(self).__name__} is not persistent")
                return
            if durable:
                try:
                    self.sync_frames()
                    state.place.sync()
                except OSError as error:
                    self.__fail(error)
                    raise self.__failed_error("some frames may not have reached the disk") from error

    def await_new_data(self, timeout: float | None = None) -> bool:
        state = self._exengine
        with state.new_data:
            if state.life.refusal is not None:
                return True
            count = len(state.frames)
            state.waiting += 1
            try:
                return state.new_data.wait_for(
                    lambda: len(state.frames) > count or state.life.refusal is not None, timeout
                )
            finally:
                state.waiting -= 1

    # -- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        life = self._exengine.life
        with self._exengine.lock:
            if life.status is not None and life.error is None:
                return
            if life.error is not None:
                self.__conclude(DatasetStatus.FAILED, life.failure)
                raise self.__failed_error("the dataset is marked as failed")
            if life.refusal not in (None, StorageFinishedError):  # ``finish`` may have been interrupted
                self.__refuse()
            self.__conclude(DatasetStatus.COMPLETE, "")
            if life.error is not None:
                raise self.__failed_error("the dataset could not be finished")

    def abort(self, reason: str = "", *, failed: bool = False) -> None:
        life = self._exengine.life
        with self._exengine.lock:
            if life.can_end:
                failed = failed or life.error is not None
                self.__conclude(DatasetStatus.FAILED if failed else DatasetStatus.ABORTED, reason)

    def __conclude(self, status: DatasetStatus, reason: str) -> None:
        """End the dataset, but only once. After a failure, end it only if the disk allows this."""
        state = self._exengine
        life = state.life
        if life.status is not None:
            return
        life.begin_end(status, reason)
        try:
            self.finish_frames()
        except OSError as error:
            self.__fail(error)
            status, reason = DatasetStatus.FAILED, reason or str(error)
        try:
            if state.place is not None:
                facts = self.finished_facts() if life.error is None else None
                state.place.conclude(status, reason, len(state.frames), facts)
        except OSError as error:
            self.__fail(error)
            status, reason = DatasetStatus.FAILED, reason or str(error)
        life.end(status, reason)
        state.new_data.notify_all()

    def close(self) -> None:
        state = self._exengine
        life = state.life
        with state.lock:
            if state.closed:
                return
            unreported = not life.reported
            if life.error is not None:
                self.__conclude(DatasetStatus.FAILED, life.failure)
            life.close()
            state.new_data.notify_all()
        what = "some frames were not stored"
        try:
            super().close()
        except OSError as error:
            self.__fail(error)
            if not unreported:
                unreported, what = True, "the dataset's files could not be closed"
        finally:  # release the lock even if a backend's ``release`` raises an error
            at_exit.release(self)
            if state.place is not None:
                state.place.unlock()
        if unreported:
            raise self.__failed_error(what)


def checked_put_of(storage: object) -> Callable[[Sequence[OwnedFrame]], None] | None:
    """Return a function that stores frames without checking coordinates and metadata again; see `put_many`.

    A data handler has checked and copied both. The result is None if the storage is not a ``ManagedStorage``,
    or if it has a ``put`` or ``put_many`` of its own, which must not be bypassed.
    """
    if not isinstance(storage, ManagedStorage) or {"put", "put_many"} & storage.__dict__.keys():
        return None
    cls = type(storage)
    if cls.put is not ManagedStorage.put or cls.put_many is not ManagedStorage.put_many:
        return None
    put: Callable[[Sequence[OwnedFrame]], None] = getattr(storage, f"_{ManagedStorage.__name__}__put_checked")
    return put
