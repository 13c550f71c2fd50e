"""Virtual environments that are quick to create, because they share libraries through a ``.pth`` file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(
    0, str(HERE)
)  # the tests import `projects`, which pytest's importlib mode does not find on its own
UV = shutil.which("uv", path=f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}") or "uv"
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTHON", "VIRTUAL_ENV", "EXENGINE"))
}


def uv(*arguments):
    done = subprocess.run(
        [UV, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


class Environment:
    """A virtual environment."""

    def __init__(self, folder, base=None):
        self.folder = folder
        uv("venv", "-q", "--python", sys.executable, folder)
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.site = Path(
            self.run_text("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        )
        if base is not None:
            (self.site / "base.pth").write_text(f"{base.site}\n", encoding="utf-8")

    def install(self, project, form):
        """Install a wheel, or install a project folder in editable mode."""
        what = ["-e", project] if form == "editable" else [project]
        uv("pip", "install", "-q", "--python", self.python, "--no-deps", *what)

    def uninstall(self, distribution):
        uv("pip", "uninstall", "-q", "--python", self.python, distribution)

    def run_text(self, *arguments):
        done = subprocess.run(
            [str(self.python), *map(str, arguments)],
            cwd=self.folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def probe(self, *arguments):
        """Return the results of probe.py in this environment."""
        return json.loads(self.run_text(HERE / "probe.py", *arguments))


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """An environment with the libraries that ExEngine needs, but without ExEngine."""
    environment = Environment(tmp_path_factory.mktemp("base") / "environment")
    uv("pip", "install", "-q", "--python", environment.python, "-r", ROOT / "pyproject.toml")
    return environment


@pytest.fixture
def environment(base, tmp_path):
    return Environment(tmp_path / "environment", base)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Return a function that builds the wheel of a project, only once."""
    wheels = {}

    def wheel_of(name, project):
        if name not in wheels:
            folder = tmp_path_factory.mktemp("wheel")
            uv("build", "-q", "--wheel", "--python", sys.executable, "-o", folder, project)
            (wheels[name],) = folder.glob("*.whl")
        return wheels[name]

    return wheel_of
