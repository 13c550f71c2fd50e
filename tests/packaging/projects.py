"""Writes projects for every build backend and layout: plugins, and copies of ExEngine itself."""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Build backend and layout -> the part of pyproject.toml that differs, and the folder of the sources.
BUILDS = {
    "setuptools-src": (
        """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[tool.setuptools.packages.find]
where = ["src"]

[tool.setuptools.package-data]
"*" = ["py.typed", "*.pyi", "docs/*.rst", "static/*", "scaffold/**/*.tmpl"]
""",
        "src",
    ),
    "setuptools-flat": (
        """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[tool.setuptools.packages.find]
include = ["{module}*"]

[tool.setuptools.package-data]
"*" = ["py.typed", "*.pyi", "docs/*.rst", "static/*", "scaffold/**/*.tmpl"]
""",
        ".",
    ),
    "hatchling": (
        """
[build-system]
requires = ["hatchling>=1.24"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["src/{module}"]
""",
        "src",
    ),
    "flit": (
        """
[build-system]
requires = ["flit_core>=3.11,<4"]
build-backend = "flit_core.buildapi"

[tool.flit.module]
name = "{module}"
""",
        "src",
    ),
    "uv": (
        """
[build-system]
requires = ["uv_build>=0.8"]
build-backend = "uv_build"

[tool.uv.build-backend]
module-name = "{module}"
""",
        "src",
    ),
}

PLUGIN = """
[project]
name = "{distribution}"
version = "0.3.0"
description = "What {distribution} is for"
requires-python = ">=3.11"
dependencies = ["exengine>=1.0,<2"]

[project.entry-points."exengine.storage_backends"]
{name} = "{module}:{class_name}"
"""

INIT = '''"""Storage backend."""

from {module}.storage import {class_name}

__all__ = ["{class_name}"]
'''

STORAGE = '''"""Where the class is defined."""

from exengine import DataCoordinates, DataStorage, StorageCapabilities

from {module}.inner.helpers import Cell


class {class_name}(DataStorage):
    """Keep frames in a dict.

    Parameters
    ----------
    gain : int, default: 1
        A number.
    """

    capabilities = StorageCapabilities(string_axes=True, metadata=True)

    def __init__(self, gain: int = 1) -> None:
        self.gain = gain
        self.cells = {{}}

    def put(self, data_coordinates, data, metadata):
        self.cells[DataCoordinates(data_coordinates)] = Cell(data.copy(), metadata)

    def get_data(self, data_coordinates):
        return self.cells[DataCoordinates(data_coordinates)].data

    def get_metadata(self, data_coordinates):
        return self.cells[DataCoordinates(data_coordinates)].metadata

    def __contains__(self, data_coordinates):
        return DataCoordinates(data_coordinates) in self.cells

    def finish(self):
        pass

    def close(self):
        pass
'''

HELPERS = '''"""A module two levels down."""


class Cell:
    """One frame."""

    def __init__(self, data, metadata):
        self.data, self.metadata = data, metadata
'''


class Plugin:
    """The names of a plugin; ``build`` is a key of BUILDS."""

    def __init__(self, build: str) -> None:
        self.build = build
        self.name = f"{build}-store"
        self.distribution = f"exengine-{self.name}"
        self.alias = self.name.replace("-", "_")
        self.module = f"exengine_{self.alias}"
        self.class_name = "".join(part.capitalize() for part in build.split("-")) + "Storage"

    def write(self, folder: Path) -> Path:
        """Write the project, and return its folder."""
        system, source = BUILDS[self.build]
        package = folder / source / self.module
        files = {
            folder / "pyproject.toml": PLUGIN + system,
            package / "__init__.py": INIT,
            package / "storage.py": STORAGE,
            package / "inner" / "__init__.py": '"""Inner modules."""\n',
            package / "inner" / "helpers.py": HELPERS,
            package / "py.typed": "",
            package / "docs" / f"{self.name}.rst": "What {name} does\n--------------------\n",
            folder / "tests" / "test_nothing.py": "",
            folder / "docs" / "conf.py": "",
        }
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(**vars(self)), encoding="utf-8")
        return folder


def write_host(build: str, folder: Path) -> Path:
    """Write ExEngine as a project of another build backend, and return its folder."""
    system, source = BUILDS[build]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    start, end = project.index("[project]"), re.search(r"(?m)^(# -- |\[tool\.)", project)
    assert end is not None
    folder.mkdir()
    text = project[start : end.start()] + system.format(module="exengine")
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "exengine", folder / source / "exengine", ignore=ignore)
    return folder
