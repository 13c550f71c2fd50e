"""The documentation project of a third-party backend builds with our extension, alone, outside this repository."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "exengine-npy-folder"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Copy the example to where nothing of ours is, install it beside, and return its folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    project = folder / "npy-folder"
    generated = shutil.ignore_patterns("__pycache__", "_build", "usage", ".*", "dist")
    shutil.copytree(EXAMPLE, project, ignore=generated)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=project, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return project


@pytest.fixture(scope="module")
def built(project):
    """Build the documentation with the command that it names, every warning an error; return the HTML."""
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-b", "html", "docs", "docs/_build/html"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project.parent / "site")},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return project / "docs" / "_build" / "html"


def test_two_lines_of_conf_py_name_us_and_no_other_does(project):
    lines = (project / "docs" / "conf.py").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "exengine" in line and not line.startswith(('"""', "project"))] == [
        'extensions = ["exengine.sphinxext"]',
        'exengine_plugins = ["exengine-npy-folder"]',
    ]


def test_its_page_tells_all_of_the_backend(built):
    html = (built / "usage" / "backends" / "npy-folder.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", "", html))
    for part in (
        "Write each frame to a .npy file, which numpy.load can open.",
        "EXENGINE_STORAGE__OPTIONS__SYNC_EVERY",
        "pip install exengine-npy-folder",
        "Damaged frames are detected.",
        "array([1, 2, 3])",
        "The files of a dataset",
    ):
        assert part in text


def test_no_other_plugin_has_a_page_there(project, built):
    pages = {path.stem for path in (project / "docs" / "usage").rglob("*.rst")}
    assert "npy-folder" in pages and not pages & {"ndtiff", "ndram", "micromanager", "simulated"}
    assert "npy-folder.html" in (built / "index.html").read_text(encoding="utf-8")
