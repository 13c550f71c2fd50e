"""A plugin without faults, into which tests insert a single fault."""

import pytest

SOURCE = '''
from typing import Literal
from exengine import DataStorage, StorageCapabilities


class Shelf(DataStorage):
    """Put frames on a shelf.

    Parameters
    ----------
    width : int, default: 3
        How many frames lie side by side.
    wood : str
        What it is made of.

    Examples
    --------
    >>> Shelf(width=2).width
    2
    """

    capabilities = StorageCapabilities()

    def __init__(self, width: int = 3, wood: Literal["oak", "ash"] = "oak") -> None:
        self.width = width

    def put(self, coordinates, data, metadata): ...
    def get_data(self, coordinates): ...
    def get_metadata(self, coordinates): ...
    def __contains__(self, coordinates): return False
    def finish(self): ...
    def close(self): ...
'''
METADATA = """\
Metadata-Version: 2.4
Name: exengine-shelf
Version: 1.5
Summary: Shelves
License-Expression: MIT
Requires-Python: >=3.11
Requires-Dist: numpy
Requires-Dist: exengine<2,>=1
Requires-Dist: pytest; extra == "test"
"""
PROJECT = """\
[project]
name = "exengine-shelf"
version = "1.5"
description = "Shelves"
license = "MIT"
requires-python = ">=3.11"
dependencies = ["numpy", "exengine>=1,<2"]

[project.entry-points."exengine.storage_backends"]
shelf = "exengine_shelf:Shelf"
"""
PACKAGE = "exengine_shelf"


class Shelf:
    """The plugin, installed and as a project; each change replaces a piece of text that must be there."""

    def __init__(self, make_distribution, tmp_path):
        site = make_distribution(
            "exengine-shelf", {"shelf": "exengine_shelf:Shelf"}, SOURCE, "1.5", module=f"{PACKAGE}/__init__"
        )
        self.package = site / PACKAGE
        self.info = site / "exengine_shelf-1.5.dist-info"
        (self.info / "METADATA").write_text(METADATA)
        fill(self.package)
        self.project = tmp_path / "project"
        home = self.project / "src" / PACKAGE
        home.mkdir(parents=True)
        (home / "__init__.py").write_text(SOURCE)
        fill(home)
        (self.project / "pyproject.toml").write_text(PROJECT)

    def change(self, old, new, file="module"):
        path = {
            "module": self.package / "__init__.py",
            "metadata": self.info / "METADATA",
            "entry points": self.info / "entry_points.txt",
            "project": self.project / "pyproject.toml",
        }[file]
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def write_record(self, *left_out):
        """Write the record of an installer: the files that came from the wheel."""
        files = [
            file.relative_to(self.info.parent).as_posix()
            for file in self.package.rglob("*")
            if file.is_file()
        ]
        files += [f"{self.info.name}/METADATA", f"{self.info.name}/RECORD"]
        (self.info / "RECORD").write_text(
            "".join(f"{file},,\n" for file in files if not file.endswith(left_out or ("\0",)))
        )


def fill(package):
    (package / "py.typed").touch()
    (package / "docs").mkdir()
    (package / "docs" / "shelf.rst").write_text("Shelves are wide.\n")


@pytest.fixture
def shelf(make_distribution, backends_of, monkeypatch, tmp_path):
    from exengine.kernel.registry import plugins

    plugin = Shelf(make_distribution, tmp_path)
    plugin.registry = backends_of()
    monkeypatch.setattr(plugins, "BACKENDS", plugin.registry)
    return plugin


@pytest.fixture
def kit(monkeypatch):
    """Replace the conformance kit with results that tests can change, and return these results."""
    import exengine.testing

    results = {
        "outcome": "kept",
        "reason": "",
        "distribution": "exengine-shelf",
        "version": "1.5",
        "kernel": "1.0.0",
        "promises": {"P1": {"outcome": "kept"}},
        "codes": [],
        "findings": [],
    }
    results["asked"] = []

    def run_conformance(backend, results_path):
        results["asked"].append(backend)
        if isinstance(results.get("raises"), BaseException):
            raise results["raises"]
        return results

    monkeypatch.setitem(vars(exengine.testing), "run_conformance", run_conformance)
    return results
