"""The status of a storage that is being written, and its behavior at exit, in forks and when pickled.

:class:`exengine.kernel.storage.managed.ManagedStorage` holds this state and changes it.
"""

import copy
import threading
import warnings
from collections.abc import Iterable
from typing import Any

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DatasetStatus, JsonValue
from exengine.kernel.errors import StorageFinishedError, UnsupportedOperationError
from exengine.kernel.storage.format_hooks import FormatHooks
from exengine.kernel.storage.one_file.place import NEW, FilePlace
from exengine.kernel.storage.state import WriteState


class WrittenStorage(FormatHooks):
    """The facts that a storage reports both while it is being written and after it is finished."""

    _exengine: WriteState

    @property
    def path(self) -> str | None:
        """The path of the dataset; None if the backend is not persistent."""
        place = self._exengine.place
        return place.path if place else None

    @property
    def status(self) -> DatasetStatus:
        return self._exengine.life.status or DatasetStatus.INCOMPLETE

    @property
    def status_reason(self) -> str:
        """The human-readable reason for the status; empty for a complete dataset."""
        return self._exengine.life.reason

    @property
    def frames_stored(self) -> int:
        """The number of frames that were stored; also available after ``close``."""
        return len(self._exengine.frames)

    @property
    def summary_metadata(self) -> JsonValue:
        return copy.deepcopy(self._exengine.summary)

    def is_finished(self) -> bool:
        return self._exengine.life.status is not None

    @property
    def annotations(self) -> dict[str, JsonValue]:
        """A copy of the JSON values that :meth:`annotate` has stored so far."""
        place = self._exengine.place
        return place.annotations if place else {}

    # -- continuing a dataset ----------------------------------------------------------------------

    def begin_continuing(self) -> None:
        """Mark the dataset as incomplete again, durably, because this storage continues it.

        A backend calls this in ``__init__``, after it has checked that it can continue the dataset and before
        it changes any file of the dataset.

        Raises
        ------
        StorageFinishedError
            If the dataset is complete.
        """
        place = self._exengine.place
        assert place is not None
        if place.status is DatasetStatus.COMPLETE:
            error = StorageFinishedError(f"{place.path} is complete, so it can no longer be changed")
            # Otherwise, the dataset would be marked as aborted when this storage is deleted.
            self.cannot_begin(error)
            raise error
        place.reopen()

    def cannot_begin(self, error: BaseException) -> None:
        """End a storage whose creation failed."""
        raise NotImplementedError

    def continue_from(self, frames: Iterable[DataCoordinates]) -> None:
        """Add the frames of the dataset that this storage continues, in order. All must be readable."""
        state = self._exengine
        self.begin_continuing()
        for coordinates in frames:
            if not len(state.frames):
                state.checks.stored(coordinates, self.read_frame(0))
            state.frames.add(coordinates.__dict__)

    # -- single-file datasets ----------------------------------------------------------------------

    @property
    def new_file(self) -> str:
        """The path at which a new version of the dataset's file is written; see :meth:`publish_file`."""
        return f"{self.path}.{NEW}"

    def publish_file(self) -> None:
        """Replace the dataset's file with the synced file at :attr:`new_file`, and sync the folder.

        Raises
        ------
        OSError
            If the file cannot be replaced, or if another program has changed it; the old file then remains.
        """
        assert isinstance(self._exengine.place, FilePlace)
        self._exengine.place.publish()

    def manifest_for_file(self) -> bytes:
        """Return the manifest as JSON, to be stored in the file of a single-file dataset.

        If the manifest next to the file is lost, the annotations and the status can be read from the file.
        Readers parse the JSON with :class:`Manifest`. If its ``id`` differs from the ``id`` of the manifest
        next to the file, that manifest belongs to another file.
        """
        state = self._exengine
        assert isinstance(state.place, FilePlace)
        return state.place.manifest_for_file(*state.life.ending, len(state.frames))

    # -- the end of the process, forks and pickles -------------------------------------------------

    def conclude_at_exit(self) -> None:
        """Abort the storage, with a warning, if the program ended without calling ``finish``."""
        state = self._exengine
        if state.place is None:
            return  # a storage in memory does not outlive the process
        forgotten = not state.closed and state.life.status is None
        try:
            if forgotten:
                self.abort("the program ended without calling finish()")
        finally:
            self.close()
        if forgotten:
            warnings.warn(
                f"{self.path} was not finished before the program ended, so it was marked as aborted",
                RuntimeWarning,
                stacklevel=2,
            )

    def disown(self) -> None:
        """Reject writes, because this process is a fork of the process that owns the storage."""
        state = self._exengine
        # Any thread that held the lock or was reading exists only in the parent.
        state.lock = threading.RLock()
        state.new_data = threading.Condition(state.lock)
        state.reads = set()
        state.life.disown()
        if state.place is not None:
            state.place.unlock()

    def __reduce__(self) -> Any:
        """Pickle the storage as a reader of its dataset, for workers that use its ``as_array`` result."""
        if self.path is None:
            raise UnsupportedOperationError(
                f"{type(self).__name__} cannot be pickled, because it exists only in this process"
            )
        return type(self).open, (self.path,)

    def __del__(self) -> None:
        # A storage in memory has nothing to finish, and a partly created storage has no location yet.
        state = self.__dict__.get("_exengine")
        if state is not None and state.place is not None and not state.closed and not state.life.disowned:
            self.conclude_at_exit()
