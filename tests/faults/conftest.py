"""Short runs of the fault campaigns. The long ones are scripts: see ``tox.ini``, the environments ``faults-*``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from results import NIGHTLY


@pytest.fixture
def cannot_run():
    """Return what ends a test that lacks a right or a program: skipped, and failed in the nightly environment."""

    def end(why: str) -> None:
        if NIGHTLY:
            pytest.fail(f"cannot run: {why}")
        pytest.skip(why)

    return end
