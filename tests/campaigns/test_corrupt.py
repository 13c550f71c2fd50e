"""Damaged datasets in short: the campaign of ``corrupt.py``, and that it sees what it must."""

from itertools import product

import pytest
from results import NIGHTLY

SEEN = {
    "no-checksums": "damaged frames returned as good",
    "foreign-error": "foreign exceptions",
    "hang": "hangs",
    "crash": "crashes of the interpreter",
    "memory": "foreign exceptions",
}
WRONG = [*product(SEEN, ["ndtiff", "ome-zarr"])]


def test_120_damaged_datasets_end_in_frames_that_are_right_or_in_errors_of_ours(campaign, figure):
    code, text = campaign("--count", 120)
    assert code == 0, text
    for name in (
        "hangs",
        "crashes of the interpreter",
        "foreign exceptions",
        "damaged frames returned as good",
    ):
        assert figure(text, name) == 0
    assert figure(text, "frames read and equal") > 120
    assert figure(text, "frames reported as damaged") > 20
    assert figure(text, "most memory, MiB") < 1024


def test_60_damaged_datasets_of_ome_zarr_end_in_frames_that_are_right_or_in_errors_of_ours(
    campaign, figure, variant
):
    code, text = campaign("--count", 60, *variant)
    assert code == 0, text
    for name in ("hangs", "crashes of the interpreter", "damaged frames returned as good"):
        assert figure(text, name) == 0
    assert figure(text, "frames reported as damaged") > 10


@pytest.mark.parametrize("backend", ["hdf5", "ome-tiff"])
def test_50_damaged_datasets_of_one_file_end_in_frames_that_are_right_or_in_errors_of_ours(
    campaign, figure, backend
):
    code, text = campaign("--count", 50, "--backend", backend)
    assert code == 0, text
    for name in ("hangs", "crashes of the interpreter", "damaged frames returned as good"):
        assert figure(text, name) == 0
    assert figure(text, "frames read and equal") > 70 and figure(text, "frames reported as damaged") > 0


def test_a_reader_of_one_file_that_compares_no_checksums_is_found_out(campaign, figure):
    code, text = campaign("--count", 60, "--spoil", "no-checksums", "--backend", "hdf5")
    assert code == 1, text
    assert figure(text, "damaged frames returned as good") > 0


@pytest.mark.parametrize(("spoil", "backend"), WRONG if NIGHTLY else WRONG[::4] + WRONG[3::4])
def test_a_reader_that_is_made_wrong_is_found_out(campaign, spoil, figure, backend):
    count = 60 if spoil == "no-checksums" else 30
    code, text = campaign("--count", count, "--spoil", spoil, "--patience", 0.5, "--backend", backend)
    assert code == 1, text
    assert figure(text, SEEN[spoil]) > 0
