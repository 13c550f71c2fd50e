"""Second writers in short: the campaign of ``writers.py``, and that it sees what it must."""

import pytest


def test_a_second_writer_is_refused_however_it_comes_and_admitted_after_a_killed_one(campaign):
    code, text = campaign("--times", 5)
    assert code == 0, text
    assert text.count(": 5 of 5") == 10


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        ("no-lock", "refused: a thread: 0 of 1"),
        ("children-keep-it", "admitted: after a kill, os.fork: 0 of 1"),
    ],
)
def test_a_lock_that_is_made_wrong_is_found_out(spoil, seen, campaign):
    code, text = campaign("--times", 1, "--spoil", spoil)
    assert code == 1, text
    assert seen in text
