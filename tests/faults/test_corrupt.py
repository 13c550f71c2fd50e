"""Damaged datasets in short: the campaign of ``corrupt.py``, and that it sees what it must."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "corrupt.py"


@pytest.fixture
def campaign(tmp_path):
    """Return what runs the campaign in a process without threads, and returns its exit code and its text."""

    def run(*arguments):
        ended = subprocess.run(
            [sys.executable, SCRIPT, "--folder", tmp_path, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert ended.returncode in (0, 1), ended.stderr[-3000:]
        return ended.returncode, ended.stdout

    return run


def figure(text, name):
    return int(re.search(rf"^{name}: (\d+)", text, re.MULTILINE)[1])


def test_500_damaged_datasets_end_in_frames_that_are_right_or_in_errors_of_ours(campaign):
    code, text = campaign("--count", 500)
    assert code == 0, text
    for name in (
        "hangs",
        "crashes of the interpreter",
        "foreign exceptions",
        "damaged frames returned as good",
    ):
        assert figure(text, name) == 0
    assert figure(text, "frames read and equal") > 500
    assert figure(text, "frames reported as damaged") > 100
    assert figure(text, "most memory, MiB") < 1024


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        ("no-checksums", "damaged frames returned as good"),
        ("foreign-error", "foreign exceptions"),
        ("hang", "hangs"),
        ("crash", "crashes of the interpreter"),
        ("memory", "foreign exceptions"),
    ],
)
def test_a_reader_that_is_made_wrong_is_found_out(campaign, spoil, seen):
    code, text = campaign("--count", 60, "--spoil", spoil, "--patience", 0.5)
    assert code == 1, text
    assert figure(text, seen) > 0
