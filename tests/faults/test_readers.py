"""Readers while a dataset is written, in short: the campaign of ``readers.py``, and that it sees what it must."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "readers.py"


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


def test_eight_readers_see_only_whole_frames_and_never_fewer_and_all_at_the_end(tmp_path):
    code, text = run(tmp_path, "--seconds", 6)
    assert code == 0, text
    assert "readers: 8" in text


@pytest.mark.parametrize("spoil", ["acknowledge-early", "index-first"])
def test_a_writer_that_is_made_wrong_is_found_out(spoil, tmp_path):
    code, text = run(tmp_path, "--seconds", 2, "--spoil", spoil)
    assert code == 1, text
    assert ("acknowledged" if spoil == "acknowledge-early" else "DatasetDamagedError") in text
