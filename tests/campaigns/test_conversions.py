"""Conversions that are killed and repeated, in short: the campaign of ``conversions.py``, and that it sees faults."""

import pytest


@pytest.mark.parametrize("backend", ["ndtiff", "ome-zarr", "ome-tiff"])
def test_a_conversion_that_is_killed_and_repeated_comes_to_the_same_result(campaign, figure, backend):
    code, text = campaign("--count", 4, "--backend", backend)
    assert code == 0, text
    assert figure(text, "kills") == 4 and figure(text, "frames compared") > 100
    assert figure(text, "frames wrong") == 0


@pytest.mark.parametrize("spoil", ["forget-a-frame", "other-pixels"])
def test_a_copy_that_continues_wrongly_is_found_out(campaign, figure, spoil):
    code, text = campaign("--count", 8, "--spoil", spoil)
    assert code == 1, text
    assert "BROKEN" in text
