"""The documentation's own sources: complete, and its code is code that works."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

import exengine
from exengine.config import layers

DOCS = Path(__file__).parents[3] / "docs"
BACKEND = DOCS / "how-to" / "my-backend"
PAGES = [
    page for page in DOCS.rglob("*.rst") if not {"_build", "codes", "usage", "my-backend"} & set(page.parts)
]


def _blocks(language):
    """Return the code blocks of a language on all pages that were written by hand."""
    blocks = []
    for page in PAGES:
        pattern = rf"\.\. code-block:: {language}\n((?:\n| +.*\n)+)"
        for block in re.findall(pattern, page.read_text() + "\n"):
            text = textwrap.dedent(block)
            lines = [line for line in text.splitlines() if line and not line.startswith(":")]
            blocks.append(pytest.param("\n".join(lines), id=f"{page.stem}: {lines[0]}"))
    assert blocks
    return blocks


def test_every_public_name_is_in_the_reference():
    reference = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.rst"))
    missing = [name for name in exengine.__all__ if not re.search(rf":: exengine\.{name}\b", reference)]
    assert missing == ["__version__"]


@pytest.mark.parametrize("text", _blocks("yaml"))
def test_every_config_that_is_shown_is_understood(text):
    settings = yaml.safe_load(text)
    assert layers.resolve(settings, environment={}).to_dict()


@pytest.mark.parametrize("text", _blocks("python"))
def test_every_python_block_compiles(text):
    compile(text, "block", "exec")


@pytest.fixture
def run_with_guide(tmp_path):
    """Return a function that runs a module of Python as if the guide's distribution were installed."""
    info = tmp_path / "exengine_packed-0.1.0.dist-info"
    info.mkdir()
    project = (BACKEND / "pyproject.toml").read_text()
    entry = re.search(r'^packed = "(.+)"$', project, re.M)
    assert entry is not None
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: exengine-packed\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[exengine.storage_backends]\npacked = {entry[1]}\n")
    kernel = Path(exengine.__file__).parents[1]
    path = os.pathsep.join(map(str, [BACKEND / "src", tmp_path, kernel]))

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    return run


def test_the_backend_of_the_guide_passes_its_own_tests(run_with_guide):
    options = f"-q -p no:cacheprovider -c {os.devnull} --doctest-modules -W error"
    done = run_with_guide("pytest", *options.split(), "--rootdir", BACKEND, BACKEND)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout


def test_the_backend_of_the_guide_passes_the_check_and_the_kit(run_with_guide):
    done = run_with_guide("exengine", "backends", "check", BACKEND, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (plugin,) = json.loads(done.stdout)["plugins"]
    assert plugin["findings"] == [] and len(plugin["not_run"]) == 1 and "EX405" in plugin["not_run"][0]
    outcomes = {label: found["outcome"] for label, found in plugin["conformance"].items()}
    assert outcomes["O1"] == outcomes["P1"] == "kept" and "broken" not in outcomes.values()


def test_the_guide_has_the_sample_test_of_the_authors_guide():
    sample = """
    storage = PackedStorage()
    data = np.array([1, 2, 3])
    metadata = {"key": "value"}
    coordinates = {"time": 0, "channel": "DAPI"}
    storage.put(coordinates, data, metadata)
    assert coordinates in storage
    np.testing.assert_array_equal(storage.get_data(coordinates), data)
    assert storage.get_metadata(coordinates) == metadata
"""
    assert sample in (BACKEND / "tests" / "test_packed.py").read_text()
