"""Other programs read OME-Zarr while it is written, in short: the campaign of ``live_readers.py``."""

PYTHON = ("--programs", "zarr", "tensorstore")


def test_zarr_and_tensorstore_read_every_acknowledged_frame_while_it_is_written_and_after_kill_9(
    campaign, figure
):
    code, text = campaign("--reads", 500, "--after", 60, "--least", 0, *PYTHON)
    assert code == 0, text
    for program in PYTHON[1:]:
        assert figure(text, f"reads by {program} while it is written") == 250
    assert figure(text, "reads right after kill -9") == 120


def test_a_frame_that_is_acknowledged_too_early_is_found(campaign):
    code, text = campaign("--reads", 600, "--after", 0, "--least", 0, "--spoil", "--programs", "tensorstore")
    assert code == 1 and "other pixels" in text, text
