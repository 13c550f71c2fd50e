"""Checks a source's plan against a backend's capabilities and limits (promise S3).

All checks run before anything is created, overwritten or moved.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import SourceError, UnsupportedDataError
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.frame_checks import FrameChecks
from exengine.kernel.wording import either


def check_plan(
    backend: type[DataStorage],
    name: str,
    options: Mapping[str, Any],
    plan: SourcePlan,
    capabilities: StorageCapabilities,
) -> None:
    """Reject planned frames that a backend does not accept.

    Parameters
    ----------
    backend : type
    name : str
        Name of the backend, used in messages.
    options : mapping
        The options with which the storage will be created.
    plan : SourcePlan
    capabilities : StorageCapabilities
        The capabilities of the storage with these options.

    Raises
    ------
    UnsupportedDataError, CoordinatesError, StorageFullError
        If ``put`` would raise the same error for a frame.
    SourceError
        If the plan contains no frames.
    """
    if plan.frames == 0:
        raise SourceError("the sequence contains no frames; add an axis to it, such as channels: [DAPI]")
    _check_layouts(capabilities, name, plan)
    checks = FrameChecks(backend.__name__, capabilities)
    if checks.limits_axes:
        for coordinates in _representative(plan):
            checks.axes(coordinates)
            checks.require_axes(coordinates)
    planned: Iterable[DataCoordinates] = () if plan.coordinates is None else plan.coordinates()
    backend.check_plan(plan.layouts, planned, pixel_bytes=plan.total_bytes, options=options)


def _representative(plan: SourcePlan) -> Iterable[DataCoordinates]:
    """Return coordinates that together include every position; for a sparse plan, all coordinates."""
    axes = {axis.name: axis.positions for axis in plan.axes or () if axis.positions}
    known = plan.axes is not None and len(axes) == len(plan.axes)
    if not known or math.prod(map(len, axes.values())) != plan.frames:
        return () if plan.coordinates is None else plan.coordinates()
    first = {axis: positions[0] for axis, positions in axes.items()}
    return (
        DataCoordinates({**first, axis: position})
        for axis, positions in axes.items()
        for position in positions
    )


def _check_layouts(takes: StorageCapabilities, name: str, plan: SourcePlan) -> None:
    """Reject dtypes and shapes that the capabilities exclude."""
    for shape, dtype in plan.layouts or ((plan.shape or (), plan.dtype),):
        if dtype is not None and takes.dtypes is not None and np.dtype(dtype).name not in takes.dtypes:
            raise UnsupportedDataError(
                f"the source delivers frames with dtype {dtype}, but backend {name!r} accepts only "
                f"{either(takes.dtypes)}"
            )
        if shape and takes.ndim is not None and len(shape) not in takes.ndim:
            raise UnsupportedDataError(
                f"the number of dimensions of the frames is {len(shape)}, but backend {name!r} accepts only "
                f"{either(takes.ndim)}"
            )
    if takes.same_shape and len(plan.layouts) > 1:
        layouts = ", ".join(f"{shape} {dtype}" for shape, dtype in plan.layouts)
        raise UnsupportedDataError(
            f"the source delivers frames with different layouts ({layouts}), but backend {name!r} accepts "
            "only one layout; choose another backend"
        )
