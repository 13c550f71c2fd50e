"""A frame on its way from a producer to a storage, and what a process function makes of it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates, snapshot
from exengine.kernel.data_storage_base import JsonValue
from exengine.kernel.frames.metadata import clean_metadata


class QueuedFrame:
    """A frame on its way.

    Attributes
    ----------
    coordinates : DataCoordinates
    data : numpy.ndarray
        Its own copy, unless it was given away.
    metadata : JSON value
        Checked, and its own copy.
    future : object or None
        Is told of it.
    processed : bool
        Whether it has come out of the process function.
    size : int
        Of the pixels, in bytes.
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


def frames_of(result: Any, given: QueuedFrame) -> list[QueuedFrame]:
    """Return what a process function returned as a list of frames, which nobody else can change.

    It may return one buffer again and again: all but the array and metadata that it was given is copied.
    """
    if result is None:
        return []
    frames = [result] if isinstance(result, tuple) and not _is_frame_sequence(result) else list(result)
    items = []
    for frame in frames:
        if not isinstance(frame, (tuple, list)) or len(frame) != 3:
            raise TypeError(
                "a process function returns (coordinates, data, metadata), a list of these, or None; "
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
