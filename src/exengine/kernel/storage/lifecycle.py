"""The life cycle of a managed storage: its state, its first error, and the final status of its dataset.

::

    open --finish, abort--> finished --close--> closed
      |                                           ^
      |--close (the dataset stays incomplete)-----'
      |--fail--> failed  (permanent; finish, abort and close end the dataset as failed)
      '--fork--> disowned, in the child only

The state determines whether the storage rejects a write, and with which error. Every write checks the state
first. The owner guards every change of state with its lock.
"""

from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import (
    StorageClosedError,
    StorageFailedError,
    StorageFinishedError,
    StorageStateError,
)


class Lifecycle:
    """The state of one storage.

    Attributes
    ----------
    refusal : type of StorageStateError, or None
        The error that a write raises in this state; None while the storage is open.
    error : BaseException or None
        The first error; later errors do not replace it.
    reported : bool
        Whether a caller has received the error.
    status : DatasetStatus or None
        The final status of the dataset; None until it has ended.
    reason : str
        The human-readable reason for that status.
    ending : tuple of (DatasetStatus, str)
        The status and the reason that the dataset gets if it ends without an error.
    """

    __slots__ = ("ending", "error", "reason", "refusal", "reported", "status")

    def __init__(self) -> None:
        self.refusal: type[StorageStateError] | None = None
        self.error: BaseException | None = None
        self.reported = True
        self.status: DatasetStatus | None = None
        self.reason = ""
        self.ending = (DatasetStatus.INCOMPLETE, "")

    def fail(self, error: BaseException) -> bool:
        """Enter the failed state; return False if the storage had already failed."""
        if self.error is not None:
            return False
        self.error = error
        self.refusal = StorageFailedError
        return True

    def begin_end(self, status: DatasetStatus, reason: str) -> None:
        """Reject writes during ``finish`` or ``abort``. Both calls may be repeated after an interrupt."""
        self.ending = status, reason
        if self.refusal is None:
            self.refusal = StorageFinishedError

    def end(self, status: DatasetStatus, reason: str) -> None:
        """Record the final status of the dataset."""
        self.status, self.reason = status, reason
        if self.error is None:
            self.refusal = StorageFinishedError

    def close(self) -> None:
        """Reject writes because the storage is closed. A failed storage continues to report its error."""
        if self.refusal is not StorageFailedError:
            self.refusal = StorageClosedError

    def disown(self) -> None:
        """Reject writes in a forked child, and forget an error that belongs to the parent."""
        self.error, self.reported = None, True
        self.refusal = StorageStateError

    @property
    def disowned(self) -> bool:
        """Whether the storage belongs to the parent of this forked process."""
        return self.refusal is StorageStateError

    @property
    def can_end(self) -> bool:
        """Whether the dataset can be finished or aborted: it is open, has failed, or is partly finished."""
        return self.status is None and self.refusal in (None, StorageFailedError, StorageFinishedError)

    @property
    def failure(self) -> str:
        """The first error as a string."""
        return str(self.error) or f"interrupted by {type(self.error).__name__}"
