"""Plugins stand on the doors of ExEngine only: ours, their tests, the examples and what the template writes."""

import ast
from pathlib import Path

import pytest

import exengine
from exengine.cli.main import main

ROOT = Path(__file__).parents[2]
DOORS = {"exengine.base_classes", "exengine.errors", "exengine.testing", "exengine.sphinxext"}
ADDRESSES = {"exengine.cli.main", "exengine.data", "exengine.notifications", "exengine.storage_backends"}
"""The command's entry point and the import paths of ExEngine 0.4.0, which tests use as users do."""
PROJECTS = [*ROOT.glob("plugins/*"), *ROOT.glob("examples/*/"), ROOT / "docs" / "how-to" / "my-backend"]


def inner_imports(project):
    """Yield each import of a module of ExEngine that is not a door."""
    for path in sorted(project.rglob("*.py")):
        allowed = DOORS | ADDRESSES if "tests" in path.parts else DOORS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "exengine":
                found = [
                    f"exengine.{alias.name}" for alias in node.names if alias.name not in exengine.__all__
                ]
            elif isinstance(node, ast.ImportFrom):
                found = [node.module]
            elif isinstance(node, ast.Import):
                found = [alias.name for alias in node.names if alias.name != "exengine"]
            elif isinstance(node, ast.Attribute):
                found = [ast.unparse(node)]  # exengine.kernel.errors after `import exengine`
                if found[0].split(".")[:2] not in (["exengine", "kernel"], ["exengine", "datasets"]):
                    continue
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = [node.value] if node.value.startswith("exengine.") and " " not in node.value else []
                found = [name for name in found if name.split(".")[1] in ("kernel", "config", "datasets")]
            else:
                continue
            for name in found:
                inside = name.partition(".")[0] == "exengine"
                alias = name.startswith("exengine.storage_backends.") and "tests" in path.parts
                if inside and name not in allowed and not alias:
                    yield f"{path.relative_to(project)}:{node.lineno}: {name}"


@pytest.mark.parametrize("project", [path for path in PROJECTS if path.is_dir()], ids=lambda path: path.name)
def test_a_plugin_and_its_tests_import_from_doors_only(project):
    assert list(inner_imports(project)) == []


def test_a_plugin_of_the_template_imports_from_doors_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["backends", "new", "my-format"]) == 0
    (project,) = tmp_path.iterdir()
    assert list(project.rglob("*.py")) and list(inner_imports(project)) == []


def test_an_import_past_the_doors_is_found(tmp_path):
    (tmp_path / "plugin.py").write_text(
        "import exengine.kernel.errors\nfrom exengine.datasets import creation\n"
        "from exengine import kernel, open_dataset\nfrom exengine.base_classes import DataStorage\n"
        "from exengine.testing.watch import Watch\nfrom exengine.testing import decode\n"
    )
    assert list(inner_imports(tmp_path)) == [
        "plugin.py:1: exengine.kernel.errors",
        "plugin.py:2: exengine.datasets",
        "plugin.py:3: exengine.kernel",
        "plugin.py:5: exengine.testing.watch",
    ]
