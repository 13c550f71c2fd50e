"""Sequences as people may write them, carried out as they are stated or refused before the run (S1, S2, S3).

``EXENGINE_FIELD`` is the number of sequences; without it 30, and a tenth of 200 interrupts.
"""

import _thread
import os
import random
import threading

import pytest
from drawing import sequences
from hypothesis import HealthCheck, Phase, given, seed, settings
from stated import stated
from witness import CONFIG, EXPOSURE_MS, FOCUS_CORRECTION_UM, START, WITNESS, WitnessCore

from exengine.base_classes import SEQUENCE_RULES
from exengine.errors import SourceError
from exengine.testing import SimulatedSource
from exengine_micromanager import MicroManagerSource
from exengine_micromanager import engine as engine_module
from exengine_micromanager.plan_checks import DEVICE_RULES

SEQUENCES = int(os.environ.get("EXENGINE_FIELD", "30"))
INTERRUPTS = 200 if "EXENGINE_FIELD" in os.environ else 20
SEED = int(os.environ.get("EXENGINE_FIELD_SEED", "13"))
MOST_REFUSED = 0.3 if SEQUENCES >= 500 else 0.45  # chance counts where few are drawn

drawn = settings(
    max_examples=SEQUENCES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
pytestmark = pytest.mark.timeout(3600 if "EXENGINE_FIELD" in os.environ else 400)


@pytest.fixture
def microscope(monkeypatch, write_config, adapters):
    """Make sources of the microscope that the witness sees."""
    monkeypatch.setattr(engine_module, "CarefulCore", WitnessCore)
    path = write_config(CONFIG)

    def make():
        WITNESS.reset()
        return MicroManagerSource(config=path, adapter_path=adapters, buffer_mb=32)

    return make


def prepared(source, sequence):
    """Return the plan, or None and the refusal."""
    try:
        return source.prepare(sequence), None
    except SourceError as error:
        return None, error


def near(value):
    return pytest.approx(value, abs=1e-6)


def test_what_the_witness_saw_is_what_the_sequence_states_or_it_was_refused_by_a_rule(microscope):
    outcomes = []

    @seed(SEED)
    @drawn
    @given(sequences())
    def each(sequence):
        outcomes.append(carried_out(microscope(), sequence))

    each()
    refused = [rule for rule in outcomes if rule]
    assert len(outcomes) >= SEQUENCES
    assert len(refused) <= MOST_REFUSED * len(outcomes), {rule: refused.count(rule) for rule in refused}


def carried_out(source, sequence):
    """Run a sequence and compare; return the rule by which it was refused, if it was."""
    frames, shutter = [], []

    def sink(coordinates, pixels, metadata):
        frames.append((dict(coordinates), pixels, metadata))
        shutter.append(set(WITNESS.open_shutters))

    plan, refusal = prepared(source, sequence)
    if plan is None:
        assert refusal.rule in {**SEQUENCE_RULES, **DEVICE_RULES}, refusal
        assert (WITNESS.moves, WITNESS.exposures, WITNESS.shutter_open) == (0, [], False)
        source.close()
        return refusal.rule
    assert (WITNESS.moves, WITNESS.exposures) == (0, [])
    before = source.settings()
    source.run(sink)
    expected, focused = stated(
        sequence, {**START, "exposure_ms": EXPOSURE_MS}, EXPOSURE_MS, correction_um=FOCUS_CORRECTION_UM
    )
    assert [coordinates for coordinates, _, _ in frames] == [frame.coordinates for frame in expected]
    assert [dict(coordinates) for coordinates in plan.coordinates()] == [
        frame.coordinates for frame in expected
    ]
    assert_spans(plan, expected)
    assert plan.frames == len(expected) == len(WITNESS.exposures)
    assert near(focused) == WITNESS.focused_at
    for seen, frame, (_, pixels, metadata), opened in zip(
        WITNESS.exposures, expected, frames, shutter, strict=True
    ):
        assert int(pixels[0, 0]) == seen.number % 250
        assert (seen.camera, seen.exposure_ms) == (frame.camera, near(frame.exposure_ms))
        assert (seen.x, seen.y, seen.z) == (near(frame.x), near(frame.y), near(frame.z))
        assert frame.wheel is None or seen.wheel == frame.wheel
        assert seen.open_shutters == frame.open_shutters
        assert frame.autoshutter or not seen.autoshutter  # held open, it is off where it is stated on
        assert (pixels.shape, (pixels.shape, str(pixels.dtype)) in plan.layouts) == (frame.shape, True)
        assert (metadata["camera"], metadata["exposure_ms"]) == (frame.camera, near(frame.exposure_ms))
        if not metadata["hardware_triggered"]:
            assert opened == frame.kept_open
            where = metadata["position"]
            assert (where["x_um"], where["y_um"], where["z_um"]) == (
                near(frame.x),
                near(frame.y),
                near(frame.z),
            )
    assert source.settings() == before and source.unrestored == ()
    source.close()
    return None


def assert_spans(plan, expected):
    """Assert that the planned axes have the positions of the frames, and nothing else."""
    found = {}
    for frame in expected:
        for axis, position in frame.coordinates.items():
            found.setdefault(axis, {})[position] = None
    assert {axis.name: axis.positions for axis in plan.axes} == {
        axis: tuple(at) for axis, at in found.items()
    }
    assert tuple(channel.name for channel in plan.channels) == tuple(found.get("channel", ()))
    assert tuple(place.name for place in plan.stage_positions) == tuple(found.get("position", ()))


def test_the_simulated_source_carries_out_the_same_sequences():
    refused = []

    @seed(SEED)
    @drawn
    @given(sequences(devices=False))
    def each(sequence):
        source, frames = SimulatedSource(width=32, height=24), []
        plan, refusal = prepared(source, sequence)
        if plan is None:
            assert refusal.rule in {**SEQUENCE_RULES, "devices": ""}, refusal
            refused.append(refusal.rule)
            return
        before = source.settings()
        source.run(lambda *frame: frames.append(frame))
        expected, _ = stated(
            sequence, {"x": 0.0, "y": 0.0, "z": 0.0, "exposure_ms": None}, None, presets=False
        )
        assert [dict(coordinates) for coordinates, _, _ in frames] == [
            frame.coordinates for frame in expected
        ]
        assert_spans(plan, expected)
        assert plan.frames == len(frames)
        for frame, (_, _, metadata) in zip(expected, frames, strict=True):
            for axis, at in metadata.get("position_um", {}).items():
                assert at == near(getattr(frame, axis))
        assert source.settings() == before

    each()
    assert len(refused) <= MOST_REFUSED * SEQUENCES, {rule: refused.count(rule) for rule in refused}


# The thread of the core for Python devices lets the error of a camera out.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("how", ["cancel", "interrupt", "storage", "device"])
def test_after_an_interrupt_at_any_moment_the_shutter_is_closed_and_settings_are_restored(microscope, how):
    ended = []
    chance = random.Random(SEED)

    @seed(SEED + 1)
    @settings(drawn, max_examples=INTERRUPTS)
    @given(sequences())
    def each(sequence):
        if len(ended) >= INTERRUPTS // 4:
            return
        source = microscope()
        plan, _ = prepared(source, sequence)
        if plan is None or not plan.frames:  # an acquisition refuses a plan without frames
            source.close()
            return
        frames = plan.frames
        before = source.settings()
        if chance.random() < 0.3:  # what a user left open is closed too
            WITNESS.open_shutters.add(chance.choice(["Shut", "Shut2"]))
        if interrupted(source, how, chance.randrange(frames), chance.random()) < frames:
            assert not WITNESS.shutter_open
            assert source.settings() == before and source.unrestored == ()
            ended.append(how)
        source.close()

    each()
    assert len(ended) == INTERRUPTS // 4, "too few of the drawn sequences were run"


def interrupted(source, how, at, moment):
    """Run a source, and end the run at a frame, from within the sink or beside it; return the number of frames."""
    count = [0]
    timers = []

    def sink(*frame):
        count[0] += 1
        if count[0] <= at:
            return
        if how in ("storage", "interrupt"):
            count[0] -= 1  # this frame is not taken
        if how == "storage":
            raise OSError("disk full")
        if how == "cancel" and moment < 0.5:
            count[0] -= 1
            source.cancel()
        elif how == "cancel" and not timers:
            timers.append(threading.Timer(moment * 0.01, source.cancel))
            timers[0].start()
        elif how == "interrupt":
            if moment < 0.5:
                raise KeyboardInterrupt
            _thread.interrupt_main()

    if how == "device":
        WITNESS.fail_at = at
    try:
        source.run(sink)
    except (OSError, KeyboardInterrupt):
        assert how in ("storage", "interrupt")
    except SourceError:
        assert how == "device"
    for timer in timers:
        timer.join()
    return count[0] if how != "device" else 0
