"""The simulated source carries out each field of a sequence, or refuses it before the run."""

import math

import pytest
import useq

from exengine.frame_sources.simulated import SimulatedSource, decode
from exengine.kernel.errors import SourceError

PLATE = {"plate": "96-well", "a1_center_xy": [0, 0], "selected_wells": [[0], [0]]}


def run(source, **fields):
    frames = []
    plan = source.prepare(useq.MDASequence(**fields))
    source.run(lambda *frame: frames.append(frame))
    assert plan.frames == len(frames)
    assert list(plan.coordinates()) == [coordinates for coordinates, _, _ in frames]
    assert all(decode(pixels) == coordinates for coordinates, pixels, _ in frames)
    return frames


def positions(frames, axis):
    return [metadata["position_um"][axis] for _, _, metadata in frames]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, "frames"),
        ({"channels": [{"config": "DAPI", "camera": "Second"}]}, "devices"),
        ({"channels": ["DAPI"], "setup": {"properties": [["Camera", "Gain", "1"]]}}, "devices"),
        ({"channels": ["DAPI"], "setup": {"roi": (0, 0, 8, 8)}}, "devices"),
        ({"channels": ["DAPI"], "setup": {"channel": {"config": "DAPI"}}}, "devices"),
        ({"stage_positions": [{"x": 0, "y": 0, "properties": [["Laser", "Power", 5]]}]}, "devices"),
        ({"stage_positions": [{"x": math.nan, "y": 0}]}, "numbers"),
        ({"z_plan": {"top": 0, "bottom": 10, "step": 1}}, "values"),
        ({"axis_order": "tc", "channels": ["A"], "z_plan": {"range": 4, "step": 1}}, "axis order"),
        ({"channels": ["DAPI"], "keep_shutter_open_across": ["q"]}, "axes"),
        ({"time_plan": {"interval": 0, "duration": 3}}, "times"),
        ({"stage_positions": [{"name": "a", "sequence": {"metadata": {}}}]}, "own sequences"),
        ({"stage_positions": [{"name": "a"}, {"name": "a"}]}, "coordinates"),
        ({"grid_plan": {"rows": 1, "columns": 2, "overlap": 100}}, "values"),
        ({"grid_plan": {"num_points": 9, "max_width": 5, "max_height": 5, "allow_overlap": False}}, "values"),
    ],
)
def test_what_has_no_effect_is_refused_by_a_rule(fields, rule):
    with pytest.raises(SourceError) as caught:
        SimulatedSource(width=64, height=48).prepare(useq.MDASequence(**fields))
    assert caught.value.rule == rule


def test_the_setup_is_that_of_each_event_that_states_nothing_else():
    setup = {"exposure": 5, "z_pos": 30, "x_pos": 7}
    frames = run(
        SimulatedSource(width=64, height=48),
        setup=setup,
        channels=["A", {"config": "B", "exposure": 9, "z_offset": 2}],
        stage_positions=[{"name": "a"}, {"name": "b", "x": 1, "y": 2, "z": 3}],
    )
    assert [metadata["exposure_ms"] for _, _, metadata in frames] == [5, 9, 5, 9]
    assert positions(frames, "z") == [30, 32, 3, 5]
    assert positions(frames, "x") == [7, 7, 1, 1]


def test_a_grid_is_laid_out_with_the_field_of_view_of_the_frames():
    grid = {"top": 300, "left": 0, "bottom": 0, "right": 300}
    assert len(run(SimulatedSource(), grid_plan=grid)) == 1
    frames = run(
        SimulatedSource(width=64, height=48),
        stage_positions={**PLATE, "well_points_plan": {"rows": 1, "columns": 2}},
    )
    assert positions(frames, "x") == [-32, 32]


def test_random_points_are_those_that_were_planned():
    source = SimulatedSource(width=64, height=48)
    frames = run(source, grid_plan={"num_points": 3, "max_width": 900, "max_height": 900})
    again = []
    source.run(lambda *frame: again.append(frame))
    assert positions(frames, "x") == positions(again, "x")


def test_a_preset_with_two_exposures_has_coordinates_for_each():
    frames = run(
        SimulatedSource(width=64, height=48),
        channels=[{"config": "A", "exposure": 5}, {"config": "A", "exposure": 0.5}],
    )
    assert [dict(coordinates) for coordinates, _, _ in frames] == [
        {"channel": "A@5ms"},
        {"channel": "A@0.5ms"},
    ]


@pytest.mark.parametrize("end", ["complete", "cancel", "storage", "device"])
def test_the_shutter_is_closed_and_the_exposure_restored_after_every_end(end):
    source = SimulatedSource(width=64, height=48, fail_after=2 if end == "device" else None)
    source.prepare(
        useq.MDASequence(
            z_plan={"range": 4, "step": 1},
            channels=[{"config": "A", "exposure": 5}],
            keep_shutter_open_across="z",
        )
    )
    before, seen = dict(source.settings()), []

    def sink(*frame):
        seen.append(source.settings()["shutter_open"])
        if end == "cancel":
            source.cancel()
        if end == "storage":
            raise OSError("disk full")

    try:
        source.run(sink)
    except (OSError, SourceError):
        assert end in ("storage", "device")
    assert seen[0] is True
    assert source.settings() == before and before["shutter_open"] is False
