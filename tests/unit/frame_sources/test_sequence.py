"""From a useq sequence to coordinates: the names of the axes, and frames that would collide."""

import copy
import subprocess
import sys

import pytest
import useq

from exengine.frame_sources.sequence import check_unique, event_coordinates, parse_sequence
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import ConfigError, SourceError

# -- parse_sequence ------------------------------------------------------------------------------


def test_the_settings_of_a_config_file_make_a_sequence():
    sequence = parse_sequence(
        {
            "channels": ["DAPI", "FITC"],
            "time_plan": {"interval": 0, "loops": 10},
            "z_plan": {"range": 4, "step": 1},
        }
    )
    assert isinstance(sequence, useq.MDASequence)
    assert [channel.config for channel in sequence.channels] == ["DAPI", "FITC"]
    assert check_unique(sequence) == 100


def test_no_settings_make_a_sequence_of_no_frames():
    assert check_unique(parse_sequence({})) == 0


def test_the_settings_are_not_changed():
    settings = {"channels": ["DAPI"], "z_plan": {"range": 4, "step": 1}}
    parse_sequence(settings)
    assert settings == {"channels": ["DAPI"], "z_plan": {"range": 4, "step": 1}}


def test_a_misspelt_field_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ConfigError, match=r"sequence\.channel is not a field .*did you mean 'channels'\?"):
        parse_sequence({"channel": ["DAPI"]})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"time_plan": {"interval": 0, "loops": 10, "loop": 3}}, r"sequence\.time_plan\.loop .*'loops'"),
        ({"time_plan": [{"interval": 0, "loops": 1, "lops": 1}]}, r"sequence\.time_plan\[0\]\.lops .*'loops'"),
        ({"z_plan": {"range": 4, "step": 1, "top": 3}}, r"sequence\.z_plan\.top is not a field"),
        ({"channels": ["A", {"config": "B", "exposur": 5}]}, r"sequence\.channels\[1\]\.exposur .*'exposure'"),
        (
            {"stage_positions": [{"x": 0, "sequence": {"z_plan": {"range": 4, "step": 1, "stepp": 2}}}]},
            r"sequence\.stage_positions\[0\]\.sequence\.z_plan\.stepp .*'step'",
        ),
    ],
)  # fmt: skip
def test_a_misspelt_field_is_refused_at_any_depth(settings, says):
    with pytest.raises(ConfigError, match=says):
        parse_sequence(settings)


def test_what_useq_understands_is_taken_at_any_depth_and_the_settings_stay():
    settings = {
        "metadata": {"anything": {"at": "all"}},
        "time_plan": {"phases": [{"interval": 0, "loops": 2}, {"interval": {"seconds": 1}, "loops": 3}]},
        "stage_positions": [{"x": 0, "y": 0, "row": 1, "col": 2}, {"x": 1, "name": "A"}],
        "grid_plan": {"rows": 2, "columns": 2, "overlap": 10},
        "channels": ["A", {"config": "B", "group": "Channel", "exposure": 5}],
        "autofocus_plan": {"autofocus_motor_offset": 1, "axes": ["t"]},
    }
    before = copy.deepcopy(settings)
    sequence = parse_sequence(settings)
    assert len(sequence.channels) == 2 and len(sequence.stage_positions) == 2
    assert settings == before


def test_every_unknown_field_is_named():
    with pytest.raises(ConfigError, match=r"sequence\.aaa .*sequence\.bbb"):
        parse_sequence({"bbb": 1, "aaa": 2})


@pytest.mark.parametrize("settings", [{1: 2}, {1: 2, "channels": []}, {None: 1, "a": 2}])
def test_a_field_whose_name_is_no_text_is_refused_like_any_unknown_field(settings):
    with pytest.raises(ConfigError, match=r"sequence\."):
        parse_sequence(settings)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"channels": 3}, "sequence.channels"),
        ({"channels": [{"exposure": 1}]}, "sequence.channels"),
        ({"z_plan": {"range": "much"}}, "sequence.z_plan"),
        ({"time_plan": {"interval": 0, "loops": -1}}, "sequence.time_plan"),
        ({"stage_positions": [{"x": "left"}]}, "sequence.stage_positions"),
        ({"axis_order": "tpq"}, "sequence"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(settings, where):
    with pytest.raises(ConfigError) as caught:
        parse_sequence(settings)
    assert str(caught.value).startswith(where)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"channels": []}, r"^sequence\.channels is empty; write it like channels: \[DAPI"),
        (
            {"time_plan": {"intervall": 0, "loops": 3}},
            r"'intervall' is not a field \(did you mean 'interval'\?\); write it like time_plan: ",
        ),
        (
            {"time_plan": [{"interval": 1, "loops": 2}, {"interval": 1, "lops": 2}]},
            r"'lops' is not a field \(did you mean 'loops'\?\)",
        ),
        ({"z_plan": {"range": 4, "stp": 1}}, r"'stp' is not a field \(did you mean 'step' or 'top'\?\)"),
        (
            {"grid_plan": {"rows": 2, "colums": 2}},
            r"^sequence\.grid_plan\.colums is not a field of sequence\.grid_plan \(did you mean 'columns'\?\)$",
        ),
        ({"time_plan": {"loops": 3}}, r"field required; write it like time_plan: "),
        ({"autofocus_plan": {}}, r"autofocus_plan is empty; write it like autofocus_plan: \{axes: .*leave it out$"),
        ({"time_plan": {}}, r"^sequence\.time_plan is empty"),
        ({"z_plan": {}, "channels": ["A"]}, r"^sequence\.z_plan is empty"),
        ({"stage_positions": []}, r"^sequence\.stage_positions is empty"),
        ({"axis_order": "zp", "z_plan": {"range": 2, "step": 1}, "stage_positions": [{"x": 0, "sequence": {"z_plan": {"range": 1, "step": 1}}}]}, r"^sequence: 'z' cannot precede"),
        ({"time_plan": {"interval": 0, "duration": 3}}, r"interval|time_plan"),
        ({"stage_positions": [{"x": 5, "y": 0}], "grid_plan": {"top": 1, "left": 0, "bottom": 0, "right": 1}}, r"^sequence: Position x=5.* is ignored .*Leave out one"),
        ({"stage_positions": [[0, 1, 2, 3]]}, r"stage_positions"),
    ],
)  # fmt: skip
def test_what_would_have_no_effect_is_refused_with_what_to_write(settings, says):
    from exengine.frame_sources.sequence_checks import check_sequence

    with pytest.raises((ConfigError, SourceError), match=says):
        check_sequence(parse_sequence(settings))


