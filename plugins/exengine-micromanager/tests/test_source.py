"""Runs on the demo microscope: what arrives, and how a run ends."""

import json
import math
import subprocess
import sys
import threading

import numpy as np
import pytest
import useq
from demo_lab import CAMERA_ONLY, TWO_CAMERAS, snaps, timelapse

from exengine.errors import OptionError, SourceError
from exengine_micromanager import MicroManagerSource
from exengine_micromanager import engine as engine_module


def strict_json(value):
    return json.loads(json.dumps(value, allow_nan=False))


# -- frames ---------------------------------------------------------------------------------------


def test_every_frame_of_channels_z_and_time_arrives_in_order_at_its_coordinates(make, frames):
    source = make(properties={"Camera.Mode": "Noise"})
    plan = source.prepare(timelapse(3, channels=["DAPI", "FITC"], z_plan={"range": 4, "step": 1}))
    source.run(frames)
    assert frames.coordinates == [
        {"time": t, "channel": c, "z": z} for t in range(3) for c in ("DAPI", "FITC") for z in range(5)
    ]
    assert (plan.frames, plan.shape, plan.dtype) == (30, (512, 512), "uint16")
    assert all(image.shape == plan.shape and image.dtype == plan.dtype for _, image, _ in frames)
    assert len({image.tobytes() for _, image, _ in frames}) == 30


def test_each_frame_owns_its_pixels(make, frames):
    source = make()
    source.prepare(timelapse(3))
    source.run(frames)
    images = [image for _, image, _ in frames]
    before = [image.copy() for image in images[1:]]
    images[0][:] = 0
    assert all(np.array_equal(image, old) for image, old in zip(images[1:], before, strict=True))


def test_metadata_of_a_snapped_frame_says_what_was_asked_for_and_what_was_set(make, frames):
    source = make(exposure_ms=7)
    source.prepare(
        useq.MDASequence(channels=["FITC"], stage_positions=[{"x": 5, "y": -3, "z": 2, "name": "A"}])
    )
    source.run(frames)
    (_, _, metadata) = frames[0]
    assert metadata == strict_json(metadata)
    assert metadata["camera"] == "Camera"
    assert metadata["exposure_ms"] == 7.0
    assert metadata["pixel_size_um"] == 1.0
    assert metadata["position"] == pytest.approx({"x_um": 5.0, "y_um": -3.0, "z_um": 2.0}, abs=0.02)
    assert metadata["properties"]["Emission"] == {"Label": "Chroma-HQ535"}
    assert metadata["hardware_triggered"] is False
    assert metadata["runner_time_ms"] > 0
    assert metadata["received_at"].endswith("+00:00")
    assert metadata["event"]["pos_name"] == "A"
    assert metadata["event"]["channel"] == {"config": "FITC", "group": "Channel"}


def test_metadata_of_a_burst_keeps_the_tags_of_the_camera(make, frames):
    source = make()
    source.prepare(timelapse(3))
    source.run(frames)
    metadata = [strict_json(meta) for _, _, meta in frames]
    assert [meta["camera_metadata"]["ImageNumber"] for meta in metadata] == ["0", "1", "2"]
    assert all(meta["hardware_triggered"] for meta in metadata)
    assert [meta["runner_time_ms"] for meta in metadata] == sorted(
        meta["runner_time_ms"] for meta in metadata
    )


def test_positions_are_called_by_their_names_and_else_numbered(make, frames):
    source = make()
    source.prepare(useq.MDASequence(stage_positions=[{"x": 0, "y": 0, "name": "Well A1"}, (10, 0)]))
    source.run(frames)
    assert frames.coordinates == [{"position": "Well A1"}, {"position": 1}]


@pytest.mark.parametrize(
    ("pixel_type", "shape", "dtype"),
    [
        ("8bit", (512, 512), "uint8"),
        ("16bit", (512, 512), "uint16"),
        ("32bit", (512, 512), "uint32"),
        ("32bitRGB", (512, 512, 3), "uint8"),
        ("64bitRGB", (512, 512, 3), "uint16"),
    ],
)
@pytest.mark.parametrize("sequence", [snaps(2), timelapse(2)], ids=["snapped", "burst"])
def test_frames_have_the_planned_shape_and_dtype(make, frames, pixel_type, shape, dtype, sequence):
    source = make(properties={"Camera.PixelType": pixel_type})
    plan = source.prepare(sequence)
    source.run(frames)
    assert (plan.shape, plan.dtype) == (shape, dtype)
    for _, image, _ in frames:
        assert (image.shape, str(image.dtype), image.flags.c_contiguous) == (shape, dtype, True)


