"""Other programs read right after ``kill -9``, in short: the campaign of ``after_kill.py``."""


def test_zarr_and_tensorstore_read_acknowledged_frames_right_after_a_kill(campaign, figure):
    code, text = campaign("--count", 1, "--samples", 25)
    assert code == 0, text
    assert figure(text, "kills") == 1 and figure(text, "frames lost") == 0
    assert figure(text, "frames read by others, at once") == 2 * 25
