"""The facts that a storage reports about the dataset that it writes: path, status, frames, annotations.

:class:`exengine.kernel.storage.managed.ManagedStorage` keeps this state and changes it.
"""

import copy

from exengine.kernel.data_storage_base import DatasetStatus, JsonValue
from exengine.kernel.storage.format_hooks import FormatHooks
from exengine.kernel.storage.state import WriteState


class WrittenStorage(FormatHooks):
    """The facts that a storage reports while it is being written, and afterwards."""

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
