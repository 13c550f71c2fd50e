"""Other programs read right after ``kill -9``, in short: the campaign of ``after_kill.py``."""


def test_zarr_and_tensorstore_read_acknowledged_frames_right_after_a_kill(campaign, figure):
    code, text = campaign("--count", 2, "--samples", 25)
    assert code == 0, text
    assert figure(text, "kills") == 2 and figure(text, "frames lost") == 0
    assert figure(text, "frames read by others, at once") == 2 * 2 * 25
