"""Nothing is left over: neither between the events of a run, nor after its end."""

import pytest
import useq
from demo_lab import SWITCHED_CAMERAS, timelapse
from watching import watched_core

from exengine.errors import SourceError


@pytest.fixture
def lab(make, write_config, adapters):
    """Make sources of a microscope with two cameras, two shutters and two focus drives."""
    return lambda **options: make(config=write_config(SWITCHED_CAMERAS), adapter_path=adapters, **options)


# -- between events ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "expected"), [({"exposure_ms": 12}, 12), ({}, 10)])
def test_an_event_without_exposure_has_that_of_the_option_or_of_the_start(
    make, frames, monkeypatch, option, expected
):
    log = watched_core(monkeypatch)
    source = make(**option)
    source.prepare(timelapse(2, channels=["FITC", {"config": "DAPI", "exposure": 50}]))
    source.run(frames)
    assert [seen.exposure_ms for seen in log] == [expected, 50, expected, 50]
    assert [meta["exposure_ms"] for _, _, meta in frames] == [expected, 50, expected, 50]


def test_an_event_without_exposure_has_that_of_the_option_in_sub_sequences(make, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = make(exposure_ms=12)
    places = [
        {
            "name": "a",
            "sequence": {
                "channels": [{"config": "DAPI", "exposure": 50}, "FITC"],
                "z_plan": {"range": 1, "step": 1},
            },
        },
        {"name": "b", "sequence": {"channels": ["Cy5"]}},
    ]
    source.prepare(useq.MDASequence(stage_positions=places))
    source.run(frames)
    assert [seen.exposure_ms for seen in log] == [50, 50, 12, 12, 12]


def test_a_burst_without_exposure_has_that_of_the_option(make, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = make(exposure_ms=12)
    sequence = timelapse(3, axis_order="pct", channels=[{"config": "DAPI", "exposure": 50}, "FITC"])
    source.prepare(sequence)
    source.run(frames)
    assert [seen.exposure_ms for seen in log] == [50, 12]
    assert [meta["exposure_ms"] for _, _, meta in frames] == [50] * 3 + [12] * 3


def test_the_exposure_of_a_preset_is_that_of_its_channel_alone(lab, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = lab(exposure_ms=12)
    source.prepare(timelapse(2, channels=["Slow", "Plain", {"config": "Bright", "exposure": 7}]))
    source.run(frames)
    assert [seen.exposure_ms for seen in log] == [30, 12, 7] * 2


def test_a_preset_leaves_no_property_behind_for_the_next(lab, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = lab()
    source.prepare(timelapse(2, channels=["Plain", "Bright"]))
    source.run(frames)
    assert [seen.gain for seen in log] == ["0", "5"] * 2


def test_a_position_without_z_is_at_the_focus_of_the_start(make, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = make(properties={"Z.Position": 15})
    places = [{"name": "b", "x": 0, "y": 0}, {"name": "a", "x": 0, "y": 0, "z": 40}]
    source.prepare(timelapse(2, stage_positions=places))
    source.run(frames)
    assert [seen.z_um for seen in log] == [15, 40, 15, 40]
    assert [meta["position"]["z_um"] for _, _, meta in frames] == pytest.approx([15, 40, 15, 40])


def test_a_position_without_x_and_y_is_where_the_stage_was_at_the_start(make, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = make()
    source.prepare(timelapse(2, stage_positions=[{"name": "b", "z": 1}, {"name": "a", "x": 30, "y": 20}]))
    source.run(frames)
    assert [(seen.x_um, seen.y_um) for seen in log] == [(0, 0), (30, 20)] * 2


def test_a_relative_stack_at_a_position_without_z_is_around_the_focus_of_the_start(make, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = make(properties={"Z.Position": 15})
    places = [
        {"name": "a", "z": 40},
        {"name": "b"},
        {"name": "c", "sequence": {"z_plan": {"range": 4, "step": 4}}},
    ]
    source.prepare(useq.MDASequence(z_plan={"range": 2, "step": 2}, stage_positions=places))
    source.run(frames)
    assert [seen.z_um for seen in log] == [39, 41, 14, 16, 13, 17]


def test_a_correction_by_autofocus_adds_to_the_focus_of_the_start(make, frames, monkeypatch):
    def fullFocus(self):
        self.setPosition(self.getPosition() + 2)

    log = watched_core(monkeypatch, fullFocus=fullFocus)
    source = make(properties={"Z.Position": 15})
    places = [{"name": "a", "x": 0, "y": 0}, {"name": "b", "x": 0, "y": 0, "z": 40}]
    source.prepare(timelapse(2, stage_positions=places, autofocus_plan={"axes": ("p",)}))
    source.run(frames)
    assert [seen.z_um for seen in log] == [17, 42, 19, 44]


def test_two_positions_at_one_place_keep_their_own_corrections(make, frames, monkeypatch):
    def fullFocus(self):
        self.setPosition(self.getPosition() + 2)

    log = watched_core(monkeypatch, fullFocus=fullFocus)
    source = make(properties={"Z.Position": 15})
    places = [{"name": name, "x": 0, "y": 0} for name in "ab"]
    source.prepare(
        useq.MDASequence(channels=["DAPI"], stage_positions=places, autofocus_plan={"axes": ("c",)})
    )
    source.run(frames)
    assert [seen.z_um for seen in log] == [17, 15]


def test_a_property_of_a_position_ends_with_the_position(lab, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = lab()
    places = [{"name": "a", "properties": [["Left", "Gain", "3"]]}, {"name": "b"}]
    source.prepare(timelapse(2, stage_positions=places))
    source.run(frames)
    assert [seen.gain for seen in log] == ["3", "0"] * 2


# -- the shutter ------------------------------------------------------------------------------------


def shutter_of(source):
    core = source._core
    return core.getAutoShutter(), core.getShutterOpen()


def fail(*frame):
    raise OSError("disk full")


@pytest.mark.parametrize("before", [False, True])
def test_after_a_complete_run_the_shutter_is_as_before(make, frames, before, monkeypatch):
    log = watched_core(monkeypatch)
    source = make()
    source.prepare(timelapse(2, z_plan={"range": 2, "step": 1}, keep_shutter_open_across=["z"]))
    source._core.setShutterOpen(before)
    source.run(frames)
    assert shutter_of(source) == (True, before)
    assert [bool(seen.open_shutters) for seen in log] == [True] * 6


@pytest.mark.parametrize("how", ["cancel", "storage", "device"])
def test_after_any_other_end_the_shutter_is_closed_and_autoshutter_restored(make, how, monkeypatch):
    def snapImage(self):
        if how == "device" and self.snapped:
            raise RuntimeError("camera unplugged")
        self.snapped = True
        super(type(self), self).snapImage()

    watched_core(monkeypatch, snapImage=snapImage, snapped=False)
    source = make()
    source.prepare(timelapse(2, z_plan={"range": 2, "step": 1}, keep_shutter_open_across=["z"]))
    source._core.setShutterOpen(True)
    if how == "cancel":
        source.run(lambda *frame: source.cancel())
    elif how == "storage":
        with pytest.raises(OSError, match="disk full"):
            source.run(fail)
    else:
        with pytest.raises(SourceError, match="camera unplugged"):
            source.run(lambda *frame: None)
    assert shutter_of(source) == (True, False)


def test_a_shutter_held_open_is_closed_when_a_channel_selects_another(lab, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = lab()
    source.prepare(useq.MDASequence(channels=["Plain", "Second"], keep_shutter_open_across=["c"]))
    source.run(frames)
    assert log[0].open_shutters == ("Shut",)
    assert (log[1].open_shutters, log[1].autoshutter) == ((), True)  # autoshutter opens Shut2 for the image
    core = source._core
    assert [core.getShutterOpen(label) for label in ("Shut", "Shut2")] == [False, False]


def test_a_channel_without_autoshutter_leaves_the_next_with_autoshutter(
    make, write_config, adapters, frames, monkeypatch
):
    log = watched_core(monkeypatch)
    config = write_config(SWITCHED_CAMERAS + "ConfigGroup,Channel,Manual,Core,AutoShutter,0\n")
    source = make(config=config, adapter_path=adapters)
    source.prepare(timelapse(2, channels=["Manual", "Plain"]))
    source.run(frames)
    assert [seen.autoshutter for seen in log] == [False, True] * 2
    assert shutter_of(source) == (True, False)


def test_a_shutter_held_open_is_closed_for_a_channel_without_autoshutter(
    make, write_config, adapters, frames, monkeypatch
):
    log = watched_core(monkeypatch)
    config = write_config(SWITCHED_CAMERAS + "ConfigGroup,Channel,Manual,Core,AutoShutter,0\n")
    source = make(config=config, adapter_path=adapters)
    source.prepare(useq.MDASequence(channels=["Plain", "Manual", "Bright"], keep_shutter_open_across=["c"]))
    source.run(frames)
    assert [(seen.open_shutters, seen.autoshutter) for seen in log] == [
        (("Shut",), False),
        ((), False),
        ((), True),
    ]
    assert shutter_of(source) == (True, False)


@pytest.mark.parametrize(
    "setup",
    [{"properties": [("Core", "AutoShutter", "0")]}, {"channel": "Manual"}],
    ids=["property", "preset"],
)
def test_a_setup_switches_autoshutter_for_the_whole_run(
    make, write_config, adapters, frames, monkeypatch, setup
):
    log = watched_core(monkeypatch)
    config = write_config(SWITCHED_CAMERAS + "ConfigGroup,Channel,Manual,Core,AutoShutter,0\n")
    source = make(config=config, adapter_path=adapters)
    source.prepare(useq.MDASequence(setup=setup, channels=["Plain", "Bright"]))
    source.run(frames)
    assert [seen.autoshutter for seen in log] == [False, False]
    assert shutter_of(source) == (True, False)


def test_every_shutter_that_the_run_used_is_closed_after_an_error(lab, monkeypatch):
    watched_core(monkeypatch)
    source = lab()
    source.prepare(
        useq.MDASequence(
            channels=["Second", "Plain"], z_plan={"range": 2, "step": 1}, keep_shutter_open_across=["z"]
        )
    )
    with pytest.raises(OSError, match="disk full"):
        source.run(fail)
    core = source._core
    assert core.getShutterDevice() == "Shut"
    assert [core.getShutterOpen(label) for label in ("Shut", "Shut2")] == [False, False]


def test_keep_shutter_open_works_with_sub_sequences(make, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = make()
    places = [{"name": "a", "sequence": {"z_plan": {"range": 2, "step": 1}}}, {"name": "b"}]
    source.prepare(useq.MDASequence(stage_positions=places, keep_shutter_open_across=["z"]))
    source.run(frames)
    assert [(bool(seen.open_shutters), seen.autoshutter) for seen in log] == [
        (True, False),
        (True, False),
        (True, False),
        (False, True),
    ]


# -- after the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("complete", [True, False])
def test_exposure_camera_roi_and_speeds_are_as_before_after_every_end(lab, frames, complete):
    source = lab()
    setup = {"roi": (0, 0, 64, 64), "exposure": 5, "properties": [["XY", "Velocity", "5"]]}
    sequence = useq.MDASequence(
        setup=setup, channels=[{"config": "OnLeft", "exposure": 20}, {"config": "OnRight", "exposure": 30}]
    )
    source.prepare(sequence)
    core = source._core
    if complete:
        source.run(frames)
        assert [image.shape for _, image, _ in frames] == [(64, 64), (512, 512)]
    else:
        with pytest.raises(OSError, match="disk full"):
            source.run(fail)
    assert core.getCameraDevice() == "Left"
    assert [core.getExposure(camera) for camera in ("Left", "Right")] == [10, 10]
    assert list(core.getROI("Left")) == [0, 0, 512, 512]
    assert float(core.getProperty("XY", "Velocity")) == 10


def test_what_could_not_be_restored_is_reported_by_name(lab, frames, monkeypatch):
    def setAutoShutter(self, state):
        if state and self.broken:
            raise RuntimeError("no answer")
        super(type(self), self).setAutoShutter(state)

    watched_core(monkeypatch, setAutoShutter=setAutoShutter, broken=False)
    source = lab()
    source.prepare(useq.MDASequence(z_plan={"range": 2, "step": 1}, keep_shutter_open_across=["z"]))

    def sink(*frame):
        source._core.broken = True
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        source.run(sink)
    assert any("autoshutter" in line and "no answer" in line for line in source.unrestored)
    assert source._core.getShutterOpen("Shut") is False


# -- more than one camera ---------------------------------------------------------------------------


def test_presets_that_select_a_camera_give_the_frames_that_were_planned(lab, frames):
    source = lab(exposure_ms=8, properties={"Right.PixelType": "16bit"})
    plan = source.prepare(timelapse(2, channels=["OnLeft", "OnBoth"]))
    source.run(frames)
    assert plan.frames == len(frames) == 6
    assert frames.coordinates[:3] == [
        {"time": 0, "channel": "OnLeft"},
        {"time": 0, "channel": "OnBoth", "camera": "Left"},
        {"time": 0, "channel": "OnBoth", "camera": "Right"},
    ]
    assert [meta["exposure_ms"] for _, _, meta in frames] == [8.0] * 6


def test_the_option_exposure_is_that_of_every_camera(lab, frames, monkeypatch):
    log = watched_core(monkeypatch)
    source = lab(exposure_ms=8)
    source.prepare(useq.MDASequence(channels=["OnLeft", "OnRight"]))
    source.run(frames)
    assert [(seen.camera, seen.exposure_ms) for seen in log] == [("Left", 8), ("Right", 8)]


def test_a_channel_that_names_a_camera_is_taken_with_it(lab, frames):
    source = lab()
    source.prepare(useq.MDASequence(channels=[{"config": "Plain", "camera": "Right"}, "Bright"]))
    source.run(frames)
    assert [meta["camera"] for _, _, meta in frames] == ["Right", "Left"]
    assert [str(image.dtype) for _, image, _ in frames] == ["uint8", "uint16"]


def test_the_plan_knows_the_frames_of_each_camera(lab):
    plan = lab().prepare(useq.MDASequence(channels=["OnRight"]))
    assert (plan.shape, plan.dtype) == ((512, 512), "uint8")
    plan = lab().prepare(useq.MDASequence(channels=["OnRight", "OnLeft"]))
    assert (plan.shape, plan.dtype) == (None, None)
    assert set(plan.layouts) == {((512, 512), "uint8"), ((512, 512), "uint16")}


def test_cameras_behind_one_device_that_give_different_frames_are_refused(lab):
    with pytest.raises(SourceError, match="'Both'.*same.*pixel type"):
        lab().prepare(useq.MDASequence(channels=["OnLeft", "OnBoth"]))


def test_an_exposure_that_the_second_camera_cannot_do_is_refused(lab, monkeypatch):
    def setExposure(self, *args):
        camera = args[0] if len(args) > 1 else self.getCameraDevice()
        super(type(self), self).setExposure(camera, min(args[-1], 20) if camera == "Right" else args[-1])

    watched_core(monkeypatch, setExposure=setExposure)
    with pytest.raises(SourceError, match="Right.*does not accept 50 ms"):
        lab().prepare(useq.MDASequence(channels=["OnLeft", {"config": "OnRight", "exposure": 50}]))
