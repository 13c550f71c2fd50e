"""A Python that is too old gets one line that says so, and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD = "import sys; sys.version_info = (3, 10, 13); sys.path.insert(0, {path!r}); import runpy; {run}"


@pytest.mark.parametrize(
    ("path", "run"),
    [
        (str(ROOT / "src"), "runpy.run_module('exengine', run_name='__main__')"),
        (str(ROOT / "docs"), f"runpy.run_path({str(ROOT / 'docs' / 'conf.py')!r})"),
    ],
    ids=["the command", "the documentation"],
)
def test_python_3_10_gets_one_line(path, run):
    done = subprocess.run(
        [sys.executable, "-c", OLD.format(path=path, run=run)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith("needs Python 3.11 or newer, but this is Python 3.10\n")
