"""The plan of an acquisition: the frames that a source is about to deliver, and their positions in space."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from exengine.kernel.capabilities import PlannedLayout
from exengine.kernel.data_coords import DataCoordinates


@dataclass(frozen=True)
class PlannedAxis:
    """An axis of the planned frames.

    Attributes
    ----------
    name : str
        The name of the axis in the frames' coordinates, such as ``time`` or ``channel``.
    positions : tuple of int or str, or None
        The positions on the axis, in the order in which they are first acquired. None if they are unknown.
    length : int or None
        The number of positions. None if it is unknown, as for an endless time axis.

    Raises
    ------
    ValueError
        If a position occurs twice, or if ``length`` is not the number of positions.

    Examples
    --------
    >>> PlannedAxis("channel", ("DAPI", "FITC")).length
    2
    >>> PlannedAxis("time").length is None
    True
    """

    name: str
    positions: tuple[int | str, ...] | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        if self.positions is None:
            return
        count = len(self.positions)
        if len(set(self.positions)) != count:
            raise ValueError(f"axis {self.name!r} has duplicate positions: {self.positions!r:.200}")
        if self.length is None:
            object.__setattr__(self, "length", count)
        elif self.length != count:
            raise ValueError(
                f"axis {self.name!r}: the length is {self.length}, but the number of positions is {count}"
            )


@dataclass(frozen=True)
class PlannedChannel:
    """A channel of the planned frames.

    Attributes
    ----------
    name : str
        The position on the axis ``channel``.
    color : str or None
        The display color as six hexadecimal digits, ``RRGGBB``. None if it is unknown.
    """

    name: str
    color: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedPosition:
    """A stage position of the planned frames.

    Attributes
    ----------
    name : int or str
        The position on the axis ``position``.
    x_um, y_um, z_um : float or None
        The absolute stage coordinates, in micrometers; ``z_um`` is the height of the first plane. None if
        unknown.
    row, column : str or None
        The row and the column of the well, such as ``A`` and ``1``. None if the position is not in a well.
    field : int or None
        The number of the field of view within its well, starting at 0.
    """

    name: int | str
    x_um: float | None = None
    y_um: float | None = None
    z_um: float | None = None
    row: str | None = None
    column: str | None = None
    field: int | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedPlate:
    """The well plate on which the planned frames are acquired.

    Attributes
    ----------
    name : str
        The name of the plate.
    rows, columns : tuple of str
        The names of all rows and columns of the plate, such as ``A`` to ``H`` and ``1`` to ``12``.
    """

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """A description of the frames that a source is about to deliver. Unknown values are None or empty.

    Attributes
    ----------
    frames : int or None
        The number of frames.
    shape : tuple of int or None
        The shape of each frame, ``(Y, X)`` or ``(Y, X, 3)``, in pixels. None if the shapes differ.
    dtype : str or None
        The name of the numpy dtype. None if the dtypes differ.
    summary : dict
        JSON metadata of the acquisition as a whole, such as device names and the pixel size.
    layouts : tuple of (shape, dtype)
        The distinct layouts of the frames; by default, ``shape`` and ``dtype`` if both are known.
    pixel_bytes : int or None
        The total size of the pixel data in bytes, if the frames differ.
    coordinates : callable or None
        Returns a new iterable over the coordinates of every frame, so that the backend can check them before
        anything is created.
    axes : tuple of PlannedAxis or None
        The axes of the frames in the order of acquisition: positions on the last axis change fastest. Every
        frame has a position on each of these axes, but some combinations of positions may have no frame.
    pixel_size_um : (float, float) or None
        The size of a pixel in the sample, ``(y, x)``, in micrometers.
    z_step_um : float or None
        The distance between neighboring planes of axis ``z``, in micrometers. None if the planes are not
        equally spaced.
    interval_s : float or None
        The time between time points n and n + 1, in seconds; if the sequence has several phases, the
        shortest such time. None if there is no interval.
    channels : tuple of PlannedChannel
        The channels, in the order of the positions on axis ``channel``.
    stage_positions : tuple of PlannedPosition
        The stage positions, in the order of the positions on axis ``position``.
    plate : PlannedPlate or None
        The well plate that contains the stage positions.
    """

    frames: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    summary: dict[str, Any] | None = None
    layouts: tuple[PlannedLayout, ...] = ()
    pixel_bytes: int | None = None
    coordinates: Callable[[], Iterable[DataCoordinates]] | None = None
    axes: tuple[PlannedAxis, ...] | None = None
    pixel_size_um: tuple[float, float] | None = None
    z_step_um: float | None = None
    interval_s: float | None = None
    channels: tuple[PlannedChannel, ...] = ()
    stage_positions: tuple[PlannedPosition, ...] = ()
    plate: PlannedPlate | None = None

    def __post_init__(self) -> None:
        if not self.layouts and self.shape is not None and self.dtype is not None:
            object.__setattr__(self, "layouts", ((self.shape, self.dtype),))

    @property
    def frame_bytes(self) -> int | None:
        """The size of the pixel data of one frame, in bytes."""
        if self.shape is None or self.dtype is None:
            return None
        import numpy as np

        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def total_bytes(self) -> int | None:
        """The total size of the pixel data of all frames, in bytes."""
        if self.pixel_bytes is not None:
            return self.pixel_bytes
        size = self.frame_bytes
        return None if size is None or self.frames is None else size * self.frames
