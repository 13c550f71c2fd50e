"""Fixtures for all tests: temporary distributions, and an environment without ExEngine settings.

The kernel's tests need no installed plugin. They write the plugins that they need, and the fixture
``installed`` replaces the registry of installed plugins with one that contains only these.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BACKENDS = Path(__file__).parent / "backends"


def source_of(backend):
    """Return the source of a backend in ``tests/backends``."""
    return (BACKENDS / f"{backend}.py").read_text(encoding="utf-8")


class Site:
    """A folder like ``site-packages`` for distributions."""

    def __init__(self, folder):
        self.folder = folder
        self.modules = set()

    def add(self, name, entry_points=None, module_source=None, version="1.0", *, module=None, group=None):
        """Write a distribution: its metadata, its entry points and its module.

        ``entry_points`` maps names to targets, or is the content of the file itself. ``module`` is the name
        of the module, by default that of the distribution; ``pkg/__init__`` creates a package.
        """
        group = group or "exengine.storage_backends"
        self.folder.mkdir(parents=True, exist_ok=True)
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: What {name} is for\n"
        )
        if entry_points is not None:
            if not isinstance(entry_points, str):
                lines = "".join(f"{key} = {target}\n" for key, target in entry_points.items())
                entry_points = f"[{group}]\n{lines}"
            (info / "entry_points.txt").write_text(entry_points)
        if module_source is not None:
            module = module or name.replace("-", "_")
            path = self.folder / f"{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(module_source if isinstance(module_source, bytes) else module_source.encode())
            self.modules.add(module.partition("/")[0])
        return info


@pytest.fixture(scope="session")
def make_site():
    """Return a function that returns a :class:`Site`."""
    return Site


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Return a function that puts a folder on ``sys.path``. Its modules are removed after the test."""
    folders = [str(tmp_path)]

    def add(folder):
        monkeypatch.syspath_prepend(str(folder))
        folders.append(str(folder))

    before = set(sys.modules)
    yield add
    for name in set(sys.modules) - before:
        origin = str(getattr(sys.modules[name], "__file__", None) or "")
        if origin.startswith(tuple(folders)) or name.startswith("exengine.storage_backends."):
            del sys.modules[name]


@pytest.fixture
def make_distribution(tmp_path, on_path):
    """Return a function that adds a distribution to ``tmp_path / 'site'``, which is on ``sys.path``."""
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    on_path(site.folder)

    def make(name, entry_points=None, module_source=None, version="1.0", **more):
        (Site(more.pop("folder")) if "folder" in more else site).add(
            name, entry_points, module_source, version, **more
        )
        return site.folder

    return make


@pytest.fixture
def backends_of(tmp_path):
    """Return a function that creates a registry for folders, by default ``tmp_path / 'site'``."""
    from exengine.kernel.registry.plugins import BACKENDS_GROUP, PluginRegistry

    def make(*folders):
        return PluginRegistry(BACKENDS_GROUP, "backend", map(str, folders or [tmp_path / "site"]))

    return make


@pytest.fixture
def installed(make_distribution, backends_of, monkeypatch):
    """Replace the installed plugins with a registry that contains the backends ``memory`` and ``disk``."""
    from exengine.kernel.registry import plugins

    make_distribution("exengine-memory", {"memory": "exengine_memory:MemoryStorage"}, source_of("memory"))
    make_distribution("exengine-disk", {"disk": "exengine_disk:DiskStorage"}, source_of("disk"))
    backends = backends_of()
    monkeypatch.setattr(plugins, "BACKENDS", backends)
    return backends


@pytest.fixture
def disk_storage(installed):
    """Return the class of the backend ``disk``, a small backend derived from ``ManagedStorage``."""
    return installed.load("disk")


@pytest.fixture
def memory_storage(installed):
    """Return the class of the backend ``memory``, which has only the six required methods."""
    return installed.load("memory")


@pytest.fixture
def run_python(tmp_path):
    """Return a function that runs a program with the plugins of ``tmp_path / 'site'`` on its path."""

    def run(program, *arguments, options=(), timeout=60, check=True, **environment):
        result = subprocess.run(
            [sys.executable, *options, "-c", program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), **environment},
            check=False,
        )
        assert not check or result.returncode == 0, result.stderr
        return result

    return run


@pytest.fixture
def start_python(tmp_path):
    """Return a function like :func:`run_python` that starts a program with pipes, and kills it at the end."""
    started = []

    def start(program, *arguments):
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", program, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(tmp_path_factory, monkeypatch):
    for name in [name for name in os.environ if name.startswith("EXENGINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
