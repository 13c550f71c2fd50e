"""A few power cuts of each kind, and the proof that the judge sees what was lost."""

from pathlib import Path

import pytest


@pytest.fixture
def cut(campaign):
    """Return the campaign, which must leave nothing mounted."""
    yield campaign
    assert "/disk/data" not in Path("/proc/mounts").read_text()


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
