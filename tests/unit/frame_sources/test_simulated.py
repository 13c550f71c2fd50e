"""The source `simulated`: frames that name themselves, at the pace asked for, until told to stop."""

import threading
import time

import numpy as np
import pytest
import useq
from hypothesis import given
from hypothesis import strategies as st

from exengine.frame_sources.sequence import event_coordinates
from exengine.frame_sources.simulated import SimulatedSource, decode, encode
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.errors import DatasetDamagedError, OptionError, SourceError, UnsupportedDataError

SEQUENCE = useq.MDASequence(
    channels=["DAPI", "FITC"],
    time_plan={"interval": 0, "loops": 3},
    z_plan={"range": 4, "step": 2},
    stage_positions=[{"x": 10.0, "y": 20.0, "z": 0.0, "name": "A1"}, (1.0, 2.0, 0.0)],
)
LONG = useq.MDASequence(time_plan={"interval": 0, "loops": 1000})


def collect(source, sequence=SEQUENCE):
    """Return all frames of a run as (coordinates, pixels, metadata)."""
    frames = []
    source.prepare(sequence)
    source.run(lambda coordinates, array, metadata: frames.append((coordinates, array, metadata)))
    return frames


def run_on_thread(source, sink):
    """Start a run; return its thread and the list which an exception of the run will be put in."""
    errors = []

    def work():
        try:
            source.run(sink)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="test-simulated-run")
    thread.start()
    return thread, errors


# -- the code in the pixels ----------------------------------------------------------------------

