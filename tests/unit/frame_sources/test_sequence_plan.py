"""The plan of a sequence: its axes, distances, intervals, channels, stage positions and plate."""

import math
import warnings

import pytest
import useq
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from exengine.base_classes import AxisCollector, DataCoordinates, PlannedChannel, PlannedPosition
from exengine.frame_sources.simulated import SimulatedSource
from exengine.kernel.errors import SourceError

PLATE = {"plate": "24-well", "a1_center_xy": [100, 50], "selected_wells": [[0, 2], [1, 5]]}


def plan_of(**fields):
    return SimulatedSource(width=64, height=64).prepare(useq.MDASequence(**fields))


def axes_of(plan):
    return {axis.name: axis.positions for axis in plan.axes}


# -- axes ----------------------------------------------------------------------------------------


def test_axes_are_in_the_order_of_acquisition_with_the_names_and_positions_of_the_frames():
    plan = plan_of(
        axis_order="cptz",
        stage_positions=[{"x": 1, "y": 2, "name": "a"}, {"x": 3, "y": 4}],
        channels=["DAPI", {"config": "FITC", "exposure": 5}, {"config": "FITC", "exposure": 50}],
        z_plan={"range": 4, "step": 2},
        time_plan={"interval": 0, "loops": 2},
    )
    assert list(axes_of(plan).items()) == [
        ("channel", ("DAPI", "FITC@5ms", "FITC@50ms")),
        ("position", ("a", 1)),
        ("time", (0, 1)),
        ("z", (0, 1, 2)),
    ]
    assert math.prod(axis.length for axis in plan.axes) == plan.frames


def test_a_channel_without_exposure_is_named_with_that_of_the_setup():
    with pytest.raises(SourceError, match="same coordinates"):
        plan_of(setup={"exposure": 5}, channels=["A", {"config": "A", "exposure": 5}])
    plan = plan_of(setup={"exposure": 5}, channels=["A", {"config": "A", "exposure": 7}])
    assert axes_of(plan) == {"channel": ("A@5ms", "A@7ms")}


def test_the_axes_of_a_ragged_sequence_are_its_bounding_box():
    plan = plan_of(
        stage_positions=[
            {"x": 0, "y": 0, "name": "flat"},
            {"x": 1, "y": 0, "name": "thick", "sequence": {"z_plan": {"range": 4, "step": 1}}},
        ],
        channels=["DAPI", {"config": "FITC", "acquire_every": 2}],
        time_plan={"interval": 0, "loops": 3},
    )
    found = axes_of(plan)
    assert found["z"] == (0, 1, 2, 3, 4) and found["position"] == ("flat", "thick")
    assert plan.frames < math.prod(map(len, found.values()))


def test_an_axis_of_one_position_stays_in_its_place():
    collector = AxisCollector()
    for z in range(3):
        collector.add(DataCoordinates(time=0, channel="A", z=z, g=7))
    assert [axis.name for axis in collector.axes()] == ["time", "channel", "z", "g"]
    assert AxisCollector().axes() == ()


own = st.fixed_dictionaries(
    {},
    optional={
        "z_plan": st.sampled_from([{"range": 2, "step": 1}, {"relative": [3.0, -1.0]}]),
        "channels": st.sampled_from([["DAPI"], ["FITC", "Cy5"]]),
    },
).filter(bool)


