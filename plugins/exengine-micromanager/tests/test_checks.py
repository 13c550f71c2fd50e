"""What is refused before anything moves, and what the messages say."""

import shutil
import subprocess
from pathlib import Path

import pytest
import useq
from demo_lab import CAMERA_ONLY, snaps, timelapse

from exengine.errors import SourceError


def refused(source, sequence=None) -> str:
    with pytest.raises(SourceError) as caught:
        source.prepare(sequence or timelapse(1))
    assert source._core is None
    return str(caught.value)


# -- config ---------------------------------------------------------------------------------------


def test_a_config_by_path_with_its_adapters_gives_frames(make, frames, adapters):
    source = make(config=str(Path(adapters) / "MMConfig_demo.cfg"), adapter_path=adapters)
    plan = source.prepare(snaps(2))
    source.run(frames)
    assert len(frames) == 2
    assert plan.summary["adapter_paths"] == [str(Path(adapters).resolve())]


def test_the_demo_ignores_another_micro_manager(make, frames, monkeypatch, tmp_path):
    monkeypatch.setenv("MICROMANAGER_PATH", str(tmp_path))
    source = make()
    source.prepare(snaps(1))
    source.run(frames)
    assert len(frames) == 1


def test_a_config_that_does_not_exist_is_named(make, tmp_path):
    message = refused(make(config=str(tmp_path / "none.cfg")))
    assert "none.cfg" in message and "does not exist" in message and "'demo'" in message


def test_a_folder_is_no_config(make, tmp_path):
    assert "is a folder" in refused(make(config=str(tmp_path)))


@pytest.mark.parametrize("content", [b"", b"Hello world\nfoo,bar\n", b"\x89PNG\r\n\x1a\n\x00\x00\xff"])
def test_a_file_that_is_no_config_is_told_so(make, tmp_path, content):
    path = tmp_path / "image.cfg"
    path.write_bytes(content)
    message = refused(make(config=str(path)))
    assert "not a Micro-Manager .cfg file" in message and "Device,Camera,DemoCamera,DCam" in message


def test_a_device_that_the_adapter_does_not_know_is_named(make, write_config, adapters):
    message = refused(make(config=write_config("Device,Cam,DemoCamera,NoSuch\n"), adapter_path=adapters))
    assert "Line 1" in message and "NoSuch" in message


def test_a_missing_adapter_says_where_was_looked_and_what_to_do(make, write_config, adapters):
    message = refused(make(config=write_config("Device,Cam,NoSuchAdapter,Cam\n"), adapter_path=adapters))
    assert "NoSuchAdapter" in message and adapters in message and "adapter_path" in message


@pytest.mark.skipif(shutil.which("cc") is None, reason="a C compiler builds the adapter of another version")
def test_an_adapter_of_another_device_interface_says_which_versions_meet(make, write_config, tmp_path):
    code = tmp_path / "old.c"
    code.write_text(
        "void InitializeModuleData(void) {} void *CreateDevice(const char *n) { return 0; }"
        "void DeleteDevice(void *d) {} long GetModuleVersion(void) { return 10; }"
        "long GetDeviceInterfaceVersion(void) { return 70; } unsigned GetNumberOfDevices(void) { return 0; }"
        "_Bool GetDeviceName(unsigned i, char *b, unsigned n) { return 0; }"
        "_Bool GetDeviceType(const char *n, int *t) { return 0; }"
        "_Bool GetDeviceDescription(const char *n, char *b, unsigned l) { return 0; }"
    )
    library = tmp_path / "libmmgr_dal_Old.so.0"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, code], check=True)
    message = refused(make(config=write_config("Device,Cam,Old,Cam\n"), adapter_path=str(tmp_path)))
    assert "75" in message and "70" in message and "mmcore install" in message


def test_an_adapter_path_that_is_no_folder_is_refused(make, tmp_path):
    assert "adapter_path" in refused(make(adapter_path=str(tmp_path / "none")))


def test_a_config_without_camera_is_refused(make, write_config, adapters):
    config = write_config("Device,Z,DemoCamera,DStage\nProperty,Core,Initialize,1\nProperty,Core,Focus,Z\n")
    assert "has no camera" in refused(make(config=config, adapter_path=adapters))


