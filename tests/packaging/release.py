"""Builds sdist and wheel of every distribution, checks them, and uses them as a user would.

``python release.py DIST FOLDER`` writes the archives into DIST, which it empties of archives first. It builds a copy
of the repository in FOLDER, to which it adds the results of the conformance kit and of the fault campaigns, so that
each wheel contains those of its plugins. The wheel of each distribution is built from its sdist, so that a file that
is missing there is missing in the wheel. Then a fresh virtual environment in FOLDER installs ``exengine[all]`` with
these wheels, and runs the main job.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
RESULTS = ROOT / "docs" / "_results"
NOT_COPIED = (".*", "__pycache__", "dist")
PLUGIN_GROUPS = ("exengine.storage_backends", "exengine.frame_sources")
CONFIG = """\
storage: {backend: BACKEND, path: data/cells}
source: {name: simulated, options: {width: 64, height: 64}}
sequence: {channels: [DAPI, FITC], time_plan: {interval: 0, loops: 3}}
"""


def facts_of(folder: Path) -> dict[str, Any]:
    """Return the table ``project`` of a ``pyproject.toml``."""
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    return project


def misfits(projects: list[dict[str, Any]]) -> list[str]:
    """Return each requirement of a distribution that the version of another one does not satisfy.

    Extras count too. A distribution of this repository that no extra of ``exengine`` installs is a fault as well.
    """
    versions = {project["name"]: project["version"] for project in projects}
    faults = []
    for project in projects:
        extras = project.get("optional-dependencies", {})
        for text in (*project["dependencies"], *(text for some in extras.values() for text in some)):
            required = Requirement(text)
            version = versions.get(required.name)
            if version is not None and not required.specifier.contains(version, prereleases=True):
                faults.append(f"{project['name']} requires {text}, but its version is {version}")
    kernel = next(project for project in projects if project["name"] == "exengine")
    offered = {Requirement(text).name for some in kernel["optional-dependencies"].values() for text in some}
    faults += [f"no extra of exengine installs {name}" for name in sorted(set(versions) - offered)]
    return faults


def expected_files(folder: Path) -> set[str]:
    """Return the files of a project's packages that its wheel must contain."""
    source = folder / "src"
    return {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def add_results(folder: Path) -> list[str]:
    """Copy the results of each plugin of a project into its package; return the faults in them.

    Parameters
    ----------
    folder : Path
        A copy of the project, which is changed.
    """
    facts, faults = facts_of(folder), []
    for group in PLUGIN_GROUPS:
        for name, target in facts.get("entry-points", {}).get(group, {}).items():
            source = RESULTS / f"{name}.json"
            if not source.is_file():
                faults.append(f"there are no results of {name}")
                continue
            version = json.loads(source.read_text(encoding="utf-8"))["version"]
            if version != facts["version"]:
                faults.append(f"the results of {name} are of version {version}, not {facts['version']}")
            results = folder / "src" / target.split(":")[0].split(".")[0] / "docs" / "results"
            (results / "faults").mkdir(parents=True, exist_ok=True)
            shutil.copy(source, results)
            for campaign in sorted((RESULTS / "faults").glob("*.json")):
                if json.loads(campaign.read_text(encoding="utf-8")).get("backend") == name:
                    shutil.copy(campaign, results / "faults")
    return faults


def check_wheel(wheel: Path, folder: Path) -> list[str]:
    """Return what is missing in a wheel: files of its packages, ``py.typed``, its licence."""
    names = set(zipfile.ZipFile(wheel).namelist())
    missing = sorted(expected_files(folder) - names)
    if not any(name.endswith("/py.typed") for name in names):
        missing.append("py.typed")
    if not any("/licenses/" in name for name in names):
        missing.append("the licence")
    return [f"{wheel.name} lacks {name}" for name in missing]


def main(dist: Path, folder: Path) -> int:
    projects = [facts_of(project) for project in PROJECTS]
    shutil.rmtree(folder, ignore_errors=True)
    sources = folder / "sources"
    copied = ("README.md", "LICENSE", ".gitignore", "pyproject.toml", "src", "plugins")
    sources.mkdir(parents=True)
    for name in copied:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns(*NOT_COPIED))
        else:
            shutil.copy(ROOT / name, sources)
    dist.mkdir(exist_ok=True)
    for old in (*dist.glob("*.whl"), *dist.glob("*.tar.gz")):
        old.unlink()
    faults = misfits(projects)
    for original, facts in zip(PROJECTS, projects, strict=True):
        project = sources / original.relative_to(ROOT)
        faults += add_results(project)
        run("python", "-m", "build", "--outdir", str(dist), str(project))  # the wheel, from the sdist
        name = f"{facts['name'].replace('-', '_')}-{facts['version']}"
        (wheel,) = dist.glob(f"{name}-*.whl")
        faults += check_wheel(wheel, project)
    run("python", "-m", "twine", "check", "--strict", *map(str, sorted(dist.iterdir())))
    if faults:
        print(*faults, sep="\n")
        return 1
    use(dist, folder)
    print(f"{2 * len(PROJECTS)} archives are in {dist}")
    return 0


def use(dist: Path, folder: Path) -> None:
    """Install everything in a fresh environment, and acquire with each backend that keeps data."""
    venv.create(folder / "environment", with_pip=True)
    scripts = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
    python = str(scripts / "python")
    run(python, "-m", "pip", "install", "-q", "--find-links", str(dist), "exengine[all]", cwd=folder)
    exengine = str(scripts / "exengine")
    for backend, path in (("ndtiff", "data/cells"), ("ome-zarr", "data/cells.ome.zarr")):
        config = CONFIG.replace("BACKEND", backend).replace("data/cells", path)
        (folder / "cells.yaml").write_text(config, encoding="utf-8")
        run(exengine, "acquire", "cells.yaml", cwd=folder)
        run(exengine, "verify", path, cwd=folder)
        run(exengine, "preview", path, "-o", f"{backend}.png", cwd=folder)
    run(exengine, "backends", "list", cwd=folder)
    run(exengine, "explain", "EX202", cwd=folder)


def run(*command: str, cwd: Path = ROOT) -> None:
    """Show a command and run it, without what this environment sets for Python.

    Raises
    ------
    SystemExit
        If the command fails.
    """
    print("$", *command, flush=True)
    shown = (sys.executable, *command[1:]) if command[0] == "python" else command
    names = ("PYTHONPATH", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(shown, cwd=cwd, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
