"""Runs of a user's own core, stored by ExEngineSink: coordinates, metadata, options, and frames that are missing."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import useq
from demo_lab import SEQUENCE_TESTER, SWITCHED_CAMERAS, TWO_CAMERAS, snaps, timelapse
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDAEngine, SkipEvent
from user_core import FailingWrites, new_core

import exengine
from exengine.errors import AcquisitionError, ConfigError, OptionError, SourceError
from exengine_micromanager import ExEngineSink, recording


@pytest.fixture
def core():
    with new_core() as made:
        made.setProperty("Camera", "Mode", "Noise")
        yield made


@pytest.fixture
def seen(core):
    """Return (index, pixels, metadata) of each frame that another listener received."""
    frames = []
    core.mda.events.frameReady.connect(
        lambda image, event, meta: frames.append((dict(event.index), image.copy(), meta))
    )
    return frames


def record(core, events, **options):
    sink = ExEngineSink(backend="ndram", **options)
    core.mda.run(events, output=sink)
    return sink


def axes(sink):
    return [dict(where) for where in sink.storage]


# -- coordinates -----------------------------------------------------------------------------------------

SUB = {"x": 50, "y": 0, "name": "B", "sequence": {"channels": ["FITC"], "z_plan": {"range": 2, "step": 1}}}
SEQUENCES = {
    "everything": useq.MDASequence(
        channels=["DAPI", "FITC"],
        time_plan={"interval": 0, "loops": 2},
        z_plan={"range": 2, "step": 1},
        stage_positions=[{"x": 0, "y": 0, "name": "A"}, {"x": 10, "y": 0, "name": "B"}],
        axis_order="tpcz",
    ),
    "sub-sequences": useq.MDASequence(
        channels=["DAPI"],
        stage_positions=[{"x": 0, "y": 0, "name": "A"}, SUB, {"x": 20, "y": 0, "name": "C"}],
        time_plan={"interval": 0, "loops": 2},
    ),
    "grids": useq.MDASequence(
        channels=["DAPI"],
        stage_positions=[(0, 0, 0), {"x": 9, "y": 9, "sequence": {"grid_plan": {"rows": 1, "columns": 2}}}],
        grid_plan={"rows": 2, "columns": 2},
    ),
    "a plate": useq.MDASequence(
        stage_positions=useq.WellPlatePlan(plate=96, a1_center_xy=(0, 0), selected_wells=([0, 1], [0, 3])),
        channels=["DAPI"],
    ),
    "a channel twice": useq.MDASequence(
        channels=["DAPI", {"config": "DAPI", "exposure": 50}], time_plan={"interval": 0, "loops": 2}
    ),
    "autofocus and skipped frames": useq.MDASequence(
        channels=[{"config": "DAPI", "do_stack": False}, {"config": "FITC", "acquire_every": 2}],
        time_plan={"interval": 0, "loops": 3},
        z_plan={"range": 2, "step": 1},
        stage_positions=[(0, 0, 0), (10, 0, 0)],
        autofocus_plan={"autofocus_device_name": "Z", "autofocus_motor_offset": 1, "axes": ("p",)},
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_frame_of_a_sequence_is_stored_at_planned_coordinates(core, seen, tmp_path, name):
    sequence = SEQUENCES[name]
    sink = ExEngineSink(tmp_path / "data", backend="ndtiff")
    core.mda.run(sequence, output=sink)
    assert sink.status == "complete" and sink.ledger.stored == len(seen) == len(sink.storage) > 1
    for where, (index, pixels, _) in zip(sink.storage, seen, strict=True):
        assert sink.storage.get_metadata(where)["event"]["index"] == index
        assert np.array_equal(sink.storage[where], pixels)


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_plan_that_the_storage_receives_is_what_arrives(core, monkeypatch, name):
    plans = []
    sink = ExEngineSink(backend="ndram")
    cls = sink._recorder._storage_plan.cls
    monkeypatch.setattr(cls, "expect", lambda storage, plan: plans.append(plan))
    core.mda.run(SEQUENCES[name], output=sink)
    (plan,) = plans
    assert plan.frames == sink.ledger.stored
    assert list(plan.coordinates()) == list(sink.storage)
    assert (plan.shape, plan.dtype, plan.pixel_size_um) == ((512, 512), "uint16", (1.0, 1.0))
    for where in sink.storage:
        assert all(where[axis.name] in axis.positions for axis in plan.axes if axis.name in where)


def test_positions_with_one_name_are_refused_before_anything_moves(core):
    core.setXYPosition(7, 7)
    core.waitForSystem()
    sink = ExEngineSink(backend="ndram")
    places = [{"x": 100, "name": "A"}, {"x": 200, "name": "A"}]
    with pytest.raises(SourceError, match="unique name"):
        core.mda.run(useq.MDASequence(stage_positions=places), output=sink)
    assert [round(at) for at in core.getXYPosition()] == [7, 7] and sink.storage is None


def test_cameras_behind_one_device_have_their_own_axis(tmp_path):
    config = tmp_path / "two.cfg"
    config.write_text(TWO_CAMERAS)
    with new_core(config) as core:
        for sequence in (timelapse(4), useq.MDASequence(stage_positions=[(None, None, None)] * 2)):
            sink = record(core, sequence)
            axis = "time" if sequence.time_plan else "position"
            expected = [
                {axis: number, "camera": label}
                for number in range(len(list(sequence)))
                for label in ("Left", "Right")
            ]
            assert sorted(map(str, axes(sink))) == sorted(map(str, expected))
            for where in sink.storage:
                assert sink.storage.get_metadata(where)["camera"] == where["camera"]


@pytest.mark.parametrize(
    ("sequence", "known"),
    [
        (useq.MDASequence(channels=["OnLeft", "OnRight"]), (None, None, None)),
        (useq.MDASequence(channels=["Plain", "Bright"]), (2, (512, 512), 1.0)),
        (useq.MDASequence(channels=["Plain"], setup={"roi": (0, 0, 32, 16)}), (1, None, None)),
        (
            useq.MDASequence(
                grid_plan={"rows": 1, "columns": 2}, setup={"properties": [("Left", "Binning", 2)]}
            ),
            (None, None, None),
        ),
    ],
)
def test_what_a_setting_of_a_camera_may_change_is_not_planned(tmp_path, monkeypatch, sequence, known):
    config = tmp_path / "switched.cfg"
    config.write_text(SWITCHED_CAMERAS)
    with new_core(config) as core:
        plans = []
        sink = ExEngineSink(backend="ndram")
        cls = sink._recorder._storage_plan.cls
        monkeypatch.setattr(cls, "expect", lambda storage, plan: plans.append(plan))
        core.mda.run(sequence, output=sink)
        (plan,) = plans
        assert (plan.frames, plan.shape, plan.pixel_size_um and plan.pixel_size_um[0]) == known
        assert sink.ledger.stored == len(list(sequence)) and sink.status == "complete"


# -- events of unknown number ----------------------------------------------------------------------------


def test_events_of_a_generator_are_stored_by_their_index(core):
    def events():
        for number in range(3):
            for channel in ("DAPI", "FITC"):
                yield useq.MDAEvent(index={"t": number, "c": channel == "FITC"}, channel=channel)

    sink = record(core, events())
    assert axes(sink) == [{"time": t, "channel": c} for t in range(3) for c in ("DAPI", "FITC")]
    assert sink.status == "complete"


@pytest.mark.parametrize("form", [iter, list], ids=["one by one", "merged into a burst"])
def test_events_without_an_index_are_numbered(core, form):
    sink = record(core, form([useq.MDAEvent() for _ in range(5)]))
    assert axes(sink) == [{"time": number} for number in range(5)]


def test_events_without_an_index_are_numbered_with_several_cameras(tmp_path):
    config = tmp_path / "two.cfg"
    config.write_text(TWO_CAMERAS)
    with new_core(config) as core:
        sink = record(core, [useq.MDAEvent() for _ in range(3)])
        expected = [{"time": t, "camera": label} for t in range(3) for label in ("Left", "Right")]
        assert sorted(map(str, axes(sink))) == sorted(map(str, expected))


def test_events_that_repeat_an_index_are_stored_with_a_number(core):
    def events():
        for _ in range(3):
            yield from useq.MDASequence(channels=["DAPI", "FITC"])

    sink = record(core, events())
    assert axes(sink)[:4] == [
        {"channel": "DAPI"},
        {"channel": "FITC"},
        {"channel": "DAPI", "repeat": 1},
        {"channel": "FITC", "repeat": 1},
    ]
    assert sink.ledger.stored == 6 and sink.status == "complete"


def test_coordinates_can_be_derived_by_a_function(core):
    events = [useq.MDAEvent(metadata={"cell": number}) for number in (7, 9)]
    sink = record(core, iter(events), coordinates=lambda event: {"cell": event.metadata["cell"]})
    assert axes(sink) == [{"cell": 7}, {"cell": 9}]


def test_a_function_of_the_user_may_place_frames_that_would_have_the_same_coordinates(core):
    sequence = useq.MDASequence(stage_positions=[{"x": 0, "name": "A"}, {"x": 9, "name": "A"}])
    sink = record(core, sequence, coordinates=lambda event: {"x_um": int(event.x_pos)})
    assert axes(sink) == [{"x_um": 0}, {"x_um": 9}]


def test_an_error_of_a_function_of_the_user_ends_the_run(core):
    sink = ExEngineSink(backend="ndram", coordinates=lambda event: {"cell": 1 / 0})
    with pytest.raises(ZeroDivisionError) as raised:
        core.mda.run(timelapse(3), output=sink)
    assert "0 frames were stored" in raised.value.__notes__[0] and sink.status != "complete"


def test_events_can_come_from_a_queue_while_the_run_goes_on(core):
    import queue

    events = queue.Queue()
    sink = ExEngineSink(backend="ndram")
    thread = core.run_mda(iter(events.get, None), output=sink)
    for number in range(3):
        events.put(useq.MDAEvent(index={"t": number}))
        deadline = time.monotonic() + 20
        while sink.ledger.stored <= number and time.monotonic() < deadline:
            time.sleep(0.005)
        assert {"time": number} in sink.storage
    events.put(None)
    assert sink.result(20).stored == 3
    thread.join(20)


# -- metadata --------------------------------------------------------------------------------------------


def test_all_metadata_of_a_frame_and_of_the_microscope_are_kept(core, tmp_path):
    frames = []
    core.mda.events.frameReady.connect(lambda image, event, meta: frames.append(meta))
    sequence = useq.MDASequence(channels=[{"config": "DAPI", "exposure": 12}], metadata={"sample": "yeast"})
    for events, number in ((sequence, 1), (timelapse(3), 3)):
        frames.clear()
        path = tmp_path / f"data{number}"
        sink = ExEngineSink(path, backend="ndtiff")
        core.mda.run(events, output=sink)
        sink.close()
        dataset = exengine.open_dataset(path)
        assert len(frames) == len(dataset) == number
        for where, meta in zip(dataset, frames, strict=True):
            kept = dataset.get_metadata(where)
            renamed = {"camera_device": "camera", "property_values": "properties", "mda_event": "event"}
            left_out = {"format", "version"}
            assert {renamed.get(key, key) for key in meta if key not in left_out} <= kept.keys()
            assert kept["exposure_ms"] == meta["exposure_ms"] and kept["received_at"]
            assert kept["hardware_triggered"] == (number == 3)
            if number == 3:
                assert kept["camera_metadata"] == dict(meta["camera_metadata"])
        summary = dataset.summary_metadata
        assert summary["camera"] == "Camera" and summary["versions"]["pymmcore_plus"].startswith("0.18")
        assert dataset.annotations["pymmcore_plus"]["image_infos"][0]["dtype"] == "uint16"
        assert dataset.annotations["ledger"]["stored"] == number
    assert exengine.open_dataset(tmp_path / "data1").summary_metadata["sequence"]["metadata"] == {
        "sample": "yeast"
    }


def test_what_a_custom_engine_adds_is_kept(core):
    class Engine(MDAEngine):
        def get_frame_metadata(self, event, *args, **options):
            return {**super().get_frame_metadata(event, *args, **options), "laser_mw": np.float32(1.5)}

        def get_summary_metadata(self, **options):
            return {**super().get_summary_metadata(**options), "room": {"temperature": 21.0}}

    core.mda.set_engine(Engine(core))
    sink = record(core, snaps(2))
    assert sink.storage.get_metadata({"position": 1})["laser_mw"] == 1.5


# -- frames that are missing -----------------------------------------------------------------------------


class Unplugged(CMMCorePlus):
    """A core whose camera fails at one exposure."""

    snaps = 0
    fails_at = 2

    def snapImage(self):
        self.snaps += 1
        if self.snaps == self.fails_at:
            raise RuntimeError("the camera is unplugged")
        super().snapImage()


@pytest.mark.parametrize("at", [2, 4], ids=["in between", "last"])
def test_a_frame_that_the_engine_could_not_take_is_named_and_the_run_raises(tmp_path, at):
    with new_core(cls=type("Core", (Unplugged,), {"fails_at": at})) as core:
        sink = ExEngineSink(tmp_path / "data", backend="ndtiff")
        with pytest.raises(AcquisitionError, match="delivered no image for 1 frame:") as raised:
            core.mda.run(snaps(4), output=sink)
        assert f"{{'position': {at - 1}}}" in str(raised.value) and sink.ledger.stored == 3
        sink.close()
    dataset = exengine.open_dataset(tmp_path / "data")
    assert dataset.status == "failed"
    assert dataset.annotations["ledger"]["not_stored"] == [
        {"coordinates": {"position": at - 1}, "reason": "the camera delivered no image"}
    ]


def test_a_missing_frame_is_named_in_the_ledger_although_the_run_was_cancelled_later(tmp_path):
    with new_core(cls=type("Core", (Unplugged,), {"fails_at": 2})) as core:
        sink = ExEngineSink(tmp_path / "data", backend="ndtiff")

        def events():
            yield from snaps(4)
            core.mda.cancel()
            yield from list(snaps(6))[4:]

        core.mda.run(events(), output=sink)
        named = [where for where, _ in sink.ledger.not_stored]
        assert sink.status == "aborted" and {"position": 1} in named
        sink.close()


def test_an_event_that_an_engine_skips_is_not_missing(core):
    class Choosy(MDAEngine):
        def setup_event(self, event):
            if event.index["p"] == 1:
                raise SkipEvent(1, "nothing to see")
            super().setup_event(event)

    core.mda.set_engine(Choosy(core))
    sink = record(core, snaps(3))
    assert axes(sink) == [{"position": 0}, {"position": 2}] and sink.status == "complete"


def test_an_event_without_an_image_is_not_missing(core):
    events = [useq.MDAEvent(action=useq.CustomAction(name="blink")), useq.MDAEvent()]
    sink = record(core, iter(events))
    assert sink.ledger.stored == 1 and sink.status == "complete"


def test_a_frame_that_the_camera_skips_in_a_burst_ends_the_run(tmp_path):
    class Skipping(CMMCorePlus):
        def popNextImageAndMD(self, *args):
            image, tags = super().popNextImageAndMD(*args)
            tags = dict(tags)
            if int(tags["ImageNumber"]) >= 2:
                tags["ImageNumber"] = str(int(tags["ImageNumber"]) + 3)
            return image, Tags(tags)

    class Tags(dict):
        def GetSingleTag(self, name):
            raise RuntimeError

    with new_core(cls=Skipping) as core:
        sink = ExEngineSink(backend="ndram")
        with pytest.raises(SourceError, match="skipped 3 of its frames"):
            core.mda.run(timelapse(5), output=sink)
        assert sink.ledger.stored == 2 and sink.status != "complete"
        assert not core.isSequenceRunning()
        (gap,) = sink.ledger.gaps
        assert gap == {"camera": "Camera", "after": {"time": 1}, "before": {"time": 2}, "missing": 3}


def test_serial_numbers_in_the_pixels_show_that_no_frame_is_misplaced(tmp_path):
    config = tmp_path / "tester.cfg"
    config.write_text(SEQUENCE_TESTER)
    with new_core(config) as core:
        sink = record(core, timelapse(50))
        numbers = [
            sink.storage.get_metadata({"time": t})["camera_metadata"]["ImageNumber"] for t in range(50)
        ]
        assert numbers == [str(number) for number in range(50)]
        assert len({sink.storage[{"time": t}].tobytes() for t in range(50)}) == 50


def test_a_buffer_of_the_camera_that_is_too_small_ends_the_run_and_the_gap_is_named(core, tmp_path):
    core.setCircularBufferMemoryFootprint(1)
    core.setExposure(1)

    def wait(*_):
        deadline = time.monotonic() + 10
        while not core.isBufferOverflowed() and time.monotonic() < deadline:
            pass

    core.mda.events.frameReady.connect(wait)
    sink = ExEngineSink(tmp_path / "data", backend="ndtiff")
    with pytest.raises(MemoryError, match="overflowed") as raised:
        core.mda.run(timelapse(100), output=sink)
    stored = sink.ledger.stored
    assert (
        f"a burst starting at {{'time': 0}}; {stored} of its 100 frames arrived" in raised.value.__notes__[0]
    )
    assert 0 < stored < 100 and axes(sink) == [{"time": number} for number in range(stored)]
    assert sink.status == "aborted"


# -- the queue -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("synchronous", [True, False])
def test_a_slow_disk_slows_the_engine_instead_of_filling_the_memory(core, monkeypatch, synchronous):
    options = {"synchronous": True} if synchronous else {}
    sink = ExEngineSink(
        {"storage": {"backend": "ndram"}, "handler": {"max_pending": 3 * 512 * 512 * 2}}, **options
    )
    cls = sink._recorder._storage_plan.cls
    storing, taken, asked = threading.Event(), [], []
    put, recorder_put = cls.put, sink._recorder.put

    def slow(storage, *frame):
        assert storing.wait(20)
        put(storage, *frame)

    def asking(*frame, **options):
        asked.append(1)
        recorder_put(*frame, **options)

    monkeypatch.setattr(cls, "put", slow)
    monkeypatch.setattr(sink._recorder, "put", asking)
    core.mda.events.frameReady.connect(lambda *_: taken.append(1))
    thread = core.run_mda(snaps(20), output=sink)
    limit = 1 if synchronous else 3
    deadline = time.monotonic() + 20
    while len(asked) <= limit and time.monotonic() < deadline:
        time.sleep(0.005)
    thread.join(0.3)  # nothing happens in this time
    assert (len(taken), len(asked), sink._recorder._handler.pending_bytes) == (
        limit,
        limit + 1,
        limit * 512 * 512 * 2,
    )
    storing.set()
    assert sink.result(30).stored == 20


def test_a_buffer_that_is_reused_is_stored_right_and_can_be_handed_over_without_a_copy(core, monkeypatch):
    buffer = np.zeros((8, 8), np.uint16)

    class Reusing(MDAEngine):
        def exec_event(self, event):
            buffer[:] = event.index["t"]
            yield buffer, event, {}

    core.mda.set_engine(Reusing(core, use_hardware_sequencing=False))
    cls, delivered = type(exengine.open_storage("ndram")), threading.Event()
    stored = cls.put
    monkeypatch.setattr(cls, "put", lambda *frame: delivered.wait(20) and stored(*frame))

    def events():
        yield from (useq.MDAEvent(index={"t": t}) for t in range(4))
        delivered.set()

    sink = record(core, events())
    assert [int(sink.storage[{"time": t}].max()) for t in range(4)] == [0, 1, 2, 3]
    given = []
    sink = ExEngineSink(backend="ndram", copy=False)
    put = sink._recorder.put
    sink._recorder.put = lambda where, data, meta, *, copy, **others: (
        given.append((data, copy)),
        put(where, data, meta, copy=copy, **others),
    )
    core.mda.run(iter([useq.MDAEvent(index={"t": 0})]), output=sink)
    ((data, copied),) = given
    assert data is buffer and not copied


# -- options ---------------------------------------------------------------------------------------------


def test_a_config_with_only_a_storage_section_is_enough(core, tmp_path):
    file = tmp_path / "experiment.yaml"
    file.write_text(f"storage: {{backend: ndtiff, path: {tmp_path / 'data'}, if_exists: number}}\n")
    for _ in range(2):
        sink = ExEngineSink(file)
        core.mda.run(timelapse(2), output=sink)
        sink.close()
    assert sink.path.endswith("data_1")
    assert (
        exengine.open_dataset(tmp_path / "data_1").annotations["config"]["storage"]["if_exists"] == "number"
    )


def test_the_source_and_the_sequence_of_a_config_are_set_aside(core, tmp_path):
    config = {
        "storage": {"backend": "ndtiff", "path": str(tmp_path / "data")},
        "source": {"name": "simulated", "options": {"width": 8}},
        "sequence": {"channels": ["Cy5"]},
    }
    sink = ExEngineSink(config)
    core.mda.run(timelapse(2), output=sink)
    sink.close()
    kept = exengine.open_dataset(tmp_path / "data").annotations["config"]
    assert "sequence" not in kept and "name" not in kept.get("source", {})


@pytest.mark.parametrize(
    ("target", "options", "error", "says"),
    [
        (None, {}, ConfigError, "pass a config"),
        (
            {"storage": {"backend": "ndram"}},
            {"if_exists": "number"},
            ConfigError,
            "if_exists: valid only with",
        ),
        ({"storage": {"backend": "ndram"}}, {"backend": "ndram"}, ConfigError, "instead of a config"),
        ({"storage": {}}, {}, ConfigError, "no backend is selected"),
        ("data", {"backend": "ndtiff", "levl": 1}, OptionError, "levl"),
        (None, {"backend": "ndtiff"}, ConfigError, "needs a path"),
    ],
)
def test_what_is_wrong_is_told_when_the_sink_is_made(target, options, error, says):
    with pytest.raises(error, match=says):
        ExEngineSink(target, **options)


# -- runs that other programs start ----------------------------------------------------------------------


def test_every_run_of_a_core_is_recorded_whoever_starts_it(core, tmp_path):
    with recording(core, tmp_path / "data", backend="ndtiff", if_exists="number") as record:
        core.mda.run(timelapse(2))
        core.run_mda(snaps(3), output="memory").join()
        core.run_mda(timelapse(4))  # leaving the block waits for it
    core.mda.run(timelapse(2))
    assert [sink.result(0).stored for sink in record.sinks] == [2, 3, 4]
    assert [sink.path.rpartition("/")[2] for sink in record.sinks] == ["data", "data_1", "data_2"]


@pytest.mark.parametrize("switching", [1e-6, 0.005])
def test_a_run_whose_thread_has_not_started_is_recorded_although_the_block_ends(core, switching):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(switching)
    try:
        for _ in range(5):
            with recording(core, backend="ndram") as record:
                core.run_mda(timelapse(2))
            assert [sink.ledger.stored for sink in record.sinks] == [2]
    finally:
        sys.setswitchinterval(interval)


def test_recordings_can_be_nested_and_end_in_any_order(core):
    first, second = recording(core, backend="ndram").start(), recording(core, backend="ndram").start()
    core.run_mda(timelapse(2)).join()
    first.stop(20)
    core.run_mda(timelapse(2)).join()
    second.stop(20)
    core.run_mda(timelapse(2)).join()
    assert [len(first.sinks), len(second.sinks)] == [1, 2]


def test_a_run_that_cannot_be_started_does_not_hold_up_the_end_of_a_recording(core):
    with recording(core, backend="ndram") as record:
        thread = core.run_mda(snaps(100))
        while not core.mda.is_running():
            time.sleep(0.001)
        with pytest.raises(ValueError, match="still running"):
            core.run_mda(snaps(2))
        core.mda.cancel()
        thread.join(20)
    assert [sink.status for sink in record.sinks] == ["aborted"]


def test_a_second_run_beside_a_recorded_one_is_refused(core):
    first, second = ExEngineSink(backend="ndram"), ExEngineSink(backend="ndram")
    thread = core.run_mda(snaps(200), output=first)
    while not first.ledger.stored:
        time.sleep(0.001)
    with pytest.raises(AcquisitionError, match="another run"):
        core.mda.run(timelapse(2), output=second)
    core.mda.cancel()
    thread.join(20)
    assert first.result(1).complete
    core.mda.run(timelapse(2), output=ExEngineSink(backend="ndram"))


def test_a_run_of_another_core_is_not_recorded(core):
    with new_core() as other, recording(core, backend="ndram") as record:
        other.mda.run(timelapse(2))
    assert record.sinks == []


def test_leaving_the_block_raises_the_error_of_a_run_on_a_thread(core, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    FailingWrites(monkeypatch, type(exengine.open_storage("ndram")), at=2)
    with pytest.raises(AcquisitionError, match="No space left"), recording(core, backend="ndram"):
        core.run_mda(timelapse(3))


def test_an_error_that_was_raised_in_the_block_is_not_raised_again(core, monkeypatch):
    FailingWrites(monkeypatch, type(exengine.open_storage("ndram")), at=2)
    with recording(core, backend="ndram") as record, pytest.raises(AcquisitionError):
        core.mda.run(timelapse(3))
    assert record.sinks[0].ledger.stored == 1


def test_a_recording_can_be_started_and_stopped_with_a_time_limit(core):
    record = recording(core, backend="ndram").start()
    thread = core.run_mda(snaps(300))
    while not record.sinks or not record.sinks[0].ledger.stored:
        time.sleep(0.001)
    with pytest.raises(TimeoutError):
        record.stop(0.01)
    core.mda.cancel()
    thread.join(20)
    record.stop(20)
    assert record.sinks[0].status == "aborted" or record.sinks[0].ledger.stored < 300


def test_a_config_that_is_wrong_is_told_when_the_recording_is_made(core):
    with pytest.raises(ConfigError):
        recording(core, {"storage": {}})


# -- beside pymmcore-plus's own sink ---------------------------------------------------------------------


def test_with_every_pixel_write_failing_our_run_raises_where_that_of_pymmcore_plus_is_completed(tmp_path):
    program = """
