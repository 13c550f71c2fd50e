"""``pip install -r docs/requirements.txt`` finds ExEngine and every plugin, from the root and from ``docs``."""

import json
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    return [str(python), "-m", "pip", "install", "-q", "--dry-run", "--no-deps", "--report", "-"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("folder", "file"), [(".", "docs/requirements.txt"), ("docs", "requirements.txt")])
def test_the_requirements_of_the_documentation_are_found_from(folder, file, pip):
    done = subprocess.run(
        [*pip, "-r", file], cwd=ROOT / folder, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["install"]
    projects = [
        tomllib.loads(path.read_text())["project"]["name"]
        for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))
    ]
    required = [text.partition(" @ ")[0] for text in found["metadata"]["requires_dist"]]
    assert sorted(required) == sorted(["exengine[docs]", *projects])
