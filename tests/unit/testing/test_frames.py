"""Frames name themselves, whatever their dtype and shape."""

import numpy as np
import pytest

from exengine.testing.frames import check_frame, frame_of, name_of, same
from exengine.testing.promises import PromiseBrokenError

AXES = {"time": 3, "channel": "Zähler \U0001f52c", "z": -2}
DTYPES = ["bool", "uint8", "int8", ">u2", "int16", "uint64", "float16", "<f8", "complex64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(24, 40), (2000,), (24, 40, 3), (2, 2, 2, 200)])
def test_a_frame_says_where_it_belongs(dtype, shape):
    frame = frame_of(AXES, shape, dtype)
    assert frame.shape == shape and frame.dtype == np.dtype(dtype)
    assert name_of(frame) == AXES


@pytest.mark.parametrize("dtype", [*DTYPES, "M8[s]", "S3", "V5"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 3), (0, 4)])
def test_a_frame_without_room_for_a_name_is_still_the_same_each_time(dtype, shape):
    assert same(frame_of(AXES, shape, dtype), frame_of(dict(reversed(AXES.items())), shape, dtype))
    assert name_of(frame_of(AXES, shape, dtype)) is None


def test_frames_at_other_coordinates_and_with_another_salt_differ():
    frames = [frame_of({"time": at}, (4, 4), "uint8", salt) for at in range(3) for salt in range(3)]
    assert len({frame.tobytes() for frame in frames}) == 9


def test_the_order_of_bytes_is_no_difference_and_everything_else_is():
    frame = frame_of(AXES, (4, 4), "uint16")
    assert same(frame.astype(">u2"), frame)
    for other in (frame.astype("int16"), frame.T.copy(), frame[:2], frame + 1, frame.tolist(), None):
        assert not same(other, frame)
    assert not same(np.array([-0.0]), np.array([0.0]))
    assert same(np.array([np.nan]), np.array([np.nan]))


def test_the_message_names_the_frame_that_is_in_the_wrong_place():
    frame, other = frame_of({"time": 0}, (8, 8), "uint16"), frame_of({"time": 1}, (8, 8), "uint16")
    small, small_other = frame_of({"time": 0}, (2,), "uint16"), frame_of({"time": 1}, (2,), "uint16")
    changed = frame.copy()
    changed[-1, -1] ^= 1
    cases = [
        (
            other,
            frame,
            r"P1: the frame at 'here' was returned with the pixels of the frame that was put at {'time': 1}",
        ),
        (small_other, small, "was returned with the pixels of the frame that was put at 'there'"),
        (frame * 0, frame, "was returned as zeros"),
        (changed, frame, "1 of 64 values differ"),
        (frame.astype("int32"), frame, "int32, but was put with .* uint16"),
        (frame.tolist(), frame, "object of type list, not as an array"),
    ]
    for got, wanted, message in cases:
        with pytest.raises(PromiseBrokenError, match=message):
            check_frame(got, wanted, "here", "P1", [("there", small_other)])
    check_frame(frame.copy(), frame, "here")