import sys, json, exengine, useq
from user_core import new_core
from exengine.errors import AcquisitionError
from exengine_micromanager import ExEngineSink

sequence = useq.MDASequence(channels=["DAPI"], time_plan={"interval": 0, "loops": 8})
with new_core() as core:
    if sys.argv[1] == "theirs":
        core.mda.run(sequence, output="data.ome.zarr")
        print(json.dumps(str(core.mda.status.finish_reason)))
    else:
        sink = ExEngineSink("data", backend="ndtiff")
        try:
            core.mda.run(sequence, output=sink)
        except AcquisitionError as error:
            print(json.dumps([str(error).partition("\\n")[0], sink.ledger.stored, sink.status]))
"""
    answers = {}
    for who in ("theirs", "ours"):
        folder = tmp_path / who
        folder.mkdir()
        # The limit is smaller than a frame of 512 x 512 pixels of 16 bits, and larger than any other file.
        command = f"ulimit -f 300; trap '' XFSZ; exec {sys.executable} -B -c \"$PROGRAM\" {who}"
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=100, check=False,
            env={**os.environ, "PROGRAM": program, "PYTEST_RUNNING": "1", "HOME": str(folder),
                 "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answers[who] = json.loads(done.stdout.splitlines()[-1])
    assert answers["theirs"] == "completed"
    assert answers["ours"][1:] == [0, "failed"] and "File too large" in answers["ours"][0]


def test_a_time_point_that_comes_late_is_named_in_the_ledger(core):
    def slow(image, event, meta):
        if event.index["t"] == 1:
            time.sleep(0.6)

    core.mda.events.frameReady.connect(slow)
    for convert in (None, lambda event: {"number": event.index["t"]}):
        sink = ExEngineSink(backend="ndram", coordinates=convert)
        core.mda.run(timelapse(4, interval=0.3), output=sink)
        (where, delay_s), *_ = sink.result(5).late
        assert where == ({"time": 2} if convert is None else {"number": 2}) and 0.1 < delay_s < 2
