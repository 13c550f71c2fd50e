"""Datasets that several processes write together: each process writes a part, and the parts are then joined.

A unit of work is the smallest set of frames that one process must write, such as those in one shard file.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import UnsupportedOperationError
from exengine.kernel.source_plan import SourcePlan

UnitOf = Callable[[DataCoordinates], Hashable]
"""Returns the unit of work of a frame."""


class SharedDatasets:
    """The methods of a backend that joins datasets from parts. Derive from it in addition to the base class.

    A part is an unfinished dataset with some of the frames. Before the first of them was stored, the
    part's ``expect`` method received the plan of the whole dataset.
    """

    @classmethod
    def unit_of(cls, plan: SourcePlan, options: Mapping[str, Any], /) -> UnitOf:
        """Return a function that maps a frame to its unit of work.

        Parameters
        ----------
        plan : SourcePlan
            The plan of the whole dataset, with its coordinates and the shape and dtype of all frames.
        options : mapping
            The options of the dataset.

        Raises
        ------
        UnsupportedOperationError
            If parts with these frames or options cannot be joined.
        """
        raise UnsupportedOperationError(f"{cls.__name__} cannot join parts of a dataset")

    @classmethod
    def join(
        cls,
        path: str | os.PathLike[str],
        parts: Sequence[str],
        owners: npt.NDArray[np.integer[Any]],
        /,
    ) -> None:
        """Move the frames of parts to an unfinished dataset, and sync it. ``resume`` can then open it.

        If the process is killed, the next attempt calls the method again with the same arguments.

        Parameters
        ----------
        path : path
            A new dataset, which was created with the options and the plan of the parts.
        parts : sequence of str
            The paths of the parts.
        owners : numpy.ndarray
            ``(frames,)`` integer: for each frame, the number of the part that contains it. Each part stored
            its frames in this order.

        Raises
        ------
        DatasetDamagedError
            If the parts do not contain these frames, or do not belong together.
        """
        raise UnsupportedOperationError(f"{cls.__name__} cannot join parts of a dataset")


def owners_of(frames: Iterable[DataCoordinates], unit_of: UnitOf, jobs: int) -> npt.NDArray[np.uint32]:
    """Return, for each frame, the number of the job that writes it, counted from 0: ``(frames,)`` uint32.

    The units are numbered in the order of their first frames, and assigned to the jobs in turn.

    Examples
    --------
    >>> frames = [DataCoordinates(time=time) for time in range(7)]
    >>> owners_of(frames, lambda frame: frame["time"] // 2, 3).tolist()
    [0, 0, 1, 1, 2, 2, 0]
    """
    numbers: dict[Hashable, int] = {}
    owners = (numbers.setdefault(unit_of(frame), len(numbers)) % jobs for frame in frames)
    return np.fromiter(owners, np.uint32)
