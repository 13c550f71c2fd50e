"""``import exengine``: light, lazy, and the same names for Python and for type checkers."""

import ast
import pickle
from importlib import import_module, metadata, resources
from pathlib import Path

import pytest

import exengine
from exengine import base_classes, data, notifications

HEAVY = (
    "numpy",
    "typing",
    "dataclasses",
    "pydantic",
    "yaml",
    "useq",
    "pluggy",
    "docstring_parser",
    "inspect",
    "json",
)


def modules_after(run_python, statements, *, paths=None):
    """Return the names of the modules that statements import, in an interpreter with nothing else in it."""
    # -S leaves out site, whose .pth files may import anything; so the paths are put in by hand.
    paths = paths or [str(Path(exengine.__file__).parents[1])]
    program = f"import sys; sys.path[:0] = {paths!r}; {statements}; print(*sys.modules)"
    return set(run_python(program, options=["-I", "-S"]).stdout.split())


def test_importing_exengine_imports_nothing_heavy_and_nothing_else_of_exengine(run_python):
    found = modules_after(run_python, "import exengine")
    assert "exengine" in found
    assert not found & set(HEAVY)
    assert {name for name in found if name.startswith("exengine.")} == set()


def test_listing_what_is_installed_imports_no_plugin_and_not_numpy(run_python, installed, tmp_path):
    paths = [str(Path(exengine.__file__).parents[1]), str(tmp_path / "site")]
    found = modules_after(run_python, "import exengine; assert 'memory' in exengine.backends()", paths=paths)
    assert not found & {"numpy", "pydantic", "yaml", "useq", "docstring_parser"}
    assert not [
        name for name in found if name.startswith(("exengine_", "exengine.storage", "exengine.frame_sources"))
    ]


def test_the_exceptions_can_be_had_without_numpy(run_python):
    assert "numpy" not in modules_after(run_python, "from exengine.errors import ExEngineError")


@pytest.mark.parametrize("name", exengine.__all__)
def test_each_public_name_is_there(name):
    assert getattr(exengine, name) is not None
    assert name in dir(exengine)
    if name in exengine._HOMES and name != "errors":
        assert getattr(exengine, name) is getattr(import_module(exengine._HOMES[name]), name)


def test_star_brings_exactly_the_public_names(run_python):
    program = "before = set(globals()) | {'before'}\nfrom exengine import *\nprint(*sorted(set(globals()) - before))"
    assert run_python(program).stdout.split() == sorted(exengine.__all__)


def test_type_checkers_see_the_same_names():
    stub = ast.parse(resources.files(exengine).joinpath("__init__.pyi").read_text(encoding="utf-8"))
    seen = set()
    homes = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name  # else it is not re-exported
                seen.add(alias.name)
                homes[alias.name] = node.module
        elif isinstance(node, ast.AnnAssign):
            seen.add(node.target.id)
    assert seen == set(exengine.__all__)
    assert homes == exengine._HOMES


def test_the_version_is_that_of_the_distribution():
    assert exengine.__version__ == metadata.version("exengine")


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'exengine' has no attribute 'nonsense'"):
        exengine.nonsense  # noqa: B018 - the access is under test
    with pytest.raises(ImportError):
        from exengine import nonsense  # noqa: F401


@pytest.mark.parametrize("module", [base_classes, data, notifications])
def test_the_short_import_paths_lead_to_the_same_classes(module):
    assert module.__all__
    for name in module.__all__:
        value = getattr(module, name)
        assert getattr(exengine, name, value) is value
        if issubclass(type(value), type):  # no alias of a type
            assert value.__module__.startswith(("exengine.kernel.", "exengine.frame_sources.", "typing"))


def test_every_exception_is_an_exengine_error_and_survives_pickling():
    for name in exengine.errors.__all__:
        cls = getattr(exengine.errors, name)
        assert issubclass(cls, exengine.ExEngineError)
        copy = pickle.loads(pickle.dumps(cls("what happened")))
        assert type(copy) is cls and str(copy) == "what happened"


def test_listing_works_after_the_built_in_sources_were_imported(run_python):
    program = (
        "import exengine, exengine.frame_sources.simulated, exengine.storage_backends\n"
        "print('simulated' in exengine.sources(), callable(exengine.backends))"
    )
    assert run_python(program).stdout.split() == ["True", "True"]
