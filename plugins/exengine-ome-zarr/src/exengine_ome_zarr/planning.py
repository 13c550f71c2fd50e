"""Derives the layout and the OME metadata of a dataset from its options and the acquisition plan."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from exengine.base_classes import PlannedAxis, SourcePlan
from exengine.errors import CoordinatesError, OptionError, UnsupportedDataError
from exengine_ome_zarr.format import sizes
from exengine_ome_zarr.format.documents import Facts, StagePosition
from exengine_ome_zarr.format.images import well_of
from exengine_ome_zarr.format.labels import Key, Labels, declared_order
from exengine_ome_zarr.format.layout import FRAME_DIMENSIONS, Layout, choose_layout
from exengine_ome_zarr.format.roles import ExtraAxes, assign_roles

Arrangement = Literal["auto", "image", "plate"]
_MAX_LEVEL = 9  # the maximum level of every codec except zstd


class Planning:
    """The facts that are known about the frames before the first one arrives.

    Parameters
    ----------
    extra_axes, arrangement, pyramid, **options
        The options of the backend. ``arrangement`` is the option ``layout``; the options in ``**options`` are
        passed to :func:`~exengine_ome_zarr.format.layout.choose_layout`.
    """

    def __init__(
        self, extra_axes: ExtraAxes, arrangement: Arrangement, pyramid: str | None, **options: Any
    ) -> None:
        self._extra_axes = extra_axes
        self._arrangement = arrangement
        self._options = options
        self._axes: tuple[PlannedAxis, ...] = ()
        self._pyramid = pyramid
        self.facts = Facts(pyramid=pyramid)
        if arrangement == "plate":
            self.facts.plate = {}

    def expect(self, plan: SourcePlan) -> None:
        """Take the axes and the OME metadata from the plan of an acquisition.

        Raises
        ------
        CoordinatesError, OptionError
            If the format cannot store the planned axes.
        """
        axes = plan.axes or ()
        if axes:
            assign_roles([axis.name for axis in axes], self._extra_axes)
        facts = Facts(
            pyramid=self._pyramid,
            pixel_size_um=plan.pixel_size_um,
            z_step_um=plan.z_step_um,
            interval_s=plan.interval_s,
            colors={channel.name: channel.color for channel in plan.channels if channel.color},
            stage_positions=[
                StagePosition(
                    name=place.name,
                    x_um=place.x_um,
                    y_um=place.y_um,
                    z_um=place.z_um,
                    row=place.row,
                    column=place.column,
                    field=place.field,
                )
                for place in plan.stage_positions
            ],
        )
        if self._arrangement == "plate" or (self._arrangement == "auto" and _has_wells(plan)):
            plate = plan.plate
            facts.plate = (
                {}
                if plate is None
                else {"name": plate.name, "rows": list(plate.rows), "columns": list(plate.columns)}
            )
            for axis in axes:
                if axis.name == "position" and axis.positions is not None:
                    for position in axis.positions:
                        refuse_no_well(position, facts)
        self._axes, self.facts = axes, facts

    def layout(self, axes: Iterable[str], shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Layout:
        """Return the layout for a first frame with these axes, shape and dtype.

        Raises
        ------
        CoordinatesError, UnsupportedDataError
            If the format cannot store the frame.
        """
        names = tuple(axes)
        planned = {axis.name: axis for axis in self._axes}
        if set(planned) != set(names):  # the frames differ from the plan
            planned = {}
        ordered = [axis.name for axis in self._axes] if planned else list(names)
        roles = assign_roles(ordered, self._extra_axes)
        if self.facts.plate is not None and "p" not in roles:
            raise CoordinatesError("a plate needs an axis 'position' with the names of wells, such as 'A1'")
        lengths: dict[str, int | None] = {}
        for dim, members in roles.items():
            each = [planned[axis].length if axis in planned else None for axis in members]
            lengths[dim] = None if None in each else math.prod(length or 1 for length in each)
        refuse_shape(shape, dtype)
        acquired = list(dict.fromkeys(dim for axis in ordered for dim in roles if axis in roles[dim]))
        order = [dim for dim in acquired if dim in FRAME_DIMENSIONS]
        return choose_layout(
            shape, dtype.newbyteorder("=").name, ordered, roles, lengths, order=order, **self._options
        )

    def declared(self, layout: Layout) -> dict[str, list[Key]]:
        """For each dimension with a single axis, return the planned positions in order of their indices."""
        found: dict[str, list[Key]] = {}
        planned = {axis.name: axis for axis in self._axes}
        for dim, axes in layout.roles.items():
            axis = planned.get(axes[0])
            if len(axes) == 1 and axis is not None and axis.positions is not None:
                found[dim] = list(declared_order(axis.positions))
        return found

    def lengths(self, layout: Layout) -> dict[str, int]:
        """Return the planned length of each dimension (t, c or z) on which the positions are 0, 1, 2, ..."""
        planned = {axis.name: axis for axis in self._axes}
        found = {}
        for dim in FRAME_DIMENSIONS:
            axes = layout.roles.get(dim, ())
            axis = planned.get(axes[0]) if len(axes) == 1 else None
            if axis is not None and axis.length is not None:
                found[dim] = axis.length
        return found


def _has_wells(plan: SourcePlan) -> bool:
    places = plan.stage_positions
    return (
        plan.plate is not None
        and bool(places)
        and all(place.row is not None and place.column is not None for place in places)
    )


def refuse_no_well(position: int | str, facts: Facts) -> None:
    """Raise ``CoordinatesError`` if a position does not name a well of the plate."""
    stated = any(place.name == position and place.row is not None for place in facts.stage_positions)
    if not stated and well_of(position) is None:
        raise CoordinatesError(
            f"position {position!r:.80} is not a well of a plate; use position names such as "
            "'A1' or 'A1_0', or set the option layout to 'image'"
        )


def refuse_shape(shape: tuple[int, ...], dtype: "np.dtype[Any]") -> None:
    """Raise ``UnsupportedDataError`` if a frame is empty, too large, or has planes that are not RGB."""
    if len(shape) == 3 and shape[2] != 3:
        raise UnsupportedDataError(
            f"ome-zarr accepts frames of shape (Y, X) or (Y, X, 3), got {shape}; store each plane as a frame"
        )
    if 0 in shape:
        raise UnsupportedDataError(f"ome-zarr cannot store a frame without pixels, got shape {shape}")
    size = math.prod(shape) * dtype.itemsize
    if size > sizes.MAX_FRAME_BYTES:
        raise UnsupportedDataError(
            f"a frame of {size} bytes is too large; ome-zarr accepts at most {sizes.MAX_FRAME_BYTES} bytes"
        )


def refuse_options(options: Mapping[str, Any]) -> None:
    """Raise ``OptionError`` for options that contradict each other."""
    codec, level = options.get("codec", "none"), options.get("level")
    if codec == "none" and level is not None:
        raise OptionError("level has no effect without compression; set codec as well, for example 'zstd'")
    if codec != "zstd" and level is not None and level > _MAX_LEVEL:
        raise OptionError(f"the compression level of {codec} must be at most {_MAX_LEVEL}, got {level}")
    if codec != "none" and (options.get("frames_per_chunk") or 1) > 1:
        raise OptionError("with compression, a chunk contains one frame; leave out frames_per_chunk")


def refuse_remote(options: Mapping[str, Any]) -> None:
    """Raise ``OptionError`` for options that a dataset in object storage cannot have."""
    if options.get("pyramid", "none") != "none":
        raise OptionError(
            "a dataset in object storage cannot have resolution levels, because full shards are removed from "
            "this machine before the levels are computed; leave out pyramid, or write to a folder and copy it"
        )


def begin_labels(layout: Layout, declared: Mapping[str, list[Key]]) -> tuple[dict[str, Labels], list[object]]:
    """Return the labels of a new dataset, and the lines that store the labels of the declared positions."""
    labels = {dim: Labels() for dim in ("p", *FRAME_DIMENSIONS)}
    lines: list[object] = []
    for dim, keys in declared.items():
        for key in keys:
            index, is_label = labels[dim].assign(key)
            if is_label:
                labels[dim].add(key, index)
                lines.append(label_line(dim, index, key))
    return labels, lines


def label_line(dim: str, index: int, key: Key) -> dict[str, object]:
    """Return the line that stores a label."""
    return {"label": [dim, index, list(key) if isinstance(key, tuple) else key]}