def test_positions_may_be_lists_at_any_depth():
    sequence = parse_sequence({"stage_positions": [[0, 0, 0], [10, 20], {"name": "a"}]})
    assert [(p.x, p.y, p.z) for p in sequence.stage_positions] == [
        (0, 0, 0),
        (10, 20, None),
        (None, None, None),
    ]


def test_a_sequence_with_setup_is_read_and_counted():
    assert check_unique(parse_sequence({"setup": {"exposure": 5}, "channels": ["A"]})) == 1


def test_two_faults_are_both_told():
    with pytest.raises(ConfigError, match="channels") as caught:
        parse_sequence({"channels": 3, "time_plan": {"interval": 0, "loops": -1}})
    assert "time_plan" in str(caught.value)


# -- event_coordinates ---------------------------------------------------------------------------


def test_the_axes_of_useq_get_the_names_of_the_field():
    event = useq.MDAEvent(index={"t": 1, "p": 2, "c": 0, "z": 3}, channel="DAPI", pos_name="A1")
    coordinates = event_coordinates(event)
    assert coordinates == DataCoordinates(time=1, position="A1", channel="DAPI", z=3)
    assert list(coordinates) == ["time", "position", "channel", "z"]


def test_a_position_without_a_name_and_a_channel_without_one_are_numbers():
    assert event_coordinates(useq.MDAEvent(index={"p": 2, "c": 1})) == {"position": 2, "channel": 1}
    assert event_coordinates(useq.MDAEvent(index={"p": 2}, pos_name="")) == {"position": 2}


def test_other_axes_keep_their_names():
    assert event_coordinates(useq.MDAEvent(index={"g": 4, "angle": 5})) == {"g": 4, "angle": 5}


def test_a_channel_that_is_not_in_the_index_is_no_axis():
    assert event_coordinates(useq.MDAEvent(index={"t": 0}, channel="DAPI", pos_name="A1")) == {"time": 0}


def test_an_event_without_an_index_has_no_axes():
    assert event_coordinates(useq.MDAEvent()) == {}


def test_a_grid_inside_a_position_gives_an_axis_with_a_plain_name():
    sequence = useq.MDASequence(
        stage_positions=[
            {"x": 0, "y": 0, "name": "A1", "sequence": {"grid_plan": {"rows": 1, "columns": 2}}},
            {"x": 9, "y": 9, "name": "B1"},
        ]
    )
    coordinates = [event_coordinates(event) for event in sequence]
    assert coordinates == [{"position": "A1", "g": 0}, {"position": "A1", "g": 1}, {"position": "B1"}]
    assert all(type(axis) is str for one in coordinates for axis in one)


# -- check_unique --------------------------------------------------------------------------------


def test_check_unique_returns_the_number_of_frames():
    sequence = useq.MDASequence(
        channels=["DAPI", "FITC"],
        stage_positions=[{"x": 0, "name": "A1"}, (1, 2, 3)],
        z_plan={"range": 2, "step": 1},
        time_plan={"interval": 5, "loops": 2},
    )
    assert check_unique(sequence) == 2 * 2 * 3 * 2


@pytest.mark.parametrize(
    ("settings", "axis"),
    [
        ({"stage_positions": [{"x": 0, "name": "A"}, {"x": 1, "name": "A"}]}, "position"),
        ({"channels": ["DAPI", {"config": "DAPI", "group": "Other"}]}, "channel"),
        (
            {"stage_positions": [{"x": 0, "name": "A"}, {"x": 1, "name": "A"}], "channels": ["DAPI", "FITC"]},
            "position",
        ),
    ],
)
def test_a_name_used_twice_is_refused_with_its_axis_and_a_way_out(settings, axis):
    advice = "use each channel only once" if axis == "channel" else "give each position a unique name"
    with pytest.raises(SourceError, match=f"a name occurs twice along {axis}; {advice}") as caught:
        check_unique(useq.MDASequence(**settings))
    assert "DAPI" in str(caught.value) or "'A'" in str(caught.value)


def test_a_position_named_like_the_number_of_another_is_not_the_same():
    assert check_unique(useq.MDASequence(stage_positions=[{"x": 0, "name": "1"}, (1, 2, 3)])) == 2


def test_an_autofocus_event_is_no_frame_and_collides_with_none():
    sequence = useq.MDASequence(
        time_plan={"interval": 0, "loops": 3},
        autofocus_plan={"autofocus_device_name": "Z", "autofocus_motor_offset": 4, "axes": ("t",)},
    )
    assert sum(event.action.type != "acquire_image" for event in sequence) > 0
    assert check_unique(sequence) == 3


def test_the_module_does_not_import_useq():
    code = (
        "import sys, exengine.frame_sources.sequence; print('useq' in sys.modules, 'pydantic' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["False", "False"]
