"""Syncs a storage at intervals, so that a power cut during an acquisition loses only the newest frames."""

from time import monotonic

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import UnsupportedOperationError


class PeriodicSync:
    """Makes every stored frame durable within a certain time. Used on the store thread only.

    Parameters
    ----------
    storage : DataStorage
    interval_s : float or None
        The maximum time in seconds between storing a frame and the start of the sync that makes it durable;
        None to sync only when the storage is finished.

    Attributes
    ----------
    due : float or None
        The value of ``time.monotonic()`` at which the next sync is due; None if all stored frames are synced.

    Raises
    ------
    UnsupportedOperationError
        If there is an interval and the storage has no durable flush.
    """

    def __init__(self, storage: DataStorage, interval_s: float | None) -> None:
        capabilities = getattr(storage, "capabilities", None)
        if interval_s is not None and not getattr(capabilities, "durable_flush", False):
            raise UnsupportedOperationError(
                f"sync_every_s is {interval_s:g}, but {type(storage).__name__} has no durable flush"
            )
        self._storage = storage
        self._interval_s = interval_s
        self.due: float | None = None

    def note_stored(self) -> None:
        """Set the time of the next sync, after frames were stored."""
        if self._interval_s is not None and self.due is None:
            self.due = monotonic() + self._interval_s

    def sync_if_due(self) -> None:
        """Sync the storage if it is due. After an error, it is not synced again.

        Raises
        ------
        ExEngineError
            If the sync failed.
        """
        if self.due is None or monotonic() < self.due:
            return
        self.due = None
        try:
            self._storage.flush(durable=True)
        except BaseException:
            self._interval_s = None
            raise
