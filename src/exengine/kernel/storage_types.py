"""The types in the contract of a storage: coordinates, metadata, frames and the status of a dataset."""

import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates

CoordinatesLike: TypeAlias = DataCoordinates | Mapping[str, int | str]
"""Coordinates in any form that the methods accept."""
JsonValue: TypeAlias = Any
"""Metadata: None, a bool, int, float or str, or a list or dict (with str keys) of such values."""

Frame: TypeAlias = tuple[CoordinatesLike, npt.NDArray[Any], JsonValue]
"""The coordinates, pixels and metadata of one frame."""


class DatasetStatus(enum.StrEnum):
    """The status of a dataset; see the storage promises."""

    INCOMPLETE = "incomplete"
    """Still being written, or left behind by a writer that died. Every frame that was written is readable."""
    COMPLETE = "complete"
    """Finished, with no frame dropped or lost to an error."""
    ABORTED = "aborted"
    """Finished before the end of the acquisition; every stored frame is intact."""
    FAILED = "failed"
    """Finished after an error; some frames were not stored."""
    DAMAGED = "damaged"
    """A listed frame or file is missing or was altered."""


if TYPE_CHECKING:
    replaceable = property
else:

    class replaceable:  # noqa: N801 - used like the builtin property
        """A computed default that properties of subclasses and attributes of instances can override."""

        def __init__(self, function: Callable[[Any], Any]) -> None:
            self._function = function
            self.__doc__ = function.__doc__

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            return self if instance is None else self._function(instance)
