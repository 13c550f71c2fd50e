"""A frame in flight from a producer to a storage, and the frames that a process function returns for it."""

import logging
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
    size : int
        The size of the pixel data, in bytes.
    """

    __slots__ = ("coordinates", "data", "future", "metadata", "processed", "size")

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
        self.size = int(getattr(data, "nbytes", 0))

    def notify(self, *, processed: bool, stored: bool) -> None:
        """Notify the future. An exception that it raises is logged and never stops the flow of frames."""
        try:
            self.future._notify_data(
                self.coordinates, self.data, self.metadata, processed=processed, stored=stored
            )
        except BaseException:
            _log.exception("a future raised when it was notified of the frame at %s", self.coordinates)


def frames_of(result: Any, given: QueuedFrame) -> list[QueuedFrame]:
    """Return the result of a process function as a list of frames that no other code can change.

    The process function may return the same buffer every time, so everything is copied except the array and
    the metadata that it received.
    """
    if result is None:
        return []
    frames = [result] if isinstance(result, tuple) and not _is_frame_sequence(result) else list(result)
    items = []
    for frame in frames:
        if not isinstance(frame, (tuple, list)) or len(frame) != 3:
            raise TypeError(
                "a process function must return (coordinates, data, metadata), a list of these, or None; "
                f"got {type(frame).__name__}"
            )
        coordinates, data, metadata = frame
        if isinstance(data, np.ndarray) and data is not given.data:
            data = data.copy()
        if metadata is not given.metadata:
            metadata = clean_metadata(metadata)
        items.append(QueuedFrame(snapshot(coordinates), data, metadata, given.future, processed=True))
    return items


def _is_frame_sequence(result: tuple[Any, ...]) -> bool:
    return bool(result) and isinstance(result[0], tuple)
