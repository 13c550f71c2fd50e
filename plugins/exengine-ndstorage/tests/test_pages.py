"""Whatever stands in the documentation as code runs, and does what is said there."""

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import textwrap
import warnings
from pathlib import Path

import pytest

import exengine_ndstorage
from exengine import DataStorage

ROOT = Path(exengine_ndstorage.__file__).parent
README = Path(__file__).parents[1] / "README.md"
MODULES = [module.name for module in pkgutil.walk_packages([str(ROOT)], "exengine_ndstorage.")]


def rst_blocks(text):
    """Return the Python blocks of a page, in order."""
    pattern = r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)"
    return [textwrap.dedent(block) for block in re.findall(pattern, text, re.MULTILINE)]


def run(blocks, name):
    """Run blocks one after another, as a reader would; what ndstorage prints and warns of is not ours."""
    namespace = {"__name__": name}
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for number, block in enumerate(blocks):
            exec(compile(block, f"<{name}, block {number}>", "exec"), namespace)
    for value in namespace.values():
        if isinstance(value, DataStorage):
            value.close()
    return namespace


@pytest.mark.parametrize(("page", "count"), [("ndtiff.rst", 8), ("ndram.rst", 4)])
def test_every_python_block_of_a_page_runs(page, count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = rst_blocks((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(blocks) == count
    run(blocks, page)


def test_every_python_block_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    assert run(blocks, "README.md")["frame"].shape == (512, 512)


def test_the_config_of_the_readme_names_options_that_exist(tmp_path):
    import yaml

    import exengine

    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1])
    config["storage"]["path"] = str(tmp_path / "demo")
    with exengine.open_storage(config=config) as storage:
        assert storage.path == str(tmp_path / "demo")


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_give_what_they_show(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
    if module.rpartition(".")[2] in ("writer", "ndram"):
        assert results.attempted >= 4


@pytest.mark.parametrize("page", ["ndtiff.rst", "ndram.rst"])
def test_headings_of_a_page_go_below_those_that_are_generated(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    underlines = re.findall(r"^(\S.*)\n([-=~#*^])\2{3,}$", text, re.MULTILINE)
    assert len(underlines) >= 3 and {mark for _, mark in underlines} == {"-"}


def test_every_module_is_in_the_readme():
    text = README.read_text(encoding="utf-8")
    for module in MODULES:
        name = module.removeprefix("exengine_ndstorage.").replace(".", "/")
        assert f"`{name}.py`" in text or f"`{name}/`" in text


def test_importing_the_package_imports_neither_backend(run_python):
    program = """
import sys
import exengine_ndstorage
print(sorted(name for name in sys.modules if name in ("numpy", "orjson", "dask", "ndstorage")))
print(exengine_ndstorage.NDRAMStorage.__name__, "exengine_ndstorage.ndtiff" in sys.modules)
print(exengine_ndstorage.NDTiffStorage.__name__, "ndstorage" in sys.modules)
"""
    assert run_python(program).splitlines() == ["[]", "NDRAMStorage False", "NDTiffStorage False"]
