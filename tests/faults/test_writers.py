"""Second writers in short: the campaign of ``writers.py``, and that it sees what it must."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "writers.py"


def run(folder, *arguments):
    ended = subprocess.run(
        [sys.executable, SCRIPT, "--folder", folder, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode in (0, 1), ended.stderr[-3000:]
    return ended.returncode, ended.stdout


def test_a_second_writer_is_refused_however_it_comes_and_admitted_after_a_killed_one(tmp_path):
    code, text = run(tmp_path, "--times", 5)
    assert code == 0, text
    assert text.count(": 5 of 5") == 10


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        ("no-lock", "refused: a thread: 0 of 1"),
        ("children-keep-it", "admitted: after a kill, os.fork: 0 of 1"),
    ],
)
def test_a_lock_that_is_made_wrong_is_found_out(spoil, seen, tmp_path):
    code, text = run(tmp_path, "--times", 1, "--spoil", spoil)
    assert code == 1, text
    assert seen in text