@pytest.mark.parametrize("sequence", [snaps(1), timelapse(2)], ids=["snapped", "burst"])
def test_colours_are_in_the_order_red_green_blue(make, frames, sequence):
    source = make(properties={"Camera.PixelType": "32bitRGB", "Camera.Mode": "Color Test Pattern"})
    source.prepare(sequence)
    memory = bgra(source)
    source.run(frames)
    image = frames[0][1]
    assert memory[..., 0].any() and not np.array_equal(memory[..., 0], memory[..., 2])
    assert np.array_equal(image[..., 0], memory[..., 2])
    assert np.array_equal(image[..., 1], memory[..., 1])
    assert np.array_equal(image[..., 2], memory[..., 0])


def bgra(source):
    """The test pattern as it lies in the memory of the camera: blue, green, red, nothing."""
    core = source._core
    core.snapImage()
    return core.getImage(fix=False).view(np.uint8).reshape(512, 512, 4).copy()


def test_two_cameras_behind_one_device_give_an_axis_of_their_own(make, frames, write_config, adapters):
    source = make(config=write_config(TWO_CAMERAS), adapter_path=adapters)
    plan = source.prepare(timelapse(2, interval=0.001))
    source.run(frames)
    assert plan.frames == 4
    assert frames.coordinates == [
        {"time": t, "camera": camera} for t in range(2) for camera in ("Left", "Right")
    ]


def test_a_relative_stack_starts_where_the_focus_is(make, frames):
    source = make(properties={"Z.Position": 50})
    source.prepare(useq.MDASequence(z_plan={"range": 2, "step": 1}))
    source.run(frames)
    assert [meta["position"]["z_um"] for _, _, meta in frames] == pytest.approx([49, 50, 51])
    assert [meta["event"]["z_pos"] for _, _, meta in frames] == [49, 50, 51]


def test_a_relative_stack_at_a_position_with_z_starts_at_that_z(make, frames):
    source = make(properties={"Z.Position": 50})
    source.prepare(useq.MDASequence(z_plan={"range": 2, "step": 1}, stage_positions=[(0, 0, 10), (0, 0)]))
    source.run(frames)
    assert [meta["event"]["z_pos"] for _, _, meta in frames] == [9, 10, 11, 49, 50, 51]


def test_an_absolute_stack_stays_where_it_is(make, frames):
    source = make(properties={"Z.Position": 50})
    source.prepare(useq.MDASequence(z_plan={"top": 3, "bottom": 1, "step": 1}))
    source.run(frames)
    assert [meta["event"]["z_pos"] for _, _, meta in frames] == [1, 2, 3]


def test_a_grid_is_laid_with_the_field_of_view_around_the_stage(make, frames):
    source = make()
    plan = source.prepare(useq.MDASequence(grid_plan={"top": 1000, "left": 0, "bottom": 0, "right": 1000}))
    source.run(frames)
    assert plan.frames == len(frames) == 4


def test_the_first_autofocus_step_is_not_lost(make, frames, monkeypatch):
    focused = []

    class Recording(engine_module.CarefulCore):
        def fullFocus(self):
            focused.append(self.getCurrentConfig("Channel"))

    monkeypatch.setattr(engine_module, "CarefulCore", Recording)
    source = make()
    sequence = useq.MDASequence(channels=["DAPI"], autofocus_plan={"axes": ("c",)})
    list(sequence)  # as a program does that counts the events first
    plan = source.prepare(sequence)
    source.run(frames)
    assert (plan.frames, len(frames), len(focused)) == (1, 1, 1)


def test_channels_without_a_group_take_the_group_of_the_config(make, frames, write_config, adapters):
    source = make(config=write_config(CAMERA_ONLY), adapter_path=adapters)
    plan = source.prepare(useq.MDASequence(channels=["Good"]))
    source.run(frames)
    assert frames.coordinates == [{"channel": "Good"}]
    assert frames[0][2]["properties"] == {"Camera": {"Gain": "1", "Binning": "1"}}
    assert plan.shape == (512, 512)


