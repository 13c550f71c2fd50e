"""The simulated source carries out each field of a sequence, or refuses it before the run."""

import math

import pytest
import useq

from exengine.frame_sources.sequence_events import CompleteEvents, Reference
from exengine.frame_sources.simulated import SimulatedSource, decode
from exengine.kernel.data_coords import DataCoordinates
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


# -- a run that leaves out frames ----------------------------------------------------------------


def remaining(source, existing, **fields):
    frames = []
    source.prepare(useq.MDASequence(**fields))
    source.skip([DataCoordinates(where) for where in existing])
    source.run(lambda coordinates, pixels, metadata: frames.append((coordinates, pixels)))
    return frames


def test_the_frames_that_exist_are_left_out_and_the_others_are_the_same():
    fields = {
        "axis_order": "ptcz",
        "stage_positions": [{"name": "a"}, {"name": "b", "sequence": {"z_plan": {"range": 2, "step": 1}}}],
        "channels": ["A", {"config": "A", "exposure": 5}, {"config": "B", "acquire_every": 2}],
        "time_plan": {"interval": 0, "loops": 3},
    }
    whole = run(SimulatedSource(width=64, height=48), **fields)
    assert {"channel": "A@5ms", "time": 0, "position": "a"} in [dict(frame[0]) for frame in whole]
    existing = [coordinates for number, (coordinates, _, _) in enumerate(whole) if number % 3]
    found = remaining(SimulatedSource(width=64, height=48), existing, **fields)
    assert [where for where, _ in found] == [frame[0] for frame in whole[::3]]
    for (_, pixels), (_, before, _) in zip(found, whole[::3], strict=True):
        assert (pixels == before).all()


def test_the_plan_is_that_of_all_frames_and_a_new_plan_leaves_out_none():
    source = SimulatedSource(width=64, height=48)
    assert len(remaining(source, [{"channel": "A"}], channels=["A", "B"])) == 1
    assert len(run(source, channels=["A", "B"])) == 2


def test_frames_are_left_out_after_a_plan_was_made():
    with pytest.raises(SourceError, match=r"call prepare\(sequence\) before skip"):
        SimulatedSource().skip([])


def events_without(existing, **fields):
    complete = CompleteEvents(useq.MDASequence(**fields))
    complete.skips = lambda event: dict(complete.coordinates(event)) in existing
    return list(complete.events(lambda _: Reference()))


def test_the_times_count_from_the_first_frame_that_is_left():
    fields = {"axis_order": "ptc", "channels": ["A"], "time_plan": {"interval": 10, "loops": 4}}
    fields["stage_positions"] = [{"name": "a"}, {"name": "b"}]
    existing = [{"position": "a", "time": t, "channel": "A"} for t in range(2)]
    existing += [{"position": "b", "time": t, "channel": "A"} for t in (0, 2)]
    events = events_without(existing, **fields)
    assert [(event.pos_name, event.index["t"], event.min_start_time, event.reset_event_timer) for event in events] == [
        ("a", 2, 0, True), ("a", 3, 10, False), ("b", 1, 0, True), ("b", 3, 20, False),
    ]  # fmt: skip


def test_the_first_frame_that_is_left_is_focused_and_shutters_close_before_a_gap():
    fields = {
        "stage_positions": [{"x": 0, "y": 0, "z": 5, "name": "a"}],
        "z_plan": {"range": 4, "step": 1},
        "time_plan": {"interval": 0, "loops": 2},
        "autofocus_plan": {"autofocus_motor_offset": 1, "axes": ("p",)},
        "keep_shutter_open_across": ("z",),
    }
    existing = [{"position": "a", "time": 0, "z": z} for z in (0, 1, 3)]
    events = events_without(existing, **fields)
    assert [event.action.type for event in events[:2]] == ["hardware_autofocus", "acquire_image"]
    assert sum(event.action.type == "hardware_autofocus" for event in events) == 1
    images = [event for event in events if event.action.type == "acquire_image"]
    assert [event.index["z"] for event in images] == [2, 4, 0, 1, 2, 3, 4]
    assert [event.keep_shutter_open for event in images] == [True, False, True, True, True, True, False]
