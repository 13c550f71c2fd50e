"""Useq sequences to draw, of every part of its schema that a config file can state."""

import itertools
import warnings

import useq
from hypothesis import reject
from hypothesis import strategies as st
from pydantic import ValidationError
from stated import laid_out, without_autofocus

_um = st.sampled_from([-7.5, 0.0, 4.0, 12.0])
_few = st.integers(1, 3)


def _maybe(strategy, chance=2):
    """A field that is left out more often than not."""
    return st.one_of(*[st.none()] * chance, strategy)


def _fields(**strategies):
    """A mapping without the fields that are None."""
    return st.fixed_dictionaries(strategies).map(
        lambda fields: {name: value for name, value in fields.items() if value is not None}
    )


_presets = ["DAPI", "FITC", "Slow", "DAPI", "FITC", "Slow", "Manual", "Auto", "Second", "SecondManual"]
_core = [["Core", "AutoShutter", "0"], ["Core", "AutoShutter", "1"], ["Core", "Shutter", "Shut2"]]
channels = st.lists(
    _fields(
        config=st.sampled_from(_presets),
        exposure=_maybe(st.sampled_from([5.0, 7.0, 50.0])),
        z_offset=_maybe(st.sampled_from([2.0, -1.5]), 3),
        camera=_maybe(st.sampled_from(["CamA", "CamB"]), 3),
        do_stack=_maybe(st.just(False), 4),
        acquire_every=_maybe(st.just(2), 5),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda channel: (
        channel["config"],
        channel.get("exposure") if channel.get("exposure") else None,
    ),
)
z_plans = st.one_of(
    st.builds(lambda n, step: {"range": n * step, "step": step}, st.integers(0, 3), st.sampled_from([0.5, 2.0])),
    st.builds(lambda n, up: {"bottom": 5.0, "top": 5.0 + n, "step": 1.0, "go_up": up}, _few, st.booleans()),
    st.builds(lambda a, b: {"above": a, "below": b, "step": 1.0}, st.integers(0, 2), st.integers(0, 2)),
    st.lists(_um, min_size=1, max_size=3, unique=True).map(lambda values: {"relative": values}),
    st.lists(_um, min_size=1, max_size=3, unique=True).map(lambda values: {"absolute": values}),
)  # fmt: skip
one_phase = st.one_of(
    st.builds(lambda loops: {"interval": 0, "loops": loops}, _few),
    st.builds(lambda loops: {"interval": 0.002, "loops": loops}, _few),
    st.just({"interval": 0.002, "duration": 0.004}),
    st.just({"duration": 0.004, "loops": 3}),
)
time_plans = st.one_of(one_phase, st.lists(one_phase, min_size=1, max_size=2).map(lambda p: {"phases": p}))
grids = st.one_of(
    _fields(rows=st.integers(1, 2), columns=st.integers(1, 2), relative_to=_maybe(st.just("top_left"))),
    st.just({"top": 20, "left": 0, "bottom": 0, "right": 50}),
    st.just({"width": 40, "height": 20}),
    st.builds(
        lambda n: {"num_points": n, "max_width": 40, "max_height": 40, "random_seed": 1}, st.integers(1, 2)
    ),
)
autofocus = st.lists(st.sampled_from("tpcz"), min_size=1, max_size=2, unique=True).map(lambda a: {"axes": a})
own_sequences = _fields(
    channels=_maybe(channels), z_plan=_maybe(z_plans, 1), grid_plan=_maybe(grids), autofocus_plan=_maybe(autofocus, 3)
)  # fmt: skip


@st.composite
def position_lists(draw):
    places = draw(
        st.lists(
            _fields(
                x=_maybe(_um, 1),
                y=_maybe(_um, 1),
                z=_maybe(_um, 1),
                sequence=_maybe(own_sequences, 3),
                properties=_maybe(
                    st.one_of(
                        st.just([["Wheel", "Label", "FITC"]]),
                        st.lists(st.sampled_from(_core), min_size=1, max_size=2, unique_by=lambda p: p[1]),
                    ),
                    5,
                ),
            ),
            min_size=1,
            max_size=3,
        )
    )
    if draw(st.booleans()):
        for number, place in enumerate(places):
            place["name"] = f"P{number}"
    return places


plates = _fields(
    plate=st.just("96-well"),
    a1_center_xy=st.just([100.0, 50.0]),
    selected_wells=st.sampled_from([[[0], [0]], [[0, 1], [0, 2]]]),
    well_points_plan=_maybe(
        st.one_of(st.just({"rows": 1, "columns": 2}), st.just({"x": 2.0, "y": 1.0, "z": 3.0})), 1
    ),
    rotation=_maybe(st.just(5.0)),
)
setups = _fields(
    exposure=_maybe(st.just(6.0), 1),
    z_pos=_maybe(st.just(33.0)),
    x_pos=_maybe(st.just(9.0)),
    roi=_maybe(st.just([2, 2, 12, 10])),
    channel=_maybe(
        st.sampled_from(["Manual", "Second", "SecondManual"]).map(lambda name: {"config": name}), 5
    ),
    properties=_maybe(st.lists(st.sampled_from(_core), min_size=1, max_size=2, unique_by=lambda p: p[1]), 5),
)


def _without(value, names):
    if isinstance(value, dict):
        return {name: _without(item, names) for name, item in value.items() if name not in names}
    return [_without(item, names) for item in value] if isinstance(value, list) else value


@st.composite
def sequences(draw, *, devices=True):
    """A sequence that useq holds valid, of at most 80 frames; without devices one that needs no second camera."""
    fields = draw(
        _fields(
            channels=_maybe(channels, 1),
            z_plan=_maybe(z_plans, 1),
            time_plan=_maybe(time_plans, 1),
            grid_plan=_maybe(grids, 3),
            stage_positions=_maybe(st.one_of(position_lists(), position_lists(), plates), 1),
            autofocus_plan=_maybe(autofocus, 4),
            setup=_maybe(setups, 2),
            keep_shutter_open_across=_maybe(
                st.lists(st.sampled_from("tcz"), min_size=1, max_size=2, unique=True), 1
            ),
            axis_order=_maybe(st.permutations("tpgcz").map("".join), 1),
        )
    )
    if isinstance(fields.get("keep_shutter_open_across"), list) and draw(st.integers(0, 7)):
        made = {"c": "channels", "z": "z_plan", "t": "time_plan"}
        kept = [axis for axis in fields["keep_shutter_open_across"] if made[axis] in fields]
        fields["keep_shutter_open_across"] = kept
    if not devices:
        fields = _without(fields, ("camera", "channel", "properties", "roi"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            sequence = useq.MDASequence(**fields)
            laid = laid_out(sequence, (32.0, 24.0))
            count = len(list(itertools.islice(without_autofocus(laid), 81)))
        except (ValidationError, UserWarning, ArithmeticError):
            reject()
    if count > 80:
        reject()
    return sequence