def test_the_option_channel_group_says_where_channels_are(make, frames):
    source = make(channel_group="Channel-Multiband")
    places = [{"x": 0, "y": 0, "sequence": {"channels": ["Cy5"]}}]
    source.prepare(useq.MDASequence(channels=["DAPI", {"config": "FITC", "group": "Channel"}]))
    source.run(frames)
    source.prepare(useq.MDASequence(stage_positions=places))
    source.run(frames)
    groups = [meta["event"]["channel"]["group"] for _, _, meta in frames]
    assert groups == ["Channel-Multiband", "Channel", "Channel-Multiband"]


def test_the_plan_claims_no_shape_where_a_channel_changes_it(make, frames, write_config, adapters):
    source = make(config=write_config(CAMERA_ONLY), adapter_path=adapters)
    plan = source.prepare(useq.MDASequence(channels=["Good", "Binned"]))
    source.run(frames)
    assert plan.shape is None and plan.dtype is None
    assert [image.shape for _, image, _ in frames] == [(512, 512), (256, 256)]


def test_the_summary_describes_the_microscope_and_is_json(make):
    sequence = timelapse(2, channels=["DAPI"], metadata={"operator": "me", "drift": math.nan})
    summary = make(exposure_ms=5).prepare(sequence).summary
    assert summary == strict_json(summary)
    assert summary["camera"] == "Camera"
    assert summary["pixel_size_um"] == 1.0
    assert summary["exposure_ms"] == 5.0
    assert summary["channel_group"] == "Channel"
    assert summary["config"] == "demo"
    assert summary["versions"]["mmcore"].startswith("MMCore version")
    camera = next(device for device in summary["devices"] if device["label"] == "Camera")
    assert (camera["adapter"], camera["name"], camera["type"]) == ("DemoCamera", "DCam", "Camera")
    assert camera["properties"]["Binning"] == "1"
    assert summary["sequence"]["channels"] == [{"config": "DAPI"}]
    assert summary["sequence"]["metadata"] == {"operator": "me", "drift": None}


def test_the_sequence_of_the_caller_is_not_changed(make, frames):
    sequence = useq.MDASequence(channels=["DAPI"], grid_plan={"rows": 1, "columns": 2})
    before = sequence.model_dump()
    source = make(channel_group="Channel-Multiband")
    source.prepare(sequence)
    source.run(frames)
    assert sequence.model_dump() == before


# -- how a run ends -------------------------------------------------------------------------------


@pytest.mark.parametrize("sequence", [snaps(20), timelapse(20)], ids=["snapped", "burst"])
def test_an_error_of_the_sink_ends_the_run_and_leaves_it_as_it_is(make, sequence):
    error = OSError("disk full")
    calls = []

    def sink(*frame):
        calls.append(frame)
        if len(calls) == 3:
            raise error

    source = make()
    source.prepare(sequence)
    with pytest.raises(OSError, match="disk full") as caught:
        source.run(sink)
    assert caught.value is error
    assert len(calls) == 3


def test_after_an_error_the_other_camera_of_the_same_event_is_not_delivered(make, write_config, adapters):
    calls = []

    def sink(*frame):
        calls.append(frame)
        raise OSError("disk full")

    source = make(config=write_config(TWO_CAMERAS), adapter_path=adapters)
    source.prepare(timelapse(2, interval=0.001))
    with pytest.raises(OSError, match="disk full"):
        source.run(sink)
    assert len(calls) == 1


def test_an_interrupt_in_the_sink_ends_the_run(make):
    calls = []

    def sink(*frame):
        calls.append(frame)
        raise KeyboardInterrupt

    source = make()
    source.prepare(snaps(20))
    with pytest.raises(KeyboardInterrupt):
        source.run(sink)
    assert len(calls) == 1


