"""Fixtures for all tests: distributions made on the spot, and an environment without settings of ours.

The tests of the kernel run with the kernel alone installed. Whatever plugin they need they write
themselves, and then look only there: ``installed`` puts a registry of such plugins in place of those
that are really installed.
"""

import os
import subprocess
import sys

import pytest

MEMORY = '''
from typing import Annotated, Literal

from annotated_types import Ge

from exengine.kernel.data_coords import snapshot
from exengine.kernel.data_storage_base import DataStorage, StorageCapabilities
from exengine.kernel.errors import CoordinatesNotFoundError


class MemoryStorage(DataStorage):
    """Keep frames in a dict.

    Parameters
    ----------
    gain : int, default: 1
        A number from 1.
    mode : str
        One of two.
    """

    capabilities = StorageCapabilities(string_axes=True, metadata=True)

    def __init__(self, gain: Annotated[int, Ge(1)] = 1, mode: Literal["fast", "safe"] = "fast") -> None:
        self.gain, self.mode = gain, mode
        self.frames = {}
        self.ended = []

    def put(self, coordinates, data, metadata):
        self.frames[snapshot(coordinates)] = (data.copy(), metadata)

    def get_data(self, coordinates):
        return self._find(coordinates)[0]

    def get_metadata(self, coordinates):
        return self._find(coordinates)[1]

    def _find(self, coordinates):
        if coordinates not in self:
            raise CoordinatesNotFoundError(f"nothing at {coordinates}")
        return self.frames[snapshot(coordinates)]

    def __contains__(self, coordinates):
        return snapshot(coordinates) in self.frames

    def finish(self):
        self.ended.append("finish")

    def abort(self, reason="", *, failed=False):
        self.ended.append(f"failed: {reason}" if failed else f"aborted: {reason}")

    def close(self):
        self.ended.append("close")
'''

DISK = '''
import json
import os
import threading

import numpy as np

from exengine.kernel.frames.coordinate_index import CoordinateIndex
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import StorageCapabilities
from exengine.kernel.storage.reading import DatasetReader
from exengine.kernel.storage.managed import ManagedStorage
from exengine.kernel.storage.manifest import read_manifest, status_of

_ONE_AT_A_TIME = threading.Lock()  # numpy parses the header with ast, which Python 3.11 can do in one thread only


class DiskStorage(ManagedStorage):
    """Write each frame as two files.

    Parameters
    ----------
    path : path
        Where the dataset will lie.
    fail_at : int, optional
        The number of the frame that the disk does not take.
    """

    capabilities = StorageCapabilities(
        persistent=True, string_axes=True, negative_indices=True, metadata=True, iterable=True,
        reopen=True, safety_of_put="written", durable_flush=True, path_suffixes=(".disk",),
    )
    backend_name = "disk"

    def __init__(self, path: str | os.PathLike[str], fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.calls = []
        super().__init__(path)

    @classmethod
    def can_open(cls, path):
        return os.path.isfile(os.path.join(path, "0.npy"))

    @classmethod
    def open(cls, path):
        return DiskReader.open(path)

    def write_frame(self, number, coordinates, data, checked):
        self.calls.append(("write", number))
        if number == self.fail_at:
            raise OSError(28, "No space left on device")
        np.save(os.path.join(self.path, f"{number}.npy"), data)
        with open(os.path.join(self.path, f"{number}.json"), "w") as file:
            json.dump([coordinates.coordinate_dict, checked], file)

    def sync_frames(self):
        self.calls.append(("sync", len(self._frames)))

    def finish_frames(self):
        self.calls.append(("finish", len(self._frames)))

    def read_frame(self, number):
        with _ONE_AT_A_TIME:
            return np.load(os.path.join(self.path, f"{number}.npy"))

    def read_frame_metadata(self, number):
        with open(os.path.join(self.path, f"{number}.json")) as file:
            return json.load(file)[1]


class DiskReader(DatasetReader):
    """What DiskStorage wrote."""

    read_frame = DiskStorage.read_frame
    read_frame_metadata = DiskStorage.read_frame_metadata

    @classmethod
    def open(cls, path):
        path = os.path.realpath(path)
        index, manifest = CoordinateIndex(), read_manifest(path)
        while os.path.isfile(name := os.path.join(path, f"{len(index)}.json")):
            with open(name) as file:
                try:
                    index.add(DataCoordinates(json.load(file)[0]).coordinate_dict)
                except ValueError:  # killed half way
                    break
        return cls(path, index, status_of(manifest), manifest)
'''


class Site:
    """A folder like ``site-packages``, to put distributions into."""

    def __init__(self, folder):
        self.folder = folder
        self.modules = set()

    def add(self, name, entry_points=None, module_source=None, version="1.0", *, module=None, group=None):
        """Write a distribution: its metadata, its entry points, its module.

        ``entry_points`` maps names to targets, or is the text of the file itself. ``module`` is the
        name of the module (by default that of the distribution); ``pkg/__init__`` makes a package.
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


@pytest.fixture
def make_distribution(tmp_path, monkeypatch):
    """Return what adds a distribution to ``tmp_path / 'site'``, which is on ``sys.path``."""
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    monkeypatch.syspath_prepend(str(site.folder))

    def make(name, entry_points=None, module_source=None, version="1.0", **more):
        (Site(more.pop("folder")) if "folder" in more else site).add(
            name, entry_points, module_source, version, **more
        )
        return site.folder

    before = set(sys.modules)
    yield make
    folders = (str(tmp_path), "exengine.storage_backends.")
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None) or ""
        if str(origin).startswith(folders[0]) or name.startswith(folders[1]):
            del sys.modules[name]


@pytest.fixture
def backends_of(tmp_path):
    """Return what makes a registry of the backends in some folders, by default ``tmp_path / 'site'``."""
    from exengine.kernel.registry.plugins import BACKENDS_GROUP, PluginRegistry

    def make(*folders):
        return PluginRegistry(BACKENDS_GROUP, "backend", map(str, folders or [tmp_path / "site"]))

    return make


@pytest.fixture
def installed(make_distribution, backends_of, monkeypatch):
    """Put a registry with the backends ``memory`` and ``disk`` in place of the installed plugins."""
    from exengine.kernel.registry import plugins

    make_distribution("exengine-memory", {"memory": "exengine_memory:MemoryStorage"}, MEMORY)
    make_distribution("exengine-disk", {"disk": "exengine_disk:DiskStorage"}, DISK)
    backends = backends_of()
    monkeypatch.setattr(plugins, "BACKENDS", backends)
    return backends


@pytest.fixture
def disk_storage(installed):
    """Return the class of the backend ``disk``: small, persistent, and built on ``ManagedStorage``."""
    return installed.load("disk")


@pytest.fixture
def memory_storage(installed):
    """Return the class of the backend ``memory``: the six methods and no more."""
    return installed.load("memory")


@pytest.fixture
def run_python(tmp_path):
    """Return what runs a program with the plugins of ``tmp_path / 'site'`` on its path."""

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
    """Return what starts a program as :func:`run_python`, with pipes; it is killed when the test ends."""
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