# -- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("Camra.Binning", 2, ["no device 'Camra'", "did you mean 'Camera'?", "'Objective'"]),
        ("Camera.Bining", 2, ["no property 'Bining'", "did you mean 'Binning'?", "'Gain'"]),
        ("Camera.Binning", 3, ["does not accept 3", "'1', '2', '4', '8'"]),
        ("Camera.Gain", 99, ["does not accept 99", "between -5 and 8"]),
        ("Camera.Gain", "much", ["must be a number", "'much'"]),
        ("Camera.Exposure", float("nan"), ["must be a number"]),
        ("Camera.CameraID", "x", ["is read-only"]),
        ("Camera.MaximumExposureMs", 5, ["when the device starts", ".cfg"]),
        ("Objective.Label", "Nikon 10X", ["did you mean 'Nikon 10X S Fluor'?"]),
    ],
)
def test_a_property_that_cannot_be_set_is_refused_with_what_can(make, name, value, parts):
    message = refused(make(properties={name: value}))
    assert name in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("Camera.Binning", 2, "2"),
        ("Camera.Binning", "4", "4"),
        ("Camera.BitDepth", 12.0, "12"),
        ("Camera.DisplayImageNumber", True, "1"),
        ("Camera.Photon Flux", 12.5, "12.5000"),
        ("White Light Shutter.State", 1, "1"),
        ("Objective.Label", "Nikon 20X Plan Fluor ELWD", "Nikon 20X Plan Fluor ELWD"),
    ],
)
def test_a_property_is_set_to_its_value(make, name, value, read):
    summary = make(properties={name: value}).prepare(timelapse(1)).summary
    label, _, prop = name.partition(".")
    device = next(device for device in summary["devices"] if device["label"] == label)
    assert device["properties"][prop] == read


def test_a_device_with_a_dot_in_its_label_is_found(make, write_config, adapters):
    config = "Device,Cam.1,DemoCamera,DCam\nProperty,Core,Initialize,1\nProperty,Core,Camera,Cam.1\n"
    source = make(config=write_config(config), adapter_path=adapters, properties={"Cam.1.Binning": 2})
    assert source.prepare(timelapse(1)).shape == (256, 256)


def test_an_exposure_that_the_camera_does_not_take_is_refused(make):
    message = refused(make(exposure_ms=20_000))
    assert "exposure_ms" in message and "uses 10 ms" in message


def test_an_exposure_of_a_channel_that_the_camera_does_not_take_is_refused(make):
    message = refused(make(), useq.MDASequence(channels=[{"config": "DAPI", "exposure": 20_000}]))
    assert "the sequence" in message and "uses 10 ms" in message


def test_trying_the_exposures_of_a_sequence_leaves_the_camera_as_it_was(make):
    summary = (
        make(exposure_ms=7).prepare(useq.MDASequence(channels=[{"config": "DAPI", "exposure": 3}])).summary
    )
    assert summary["exposure_ms"] == 7.0


# -- sequence -------------------------------------------------------------------------------------


def test_two_positions_of_one_name_are_refused_before_any_frame(make):
    places = [{"x": 0, "y": 0, "name": "A"}, {"x": 1, "y": 0, "name": "A"}]
    message = refused(make(), useq.MDASequence(stage_positions=places))
    assert "'A'" in message and "position" in message


def test_an_unknown_channel_is_refused_with_those_that_exist(make):
    message = refused(make(), useq.MDASequence(channels=["DAPI", "FITK"]))
    assert "'FITK'" in message and "did you mean 'FITC'?" in message and "'Rhodamine'" in message


def test_an_unknown_channel_group_is_refused_with_those_that_exist(make):
    message = refused(make(channel_group="Chanel"), useq.MDASequence(channels=["DAPI"]))
    assert "'Chanel'" in message and "did you mean 'Channel'" in message and "channel_group" in message


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"z_plan": {"range": 2, "step": 1}}, "focus drive"),
        ({"stage_positions": [(1, 2)]}, "XY stage"),
        ({"grid_plan": {"rows": 1, "columns": 2}}, "XY stage"),
        ({"channels": ["Good"], "autofocus_plan": {"axes": ("c",)}}, "autofocus device"),
    ],
)
def test_a_sequence_that_needs_a_device_that_is_not_there_is_refused(
    make, write_config, adapters, fields, missing
):
    source = make(config=write_config(CAMERA_ONLY), adapter_path=adapters)
    assert f"no {missing}" in refused(source, useq.MDASequence(**fields))


def test_a_refused_source_can_be_prepared_again(make, frames):
    source = make()
    refused(source, useq.MDASequence(channels=["NoSuch"]))
    source.prepare(snaps(1))
    source.run(frames)
    assert len(frames) == 1
