"""Sequences that are refused before anything moves, each by a rule of the page of the source."""

import math

import pytest
import useq
from demo_lab import CAMERA_ONLY, SWITCHED_CAMERAS, timelapse
from watching import watched_core

from exengine.errors import SourceError

PLACES = [{"x": 0, "y": 0, "name": "a"}, {"x": 10, "y": 0, "name": "b"}]


def position(**fields):
    return {"stage_positions": [{"x": 0, "y": 0, "name": "a", **fields}]}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"z_plan": {"top": 0, "bottom": 10, "step": 1}}, "z_plan.*no position.*bottom"),
        ({"z_plan": {"top": 10, "bottom": 0, "step": -1}}, "z_plan.*step"),
        ({"z_plan": {"range": -4, "step": 1}}, "z_plan"),
        ({"z_plan": {"range": 4, "step": 0}}, "z_plan.*step"),
        ({"z_plan": {"relative": []}}, "z_plan"),
        ({"axis_order": "tc", "channels": ["DAPI"], "z_plan": {"range": 4, "step": 1}}, "axis_order.*'z'"),
        ({}, "no frame"),
        ({"stage_positions": {"plate": "96-well", "a1_center_xy": [0, 0]}}, "selected_wells"),
        ({"time_plan": {"phases": []}}, "time_plan.*phases"),
        ({"time_plan": {"interval": -1, "loops": 3}}, "interval.*-1"),
        ({"time_plan": {"interval": 0, "duration": 3}}, "time_plan.*interval.*loops"),
        ({"time_plan": {"duration": 3, "loops": 1}}, "time_plan.*loops"),
        ({"time_plan": {"interval": 1, "loops": 3, "prioritize_duration": True}}, "prioritize_duration"),
        ({"channels": [{"config": "DAPI", "camera": "NoSuchCamera"}]}, "NoSuchCamera.*camera"),
        ({"channels": [{"config": "DAPI", "camera": "Z"}]}, "'Z'.*camera"),
        ({"channels": ["DAPI"], "autofocus_plan": {"axes": ["q"]}}, "autofocus_plan.*'q'"),
        ({"channels": ["DAPI"], "autofocus_plan": {"axes": ["t"]}}, "autofocus_plan.*'t'"),
        ({"channels": ["DAPI"], "keep_shutter_open_across": ["q"]}, "keep_shutter_open_across.*'q'"),
        ({"channels": ["DAPI"], "autofocus_plan": {"axes": ["c"], "autofocus_device_name": "Nope", "autofocus_motor_offset": 1}}, "Nope"),
        ({"channels": ["DAPI"], "autofocus_plan": {"axes": ["c"], "autofocus_device_name": "Z"}}, "autofocus_motor_offset"),
        (position(properties=[["Piezo", "Position", 5]]), "'Piezo'"),
        (position(properties=[["Z", "Position", "high"]]), "high"),
        (position(properties=[["XY", "Position", 5]]), r"XY.*\[x, y\]"),
        (position(properties=[["Camera", "Binning", "3"]]), "Binning.*3"),
        (position(properties=[["Camera", "NoProperty", "3"]]), "NoProperty"),
        (position(properties=[["Z", "Position", 5]], z=1), "Z.*specify z in the position"),
        (position(x=math.nan), "stage_positions.*nan"),
        (position(z=math.inf), "stage_positions.*inf"),
        ({"channels": [{"config": "DAPI", "exposure": math.inf}]}, "exposure.*inf"),
        ({"channels": [{"config": "DAPI", "z_offset": math.nan}]}, "z_offset.*nan"),
        ({"z_plan": {"relative": [0, math.nan]}}, "z_plan.*nan"),
        ({"channels": ["DAPI"], "setup": {"exposure": math.inf}}, "setup.*inf"),
        ({"channels": ["DAPI"], "setup": {"min_start_time": 3}}, "setup.*min_start_time"),
        ({"channels": ["DAPI"], "setup": {"action": {"type": "custom", "name": "bleach"}}}, "setup.*action"),
        ({"channels": ["DAPI"], "setup": {"properties": [["Camera", "Binning", "3"]]}}, "Binning"),
        ({"channels": ["DAPI"], "setup": {"roi": (0, 0, 1000, 10)}}, "roi.*512"),
        ({"channels": ["DAPI"], "setup": {"channel": {"config": "NoChannel"}}}, "NoChannel"),
        (position(sequence={"channels": ["DAPI"], "setup": {"exposure": 5}}), "setup"),
        (position(sequence={"metadata": {"a": 1}}), "sequence.*neither an axis"),
        ({"stage_positions": {"plate": "96-well", "a1_center_xy": [0, 0], "selected_wells": [[0], [0]], "well_points_plan": {"x": 1, "properties": [["Camera", "Gain", "1"]]}}}, "well_points_plan.*properties"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_out_is_refused_before_anything_moves(make, monkeypatch, fields, says):
    moves = []
    watched_core(
        monkeypatch,
        setXYPosition=lambda self, *args: moves.append(args),
        setPosition=lambda self, *args: moves.append(args),
    )
    sequence = useq.MDASequence(**fields)
    with pytest.raises(SourceError, match=says):
        make().prepare(sequence)
    assert moves == []


def test_a_grid_needs_a_field_of_view(make, write_config, adapters):
    text = SWITCHED_CAMERAS.replace("PixelSize_um", "# ").replace("ConfigPixelSize", "# ")
    source = make(config=write_config(text), adapter_path=adapters)
    grid = {"rows": 1, "columns": 2}
    with pytest.raises(SourceError, match="field of view.*fov_width"):
        source.prepare(useq.MDASequence(grid_plan=grid))
    assert source.prepare(useq.MDASequence(grid_plan={**grid, "fov_width": 5, "fov_height": 5})).frames == 2


def test_keeping_a_shutter_open_needs_a_shutter_and_autoshutter(make, write_config, adapters):
    stack = {"z_plan": {"range": 2, "step": 1}, "keep_shutter_open_across": ["z"]}
    no_shutter = (
        CAMERA_ONLY.replace("Device,Camera,", "Device,Z,DemoCamera,DStage\nDevice,Camera,")
        + "Property,Core,Focus,Z\n"
    )
    no_autoshutter = SWITCHED_CAMERAS.replace("AutoShutter,1", "AutoShutter,0")
    for text, says in ((no_shutter, "needs a shutter"), (no_autoshutter, "autoshutter")):
        source = make(config=write_config(text), adapter_path=adapters)
        with pytest.raises(SourceError, match=f"keep_shutter_open_across.*{says}"):
            source.prepare(useq.MDASequence(**stack))
    manual = {"properties": [("Core", "AutoShutter", "0")]}
    automatic = {"properties": [("Core", "AutoShutter", "1")]}
    with pytest.raises(SourceError, match="no effect while autoshutter is off"):
        make(config=write_config(SWITCHED_CAMERAS), adapter_path=adapters).prepare(
            useq.MDASequence(**stack, setup=manual)
        )
    assert source.prepare(useq.MDASequence(**stack, setup=automatic)).frames == 3


TWO_DRIVES = (
    SWITCHED_CAMERAS
    + """\
ConfigGroup,Channel,Coarse,Core,Focus,Z
ConfigGroup,Channel,Fine,Core,Focus,Piezo
"""
)
ON_PIEZO = {"properties": [("Core", "Focus", "Piezo")]}


@pytest.mark.parametrize("setup", [ON_PIEZO, {"channel": "Fine"}], ids=["property", "preset"])
def test_the_drive_that_a_sequence_moves_is_the_one_that_its_setup_selects(
    make, write_config, adapters, frames, monkeypatch, setup
):
    log = watched_core(monkeypatch)
    source = make(config=write_config(TWO_DRIVES), adapter_path=adapters)
    places = [{"z": 4, "properties": [["Z", "Position", 9]]}, {"z": 6}]
    source.prepare(useq.MDASequence(setup=setup, channels=["Fine"], stage_positions=places))
    source.run(frames)
    assert [seen.z_um for seen in log] == [4, 6]
    assert source._core.getPosition("Piezo") == pytest.approx(6)
    stack = {"z_plan": {"range": 2, "step": 1}}
    for fields, says in (
        ({"channels": ["Coarse"]}, "channel 'Coarse' selects the device 'Z' as Focus, but .* moves 'Piezo'"),
        (
            {"stage_positions": [{"properties": [["Core", "Focus", "Z"]]}]},
            "a position selects the device 'Z'",
        ),
        ({"stage_positions": [{"properties": [["Piezo", "Position", 5]]}]}, "set Piezo.Position"),
    ):
        with pytest.raises(SourceError, match=says):
            source.prepare(useq.MDASequence(**stack, **fields, setup=setup))


def test_a_drive_or_shutter_that_only_the_setup_or_a_position_selects_is_enough(make, write_config, adapters):
    text = TWO_DRIVES.replace("Property,Core,Focus,Z\n", "").replace("Core,Shutter,Shut\n", "Core,Shutter,\n")
    stack = {"z_plan": {"range": 2, "step": 1}}
    source = make(config=write_config(text), adapter_path=adapters)
    with pytest.raises(SourceError, match="no focus drive"):
        source.prepare(useq.MDASequence(**stack))
    assert source.prepare(useq.MDASequence(**stack, setup=ON_PIEZO)).frames == 3
    kept = {**stack, "setup": ON_PIEZO, "keep_shutter_open_across": ["z"]}
    with pytest.raises(SourceError, match="needs a shutter"):
        source.prepare(useq.MDASequence(**kept))
    places = [{"properties": [["Core", "Shutter", "Shut2"]]}]
    assert source.prepare(useq.MDASequence(**kept, stage_positions=places)).frames == 3


# -- and what is carried out --------------------------------------------------------------------------


def test_a_plate_does_not_move_the_focus(make, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = make(properties={"Z.Position": 25})
    plate = {
        "plate": "96-well",
        "a1_center_xy": [0, 0],
        "selected_wells": [[0], [0]],
        "well_points_plan": {"rows": 1, "columns": 2},
    }
    plan = source.prepare(useq.MDASequence(stage_positions=plate))
    source.run(frames)
    assert plan.frames == 2
    assert [seen.z_um for seen in log] == [25, 25]
    assert [(seen.x_um, seen.y_um) for seen in log] == [(-256, 0), (256, 0)]


def test_a_stated_field_of_view_is_that_of_the_grid(make, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = make()
    source.prepare(useq.MDASequence(grid_plan={"rows": 1, "columns": 2, "fov_width": 100, "fov_height": 100}))
    source.run(frames)
    assert [seen.x_um for seen in log] == [-50, 50]


def test_the_offset_of_a_channel_moves_the_focus_without_a_stack_too(make, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = make(properties={"Z.Position": 25})
    source.prepare(timelapse(2, channels=["DAPI", {"config": "FITC", "z_offset": 3}]))
    source.run(frames)
    assert [seen.z_um for seen in log] == [25, 28] * 2


def test_setup_is_carried_out_before_the_first_event(make, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = make()
    setup = {"exposure": 5, "roi": (0, 0, 32, 16), "z_pos": 7, "properties": [["Camera", "Gain", "2"]]}
    plan = source.prepare(useq.MDASequence(channels=["DAPI", {"config": "FITC", "z_offset": 1}], setup=setup))
    source.run(frames)
    assert plan.shape == (16, 32)
    assert [image.shape for _, image, _ in frames] == [(16, 32)] * 2
    assert [(seen.exposure_ms, seen.z_um) for seen in log] == [(5, 7), (5, 8)]


def test_a_preset_taken_with_two_exposures_has_coordinates_for_each(make, frames):
    source = make(exposure_ms=10)
    source.prepare(useq.MDASequence(channels=["DAPI", {"config": "DAPI", "exposure": 50}, "FITC"]))
    source.run(frames)
    assert frames.coordinates == [{"channel": "DAPI@10ms"}, {"channel": "DAPI@50ms"}, {"channel": "FITC"}]


def test_every_rule_stands_in_the_table_of_the_page():
    from importlib.resources import files

    from exengine.base_classes import SEQUENCE_RULES
    from exengine_micromanager.plan_checks import DEVICE_RULES

    page = (files("exengine_micromanager") / "docs" / "micromanager.rst").read_text()
    assert [rule for rule in {**SEQUENCE_RULES, **DEVICE_RULES} if f"   * - {rule}\n" not in page] == []
