"""A frame in flight from a producer to a storage, and the frames that a process function returns for it."""

import logging
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates, snapshot
from exengine.kernel.data_storage_base import JsonValue
from exengine.kernel.frames.metadata import clean_metadata

_log = logging.getLogger("exengine")


class QueuedFrame:
    """A frame in flight.

    Attributes
    ----------
    coordinates : DataCoordinates
    data : numpy.ndarray
        A private copy, unless the producer handed over the array itself.
    metadata : JSON value
        A private copy that has been checked.
    future : object or None
        Notified when the frame arrives, when it has been processed, and when it has been stored.
    processed : bool
        Whether the process function has returned this frame.
    shared : bool
        Whether user code has received the array or the metadata, and may still change them.
    since : float
        The value of ``time.perf_counter()`` when the producer delivered the frame, in seconds.
    size : int
        The size of the pixel data, in bytes.
    """

    __slots__ = ("coordinates", "data", "future", "metadata", "processed", "shared", "since", "size")

    def __init__(
        self,
        coordinates: DataCoordinates,
        data: npt.NDArray[Any],
        metadata: JsonValue,
        future: Any,
        processed: bool,
    ) -> None:
        self.coordinates = coordinates
        self.data = data
        self.metadata = metadata
        self.future = future
        self.processed = processed
        self.shared = future is not None
        self.since = perf_counter()
        self.size = data.nbytes

    def copies(self, data: bool, metadata: bool) -> tuple[npt.NDArray[Any] | None, JsonValue]:
        """Return copies of the pixels and the metadata for a reader; values not requested are None."""
        return self.data.copy() if data else None, clean_metadata(self.metadata) if metadata else None

    def notify(self, *, processed: bool, stored: bool) -> None:
        """Notify the future. If the future raises an exception, the exception is only logged."""
        try:
            self.future._notify_data(
                self.coordinates, self.data, self.metadata, processed=processed, stored=stored
            )
        except BaseException:
            _log.exception("a future raised an exception when notified of the frame at %s", self.coordinates)

    def notify_of_loss(self, error: BaseException) -> None:
        """Notify the future that the frame was lost, if the future has a method ``_notify_error``."""
        try:
            if hasattr(self.future, "_notify_error"):  # futures from ExEngine 0.4.0 have no such method
                self.future._notify_error(self.coordinates, error)
        except BaseException:
            _log.exception("a future raised an exception when notified of a lost frame: %s", self.coordinates)


def frames_of(result: Any, given: QueuedFrame) -> Iterator[QueuedFrame]:
    """Yield the result of a process function as frames that no other code can change.

    The process function may return the same buffer every time, so everything is copied except the array that
    the function received. A generator is asked for each frame only after the previous frame has been used.
    With a generator, the received array is also copied, because the generator may still modify it.
    """
    if result is None:
        return
    for frame in [result] if isinstance(result, tuple) and not _is_frame_sequence(result) else result:
        if not isinstance(frame, (tuple, list)) or len(frame) != 3:
            raise TypeError(
                "a process function must return (coordinates, data, metadata), a list of these, or None; "
                f"got {type(frame).__name__}"
            )
        coordinates, data, metadata = frame
        if not isinstance(data, np.ndarray):
            raise TypeError(
                f"the data that a process function returns must be an array, got {type(data).__name__}"
            )
        is_given = data is given.data and isinstance(result, tuple | list)
        item = QueuedFrame(
            snapshot(coordinates),
            data if is_given else data.copy(),
            clean_metadata(metadata),
            given.future,
            processed=True,
        )
        item.shared = item.shared or is_given
        item.since = given.since
        yield item


def _is_frame_sequence(result: tuple[Any, ...]) -> bool:
    return bool(result) and isinstance(result[0], tuple)
