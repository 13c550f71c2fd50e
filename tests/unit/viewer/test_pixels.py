"""The pixels that the page gets have the values of the frame."""

import numpy as np
import pytest

from exengine.kernel.errors import UnsupportedDataError
from exengine.viewer import pixels
from exengine.viewer.pixels import picture_of

EXACT = ["u1", "i1", "<u2", ">u2", "<i2", ">i4", "<u4", "<u8", ">i8", "<f4", ">f4", "<f8"]


def ramp(dtype, shape=(5, 7)):
    return (np.arange(np.prod(shape)) - 3).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", EXACT)
def test_values_and_dtype_are_those_of_the_frame(dtype):
    data = ramp(dtype)
    found = picture_of(data)
    sent = np.frombuffer(found.pixels.tobytes(), np.dtype(found.dtype).newbyteorder("<")).reshape(data.shape)
    assert np.array_equal(sent, data) and np.dtype(found.dtype) == data.dtype.newbyteorder("=")
    assert (found.step, found.note) == (1, "")


@pytest.mark.parametrize(("dtype", "sent"), [("?", "uint8"), ("f2", "float32"), ("longdouble", "float64")])
def test_dtypes_that_a_browser_does_not_have_keep_their_values(dtype, sent):
    data = ramp(dtype)
    assert picture_of(data).dtype == sent
    assert np.array_equal(picture_of(data).pixels, data.astype(sent))


def test_infinite_values_and_nan_are_kept():
    data = np.array([[np.nan, np.inf, -np.inf, 1.5]], np.float32)
    assert np.array_equal(picture_of(data).pixels, data, equal_nan=True)


def test_complex_values_are_shown_as_their_magnitude_and_the_page_says_it():
    found = picture_of(np.array([[3 + 4j]], np.complex64))
    assert found.pixels[0, 0] == 5 and found.dtype == "float32" and "magnitude" in found.note


@pytest.mark.parametrize(
    ("shape", "shown", "note"),
    [
        ((4, 6, 3), (4, 6, 3), ""),
        ((4, 6, 4), (4, 6, 3), "fourth"),
        ((5, 4, 6), (4, 6), "planes in the frame: 5"),
        ((2, 5, 4, 6), (4, 6), "planes in the frame: 10"),
        ((6,), (1, 6), ""),
        ((), (1, 1), ""),
    ],
)
def test_a_frame_of_any_shape_is_an_image(shape, shown, note):
    data = ramp("u2", shape)
    found = picture_of(data)
    assert found.pixels.shape == shown and note in found.note and bool(note) == bool(found.note)
    assert found.pixels.flat[0] == data.flat[0] and found.pixels.flags.c_contiguous


def test_a_frame_that_is_too_large_is_sent_at_a_lower_resolution_and_the_page_says_it(monkeypatch):
    monkeypatch.setattr(pixels, "LARGEST_BYTES", 1000)
    data = ramp("u2", (60, 40))
    found = picture_of(data)
    assert found.step == 3 and np.array_equal(found.pixels, data[::3, ::3]) and "3 x 3" in found.note


@pytest.mark.parametrize("shape", [(96, 50), (97, 50), (500, 1000), (1, 5000), (3, 2)])
def test_a_thumbnail_is_small_and_shows_the_whole_frame(shape):
    found = picture_of(ramp("u2", shape), largest_side=96)
    assert max(found.pixels.shape) <= 96
    assert all(size * found.step >= whole for size, whole in zip(found.pixels.shape, shape, strict=True))


@pytest.mark.parametrize("data", [np.zeros((0, 4), np.uint8), np.array([["a"]]), np.zeros((2, 2), "M8[s]")])
def test_a_frame_that_is_not_an_image_is_refused(data):
    with pytest.raises(UnsupportedDataError, match="cannot be shown"):
        picture_of(data)
