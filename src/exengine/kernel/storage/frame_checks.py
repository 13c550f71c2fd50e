"""Checks each frame once, before the frame reaches the storage and before anything changes (P8 and P9)."""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.data_coords import DataCoordinates, snapshot
from exengine.kernel.errors import CoordinatesError, CoordinatesExistError, UnsupportedDataError
from exengine.kernel.frames.metadata import clean_metadata
from exengine.kernel.storage_types import Frame, JsonValue


class FrameChecks:
    """Rejects arrays and coordinates that a format cannot store.

    Parameters
    ----------
    owner : str
        The name of the storage class, for use in messages.
    capabilities : StorageCapabilities
        The capabilities that the class declares.
    """

    def __init__(self, owner: str, capabilities: StorageCapabilities) -> None:
        self._owner = owner
        self._limits = capabilities
        self._accepted_dtypes: set[np.dtype[Any]] = set()
        # The dtype and shape of the last frame, which the next frame usually shares.
        self._last: tuple[np.dtype[Any] | None, tuple[int, ...]] = (None, ())
        self._limits_positions = not (capabilities.string_axes and capabilities.negative_indices)
        self.limits_axes = (
            self._limits_positions or capabilities.same_axes or capabilities.most_axes is not None
        )
        """Whether :meth:`axes` can reject anything."""
        self._first_axes: frozenset[str] | None = None  # None unless all frames must have the same axes
        self.first: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        """The shape and dtype of the first frame that was stored."""

    def stored(self, coordinates: DataCoordinates, data: npt.NDArray[Any]) -> None:
        """Record that a frame was stored; the first frame sets the axes, shape and dtype for all others."""
        if self.first is None:
            self.first = (data.shape, data.dtype)
            self.require_axes(coordinates)

    def require_axes(self, coordinates: DataCoordinates) -> None:
        """Record the axes of the first frame, if all frames must have the same axes."""
        if self._limits.same_axes and self._first_axes is None:
            self._first_axes = frozenset(coordinates.__dict__)

    def data(self, data: Any) -> npt.NDArray[Any]:
        """Return the array as a plain ``ndarray``, or reject it.

        Raises
        ------
        UnsupportedDataError
            If the format does not accept the array.
        """
        if type(data) is np.ndarray:
            dtype, shape = self._last
            if data.dtype is dtype and data.shape == shape:
                return data
        else:
            if not isinstance(data, np.ndarray):
                raise UnsupportedDataError(
                    f"data must be a numpy array, got {type(data).__name__}; "
                    "convert it with numpy.asarray(...)"
                )
            if isinstance(data, np.ma.MaskedArray):
                raise UnsupportedDataError("a masked array would lose its mask; pass data.filled(value)")
            data = np.asarray(data)
        dtype = data.dtype
        limits = self._limits
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
            if self.first is not None and (
                self.first[0] != data.shape
                or (self.first[1] != dtype and self.first[1].newbyteorder("=") != dtype.newbyteorder("="))
            ):
                raise UnsupportedDataError(
                    f"{self._owner} requires all frames to have the same shape and dtype; the first has "
                    f"{self.first[0]} {self.first[1]}, but this one has {data.shape} {dtype}"
                )
            if self.first is None:  # the next frame is compared with this one
                return data  # type: ignore[no-any-return]
        self._last = dtype, data.shape
        return data  # type: ignore[no-any-return]

    def _unsupported_data(self, data: npt.NDArray[Any]) -> UnsupportedDataError:
        limits = self._limits
        takes = []
        if limits.dtypes is not None:
            takes.append(f"dtype {' or '.join(limits.dtypes)}")
        if limits.ndim is not None:
            takes.append(f"{' or '.join(map(str, limits.ndim))} dimensions")
        return UnsupportedDataError(
            f"{self._owner} accepts only {', '.join(takes)}; got dtype {data.dtype}, shape {data.shape}. "
            "Convert the array, or choose another backend"
        )

    def axes(self, coordinates: DataCoordinates) -> None:
        """Reject axes and positions that the backend does not accept.

        Raises
        ------
        CoordinatesError
        """
        limits, positions = self._limits, coordinates.__dict__
        if limits.most_axes is not None and len(positions) > limits.most_axes:
            raise CoordinatesError(
                f"{self._owner} limits the number of axes to {limits.most_axes}; "
                f"got {len(positions)}: {', '.join(positions)}"
            )
        if self._first_axes is not None and positions.keys() != self._first_axes:
            raise CoordinatesError(
                f"{self._owner} accepts only frames with the same axes: the first had "
                f"{_listed(self._first_axes)}, but this one has {_listed(positions)}"
            )
        if not self._limits_positions:
            return
        for axis, value in positions.items():
            if type(value) is str:
                if not limits.string_axes:
                    raise CoordinatesError(
                        f"{self._owner} accepts only int positions; the position on axis {axis!r} is "
                        f"{value!r}"
                    )
            elif value < 0 and not limits.negative_indices:
                raise CoordinatesError(
                    f"{self._owner} does not accept negative positions; the position on axis {axis!r} is "
                    f"{value}"
                )


def _listed(axes: Iterable[str]) -> str:
    return ", ".join(sorted(axes)) or "none"


Parts = tuple[DataCoordinates, npt.NDArray[Any], JsonValue]
"""The coordinates, pixels and metadata of a frame. The coordinates and metadata are checked copies."""


class OwnedFrame(Protocol):
    """A frame that a data handler has checked and copied.

    ``shared`` is true if other code has received the array or the metadata, and may still change them.
    """

    coordinates: DataCoordinates
    data: npt.NDArray[Any]
    metadata: JsonValue
    shared: bool


def unchecked_parts(frame: Frame) -> Parts:
    """Check and copy the coordinates and the metadata of a caller's frame."""
    coordinates, data, metadata = frame
    return snapshot(coordinates), data, clean_metadata(metadata)


def checked_parts(frame: OwnedFrame) -> Parts:
    """Return the parts of a frame from a data handler, copied if other code may still change them."""
    if frame.shared:
        return snapshot(frame.coordinates), frame.data, clean_metadata(frame.metadata)
    return frame.coordinates, frame.data, frame.metadata


def exists_already(coordinates: DataCoordinates) -> CoordinatesExistError:
    """Return the error for a second frame at the same coordinates."""
    return CoordinatesExistError(
        f"a frame already exists at {coordinates.__dict__} and is never replaced; use other coordinates"
    )
