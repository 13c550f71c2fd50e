"""Short runs of the fault campaigns. For the long runs, see ``faults-*`` in ``tox.ini``.

``tox -e nightly`` runs each case. Otherwise, some cases are tested with one backend, and ome-zarr without compression.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from results import NIGHTLY, VARIANTS

HERE = Path(__file__).parent
PATIENCE_S = 600  # a short campaign takes at most a minute on an idle machine


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(PATIENCE_S + 20))


@pytest.fixture
def cannot_run():
    """Return a function that skips a test that cannot run here, or fails it in the nightly environment."""

    def end(why):
        if NIGHTLY:
            pytest.fail(f"cannot run: {why}")
        pytest.skip(why)

    return end


@pytest.fixture(params=VARIANTS if NIGHTLY else ["ome-zarr"])
def variant(request):
    """Return the arguments of a backend, one backend after another."""
    return VARIANTS[request.param]


@pytest.fixture
def campaign(request, cannot_run, tmp_path):
    """Return a function that runs the campaign of a test module, and returns its exit code and output.

    The campaign runs in a separate process, because it forks, and pytest may have threads.
    """
    script = HERE / f"{request.path.stem.removeprefix('test_')}.py"

    def run(*arguments):
        ended = subprocess.run(
            [sys.executable, script, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        assert ended.returncode in (0, 1) and not ended.stderr, ended.stderr[-3000:]
        if lacking := [line for line in ended.stdout.splitlines() if line.startswith("cannot run")]:
            assert "BROKEN" not in ended.stdout, ended.stdout
            cannot_run("; ".join(lacking))
        return ended.returncode, ended.stdout

    return run


@pytest.fixture
def figure():
    """Return a function that finds a number by its name in the output of a campaign."""

    def find(text, name):
        return int(re.search(rf"^{name}: (\d+)", text, re.MULTILINE)[1])

    return find
