"""The engine for a user's own core: what it checks, sets and restores, with sequences and with single events."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import useq
from demo_lab import SWITCHED_CAMERAS, TWO_CAMERAS, timelapse
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import SimpleCameraDevice, UniMMCore
from user_core import new_core

from exengine.errors import AcquisitionError, OptionError, SourceError
from exengine_micromanager import ExEngineSink, MicroManagerEngine


class Watched(CMMCorePlus):
    """A core that writes down its state at each exposure."""

    def __init__(self, *args):
        self.log = []
        super().__init__(*args)

    def _look(self):
        self.log.append(
            {
                "exposure": self.getExposure(),
                "channel": self.getCurrentConfig("Channel"),
                "x": round(self.getXYPosition()[0]),
                "z": round(self.getZPosition(), 1),
                "shutter": self.getShutterOpen(),
                "auto": self.getAutoShutter(),
            }
        )

    def snapImage(self):
        self._look()
        super().snapImage()

    def startSequenceAcquisition(self, *args):
        self._look()
        super().startSequenceAcquisition(*args)

    def logged(self, key):
        return [one[key] for one in self.log]


@pytest.fixture
def core():
    with new_core(cls=Watched) as made:
        made.mda.set_engine(MicroManagerEngine(made))
        made.log.clear()
        yield made


def record(core, events, **options):
    sink = ExEngineSink(backend="ndram", **options)
    core.mda.run(events, output=sink)
    return sink


# -- sequences -------------------------------------------------------------------------------------------


def test_nothing_is_left_over_from_the_event_before(core):
    core.setExposure(7)
    core.setXYPosition(3, 3)
    core.waitForSystem()
    sequence = useq.MDASequence(
        channels=[{"config": "DAPI", "exposure": 50}, "FITC"],
        stage_positions=[{"x": 100, "y": 0, "z": 5}, {"y": 0}],
    )
    sink = record(core, sequence)
    assert core.logged("exposure") == [50, 7, 50, 7]
    assert core.logged("x") == [100, 100, 3, 3] and core.logged("z") == [5, 5, 0, 0]
    assert core.getExposure() == 7
    metadata = [sink.storage.get_metadata(where)["exposure_ms"] for where in sink.storage]
    assert metadata == [50, 7, 50, 7] and sink.status == "complete"


def test_a_sequence_that_the_devices_cannot_carry_out_is_refused_before_anything_is_created(core, tmp_path):
    core.setXYPosition(3, 3)
    core.waitForSystem()
    sink = ExEngineSink(tmp_path / "data", backend="ndtiff")
    sequence = useq.MDASequence(channels=["DAPY"], stage_positions=[(100, 0, 0)])
    with pytest.raises(SourceError, match="'DAPY'.*DAPI"):
        core.mda.run(sequence, output=sink)
    assert not (tmp_path / "data").exists() and core.log == []
    assert [round(at) for at in core.getXYPosition()] == [3, 3]
    with pytest.raises(SourceError, match="'DAPY'"):
        core.mda.run(sequence)  # without a sink as well


@pytest.mark.parametrize("how", ["complete", "cancelled", "device", "storage"])
def test_shutters_and_settings_are_restored_after_every_end(core, monkeypatch, how):
    core.setExposure(9)
    core.setAutoShutter(False)
    core.setShutterOpen(True)
    sequence = useq.MDASequence(
        channels=[{"config": "DAPI", "exposure": 20}],
        stage_positions=[(10 * n, 0, 0) for n in range(6)],
    )
    sink = ExEngineSink(backend="ndram")
    if how == "device":
        core.snapImage = failing(core.snapImage, at=3)
    elif how == "storage":
        cls = sink._recorder._storage_plan.cls
        monkeypatch.setattr(cls, "put", failing(cls.put, at=2))
    elif how == "cancelled":
        core.mda.events.frameReady.connect(lambda *_: core.mda.cancel())
    if how in ("complete", "cancelled"):
        core.mda.run(sequence, output=sink)
    else:
        with pytest.raises((SourceError, AcquisitionError), match="it fails"):
            core.mda.run(sequence, output=sink)
    assert core.getShutterOpen() == (how == "complete")
    assert core.getExposure() == 9 and core.getAutoShutter() is False
    assert core.mda.engine.unrestored == ()
    expected = {"complete": "complete", "cancelled": "aborted", "device": "aborted", "storage": "failed"}
    assert sink.status == expected[how]


def failing(method, *, at):
    calls = []

    def wrapper(*args):
        calls.append(1)
        if len(calls) == at:
            raise RuntimeError("it fails")
        return method(*args)

    return wrapper


def test_what_could_not_be_restored_is_raised_by_a_run_with_a_sink(core):
    core.setExposure(9)
    sink = ExEngineSink(backend="ndram")
    set_exposure = core.setExposure

    def stuck(*args):
        if args[-1] == 9 and core.log:
            raise RuntimeError("stuck")
        set_exposure(*args)

    core.setExposure = stuck
    with pytest.raises(AcquisitionError, match="exposure of 'Camera' could not be restored"):
        core.mda.run(useq.MDASequence(channels=[{"config": "DAPI", "exposure": 20}]), output=sink)
    assert sink.ledger.stored == 1


def test_a_burst_is_triggered_and_its_frames_are_stored(core):
    sink = record(core, timelapse(20))
    assert len(core.log) == 1 and sink.ledger.stored == 20
    assert all(sink.storage.get_metadata(where)["hardware_triggered"] for where in sink.storage)


def test_a_burst_can_be_cancelled(core):
    core.setExposure(5)
    core.mda.events.frameReady.connect(lambda *_: core.mda.cancel())
    sink = record(core, timelapse(500))
    assert sink.status == "aborted" and 1 <= sink.ledger.stored < 500 and not core.isSequenceRunning()


def test_a_slow_storage_does_not_look_like_a_silent_camera(core, monkeypatch):
    """The burst loop of pymmcore-plus gives up if its receiver needs longer than its time limit."""
    import time

    monkeypatch.setattr("exengine_micromanager.engine._NEXT_FRAME_S", 0.05)
    monkeypatch.setattr("exengine_micromanager.engine._FIRST_FRAME_S", 0.5)
    core.setExposure(1)
    core.mda.events.frameReady.connect(lambda *_: time.sleep(0.08))
    assert record(core, timelapse(5)).ledger.stored == 5


def test_cameras_behind_one_device_and_cameras_of_presets_are_planned(tmp_path):
    for text, sequence, frames in (
        (TWO_CAMERAS, timelapse(3), 6),
        (SWITCHED_CAMERAS, useq.MDASequence(channels=["OnLeft", "OnRight"]), 2),
    ):
        config = tmp_path / "cameras.cfg"
        config.write_text(text)
        with new_core(config) as core:
            core.mda.set_engine(MicroManagerEngine(core))
            sink = record(core, sequence)
            assert sink.ledger.stored == frames and sink.status == "complete"


def test_other_outputs_receive_the_summary_metadata_that_they_need(core, tmp_path):
    core.mda.run(timelapse(2), output=tmp_path / "their.ome.zarr")
    assert (tmp_path / "their.ome.zarr").is_dir()


# -- events of a generator -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [iter, list])
def test_an_event_has_what_it_states_and_otherwise_the_state_at_the_start(core, form):
    core.setExposure(7)
    core.setConfig("Channel", "Cy5")
    core.waitForSystem()
    events = [
        useq.MDAEvent(index={"t": 0}, channel="DAPI", exposure=30, x_pos=50, y_pos=0),
        useq.MDAEvent(index={"t": 1}, channel="FITC"),
        useq.MDAEvent(index={"t": 2}),
    ]
    sink = record(core, form(events))
    assert core.logged("exposure") == [30, 7, 7]
    assert core.logged("channel") == ["DAPI", "FITC", "Cy5"]
    assert core.logged("x") == [50, 50, 50]  # a drive stays where it is
    assert sink.ledger.stored == 3 and core.getExposure() == 7


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (useq.MDAEvent(channel="DAPY"), "no channel 'DAPY'"),
        (useq.MDAEvent(properties=[("Camera", "Gian", 1)]), "Gian"),
        (useq.MDAEvent(properties=[("Camera", "Gain", 100000)]), "Gain"),
        (useq.MDAEvent(action=useq.CustomAction(name="blink")), "cannot carry out"),
        (useq.MDAEvent(roi=(0, 0, 8, 8)), "region of interest"),
        (useq.MDAEvent(exposure=1e9), "does not accept"),
    ],
)
def test_an_event_that_cannot_be_carried_out_ends_the_run(core, event, says):
    sink = ExEngineSink(backend="ndram")
    with pytest.raises(SourceError, match=says):
        core.mda.run(iter([useq.MDAEvent(index={"t": 0}), event]), output=sink)
    assert sink.ledger.stored == 1 and sink.status != "complete"
    assert core.getShutterOpen() is False


def test_an_slm_image_of_an_event_is_shown_before_the_exposure(core):
    shown = []
    core.getDeviceName = lambda label: "SLM"
    core.setSLMImage = lambda *_: shown.append("set")
    core.displaySLMImage = lambda *_: shown.append("display")
    image = {"data": np.ones((2, 2), bool), "device": "SLM"}
    record(core, [useq.MDAEvent(index={"t": 0}, slm_image=image), useq.MDAEvent(index={"t": 1})])
    assert shown == ["set", "display"]


# -- life ------------------------------------------------------------------------------------------------


def test_the_engine_does_not_keep_the_core_alive():
    program = """