axis_names = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8).map("axis_{}".format)
positions = st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@pytest.mark.parametrize("shape", [(64, 64), (48, 32, 3), (4096,)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@given(axes=st.dictionaries(axis_names, positions, max_size=4))
def test_any_coordinates_survive_encode_and_decode(shape, dtype, axes):
    array = np.full(shape, 7, dtype)
    encode(array, DataCoordinates(axes))
    assert decode(array) == axes


def test_a_frame_that_is_not_contiguous_can_be_encoded_and_decoded():
    whole = np.zeros((64, 64), "uint16")
    frame = whole[::2, ::2]
    encode(frame, DataCoordinates(time=1))
    assert decode(frame) == {"time": 1}
    assert not whole[1::2].any()


def test_encode_refuses_an_array_that_is_too_small_and_leaves_it_as_it_was():
    array = np.zeros((4, 4), "uint8")
    with pytest.raises(UnsupportedDataError, match=r"\(4, 4\)"):
        encode(array, DataCoordinates(time=1))
    assert not array.any()


@pytest.mark.parametrize("index", [0, 5, 9, 12])
def test_decode_refuses_a_code_in_which_one_value_was_changed(index):
    array = np.zeros((8, 8), "uint16")
    encode(array, DataCoordinates(time=1))
    array.flat[index] ^= 1
    with pytest.raises(DatasetDamagedError):
        decode(array)


def test_decode_refuses_values_that_only_resemble_bytes():
    array = np.zeros((8, 8), "uint16")
    encode(array, DataCoordinates(time=1))
    array.flat[12] += 256
    with pytest.raises(DatasetDamagedError, match="checksum"):
        decode(array)


@pytest.mark.parametrize(
    "array", [np.zeros((16, 16)), np.full((4, 4), np.nan), np.zeros((0, 5), "uint8"), np.zeros((), "uint16")]
)
def test_decode_refuses_a_frame_without_a_code(array):
    with pytest.raises(DatasetDamagedError, match="no code"):
        decode(array)


# -- the frames ----------------------------------------------------------------------------------


def test_the_source_runs_with_no_options_and_delivers_every_event_of_the_sequence_in_order():
    frames = collect(SimulatedSource())
    assert [coordinates for coordinates, _, _ in frames] == [event_coordinates(event) for event in SEQUENCE]
    assert frames[0][0] == {"time": 0, "position": "A1", "channel": "DAPI", "z": 0}
    assert frames[-1][0] == {"time": 2, "position": 1, "channel": "FITC", "z": 2}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("rgb", [False, True])
def test_every_frame_names_itself_and_has_the_planned_shape_and_dtype(dtype, rgb):
    source = SimulatedSource(width=80, height=48, dtype=dtype, rgb=rgb)
    plan = source.prepare(SEQUENCE)
    assert plan.frames == 36
    assert plan.shape == ((48, 80, 3) if rgb else (48, 80))
    assert plan.dtype == dtype
    assert plan.summary == {"source": "simulated", "seed": 0, "rate_hz": None}
    for coordinates, array, _ in collect(source):
        assert decode(array) == coordinates
        assert (array.shape, array.dtype.name) == (plan.shape, plan.dtype)


def test_a_frame_larger_than_the_computed_picture_is_filled_to_its_edges():
    frames = collect(SimulatedSource(width=700, height=1100), useq.MDASequence(channels=["DAPI"]))
    assert frames[0][1].shape == (1100, 700)
    array = frames[0][1][8:]  # below the code
    assert np.array_equal(array[512:], array[:-512])
    assert np.array_equal(array[:, 512:], array[:, :-512])


def test_every_frame_is_an_array_of_its_own():
    arrays = [array for _, array, _ in collect(SimulatedSource(width=64, height=64))]
    assert all(array.base is None and array.flags.writeable for array in arrays)
    before = arrays[1].copy()
    arrays[0][:] = 0
    assert np.array_equal(arrays[1], before)


def test_the_picture_differs_in_time_channel_z_and_position():
    frames = {coordinates: array for coordinates, array, _ in collect(SimulatedSource(width=96, height=96))}
    first = DataCoordinates(time=0, position="A1", channel="DAPI", z=0)
    below_the_code = slice(8, None)
    for change in ({"time": 1}, {"channel": "FITC"}, {"z": 1}, {"position": 1}):
        other = frames[first.replace(**change)]
        assert not np.array_equal(frames[first][below_the_code], other[below_the_code]), change


def test_the_middle_of_a_stack_is_sharper_than_its_ends():
    sequence = useq.MDASequence(z_plan={"range": 10, "step": 1})
    frames = [
        array[8:].astype(float) for _, array, _ in collect(SimulatedSource(width=256, height=256), sequence)
    ]
    sharpness = [np.abs(np.diff(frame, n=2)).mean() for frame in frames]
    assert max(sharpness) == sharpness[5]
    assert min(sharpness[0], sharpness[10]) == min(sharpness)


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others():
    one, same, other = (
        np.stack([array for _, array, _ in collect(SimulatedSource(width=64, height=64, seed=seed))])
        for seed in (3, 3, 4)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_metadata_say_what_is_known_of_the_frame():
    sequence = SEQUENCE.replace(channels=[{"config": "DAPI", "exposure": 12.5}])
    frames = collect(SimulatedSource(width=64, height=64), sequence)
    metadata = frames[0][2]
    elapsed_ms = metadata.pop("elapsed_ms")
    assert isinstance(elapsed_ms, float)
    assert elapsed_ms >= 0
    assert metadata == {
        "source": "simulated",
        "frame_number": 0,
        "exposure_ms": 12.5,
        "channel": "DAPI",
        "position_um": {"x": 10.0, "y": 20.0, "z": -2.0},
    }
    assert [metadata["frame_number"] for _, _, metadata in frames] == list(range(18))


def test_the_metadata_hold_nothing_that_the_sequence_does_not_say():
    metadata = collect(SimulatedSource(), LONG.replace(time_plan={"interval": 0, "loops": 1}))[0][2]
    assert set(metadata) == {"source", "frame_number", "elapsed_ms"}


def test_an_autofocus_event_gives_no_frame():
    sequence = useq.MDASequence(
        time_plan={"interval": 0, "loops": 2},
        autofocus_plan={"autofocus_device_name": "Z", "autofocus_motor_offset": 4, "axes": ("t",)},
    )
    assert any(event.action.type != "acquire_image" for event in sequence)
    assert [dict(coordinates) for coordinates, _, _ in collect(SimulatedSource(), sequence)] == [
        {"time": 0},
        {"time": 1},
    ]


# -- what cannot be run --------------------------------------------------------------------------


def test_prepare_refuses_frames_too_small_for_their_code():
    long_name = "B" * 250
    sequence = useq.MDASequence(channels=["A", long_name])
    with pytest.raises(SourceError, match=r"16 x 16 pixels are too small: .* increase width or height"):
        SimulatedSource(width=16, height=16).prepare(sequence)
    assert SimulatedSource(width=16, height=16, rgb=True).prepare(sequence).frames == 2


def test_prepare_refuses_a_name_longer_than_any_code():
    with pytest.raises(SourceError, match="too long"):
        SimulatedSource().prepare(useq.MDASequence(channels=["B" * 70_000]))


def test_prepare_refuses_two_positions_with_one_name():
    twice = [{"x": 0, "name": "A"}, {"x": 1, "name": "A"}]
    with pytest.raises(SourceError, match="position"):
        SimulatedSource().prepare(useq.MDASequence(stage_positions=twice))


def test_a_prepare_that_fails_leaves_the_prepared_sequence_as_it_was():
    source = SimulatedSource(width=16, height=16)
    source.prepare(SEQUENCE)
    with pytest.raises(SourceError):
        source.prepare(useq.MDASequence(channels=["B" * 250]))
    numbers = []
    source.run(lambda coordinates, array, metadata: numbers.append(metadata["frame_number"]))
    assert len(numbers) == 36


def test_run_without_prepare_says_to_prepare():
    with pytest.raises(SourceError, match="prepare"):
        SimulatedSource().run(lambda *frame: None)


@pytest.mark.parametrize(
    "options",
    [
        {"width": 15},
        {"height": 16385},
        {"dtype": "float32"},
        {"rate_hz": 0},
        {"rate_hz": float("nan")},
        {"seed": -1},
        {"fail_after": -1},
    ],
)
def test_an_option_out_of_range_is_refused(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        SimulatedSource(**options)


# -- the run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fail_after", [0, 5, 36])
def test_fail_after_delivers_that_many_frames_and_then_raises(fail_after):
    source = SimulatedSource(width=64, height=64, fail_after=fail_after)
    source.prepare(SEQUENCE)
    delivered = []
    with pytest.raises(SourceError, match=f"fail_after={fail_after}"):
        source.run(lambda *frame: delivered.append(frame))
    assert len(delivered) == fail_after


def test_fail_after_more_frames_than_there_are_changes_nothing():
    assert len(collect(SimulatedSource(width=64, height=64, fail_after=37))) == 36


def test_what_the_sink_raises_leaves_run_at_once():
    source = SimulatedSource(width=64, height=64)
    source.prepare(SEQUENCE)
    calls = []

    def sink(*frame):
        calls.append(frame)
        raise ZeroDivisionError("from the sink")

    with pytest.raises(ZeroDivisionError, match="from the sink"):
        source.run(sink)
    assert len(calls) == 1


def test_cancel_from_the_sink_ends_the_run_after_that_frame_without_an_error():
    source = SimulatedSource(width=64, height=64)
    source.prepare(LONG)
    numbers = []

    def sink(coordinates, array, metadata):
        numbers.append(metadata["frame_number"])
        if len(numbers) == 3:
            source.cancel()

    source.run(sink)
    assert numbers == [0, 1, 2]


def test_cancel_before_run_ends_the_run_before_the_first_frame():
    source = SimulatedSource()
    source.cancel()
    source.prepare(SEQUENCE)
    source.cancel()
    source.run(lambda *frame: pytest.fail("a frame was delivered"))


def test_cancel_interrupts_the_wait_for_the_next_frame():
    source = SimulatedSource(width=64, height=64, rate_hz=0.001)  # the second frame is due in 1,000 s
    source.prepare(SEQUENCE)
    first_frame = threading.Event()
    thread, errors = run_on_thread(source, lambda *frame: first_frame.set())
    assert first_frame.wait(30)
    source.cancel()
    source.cancel()
    thread.join(30)
    assert not thread.is_alive()
    assert errors == []


def test_frames_never_come_before_they_are_due():
    source = SimulatedSource(width=64, height=64, rate_hz=200)
    source.prepare(SEQUENCE)
    times = []
    started = time.perf_counter()
    source.run(lambda *frame: times.append(time.perf_counter() - started))
    tick = 0.016  # of the coarsest clock that an operating system has
    assert all(at >= number / 200 - tick for number, at in enumerate(times))


def test_the_time_that_the_sink_takes_does_not_delay_the_frames_after_it():
    source = SimulatedSource(width=64, height=64, rate_hz=0.1)  # one frame in 10 s
    source.prepare(useq.MDASequence(time_plan={"interval": 0, "loops": 5}))
    waits = []

    class Clock(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return super().wait(0)

    source._cancelled = Clock()
    source.run(lambda *frame: None)
    # Nothing was waited for, so each deadline lies one period further ahead: 0, 10, 20 ... s.
    assert waits[0] == 0.0
    for number, wait in enumerate(waits[1:], 1):
        assert 10 * (number - 1) < wait <= 10 * number


def test_close_may_be_called_twice_and_ends_the_life_of_the_source():
    source = SimulatedSource()
    source.close()
    source.prepare(SEQUENCE)
    source.close()
    source.close()
    with pytest.raises(SourceError):
        source.run(lambda *frame: None)


def test_a_prepared_source_can_run_again():
    source = SimulatedSource(width=64, height=64)
    assert len(collect(source)) == len(collect(source)) == 36
