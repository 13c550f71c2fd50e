"""The complete events of a useq sequence. No event depends on the state left by the previous event.

If the sequence does not specify a value, useq leaves the corresponding field of the event empty. An engine
that applied only the specified fields would keep the focus, exposure or shutter state of the previous event.
In this module, every event gets its stage coordinates from the position, plan and channel that are in effect.
If these specify none, the coordinates are those of the stages at the start of the run. useq still determines
the events and their order.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from exengine.frame_sources.sequence import event_coordinates, repeated_channels
from exengine.kernel.data_coords import DataCoordinates

if TYPE_CHECKING:
    import useq

GridPlan = Any
"""Any of useq's six grid plans, which have no common public base class."""


class Reference(NamedTuple):
    """The position of the stages at the start of a run, in micrometers. None for a missing stage."""

    x_um: float | None = 0.0
    y_um: float | None = 0.0
    z_um: float | None = 0.0


@dataclass(frozen=True)
class InEffect:
    """The parts of a sequence that are in effect for one event.

    Attributes
    ----------
    position : useq.Position or None
    channel : useq.Channel or None
        From the position's own sequence, or else from the whole sequence.
    z_plan, grid_plan, autofocus_plan
        Each from the position's own sequence, or else from the whole sequence.
    """

    position: "useq.AbsolutePosition | None"
    channel: "useq.Channel | None"
    z_plan: Any
    grid_plan: GridPlan
    autofocus_plan: "useq.AxesBasedAF | None"


def private_copy(sequence: "useq.MDASequence") -> "useq.MDASequence":
    """Return an equal sequence that does not remember earlier iterations and can be modified.

    useq's autofocus plan remembers the previous event, so a second iteration would omit the first autofocus
    step. useq computes the positions of a well plate only once, so they are computed again here. Random
    points get a seed, so that the points that are checked are also the points that are visited.
    """
    fields = sequence.model_dump(exclude_unset=True, exclude={"setup"})
    if sequence.setup is not None:
        fields["setup"] = sequence.setup  # dumping it would lose the type of its action
    copy = type(sequence).model_validate(fields)
    for plan in point_plans(copy):
        if getattr(plan, "random_seed", 0) is None:
            import secrets

            plan.random_seed = secrets.randbelow(2**31)
    _compute_wells_again(copy)
    return copy


def _compute_wells_again(sequence: "useq.MDASequence") -> None:
    # useq computes the positions in wells only once, when it validates the sequence.
    if is_plate(sequence):
        sequence.stage_positions.__dict__.pop("image_positions", None)


def is_plate(sequence: "useq.MDASequence") -> bool:
    """Return whether the stage positions are those of a well plate."""
    return not isinstance(sequence.stage_positions, tuple)


def sub_sequences(sequence: "useq.MDASequence") -> "Iterator[tuple[useq.AbsolutePosition, useq.MDASequence]]":
    """Yield each position that has its own sequence, together with that sequence."""
    if isinstance(sequence.stage_positions, tuple):
        for position in sequence.stage_positions:
            if position.sequence is not None:
                yield position, position.sequence


def point_plans(sequence: "useq.MDASequence") -> Iterator[GridPlan]:
    """Yield every plan that places points in the XY plane: grids, and points within wells."""
    parts = [sequence, *(own for _, own in sub_sequences(sequence))]
    yield from (part.grid_plan for part in parts if part.grid_plan is not None)
    if not isinstance(sequence.stage_positions, tuple):
        yield sequence.stage_positions.well_points_plan


def set_field_of_view(sequence: "useq.MDASequence", width_um: float, height_um: float) -> None:
    """Set the field of view in each plan that does not specify one. Changes the sequence in place."""
    for plan in point_plans(sequence):
        if plan.fov_width is None:
            plan.fov_width = width_um
        if plan.fov_height is None:
            plan.fov_height = height_um
    _compute_wells_again(sequence)