@st.composite
def sequences(draw):
    fields = draw(
        st.fixed_dictionaries(
            {"axis_order": st.permutations("tpgcz").map("".join)},
            optional={
                "time_plan": st.sampled_from(
                    [{"interval": 0, "loops": 3}, [{"interval": 1, "loops": 2}, {"interval": 2, "loops": 2}]]
                ),
                "z_plan": st.sampled_from([{"range": 4, "step": 2}, {"absolute": [1.0]}]),
                "grid_plan": st.just({"rows": 1, "columns": 2}),
                "channels": st.lists(
                    st.fixed_dictionaries(
                        {"config": st.sampled_from(["DAPI", "FITC", "Cy5"])},
                        optional={"do_stack": st.just(False), "acquire_every": st.just(2), "exposure": st.just(5.0)},
                    ),
                    min_size=1,
                    max_size=3,
                    unique_by=lambda channel: channel["config"],
                ),
                "stage_positions": st.one_of(
                    st.just(PLATE),
                    st.lists(
                        st.fixed_dictionaries({"x": st.just(1.0)}, optional={"sequence": own, "z": st.just(3.0)}),
                        min_size=1,
                        max_size=3,
                    ),
                ),
            },
        )
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return useq.MDASequence(**fields)
    except (ValidationError, ValueError):
        reject()


def first_changes(coordinates, axis):
    """Return the number of the first frame at another position on an axis than the first frame."""
    return next(
        (n for n, where in enumerate(coordinates) if where.get(axis) != coordinates[0].get(axis)), math.inf
    )


@settings(max_examples=60, deadline=None)
@given(sequences())
def test_the_axes_span_the_planned_frames_and_the_last_changes_fastest(sequence):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # useq warns of parts that it ignores
            plan = SimulatedSource(width=64, height=64).prepare(sequence)
            planned = list(plan.coordinates())
    except SourceError:
        reject()
    coordinates = [dict(where) for where in planned]
    axes = axes_of(plan)
    assert len(coordinates) == plan.frames
    assert all(where[axis] in axes[axis] for where in coordinates for axis in where)
    for axis, positions in axes.items():
        assert positions == tuple(dict.fromkeys(where[axis] for where in coordinates if axis in where))
    changes = [change for axis in axes if (change := first_changes(coordinates, axis)) < math.inf]
    assert changes == sorted(changes, reverse=True)


# -- the other facts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({"z_plan": {"range": 4, "step": 0.5}}, 0.5),
        ({"z_plan": {"bottom": 0, "top": 6, "step": 3, "go_up": False}}, 3.0),
        ({"z_plan": {"relative": [0.0, 1.0, 3.0]}}, None),
        ({"z_plan": {"absolute": [7.0, 5.0, 3.0]}}, 2.0),
        ({"z_plan": {"absolute": [7.0]}}, None),
        ({"channels": ["A"]}, None),
        ({"z_plan": {"range": 4, "step": 1},
          "stage_positions": [{}, {"sequence": {"z_plan": {"range": 4, "step": 2}}}]}, None),
        ({"z_plan": {"range": 4, "step": 2},
          "stage_positions": [{}, {"sequence": {"z_plan": {"range": 8, "step": 2}}}]}, 2.0),
    ],
)  # fmt: skip
def test_the_z_step_is_that_of_all_planes(fields, step):
    assert plan_of(**fields).z_step_um == step


@pytest.mark.parametrize(
    ("time_plan", "interval"),
    [
        ({"interval": 0.5, "loops": 3}, 0.5),
        ({"interval": 0, "loops": 3}, None),
        ({"duration": 6, "loops": 3}, 3.0),
        ({"duration": 6, "interval": 2}, 2.0),
        ([{"interval": 5, "loops": 2}, {"interval": 2, "loops": 2}, {"interval": 0, "loops": 2}], 2.0),
    ],
)
def test_the_interval_is_the_smallest_of_the_time_plan(time_plan, interval):
    assert plan_of(time_plan=time_plan).interval_s == interval
    assert plan_of(channels=["A"]).interval_s is None


def test_channels_and_stage_positions_have_the_names_of_the_coordinates():
    plan = plan_of(
        channels=["DAPI", "FITC"],
        stage_positions=[{"x": 1, "y": 2, "z": 3, "name": "a"}, {"x": 4, "y": 5}],
    )
    assert plan.channels == (PlannedChannel("DAPI"), PlannedChannel("FITC"))
    assert plan.stage_positions == (
        PlannedPosition(name="a", x_um=1, y_um=2, z_um=3),
        PlannedPosition(name=1, x_um=4, y_um=5),
    )
    assert plan.pixel_size_um == (1.0, 1.0) and plan.plate is None


def test_the_wells_and_fields_of_a_plate():
    plan = plan_of(stage_positions={**PLATE, "well_points_plan": {"rows": 1, "columns": 2}})
    assert plan.plate.name == "24-well"
    assert plan.plate.rows == tuple("ABCD") and plan.plate.columns == ("1", "2", "3", "4", "5", "6")
    assert [(place.row, place.column, place.field) for place in plan.stage_positions] == [
        ("A", "2", 0), ("A", "2", 1), ("C", "6", 0), ("C", "6", 1),
    ]  # fmt: skip
    assert tuple(place.name for place in plan.stage_positions) == axes_of(plan)["position"]
    assert (
        plan.stage_positions[0].x_um == pytest.approx(100 + 19000 - 32)
        and plan.stage_positions[0].z_um is None
    )


@pytest.mark.parametrize(
    ("z_plan", "height_um"),
    [
        (None, 3),
        ({"range": 4, "step": 1}, 1),
        ({"above": 5, "below": 2, "step": 1}, 1),
        ({"top": 20, "bottom": 10, "step": 5}, 10),
        ({"absolute": [7, 9]}, 7),
        ({"relative": [-1, 4]}, 2),
    ],
)
def test_the_height_of_a_stage_position_is_that_of_its_first_plane(z_plan, height_um):
    sequence = useq.MDASequence(stage_positions=[{"x": 0, "y": 0, "z": 3}], z_plan=z_plan)
    assert SimulatedSource().prepare(sequence).stage_positions[0].z_um == height_um