@pytest.mark.parametrize("sequence", [snaps(20), timelapse(20)], ids=["snapped", "burst"])
def test_a_cancel_while_the_sink_blocks_ends_the_run_without_error_or_further_frames(make, sequence):
    source = make()
    source.prepare(sequence)
    blocked, cancelled, calls = threading.Event(), threading.Event(), []

    def cancel():
        blocked.wait(30)
        source.cancel()
        source.cancel()
        cancelled.set()

    def sink(*frame):
        calls.append(frame)
        if len(calls) == 3:
            blocked.set()
            assert cancelled.wait(30)

    thread = threading.Thread(target=cancel, name="canceller")
    thread.start()
    source.run(sink)
    thread.join()
    assert len(calls) == 3


def test_a_cancel_before_the_run_makes_it_end_at_once(make, frames):
    source = make()
    source.cancel()
    source.prepare(snaps(3))
    source.run(frames)
    assert frames == []


def test_a_cancel_that_the_runner_overwrites_still_ends_the_run(make, frames, monkeypatch):
    from pymmcore_plus.mda import MDARunner

    taken, wait = [], MDARunner._wait_until_event

    class Counting(engine_module.CarefulCore):
        def snapImage(self):
            taken.append(1)
            super().snapImage()

    def cancelled_at_its_end(runner, event):
        over = wait(runner, event)
        source.cancel()  # the runner sets its state to "acquiring" next
        return over

    monkeypatch.setattr(engine_module, "CarefulCore", Counting)
    monkeypatch.setattr(MDARunner, "_wait_until_event", cancelled_at_its_end)
    source = make()
    source.prepare(snaps(5))
    source.run(frames)
    assert frames == [] and len(taken) == 1


def test_a_cancel_ends_the_wait_for_the_next_time_point(make):
    source = make()
    source.prepare(timelapse(2, interval=3600))
    threads = []

    def sink(*frame):
        threads.append(threading.Thread(target=source.cancel, name="canceller"))
        threads[-1].start()

    source.run(sink)
    assert len(threads) == 1
    threads[0].join()


def test_no_image_is_taken_while_the_sink_blocks(make, monkeypatch):
    taken, more = [], threading.Event()

    class Counting(engine_module.CarefulCore):
        def snapImage(self):
            taken.append(1)
            if len(taken) > 1:
                more.set()
            super().snapImage()

    def sink(coordinates, *_):
        if coordinates == {"position": 0}:
            assert not more.wait(0.3)

    monkeypatch.setattr(engine_module, "CarefulCore", Counting)
    source = make()
    source.prepare(snaps(3))
    source.run(sink)
    assert len(taken) == 3


