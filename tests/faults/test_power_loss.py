"""A few power cuts of each kind, and the proof that the judge sees what was lost."""

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).with_name("power_loss.py")


@pytest.fixture
def cut(cannot_run):
    """Return what runs the campaign in a process without threads, and gives its exit code and its text."""

    def run(*arguments):
        ended = subprocess.run(
            [sys.executable, str(CAMPAIGN), *map(str, arguments)],
            check=False, capture_output=True, text=True, timeout=110,
        )  # fmt: skip
        assert not ended.stderr, ended.stderr
        if lacking := [line for line in ended.stdout.splitlines() if line.startswith("cannot run")]:
            assert "BROKEN" not in ended.stdout, ended.stdout
            cannot_run("; ".join(lacking))
        assert str(Path("/disk/data")) not in Path("/proc/mounts").read_text()
        return ended.returncode, ended.stdout

    return run


def test_what_was_synced_survives_and_the_controls_lose_frames(cut):
    code, text = cut("--cuts", 3)
    assert code == 0, text
    assert "runs: 18" in text
    for mode in ("finished", "handler"):
        assert f"{mode}: 3 cuts, 240 frames acknowledged, 0 lost" in text
    for control in ("unsynced", "ndstorage"):
        assert f"{control}: 3 cuts" in text and f"{control}: 3 cuts, 0 frames" not in text


def test_a_flush_that_syncs_nothing_is_found(cut):
    code, text = cut("--cuts", 3, "--modes", "durable", "--without-sync")
    assert code == 1
    assert "synced and lost" in text and "more than 8" in text
