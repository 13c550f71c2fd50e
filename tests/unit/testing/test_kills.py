"""A piece of code that is killed at a call: where it ended, and what is told of it."""

import os

import pytest

from exengine.testing.kills import killed_at_call

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture
def work(tmp_path):
    def make_and_rename():
        os.mkdir(tmp_path / "a")
        os.rename(tmp_path / "a", tmp_path / "b")

    return make_and_rename


@pytest.mark.parametrize(
    ("number", "when", "left"),
    [(1, "before", []), (1, "after", ["a"]), (2, "before", ["a"]), (2, "after", ["b"])],
)
def test_it_is_killed_before_or_after_the_call(work, tmp_path, number, when, left):
    assert killed_at_call(number, when, work)
    assert os.listdir(tmp_path) == left


def test_what_makes_fewer_calls_comes_to_its_end(work, tmp_path):
    assert not killed_at_call(3, "before", work)
    assert os.listdir(tmp_path) == ["b"]


def test_what_raises_is_no_kill(work, tmp_path, capfd):
    os.mkdir(tmp_path / "a")
    with pytest.raises(RuntimeError, match="status 1"):
        killed_at_call(9, "before", work)
    assert "FileExistsError" in capfd.readouterr().err


def test_this_process_keeps_its_calls(work):
    before = os.mkdir, os.rename
    killed_at_call(1, "before", work)
    assert (os.mkdir, os.rename) == before
