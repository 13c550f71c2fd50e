"""The contract of a frame source, which produces frames: the ``FrameSource`` abstract base class.

A source pushes frames: :meth:`FrameSource.run` calls the sink once per frame and returns after the last
frame. The sink may block, because a full queue exerts back-pressure. It may also raise an exception; the run
must then end soon, and the exception must propagate from ``run``.

Life cycle: created -> ``prepare(sequence)`` -> ``run(sink)`` on its own thread -> ``close()``. ``cancel`` may
be called from any other thread, at any time and more than once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from exengine.kernel.capabilities import PlannedLayout
from exengine.kernel.data_coords import DataCoordinates

if TYPE_CHECKING:
    import useq

Sink: TypeAlias = Callable[[DataCoordinates, npt.NDArray[Any], Any], None]
"""Receives the coordinates, pixels and metadata of a frame. The sink owns the array from then on."""


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """A description of the frames that a source is about to deliver. An unknown value is None.

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
    """

    frames: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    summary: dict[str, Any] | None = None
    layouts: tuple[PlannedLayout, ...] = ()
    pixel_bytes: int | None = None
    coordinates: Callable[[], Iterable[DataCoordinates]] | None = None

    def __post_init__(self) -> None:
        if not self.layouts and self.shape is not None and self.dtype is not None:
            object.__setattr__(self, "layouts", ((self.shape, self.dtype),))

    @property
    def frame_bytes(self) -> int | None:
        """The size of one frame's pixel data, in bytes."""
        if self.shape is None or self.dtype is None:
            return None
        import math

        import numpy as np

        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def total_bytes(self) -> int | None:
        """The size of all frames' pixel data, in bytes."""
        if self.pixel_bytes is not None:
            return self.pixel_bytes
        size = self.frame_bytes
        return None if size is None or self.frames is None else size * self.frames


class FrameSource(ABC):
    """The base class of every frame source, which produces the frames of an acquisition.

    The options of a source are the parameters of its ``__init__``, each described in the class's
    docstring. Register it under the entry-point group ``exengine.frame_sources``.
    """

    @abstractmethod
    def prepare(self, sequence: "useq.MDASequence", /) -> SourcePlan:
        """Check that the sequence can be run, and return a plan of its frames. Nothing is moved yet.

        Parameters
        ----------
        sequence : useq.MDASequence
            The sequence to acquire. Its axes ``t p c z`` become ``time``, ``position``, ``channel``, ``z``.

        Raises
        ------
        SourceError
            If the sequence cannot be run, for example because a channel or a property does not exist
            or because two positions have the same name.
        """

    @abstractmethod
    def run(self, sink: Sink, /) -> None:
        """Deliver every frame of the prepared sequence to the sink, then return.

        Raises
        ------
        Exception
            The exception that the sink raised, or an error in the source.
        """

    unrestored: tuple[str, ...] = ()
    """The devices that could not be restored after the last run, one line for each (promise S2)."""

    def settings(self) -> Mapping[str, Any]:
        """Return the current settings that promise S2 covers; empty if the source has no devices.

        The conformance kit compares the settings before and after runs.

        Returns
        -------
        mapping
            ``shutter_open`` (bool, whether any shutter is open); if there are several shutters, also
            ``shutters`` (their states); and further settings under names that the source chooses, such as
            ``exposure_ms``. Equal settings must compare equal.
        """
        return {}

    def cancel(self) -> None:
        """Make :meth:`run` end soon, without an error. Called from another thread."""

    def close(self) -> None:
        """Release devices and memory. Idempotent."""