import gc, weakref
from demo_lab import snaps
from user_core import new_core
from exengine_micromanager import MicroManagerEngine

with new_core() as core:
    engine = MicroManagerEngine(core)
    core.mda.set_engine(engine)
    core.mda.run(snaps(1))
    dead = weakref.ref(core)
del core
gc.collect()
try:
    engine.mmcore.getExposure()
except RuntimeError as error:
    print(dead() is None, error)
"""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_RUNNING": "1"},
    )  # fmt: skip
    assert done.stdout.startswith("True the core of this engine no longer exists")


def test_an_exposure_time_that_is_not_one_is_refused(core):
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(OptionError, match="exposure_ms"):
            MicroManagerEngine(core, exposure_ms=wrong)


def test_importing_the_package_does_not_import_pymmcore_plus():
    program = (
        "import sys, exengine_micromanager as m; assert 'pymmcore_plus' not in sys.modules; "
        "m.MicroManagerEngine; assert 'pymmcore_plus' in sys.modules; print('good')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "good\n"


class Counting(SimpleCameraDevice):
    """A camera in Python whose pixels count its images."""

    images = 0
    exposure_ms = 10.0

    def get_exposure(self):
        return self.exposure_ms

    def set_exposure(self, exposure):
        self.exposure_ms = exposure

    def sensor_shape(self):
        return 8, 8

    def dtype(self):
        return np.uint16

    def snap(self, buffer):
        self.images += 1
        buffer[:] = self.images
        return {}


@pytest.mark.parametrize("events", [timelapse(4), [useq.MDAEvent(index={"t": t}) for t in range(4)]])
def test_a_core_with_a_camera_in_python_can_be_used(events):
    core = UniMMCore()
    try:
        core.loadPyDevice("Camera", Counting())
        core.initializeDevice("Camera")
        core.setCameraDevice("Camera")
        core.mda.set_engine(MicroManagerEngine(core))
        sink = record(core, events if isinstance(events, useq.MDASequence) else iter(events))
        assert [int(sink.storage[{"time": t}].max()) for t in range(4)] == [1, 2, 3, 4]
        assert sink.status == "complete"
    finally:
        core.unloadAllDevices()
        super(CMMCorePlus, core).registerCallback(None)
