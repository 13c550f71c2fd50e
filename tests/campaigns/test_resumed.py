"""Acquisitions that are killed and continued, in short: the campaign of ``resumed.py``, and that it sees faults."""

import pytest
from results import NIGHTLY, VARIANTS

BACKENDS = {**VARIANTS, "hdf5": ("--backend", "hdf5"), "ndtiff": ("--backend", "ndtiff")}


@pytest.mark.parametrize("backend", BACKENDS if NIGHTLY else [*BACKENDS][1:])
def test_an_acquisition_that_is_killed_and_continued_has_every_frame_once(campaign, figure, backend):
    code, text = campaign("--count", 3, *BACKENDS[backend])
    assert code == 0, text
    assert figure(text, "kills") >= 3 and figure(text, "frames planned") > 100
    assert figure(text, "frames missing") == figure(text, "frames wrong") == 0


@pytest.mark.parametrize(
    ("spoil", "seen"), [("forget-a-frame", "frames missing"), ("other-pixels", "frames wrong")]
)
def test_a_run_that_is_made_wrong_is_found_out(campaign, figure, spoil, seen):
    code, text = campaign("--count", 3, "--spoil", spoil)
    assert code == 1, text
    assert figure(text, seen) > 0
