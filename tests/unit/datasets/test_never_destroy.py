"""Promise D4: overwriting deletes a dataset of ExEngine, and nothing else, whatever is at the path.

Everything is made in a folder of the test, in a process with mounts of its own. ``EXENGINE_LONG=1`` tests
each backend as root and as a user, on the path itself and through a link. Otherwise, each backend is tested
in two of these four ways, if the tests run as root.
"""

import ast
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = HERE / "things_at_a_path.py"
SCRIPT_OF_FILES = HERE / "things_at_a_file.py"
LONG = bool(os.environ.get("EXENGINE_LONG"))
ROOT = os.name == "posix" and os.geteuid() == 0
GREEDY = """
from exengine_checked import CheckedStorage


class GreedyStorage(CheckedStorage):
    '''Recognise everything as a dataset.

    Parameters
    ----------
    path : path
        The path of the dataset.
    summary_metadata : dict, optional
        Metadata of the whole dataset.
    '''

    backend_name = "aaa-greedy"

    @classmethod
    def can_open(cls, path):
        return True
"""

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(os.name != "posix", reason="links, pipes and users of POSIX"),
]


def _names(script):
    """Return the names of all things; they are registered when the module is run."""
    namespace = {"__name__": "things", "__file__": str(script)}
    sys.path.insert(0, str(HERE))
    try:
        exec(compile(ast.parse(script.read_text(encoding="utf-8")), str(script), "exec"), namespace)
    finally:
        sys.path.remove(str(HERE))
        sys.modules.pop(SCRIPT.stem, None)
    return [*namespace["THINGS"]]


THINGS, THINGS_OF_FILES = _names(SCRIPT), _names(SCRIPT_OF_FILES)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder with the backends ``checked`` and ``aaa-greedy``, which recognises everything."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(HERE.parents[1] / "backends" / "checked.py", folder / "exengine_checked.py")
    (folder / "aaa_greedy.py").write_text(GREEDY)
    shutil.copy(HERE.parents[1] / "backends" / "one_file.py", folder / "exengine_lines.py")
    for name, target in (
        ("checked", "exengine_checked:CheckedStorage"),
        ("lines", "exengine_lines:LinesStorage"),
        ("aaa-greedy", "aaa_greedy:GreedyStorage"),
    ):
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[exengine.storage_backends]\n{name} = {target}\n")
    return folder


@pytest.fixture(scope="module")
def outcomes(site):
    """Return what tries all things in one way, once, and gives the report of each by its name."""
    known = {}

    def run(backend, user, way):
        if (backend, user, way) not in known:
            if user == "root" and not ROOT:
                pytest.skip("only root can be root")
            plugins = site if backend == "aaa-greedy" else _without_greedy(site)
            script = SCRIPT_OF_FILES if backend == "lines" else SCRIPT
            with tempfile.TemporaryDirectory(prefix="exengine-things-") as folder:
                os.chmod(folder, 0o777)  # the ordinary user works there
                done = subprocess.run(
                    [sys.executable, script, folder, backend, user, way],
                    capture_output=True,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(plugins), "PYTHONDONTWRITEBYTECODE": "1"},
                    timeout=100,
                    check=False,
                )
            assert done.returncode == 0, done.stderr[-3000:]
            reports = map(json.loads, done.stdout.splitlines())
            known[backend, user, way] = {report["name"]: report for report in reports}
        return known[backend, user, way]

    return run


def _without_greedy(site):
    alone = site.parent / "site-without-greedy"
    if not alone.exists():
        shutil.copytree(site, alone, ignore=shutil.ignore_patterns("aaa*"))
    return alone


def _cases():
    """Return backend, user, way and thing. Tests that need the same process are next to each other."""
    ways = [*itertools.product(["root", "user"], ["directly", "through-a-link"])]
    chosen = {
        "checked": ways if LONG or not ROOT else ways[0::3],
        "aaa-greedy": ways if LONG or not ROOT else ways[1:3],
        "lines": ways if LONG or not ROOT else ways[0::3],
    }
    things = {"checked": THINGS, "aaa-greedy": THINGS, "lines": THINGS_OF_FILES}
    return [
        (backend, user, way, name)
        for backend, its_ways in chosen.items()
        for user, way in its_ways
        for name in things[backend]
    ]


def test_there_are_enough_things():
    assert len(THINGS) >= 30
    assert len(THINGS_OF_FILES) >= 60


@pytest.mark.parametrize(("backend", "user", "way", "name"), _cases())
def test_overwriting_changes_nothing_but_a_dataset(name, backend, user, way, outcomes):
    report = outcomes(backend, user, way)[name]
    if "skipped" in report:
        pytest.skip(report["skipped"])
    assert report["changed"] == []
    assert report["outcome"].startswith(report["wanted"]), report["outcome"]
    if report["wanted"] == "made":
        assert report["frames"] == [2]
    else:
        assert "data" in report["outcome"]
