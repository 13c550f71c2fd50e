"""Pickles of version 1.0 load, and the package has no import circle."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import exengine
import exengine_ndstorage.ndtiff
from exengine_ndstorage.ndtiff.pyramid import PyramidReader
from exengine_ndstorage.ndtiff.reader import NDTiffReader
from exengine_ndstorage.ndtiff.version2 import Version2Reader

PACKAGE = Path(exengine_ndstorage.ndtiff.__file__).parent


def pickled(module, name, path):
    """Return an opened dataset as version 1.0 has pickled it."""
    call = (
        f"c__builtin__\ngetattr\np0\n(c{module}\n{name}\np1\nVopen\np2\ntp3\nRp4\n(V{path}\np5\ntp6\nRp7\n."
    )
    return call.encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [("exengine_ndstorage.reader", "NDTiffReader"), ("exengine_ndstorage.ndtiff", "NDTiffStorage")],
)
def test_a_pickled_dataset_of_version_3_loads(module, name, path, frame):
    with exengine.open_storage("ndtiff", path) as storage:
        storage.put({"time": 0}, frame({"time": 0}), None)
    with pickle.loads(pickled(module, name, path)) as loaded:
        assert type(loaded) is NDTiffReader
        np.testing.assert_array_equal(loaded[{"time": 0}], frame({"time": 0}))


def test_a_pickled_pyramid_and_a_pickled_dataset_of_version_2_load(example_data):
    pyramid = pickled(
        "exengine_ndstorage.pyramid", "PyramidReader", example_data / "v3/ndtiffv3.0_stitched_test"
    )
    with pickle.loads(pyramid) as loaded:
        assert type(loaded) is PyramidReader and len(loaded)
    version2 = pickled("exengine_ndstorage.legacy", "Version2Reader", example_data / "v2/ndtiffv2.0_test")
    with pickle.loads(version2) as loaded:
        assert type(loaded) is Version2Reader and len(loaded)


def test_the_tiles_of_a_pickled_mosaic_load():
    assert pickle.loads(b"cexengine_ndstorage.pyramid\n_ReadTile\n.").__name__ == "_ReadTile"


def imports_of(file):
    """Return the modules of the package that a module imports, also in functions and for types."""
    found = set()
    prefix = "exengine_ndstorage.ndtiff"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == prefix:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{prefix}."):
            found.add(node.module.removeprefix(f"{prefix}."))
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith(prefix) for alias in node.names)
    return found


def test_the_modules_import_each_other_without_a_circle():
    left = {file.stem: imports_of(file) for file in PACKAGE.glob("*.py") if file.stem != "__init__"}
    assert len(left) >= 15
    while left:
        free = {name for name, imported in left.items() if not imported & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {name: imported for name, imported in left.items() if name not in free}


@pytest.mark.parametrize("module", ["reader", "pyramid", "version2", "recovery", "format"])
def test_any_module_can_be_imported_first(module):
    program = f"import exengine_ndstorage.ndtiff.{module}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
