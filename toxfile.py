"""Gives tox what it cannot see in tox.ini: the plugins, one for each folder in ``plugins/``.

Each plugin gets an environment per version of Python, ``py311-ndstorage`` for
``plugins/exengine-ndstorage``; ``py311-exengine-ndstorage`` is the same under its full name. The
environments that need every plugin (``types``, ``docs``, ``site``, ``demo``, ``product``) install them all. A
new folder needs no edit, here or elsewhere.
"""

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tox.config.loader.memory import MemoryLoader
from tox.config.set_env import SetEnv
from tox.config.sets import ConfigSet
from tox.config.types import Command
from tox.plugin import impl
from tox.session.state import State

PYTHONS = ("py311", "py312", "py313")
ROOT = Path(__file__).parent
IN_PARALLEL = ("-n", "auto", "--maxprocesses", "4", "--dist", "worksteal")
FOLDERS = sorted(project.parent for project in ROOT.glob("plugins/*/pyproject.toml"))


@impl
def tox_extend_envs() -> Iterable[str]:
    """Name the environments of the plugins, in both spellings."""
    return [name for python in PYTHONS for folder in FOLDERS for name in _names(python, folder)]


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:
    """Configure these environments, and add them to those that `tox run` runs."""
    for python in PYTHONS:
        for folder in FOLDERS:
            tests = f"plugins/{folder.name}/tests"
            for name in _names(python, folder):
                _seed(
                    state,
                    name,
                    description=f"tests of {folder.name}",
                    extras={"test"},
                    commands_pre=[_install(folder, extra="[test]")],
                    commands=[_with_arguments(state, "pytest", *IN_PARALLEL, tests)],
                )
            core_conf["env_list"].envs.append(_names(python, folder)[0])

    for name in ("docs", "demo", "product", "site", "types"):
        _seed(state, name, commands_pre=[_install(*FOLDERS)] if FOLDERS else [])
    sources = [ROOT / "src", *(folder / "src" for folder in FOLDERS)]
    paths = "PYTHONPATH=" + os.pathsep.join(map(str, sources))
    _seed(state, "imports", set_env=SetEnv(paths, "set_env", "imports", ROOT))
    packages = [str(marker.parent.relative_to(ROOT)) for folder in FOLDERS for marker in _typed(folder)]
    _seed(state, "types", commands=[_with_arguments(state, "mypy", "src/exengine", *packages)])


def _names(python: str, folder: Path) -> tuple[str, ...]:
    """Return the short and the full name of an environment; they may be the same."""
    short = folder.name.removeprefix("exengine-")
    return tuple(dict.fromkeys((f"{python}-{short}", f"{python}-{folder.name}")))


def _seed(state: State, name: str, **settings: object) -> None:
    """Set values of an environment; they go before those of tox.ini."""
    state.conf.memory_seed_loaders[name].append(MemoryLoader(**settings))


def _install(*folders: Path, extra: str = "") -> Command:
    """Return the command that builds and installs plugins anew, for their version does not change."""
    command = ["uv", "pip", "install", "-q"]
    for folder in folders:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        command += ["--reinstall-package", project["name"]]
    return Command([*command, *(f"{folder}{extra}" for folder in folders)])


def _with_arguments(state: State, *command: str) -> Command:
    """Return a command with what follows ``--`` on the command line of tox."""
    return Command([*command, *(state.conf.pos_args(None) or ())])


def _typed(folder: Path) -> list[Path]:
    return sorted(folder.glob("src/*/py.typed"))
