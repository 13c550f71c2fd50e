"""Hardware-triggered bursts, with a camera whose pixels hold the number of the frame."""

import time
from itertools import pairwise

import pytest
import useq
from demo_lab import SEQUENCE_TESTER, TWO_CAMERAS, timelapse

from exengine import DataCoordinates
from exengine.errors import SourceError
from exengine_micromanager import engine as engine_module


def serial_number(image) -> int:
    """The number of an image of SequenceTester, which writes MessagePack into its pixels.

    ``[packet number, [camera, number of this image, ...], ...]``:
    https://github.com/micro-manager/mmCoreAndDevices, DeviceAdapters/SequenceTester.
    """
    data = image.tobytes()
    assert data[0] == 0x97  # an array of 7
    _, at = unsigned(data, 1)
    assert data[at] == 0x95  # an array of 5
    name_length = data[at + 1] - 0xA0
    return unsigned(data, at + 2 + name_length)[0]


def unsigned(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned integer of MessagePack, and where the next item begins."""
    if data[at] < 0x80:
        return data[at], at + 1
    size = {0xCC: 1, 0xCD: 2, 0xCE: 4}[data[at]]
    return int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size


@pytest.fixture
def tester(make, write_config, adapters):
    return make(config=write_config(SEQUENCE_TESTER), adapter_path=adapters)


def test_no_frame_of_a_burst_is_lost_or_misplaced(tester, frames):
    plan = tester.prepare(timelapse(700))
    tester.run(frames)
    numbers = [serial_number(image) for _, image, _ in frames]
    assert (plan.frames, plan.shape, plan.dtype) == (700, (48, 64), "uint8")
    assert frames.coordinates == [{"time": t} for t in range(700)]
    assert numbers == list(range(numbers[0], numbers[0] + 700))
    assert all(meta["hardware_triggered"] for _, _, meta in frames)


def test_bursts_after_one_another_keep_their_frames_apart(tester, frames):
    sequence = useq.MDASequence(
        axis_order="pt",
        stage_positions=[{"name": "A"}, {"name": "B"}],
        time_plan={"phases": [{"interval": 0, "loops": 20}, {"interval": 0.05, "loops": 2}]},
    )
    plan = tester.prepare(sequence)
    tester.run(frames)
    assert plan.frames == len(frames)
    assert frames.coordinates == [{"position": p, "time": t} for p in "AB" for t in range(plan.frames // 2)]
    numbers = [serial_number(image) for _, image, _ in frames]
    assert all(after == before + 1 for before, after in pairwise(numbers))


def test_a_stack_that_the_hardware_runs_keeps_its_order(make, frames):
    source = make(properties={"Z.UseSequences": "Yes", "Z.Position": 100})
    source.prepare(useq.MDASequence(z_plan={"range": 8, "step": 2}))
    source.run(frames)
    assert frames.coordinates == [{"z": z} for z in range(5)]
    assert [meta["event"]["z_pos"] for _, _, meta in frames] == [96, 98, 100, 102, 104]
    assert all(meta["hardware_triggered"] for _, _, meta in frames)


def test_a_receiver_that_takes_long_is_not_taken_for_a_silent_camera(tester, frames, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(engine_module, "time", clock)

    def slow(*frame):
        frames(*frame)
        clock.ahead_s += 3600

    tester.prepare(timelapse(5))
    tester.run(slow)
    assert len(frames) == 5


def test_a_camera_that_goes_silent_is_an_error(make, frames, monkeypatch):
    clock = Clock()

    class Silent(engine_module.CarefulCore):
        running = False

        def startSequenceAcquisition(self, *args):
            self.running = True

        def stopSequenceAcquisition(self, *args):
            self.running = False

        def isSequenceRunning(self, *args):
            return self.running

        def getRemainingImageCount(self):
            clock.ahead_s += 10
            return 0

    monkeypatch.setattr(engine_module, "time", clock)
    monkeypatch.setattr(engine_module, "CarefulCore", Silent)
    source = make()
    source.prepare(timelapse(5))
    with pytest.raises(SourceError, match=r"sent no frame for 20 s.* frame 1 of a burst of 5.*0 of 5 frames"):
        source.run(frames)


def test_a_program_that_was_stopped_for_an_hour_waits_for_the_camera_as_before(tester, frames, monkeypatch):
    clock, stopped = Clock(), []
    core_class = engine_module.CarefulCore

    class Core(core_class):
        def getRemainingImageCount(self):
            if len(frames) >= 3 and not stopped:
                stopped.append(True)
                clock.ahead_s += 3600
                return 0  # the camera sends its next frame later
            return super().getRemainingImageCount()

    monkeypatch.setattr(engine_module, "time", clock)
    monkeypatch.setattr(engine_module, "CarefulCore", Core)
    tester.prepare(timelapse(8))
    tester.run(frames)
    assert stopped and frames.coordinates == [{"time": t} for t in range(8)]


# -- an acquisition that is continued ------------------------------------------------------------


def test_only_the_missing_frames_of_a_burst_are_triggered(tester, frames):
    """The hardware counts its images, so that an exposure that was not needed would show."""
    tester.prepare(timelapse(20))
    missing = [2, 3, 4, 9, 15, 16]
    tester.skip([DataCoordinates(time=t) for t in range(20) if t not in missing])
    tester.run(frames)
    assert frames.coordinates == [{"time": t} for t in missing]
    numbers = [serial_number(image) for _, image, _ in frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(missing)))
    assert all(meta["hardware_triggered"] for _, _, meta in frames)


def test_a_stack_of_which_planes_are_missing_moves_to_these_planes_only(make, frames):
    source = make(properties={"Z.UseSequences": "Yes", "Z.Position": 100})
    source.prepare(useq.MDASequence(time_plan={"interval": 0, "loops": 2}, z_plan={"range": 8, "step": 2}))
    source.skip([DataCoordinates(time=0, z=z) for z in (0, 2, 3)])
    source.run(frames)
    assert frames.coordinates == [{"time": 0, "z": z} for z in (1, 4)] + [
        {"time": 1, "z": z} for z in range(5)
    ]
    places = [meta["event"]["z_pos"] for _, _, meta in frames]
    assert places == [98, 104, 96, 98, 100, 102, 104]


def test_an_event_of_two_cameras_is_taken_again_unless_both_frames_exist(
    make, write_config, adapters, frames
):
    source = make(config=write_config(TWO_CAMERAS), adapter_path=adapters)
    plan = source.prepare(timelapse(4))
    every = list(plan.coordinates())
    source.skip([at for at in every if at["time"] in (0, 3) or (at["time"], at["camera"]) == (1, "Left")])
    source.run(frames)
    assert sorted((at["time"], at["camera"]) for at in frames.coordinates) == [
        (time, camera) for time in (1, 2) for camera in ("Left", "Right")
    ]


def test_the_times_of_a_continued_run_count_from_its_first_frame(make, frames):
    source = make()
    source.prepare(timelapse(5, interval=30, channels=["DAPI", "FITC"]))
    source.skip([DataCoordinates(time=t, channel=c) for t in range(5) for c in ("DAPI", "FITC") if t < 4])
    begin = time.monotonic()
    source.run(frames)
    assert frames.coordinates == [{"time": 4, "channel": c} for c in ("DAPI", "FITC")]
    assert time.monotonic() - begin < 20


def test_a_source_is_prepared_before_frames_are_left_out(make):
    with pytest.raises(SourceError, match="call prepare"):
        make().skip([])


def test_a_cancel_ends_the_wait_for_a_camera_that_gives_nothing(make, frames, monkeypatch):
    class Waiting(engine_module.CarefulCore):
        def getRemainingImageCount(self):
            source.cancel()
            return 0

    monkeypatch.setattr(engine_module, "CarefulCore", Waiting)
    source = make()
    source.prepare(timelapse(5))
    source.run(frames)
    assert frames == []


def test_a_frame_that_the_camera_skipped_is_an_error_and_no_frame_is_misplaced(make, frames, monkeypatch):
    class Skipping(engine_module.CarefulCore):
        popped = 0

        def popNextImageAndMD(self):
            self.popped += 1
            if self.popped == 3:
                super().popNextImageAndMD()
                while not self.getRemainingImageCount():
                    pass
            return super().popNextImageAndMD()

    monkeypatch.setattr(engine_module, "CarefulCore", Skipping)
    source = make()
    source.prepare(timelapse(10))
    with pytest.raises(SourceError, match=r"skipped 1 of its frames .* 2 of 10 frames"):
        source.run(frames)
    assert frames.coordinates == [{"time": 0}, {"time": 1}]


def test_a_full_camera_buffer_is_an_error_that_names_the_option(make, frames):
    source = make(buffer_mb=1, exposure_ms=1)
    source.prepare(timelapse(100))

    def sink(*frame):
        frames(*frame)
        while not source._core.isBufferOverflowed():
            pass

    with pytest.raises(SourceError, match=r"buffer of 1 MB was full .* buffer_mb.* of 100 frames"):
        source.run(sink)
    assert frames.coordinates == [{"time": t} for t in range(len(frames))]


class Clock:
    """The module ``time``, with a clock that can be put ahead."""

    ahead_s = 0.0
    sleep = staticmethod(time.sleep)
    perf_counter = staticmethod(time.perf_counter)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s