def test_the_sink_is_called_on_the_thread_of_the_run(make):
    threads = set()
    source = make()
    source.prepare(snaps(2))
    source.run(lambda *_: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_a_camera_that_fails_ends_the_run_with_the_count_of_frames(make):
    calls = []
    source = make()
    source.prepare(snaps(5))

    def sink(*frame):
        calls.append(frame)
        if len(calls) == 2:
            source._core.unloadDevice("Camera")

    with pytest.raises(SourceError, match=r"2 of 5 frames had been delivered"):
        source.run(sink)
    assert len(calls) == 2


def test_no_frame_is_taken_in_a_channel_that_could_not_be_set(
    make, frames, write_config, adapters, monkeypatch
):
    class Stuck(engine_module.CarefulCore):
        def setProperty(self, *args):
            raise RuntimeError("the filter wheel is stuck")

        def setConfig(self, group, preset):
            if preset == "Binned":
                self.setProperty("Camera", "Binning", "2")
            super().setConfig(group, preset)

    monkeypatch.setattr(engine_module, "CarefulCore", Stuck)
    source = make(
        config=write_config(CAMERA_ONLY.replace("Binned,Camera,Binning,2", "Binned,Camera,Gain,2")),
        adapter_path=adapters,
    )
    source.prepare(useq.MDASequence(channels=["Good", "Binned"]))
    with pytest.raises(SourceError, match=r"'Binned'.*filter wheel is stuck; 1 of 2 frames"):
        source.run(frames)
    assert frames.coordinates == [{"channel": "Good"}]


def test_a_preset_with_a_value_that_a_device_does_not_take_is_refused(make, write_config, adapters):
    source = make(config=write_config(CAMERA_ONLY), adapter_path=adapters)
    with pytest.raises(SourceError, match=r"'Bad'.*Camera.Binning.*'3'.*values are '1'"):
        source.prepare(useq.MDASequence(channels=["Good", "Bad"]))


def test_a_run_that_quietly_gave_too_few_frames_is_an_error(make, frames, monkeypatch):
    monkeypatch.setattr(engine_module.CarefulEngine, "exec_single_event", lambda self, event: iter(()))
    source = make()
    source.prepare(snaps(3))
    with pytest.raises(SourceError, match=r"only 0 of 3 frames"):
        source.run(frames)


# -- life cycle -----------------------------------------------------------------------------------


def test_a_run_needs_to_be_prepared(make, frames):
    with pytest.raises(SourceError, match=r"prepare"):
        make().run(frames)


def test_close_may_come_early_late_and_twice(make, frames):
    source = make()
    source.close()
    source.prepare(snaps(1))
    source.close()
    source.close()
    with pytest.raises(SourceError, match=r"prepare"):
        source.run(frames)


def test_close_unloads_the_devices(make):
    source = make()
    source.prepare(snaps(1))
    core = source._core
    source.close()
    assert core.getLoadedDevices() == ("Core",)


def test_two_sources_one_after_the_other_and_a_second_run(make, frames):
    first, second = make(), make(properties={"Camera.Binning": 4})
    for source in (first, first, second):
        source.prepare(snaps(1))
        source.run(frames)
    first.close()
    second.close()
    assert [image.shape for _, image, _ in frames] == [(512, 512), (512, 512), (128, 128)]


def test_two_sources_open_at_once_do_not_meet(make, frames):
    first, second = make(), make(properties={"Camera.Binning": 4})
    first.prepare(snaps(1))
    second.prepare(snaps(1))
    first.run(frames)
    second.run(frames)
    assert [image.shape for _, image, _ in frames] == [(512, 512), (128, 128)]


@pytest.mark.parametrize(
    "options",
    [
        {"exposure_ms": 0},
        {"exposure_ms": math.nan},
        {"exposure_ms": math.inf},
        {"buffer_mb": 0},
        {"properties": {"Binning": 2}},
        {"properties": {"Camera.": 2}},
    ],
)
def test_impossible_options_are_refused_at_once(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        MicroManagerSource(**options)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


def test_importing_the_plugin_imports_neither_pymmcore_nor_useq():
    done = python(
        "import sys, exengine_micromanager\n"
        "print([name for name in ('pymmcore', 'pymmcore_plus', 'useq', 'pydantic') if name in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_a_forgotten_source_does_not_crash_the_interpreter_at_exit():
    # Without close, a live core aborts about every second exit.
    for _ in range(4):
        done = python(
            "import useq, logging\n"
            "from exengine_micromanager import MicroManagerSource\n"
            "source = MicroManagerSource()\n"
            "source.prepare(useq.MDASequence(time_plan={'interval': 0, 'loops': 3}))\n"
            "source.run(lambda *frame: None)\n"
            "print(logging.getLogger().level)"
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "30\n", "")


def test_what_we_raise_is_not_printed_as_well_and_the_logger_is_left_as_it_was(write_config):
    done = python(
        "import logging, useq\n"
        "from exengine_micromanager import MicroManagerSource\n"
        "from pymmcore_plus import CMMCorePlus\n"
        "from exengine_micromanager import engine\n"
        "class Stuck(CMMCorePlus):\n"
        "    def snapImage(self):\n"
        "        raise RuntimeError('stuck')\n"
        "class StuckCore(engine.CarefulCore, Stuck):\n"
        "    pass\n"
        "careful, engine.CarefulCore = engine.CarefulCore, StuckCore\n"
        "source = MicroManagerSource()\n"
        "source.prepare(useq.MDASequence(stage_positions=[(1, 2)]))\n"
        "try:\n"
        "    source.run(lambda *frame: None)\n"
        "except RuntimeError as error:\n"
        "    print(type(error).__name__)\n"
        "engine.CarefulCore = careful\n"
        "source.prepare(useq.MDASequence(time_plan={'interval': 0, 'loops': 5}))\n"
        "source.run(lambda *frame: source.cancel())\n"
        "logging.getLogger('pymmcore-plus').warning('Failed to set something else')"
    )
    assert (done.returncode, done.stdout) == (0, "SourceError\n"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and "something else" in done.stderr
