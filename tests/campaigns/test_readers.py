"""Readers while a dataset is written, in short: the campaign of ``readers.py``, and that it sees what it must."""

import pytest


def test_eight_readers_see_only_whole_frames_and_never_fewer_and_all_at_the_end(campaign):
    code, text = campaign("--seconds", 4)
    assert code == 0, text
    assert "readers: 8" in text


@pytest.mark.parametrize("spoil", ["acknowledge-early", "index-first"])
def test_a_writer_that_is_made_wrong_is_found_out(spoil, campaign):
    code, text = campaign("--seconds", 2, "--spoil", spoil)
    assert code == 1, text
    assert ("acknowledged" if spoil == "acknowledge-early" else "DatasetDamagedError") in text