@dataclass
class CompleteEvents:
    """The complete events of one sequence.

    Parameters
    ----------
    sequence : useq.MDASequence
        The sequence, which is not changed. Its events can be iterated over any number of times.
    skips : callable, optional
        Returns whether the frame of an image event already exists; :meth:`events` leaves out such events.
    """

    sequence: "useq.MDASequence"
    skips: "Callable[[useq.MDAEvent], bool] | None" = None
    _values: dict[int, list[Any]] = field(default_factory=dict)

    @cached_property
    def repeated(self) -> frozenset[str]:
        """The channels that occur more than once."""
        return repeated_channels(self.sequence)

    def coordinates(self, event: "useq.MDAEvent") -> DataCoordinates:
        """Return the coordinates of an event's frame."""
        return event_coordinates(event, self.repeated)

    @cached_property
    def _positions(self) -> "list[useq.AbsolutePosition]":
        return list(self.sequence.stage_positions)

    @cached_property
    def moves_z(self) -> bool:
        """Whether any event specifies a focus position. If so, every event must specify one."""
        parts = [self.sequence, *(own for _, own in sub_sequences(self.sequence))]
        return (
            any(part.z_plan is not None or part.autofocus_plan is not None for part in parts)
            or any(channel.z_offset for part in parts for channel in part.channels)
            or any(self.stated_z(position) is not None for position in self._positions)
            or bool(self._well_offset_um)
        )

    @cached_property
    def moves_xy(self) -> bool:
        """Whether any event specifies an XY position. If so, every event must specify one."""
        parts = [self.sequence, *(own for _, own in sub_sequences(self.sequence))]
        return any(part.grid_plan is not None for part in parts) or any(
            position.x is not None or position.y is not None for position in self._positions
        )

    @cached_property
    def _well_offset_um(self) -> float:
        """The relative z of the single point in each well, or 0 if none is specified."""
        if not is_plate(self.sequence):
            return 0.0
        plan: Any = self.sequence.stage_positions
        return float(getattr(plan.well_points_plan, "z", 0.0))

    def stated_z(self, position: "useq.AbsolutePosition | None") -> float | None:
        """Return the focus that a position specifies. The 0 that useq sets for wells is ignored."""
        return None if position is None or is_plate(self.sequence) else position.z

    def in_effect(self, event: "useq.MDAEvent") -> InEffect:
        """Return the parts of the sequence that are in effect for an event."""
        whole = self.sequence
        position = self._positions[event.index["p"]] if "p" in event.index else None
        own = None if position is None else position.sequence
        channels = own.channels if own is not None and own.channels else whole.channels
        return InEffect(
            position=position,
            channel=channels[event.index["c"]] if "c" in event.index else None,
            z_plan=(own.z_plan if own else None) or whole.z_plan,
            grid_plan=(own.grid_plan if own else None) or whole.grid_plan,
            autofocus_plan=(own.autofocus_plan if own else None) or whole.autofocus_plan,
        )

    def events(self, reference: "Callable[[useq.MDAEvent], Reference]") -> "Iterator[useq.MDAEvent]":
        """Yield every event that is not skipped: image events, and the autofocus steps before them.

        Parameters
        ----------
        reference : callable
            Returns the position of the stages at the start of the run. It is used for an event that specifies
            no position.

        Yields
        ------
        useq.MDAEvent
            An event with the ``exposure`` of its channel, the ``properties`` of its position, and
            ``keep_shutter_open``. It also has ``x_pos``, ``y_pos`` and ``z_pos`` for each stage that the
            sequence moves.
        """
        previous: dict[int, dict[str, int]] = {}
        for event, keep in self._with_next(self._remaining()):
            parts = self.in_effect(event)
            home, event = self._complete(event, parts, reference(event), keep)
            plan = parts.autofocus_plan
            if plan is not None:
                index = dict(event.index)
                before = previous.get(id(plan), {})
                previous[id(plan)] = index
                if any(axis in plan.axes and before.get(axis) != at for axis, at in index.items()):
                    yield event.model_copy(update={"action": plan.as_action(), "z_pos": home})
                    event = event.model_copy(update={"reset_event_timer": False})
            yield event

    def image_events(self) -> "Iterator[useq.MDAEvent]":
        """Yield all image events, including skipped ones, as if all stages were at 0 when the run starts."""
        for event, keep in self._with_next(self._taken()):
            yield self._complete(event, self.in_effect(event), Reference(), keep)[1]

    def _remaining(self) -> "Iterator[useq.MDAEvent]":
        """Yield the image events that are not skipped.

        After each restart of the clock, times are counted from the first event that is not skipped.
        """
        skips, begin_s, restarts = self.skips, 0.0, False
        if skips is None:
            yield from self._taken()
            return
        for event in self._taken():
            restarts = restarts or event.reset_event_timer
            if skips(self._complete(event, self.in_effect(event), Reference(), False)[1]):
                continue
            start_s = event.min_start_time
            if restarts:
                begin_s = start_s or 0.0
            later_s = None if start_s is None else max(0.0, start_s - begin_s)
            yield event.model_copy(update={"reset_event_timer": restarts, "min_start_time": later_s})
            restarts = False

    def _with_next(self, events: "Iterator[useq.MDAEvent]") -> "Iterator[tuple[useq.MDAEvent, bool]]":
        """Yield each image event, and whether the shutter stays open until the next image event."""
        axes = set(self.sequence.keep_shutter_open_across)
        before: useq.MDAEvent | None = None
        for event in events:
            if before is not None:
                yield before, bool(axes) and _changed(before, event) <= axes
            before = event
        if before is not None:
            yield before, False

    def _taken(self) -> "Iterator[useq.MDAEvent]":
        """Yield useq's image events, except those that a channel's settings skip.

        useq applies ``acquire_every`` and ``do_stack`` only if the channel and the plan are in the same
        sequence.
        """
        # Remove the fields that this class computes itself, because useq cannot handle them if positions have
        # their own sequences.
        bare = self.sequence.model_copy(
            update={
                "keep_shutter_open_across": (),
                "autofocus_plan": None,
                "stage_positions": self._without_autofocus(),
            }
        )
        time_point = -1
        for event in bare:
            parts = self.in_effect(event)
            channel = parts.channel
            if channel is not None:
                if event.index.get("t", 0) % channel.acquire_every:
                    continue
                if not channel.do_stack and "z" in event.index:
                    if event.index["z"] != len(self._values_of(parts.z_plan)) // 2:
                        continue
            # useq may restart the clock repeatedly within the first time point, so compute the restarts here.
            before, time_point = time_point, event.index.get("t", time_point)
            yield event.model_copy(update={"reset_event_timer": time_point == 0 != before})

    def _without_autofocus(self) -> Any:
        if is_plate(self.sequence):
            return self.sequence.stage_positions
        positions = []
        for position in self._positions:
            own = position.sequence
            if own is not None and own.autofocus_plan is not None:
                alone = own.model_copy(update={"autofocus_plan": None})
                position = position.model_copy(update={"sequence": alone if _axes_of(own) else None})
            positions.append(position)
        return tuple(positions)

    def _complete(
        self, event: "useq.MDAEvent", parts: InEffect, reference: Reference, keep: bool
    ) -> "tuple[float | None, useq.MDAEvent]":
        """Return the focus at the center of the event's z-stack, and the complete event."""
        position, channel = parts.position, parts.channel
        update: dict[str, Any] = {
            "keep_shutter_open": keep,
            "exposure": None if channel is None else channel.exposure,
            "properties": list(position.properties) if position and position.properties else None,
            "x_pos": None,
            "y_pos": None,
            "z_pos": None,
        }
        home: float | None = None
        if self.moves_z:
            offset = channel.z_offset if channel is not None else 0.0
            stated = self.stated_z(position)
            around = (reference.z_um or 0.0) + self._well_offset_um if stated is None else stated
            home = z = around + offset
            if parts.z_plan is not None and "z" in event.index:
                plane = self._values_of(parts.z_plan)[event.index["z"]]
                z = home + plane if parts.z_plan.is_relative else plane + offset
            update["z_pos"] = z
        if self.moves_xy:
            x = reference.x_um or 0.0 if position is None or position.x is None else position.x
            y = reference.y_um or 0.0 if position is None or position.y is None else position.y
            if parts.grid_plan is not None and "g" in event.index:
                tile = self._values_of(parts.grid_plan)[event.index["g"]]
                x, y = (x + tile.x, y + tile.y) if parts.grid_plan.is_relative else (tile.x, tile.y)
            update["x_pos"], update["y_pos"] = x, y
        return home, event.model_copy(update=update)

    def _values_of(self, plan: Any) -> list[Any]:
        values = self._values.get(id(plan))
        if values is None:
            values = self._values[id(plan)] = list(plan)
        return values


def used_axes(sequence: "useq.MDASequence") -> set[str]:
    """Return the keys of all axes along which events differ, including those of a position's own sequence."""
    axes = _axes_of(sequence)
    for _, own in sub_sequences(sequence):
        axes |= _axes_of(own)
    return axes


def plans_of(sequence: "useq.MDASequence") -> dict[str, tuple[str, Any]]:
    """Return the fields of a sequence that create axes, as ``{axis: (field, plan)}``."""
    fields = {
        "t": "time_plan",
        "p": "stage_positions",
        "g": "grid_plan",
        "c": "channels",
        "z": "z_plan",
    }
    plans = {axis: (name, getattr(sequence, name)) for axis, name in fields.items()}
    return {axis: (name, plan) for axis, (name, plan) in plans.items() if plan is not None and plan != ()}


def _axes_of(sequence: "useq.MDASequence") -> set[str]:
    return set(plans_of(sequence)) & {str.__str__(axis) for axis in sequence.axis_order}


def _changed(before: "useq.MDAEvent", event: "useq.MDAEvent") -> set[str]:
    first, second = before.index, event.index
    return {axis for axis in (*first, *second) if first.get(axis) != second.get(axis)}
