"""The plan of the microscope's frames: axes, sizes, channels, stage positions and plate."""

import pytest
import useq
from demo_lab import CAMERA_ONLY, TWO_CAMERAS, timelapse


def axes_of(plan):
    return {axis.name: axis.positions for axis in plan.axes}


def test_the_demo_microscope_plans_axes_sizes_channels_and_positions(make):
    plan = make().prepare(
        timelapse(
            2,
            channels=["DAPI", "FITC"],
            z_plan={"range": 4, "step": 2},
            stage_positions=[{"x": 1, "y": 2, "z": 3, "name": "a"}, {"x": 4, "y": 5, "z": 6, "name": "b"}],
        )
    )
    assert list(axes_of(plan).items()) == [
        ("time", (0, 1)), ("position", ("a", "b")), ("channel", ("DAPI", "FITC")), ("z", (0, 1, 2)),
    ]  # fmt: skip
    assert (plan.pixel_size_um, plan.z_step_um, plan.interval_s) == ((1.0, 1.0), 2.0, None)
    assert [(channel.name, channel.color) for channel in plan.channels] == [("DAPI", None), ("FITC", None)]
    assert [(place.name, place.x_um, place.y_um, place.z_um) for place in plan.stage_positions] == [
        ("a", 1, 2, 1), ("b", 4, 5, 4),
    ]  # fmt: skip
    assert len(list(plan.coordinates())) == plan.frames == 24


def test_the_pixel_size_is_that_after_the_setup(make):
    sequence = useq.MDASequence(channels=["DAPI"], setup={"properties": [["Camera", "Binning", "2"]]})
    assert make().prepare(sequence).pixel_size_um == (2.0, 2.0)


def test_without_a_pixel_size_in_the_config_it_is_unknown(make, write_config, adapters):
    source = make(config=write_config(CAMERA_ONLY), adapter_path=adapters)
    assert source.prepare(timelapse(2)).pixel_size_um is None


def test_two_cameras_are_the_innermost_axis(make, write_config, adapters):
    source = make(config=write_config(TWO_CAMERAS), adapter_path=adapters)
    plan = source.prepare(timelapse(2))
    (time, camera) = plan.axes
    assert (time.name, camera.name, time.positions, len(camera.positions)) == ("time", "camera", (0, 1), 2)
    assert [dict(where)["camera"] for where in plan.coordinates()] == list(camera.positions) * 2


def test_the_wells_of_a_plate_are_planned(make):
    plan = make().prepare(
        useq.MDASequence(
            channels=["DAPI"],
            stage_positions={"plate": "24-well", "a1_center_xy": [0, 0], "selected_wells": [[0, 1], [1, 2]]},
        )
    )
    assert [(place.row, place.column, place.field) for place in plan.stage_positions] == [
        ("A", "2", 0), ("B", "3", 0),
    ]  # fmt: skip
    assert plan.plate.rows == tuple("ABCD") and len(plan.plate.columns) == 6
    assert plan.stage_positions[0].x_um == pytest.approx(19000)
