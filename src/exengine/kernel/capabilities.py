"""The capabilities and limits that a backend declares."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np

PlannedLayout: TypeAlias = tuple[tuple[int, ...], str]
"""The shape and dtype of a planned frame."""


@dataclass(frozen=True, kw_only=True)
class StorageCapabilities:
    """The capabilities and limits of a backend. The defaults claim as little as possible.

    The conformance kit tests every capability, and the documentation lists them.
    """

    persistent: bool = False
    """The dataset outlives the process and is stored at a path."""
    dtypes: tuple[str, ...] | None = None
    """Names of the numpy dtypes that the format can store. None means all boolean and numeric dtypes.
    Other dtypes, such as strings, dates and structured dtypes, may be rejected by ``check_frame``."""
    ndim: tuple[int, ...] | None = None
    """The numbers of dimensions that a frame may have; None means any."""
    same_shape: bool = False
    """All frames must have the same shape and dtype as the first frame."""
    same_axes: bool = False
    """All frames must have the same axes as the first frame."""
    most_axes: int | None = None
    """The maximum number of axes that a frame may have; None means any."""
    string_axes: bool = False
    """Positions may be strings."""
    negative_indices: bool = False
    """Positions may be negative."""
    metadata: bool = False
    """Each frame's metadata is stored; it may be any JSON value."""
    iterable: bool = False
    """``iter`` yields the coordinates and ``len`` returns their number."""
    reopen: bool = False
    """``open`` reads an existing dataset."""
    read_while_writing: bool = False
    """A second process can read while the first process writes."""
    concurrent_readers: bool = False
    """Several threads may read at the same time."""
    resumable: bool = False
    """``resume`` continues a dataset if its writer was killed, or if it was finished as aborted or failed."""
    checksums: bool = False
    """Damaged frames are detected."""
    safety_of_put: Literal["accepted", "written", "synced"] = "accepted"
    """What a frame survives once ``put`` has returned: ``accepted``, nothing; ``written``, the death of the
    process; ``synced``, power loss too."""
    durable_flush: bool = False
    """``flush(durable=True)`` makes every frame survive power loss."""
    compression: tuple[str, ...] = ()
    """Names of the compression methods that the backend offers."""
    pyramids: bool = False
    """Datasets may contain several resolution levels."""
    remote: bool = False
    """The path may be a URL."""
    path_suffixes: tuple[str, ...] = ()
    """Suffixes of a dataset's path, such as ``.ome.zarr``; empty if any path is accepted."""
    readers: tuple[str, ...] = ()
    """Programs that can open the dataset."""
    live_readers: tuple[str, ...] = ()
    """Programs that see every acknowledged frame while the dataset is being written, and right after the
    writer has been killed."""

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and value of each capability, in order."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)


def dtype_names(*types: type[np.generic]) -> tuple[str, ...]:
    """Return the names of numpy scalar types, for ``StorageCapabilities.dtypes``.

    Examples
    --------
    >>> dtype_names(np.uint8, np.uint16)
    ('uint8', 'uint16')
    """
    return tuple(np.dtype(kind).name for kind in types)
