"""Adds tox environments for the plugins and the fault campaigns to those in tox.ini.

Each folder in ``plugins/`` gets one environment per Python version. For example,
``plugins/exengine-ndstorage`` gets ``py313-ndstorage``, with the full name ``py313-exengine-ndstorage``.
``tox run`` tests the kernel and the plugins at both ends: with the newest libraries on the newest supported
Python that this machine has, and with the oldest libraries on the oldest supported Python. The second end is
``floors-together``, one environment for the kernel and all plugins, with the lowest versions that satisfy
all of them. The environments that need every plugin (``types``, ``docs``, ``site``, ``demo``, ``product``)
install them all.

Each entry in ``tests/campaigns/campaigns.toml`` gets an environment ``faults-NAME``, and a command in
``nightly``.

A new folder or a new entry requires no other changes.

The temporary folders of tests are in memory if ``/dev/shm`` has room for them, because tests sync thousands
of files. Set ``TMPDIR`` to choose another folder. ``floors-together``, ``long`` and fault campaigns at full
length use the disk.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
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
IN_PARALLEL = ("-n", "3", "--dist", "worksteal")
WAIT_FOR_SERVERS = {"exengine-ome-zarr": ("-n", "5")}  # more processes, because a third of their time is idle
FOLDERS = sorted(project.parent for project in ROOT.glob("plugins/*/pyproject.toml"))
TESTS_NEED = {"exengine-micromanager": ("exengine-ndstorage",)}  # backends for the frames of its tests
CAMPAIGN_PLUGINS = ("exengine-hdf5", "exengine-ndstorage", "exengine-ome-tiff", "exengine-ome-zarr")
# `product` runs the other tests in tests/unit.
KERNEL_TESTS = ("tests/unit", *(f"--ignore=tests/unit/{part}" for part in ("checks", "sphinxext", "testing")))
# With the oldest libraries, slow tests of our own code, rather than of the libraries, are left out.
_WITHOUT = {
    "kernel": "fork_server security",
    "plugins": "archives bombs continuing corruption damage full_disk hostile index_table kill million "
    "recovery remote test_field",
}
FLOORS_CHOICE = {
    kind: ("-k", " and ".join(f"not {word}" for word in words.split())) for kind, words in _WITHOUT.items()
}
CAMPAIGNS = tomllib.loads((ROOT / "tests" / "campaigns" / "campaigns.toml").read_text(encoding="utf-8"))
DISK = os.environ.setdefault("EXENGINE_TOX_DISK", tempfile.gettempdir())  # kept if tox starts itself again
MEMORY = Path("/dev/shm")  # noqa: S108 - pytest creates a folder of its own there
MEMORY_BYTES = 8 * 2**30  # several times what the tests need at once
UNSUITABLE = ("ST_NOEXEC", "ST_NODEV")  # tests start programs, and root creates devices


def _use_memory() -> None:
    """Put temporary folders in memory, unless the user has chosen a folder or memory has no room."""
    if "TMPDIR" in os.environ or sys.platform != "linux" or not os.access(MEMORY, os.W_OK | os.X_OK):
        return
    room = os.statvfs(MEMORY)
    available = re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
    free = min(room.f_bavail * room.f_frsize, int(available[1]) * 1024 if available else 0)
    if free >= MEMORY_BYTES and not any(room.f_flag & getattr(os, name) for name in UNSUITABLE):
        os.environ["TMPDIR"] = str(MEMORY)


def _starts(python: str) -> bool:
    """Return whether this machine has a Python. A shim of pyenv exists even if its Python is not chosen."""
    command = shutil.which(python.replace("py3", "python3."))
    if command is None:
        return False
    return subprocess.run([command, "-c", ""], check=False, capture_output=True).returncode == 0


FOUND = [python for python in PYTHONS if _starts(python)] or PYTHONS
NEWEST = FOUND[-1]
_use_memory()


@impl
def tox_extend_envs() -> Iterable[str]:
    """Return the names of the campaign and plugin environments. Plugins have a short and a full name."""
    plugins = [name for python in PYTHONS for folder in FOLDERS for name in _names(python, folder)]
    return [*(f"faults-{name}" for name in CAMPAIGNS), *plugins]


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:
    """Configure these environments. `tox run` runs those of the plugins on the newest Python."""
    core_conf["env_list"].envs.insert(0, NEWEST)
    for python in PYTHONS:
        kernel_tests = state.conf.pos_args(None) or KERNEL_TESTS
        command = ["pytest", *IN_PARALLEL, *_chosen(python, "tests/unit"), *kernel_tests]
        _seed(state, python, commands=[Command(command)])
        for folder in FOLDERS:
            tests = f"plugins/{folder.name}/tests"
            processes = (*IN_PARALLEL, *WAIT_FOR_SERVERS.get(folder.name, ()))
            needed = [ROOT / "plugins" / name for name in TESTS_NEED.get(folder.name, ())]
            for name in _names(python, folder):
                _seed(
                    state,
                    name,
                    description=f"tests of {folder.name}",
                    extras={"test"},
                    commands_pre=[_install(*needed, folder, extra="[test]")],
                    commands=[_with_arguments(state, "pytest", *processes, *_chosen(python, tests), tests)],
                )
            if python == NEWEST:
                core_conf["env_list"].envs.append(_names(python, folder)[0])

    _add_campaigns(state)
    for name in ("docs", "demo", "product", "site", "types"):
        _seed(state, name, commands_pre=[_install(*FOLDERS)] if FOLDERS else [])
    files = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins/*/tests/**/test_*.py")]
    long = [
        str(file.relative_to(ROOT)) for file in sorted(files) if "EXENGINE_LONG" in file.read_text("utf-8")
    ]
    _seed(
        state,
        "long",
        commands_pre=[_install(*FOLDERS, extra="[test]")],
        commands=[_with_arguments(state, "pytest", *IN_PARALLEL, *long)],
        set_env=_environment("long", TMPDIR=DISK, EXENGINE_LONG="1"),
    )
    shown = [ROOT / "plugins" / name for name in ("exengine-ome-tiff", "exengine-ome-zarr")]
    _seed(state, "interop", commands_pre=[_install(*shown, extra="[test]")])
    _add_floors(state)
    sources = [ROOT / "src", *(folder / "src" for folder in FOLDERS)]
    paths = "PYTHONPATH=" + os.pathsep.join(map(str, sources))
    _seed(state, "imports", set_env=SetEnv(paths, "set_env", "imports", ROOT))
    packages = [str(marker.parent.relative_to(ROOT)) for folder in FOLDERS for marker in _typed(folder)]
    _seed(
        state,
        "types",
        commands=[_with_arguments(state, "mypy", "--num-workers", "auto", "src/exengine", *packages)],
    )


def _add_floors(state: State) -> None:
    """Configure the environment that resolves the kernel and all plugins together at their floors."""
    # pytest-xdist too, which would otherwise be installed before with the newest pytest
    lowest = ("--resolution", "lowest-direct", "pytest-xdist>=3.6", f"{ROOT}[preview]")
    install = _install(ROOT, *FOLDERS, extra="[test]", options=lowest)
    tests = [(*FLOORS_CHOICE["kernel"], *KERNEL_TESTS)]
    tests += [(*FLOORS_CHOICE["plugins"], f"plugins/{folder.name}/tests") for folder in FOLDERS]
    options = (*IN_PARALLEL, "-m", "not once")
    commands = [_with_arguments(state, "pytest", *options, *chosen) for chosen in tests]
    on_disk = _environment("floors-together", TMPDIR=DISK)
    _seed(state, "floors-together", commands_pre=[install], commands=commands, set_env=on_disk)


def _add_campaigns(state: State) -> None:
    """Configure an environment for each fault campaign, and the environment that runs all campaigns."""
    install = _install(*(ROOT / "plugins" / name for name in CAMPAIGN_PLUGINS), extra="[test]")
    scripts = {
        name: [
            (
                "python",
                f"tests/campaigns/{name.replace('-', '_')}.py",
                *campaign["arguments"],
                *variant.split(),
            )
            for variant in campaign["variants"]
        ]
        for name, campaign in CAMPAIGNS.items()
    }
    for name, runs in scripts.items():
        needs = "; ".join(CAMPAIGNS[name]["needs"])
        _seed(
            state,
            f"faults-{name}",
            description="one fault campaign, at full length; --save keeps its figures for the docs"
            + (f"; needs {needs}" if needs else ""),
            extras={"test"},
            commands_pre=[install],
            commands=[_with_arguments(state, *script) for script in runs],
            set_env=_environment(f"faults-{name}", TMPDIR=DISK),
        )
    _seed(state, "faults", commands_pre=[install])
    arguments = state.conf.pos_args(None) or ("--save",)
    every = [Command([*script, *arguments]) for runs in scripts.values() for script in runs]
    _seed(
        state,
        "nightly",
        commands_pre=[install],
        commands=[Command(["pytest", "tests/campaigns"]), *every],
        set_env=_environment("nightly", TMPDIR=DISK, EXENGINE_NIGHTLY="1"),
    )


def _chosen(python: str, tests: str) -> tuple[str, ...]:
    """Return the arguments that leave out the tests that need to run on one version of Python only.

    pytest refuses the name of a mark that a plugin does not register, so it is passed only where it is used.
    """
    if python == NEWEST:
        return ()
    used = any("mark.once" in file.read_text(encoding="utf-8") for file in (ROOT / tests).rglob("test_*.py"))
    return ("-m", "not once") if used else ()


def _names(python: str, folder: Path) -> tuple[str, ...]:
    """Return the short and the full name of an environment, which can be identical."""
    short = folder.name.removeprefix("exengine-")
    return tuple(dict.fromkeys((f"{python}-{short}", f"{python}-{folder.name}")))


def _environment(name: str, **variables: str) -> SetEnv:
    """Return the environment variables of all tests, and others. They replace ``set_env`` in tox.ini."""
    lines = [f"{key} = {value}" for key, value in {"OPENBLAS_NUM_THREADS": "1", **variables}.items()]
    return SetEnv("\n".join(lines), "set_env", name, ROOT)


def _seed(state: State, name: str, **settings: object) -> None:
    """Set values for an environment. They override the values in tox.ini."""
    state.conf.memory_seed_loaders[name].append(MemoryLoader(**settings))


def _install(*folders: Path, extra: str = "", options: tuple[str, ...] = ()) -> Command:
    """Return the command that builds projects and forces a reinstall, as their version does not change.

    Without ``--no-sources``, uv would replace the installed kernel with a link to this workspace.
    """
    command = ["uv", "pip", "install", "-q", "--no-sources", *options]
    for folder in folders:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        command += ["--reinstall-package", project["name"]]
    return Command([*command, *(f"{folder}{extra}" for folder in folders)])


def _with_arguments(state: State, *command: str) -> Command:
    """Return a command with the arguments that follow ``--`` on the tox command line."""
    return Command([*command, *(state.conf.pos_args(None) or ())])


def _typed(folder: Path) -> list[Path]:
    return sorted(folder.glob("src/*/py.typed"))
