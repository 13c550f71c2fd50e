"""The contract of a frame source: the ``FrameSource`` abstract base class.

A source pushes frames: :meth:`FrameSource.run` calls the sink once per frame and returns after the last
frame. The sink may block, because a full queue exerts back-pressure. It may also raise an exception; the run
must then end soon, and the exception must propagate from ``run``.

Life cycle: created -> ``prepare(sequence)`` -> ``skip(existing)``, only if an acquisition continues a dataset
-> ``run(sink)`` on its own thread -> ``close()``. ``cancel`` may be called from any other thread, at any time
and more than once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import UnsupportedOperationError
from exengine.kernel.source_plan import SourcePlan

if TYPE_CHECKING:
    import useq

__all__ = ["FrameSource", "Sink", "SourcePlan"]

Sink: TypeAlias = Callable[[DataCoordinates, npt.NDArray[Any], Any], None]
"""Receives the coordinates, pixels and metadata of a frame. The sink owns the array from then on."""


class FrameSource(ABC):
    """The base class of all frame sources. A source produces the frames of an acquisition.

    The options of a source are the parameters of its ``__init__``, each described in the class's
    docstring. Register it under the entry-point group ``exengine.frame_sources``.
    """

    needs_sequence: ClassVar[bool] = True
    """Whether the config must contain a sequence. If not, the source itself determines its frames, for
    example from a file; :meth:`prepare` then receives an empty sequence, and rejects any other."""

    conformance_options: ClassVar[str] = ""
    """A function, given as ``module:name``, that returns options for the conformance kit. Set it only if the
    source does not work with its default options. The function takes the path of an empty folder, in which it
    can create files that the source needs."""

    @abstractmethod
    def prepare(self, sequence: "useq.MDASequence", /) -> SourcePlan:
        """Check that the sequence can be run, and return a plan of its frames. No device is moved yet.

        Parameters
        ----------
        sequence : useq.MDASequence
            The sequence to acquire. Its axes ``t p c z`` become ``time``, ``position``, ``channel``, ``z``.
            It is empty if the source does not need a sequence and the config has none.

        Raises
        ------
        SourceError
            If the sequence cannot be run, for example because a channel or a property does not exist
            or because two positions have the same name.
        """

    def skip(self, existing: Container[DataCoordinates], /) -> None:
        """Leave out the frames that an earlier run has stored, so that :meth:`run` delivers only the others.

        Called after :meth:`prepare`, if an acquisition continues a dataset. An event is left out if all its
        frames exist; the devices then do nothing for it. The other events keep their order, and their planned
        times are counted from the first of them. If only some frames of an event exist, as is possible with
        several cameras, the source delivers all frames of the event; the caller ignores those that exist.

        Parameters
        ----------
        existing : container of DataCoordinates
            The frames of the dataset.

        Raises
        ------
        UnsupportedOperationError
            If the source cannot leave out frames. This is the default.
        """
        raise UnsupportedOperationError(
            f"{type(self).__name__} cannot leave out the frames that already exist"
        )

    @abstractmethod
    def run(self, sink: Sink, /) -> None:
        """Deliver every frame of the prepared sequence to the sink, then return.

        Raises
        ------
        Exception
            The exception that the sink raised, or an error in the source.
        """

    @property
    def paths_read(self) -> Sequence[str]:
        """The paths of the datasets that the source reads. An acquisition does not overwrite them."""
        return ()

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
