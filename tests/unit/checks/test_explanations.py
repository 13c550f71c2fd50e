"""Each code has an explanation, whose wrong example has exactly this fault and whose right example has none."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from exengine import DataStorage
from exengine.checks import distribution
from exengine.checks.documentation import check_documentation
from exengine.checks.examples import ExampleRun, Step, statements_of
from exengine.checks.explanations import explain, explanations
from exengine.cli.main import main
from exengine.errors import OptionError
from exengine.kernel.registry import docstrings
from exengine.kernel.registry.class_checks import check_class
from exengine.kernel.registry.codes import FAULTS
from exengine.kernel.registry.records import Outcome, PluginRecord

PRELUDE = '''\
import time
from exengine.base_classes import DataCoordinates, DataStorage, StorageCapabilities
from exengine.errors import UnsupportedOperationError
from broken_backends import Disk as FolderStorage, Plain, np

class DictStorage(Plain):
    """Keep frames in a dict."""

    capabilities = StorageCapabilities()

    def __init__(self):
        super().__init__()

'''
SOURCE = Path(__file__).parents[2] / "backends" / "broken_backends.py"
PROJECT = """\
[project]
name = "my-package"
version = "1.0"
description = "Put frames on a shelf"
license = "BSD-3-Clause"
requires-python = ">=3.11"
dependencies = ["exengine>=1,<2"]
"""
ENTRY = """
[project.entry-points."exengine.storage_backends"]
shelf = "my_package:Shelf"
"""
FILES = ("src/my_package/__init__.py", "src/my_package/py.typed", "src/my_package/docs/shelf.rst")

CASES = [(code, which) for code in FAULTS for which in ("wrong", "right")]


def group(prefix):
    return [case for case in CASES if case[0].startswith(prefix)]


def expected(code, which):
    return {code} if which == "wrong" else set()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Return a function that gives the class of an example, in an installed distribution of its own."""
    from exengine.kernel.registry import plugins

    site = tmp_path_factory.mktemp("site")
    shutil.copy(SOURCE, site)
    for code, which in CASES:
        one = explain(code)
        if one.language == "python":
            module = f"my_package_{code}_{which}".lower()
            (site / f"{module}.py").write_text(PRELUDE + getattr(one, which) + "\n")
            info = site / f"{module}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
            name = module.replace("_", "-")
            (info / "entry_points.txt").write_text(f"[exengine.storage_backends]\n{name} = {module}:Shelf\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        plugins.BACKENDS.refresh()
        yield lambda code, which: importlib.import_module(f"my_package_{code}_{which}".lower()).Shelf
        for name in [name for name in sys.modules if name.startswith(("my_package", "broken_backends"))]:
            del sys.modules[name]
    plugins.BACKENDS.refresh()


@pytest.mark.parametrize(("code", "which"), [*group("EX10"), *group("EX20")])
def test_an_example_of_the_contract_has_the_fault_or_none(shelf, code, which):
    findings = check_class(shelf(code, which), DataStorage)
    assert {finding.code for finding in findings} == expected(code, which), findings


@pytest.mark.parametrize(("code", "which"), [case for case in group("EX21") if case[0] != "EX213"])
def test_an_example_of_the_documentation_has_the_fault_or_none(shelf, code, which):
    cls = shelf(code, which)
    assert check_class(cls, DataStorage) == []
    outcome = Outcome("valid", loaded=cls)
    record = PluginRecord(
        "shelf", "exengine.storage_backends", "my_package:Shelf", "my-package", "1.0", outcome=outcome
    )
    text = docstrings.documentation_of(cls).examples
    steps = []
    for statement in statements_of(text):
        got = (
            f"{eval(statement.source, vars(sys.modules[cls.__module__]))}\n"
            if statement.want
            else exec(statement.source, vars(sys.modules[cls.__module__]))
        )
        steps.append(Step(got or "", failed=(got or "") != statement.want, ran=True))
    run = ExampleRun(tuple(steps)) if steps else None
    findings = list(check_documentation(record, "The page.", run))
    assert {finding.code for finding in findings} == expected(code, which), findings


@pytest.mark.parametrize(("code", "which"), group("EX3"))
def test_the_conformance_kit_finds_the_fault_of_an_example_or_none(shelf, code, which, tmp_path):
    from exengine.testing import reports_of
    from exengine.testing.results import make_results

    cls = shelf(code, which)
    name = cls.__module__.replace("_", "-")
    results = make_results(name, list(reports_of(cls, tmp_path, code, name=name)))
    assert set(results["codes"]) == expected(code, which), results["findings"]


def project(folder, text="", files=FILES):
    """Write a project folder; a snippet of pyproject.toml stands in place of the table with the same name."""
    content = PROJECT + ENTRY
    if text:
        head = text.replace("[project]\n", '[project]\nname = "my-package"\nversion = "1.0"\n', 1)
        content = head + ("" if "entry-points" in text else ENTRY)
    (folder / "pyproject.toml").write_text(content + "\n")
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return distribution.of_project(folder)


@pytest.mark.parametrize(
    ("code", "which"), [case for case in group("EX4") if explain(case[0]).language == "toml"]
)
def test_an_example_of_the_packaging_has_the_fault_or_none(code, which, tmp_path):
    findings = distribution.check_packaging(project(tmp_path, getattr(explain(code), which)))
    assert {finding.code for finding in findings} == expected(code, which), findings


@pytest.mark.parametrize("which", ["wrong", "right"])
def test_the_example_of_ex402_has_the_fault_or_none(which, tmp_path):
    facts = project(tmp_path, files=getattr(explain("EX402"), which).split())
    assert {finding.code for finding in distribution.check_packaging(facts)} == expected("EX402", which)


@pytest.mark.parametrize("which", ["wrong", "right"])
def test_the_example_of_ex405_has_the_fault_or_none(which, tmp_path):
    facts = project(tmp_path)
    facts.files = set(getattr(explain("EX405"), which).split())
    assert {finding.code for finding in distribution.check_packaging(facts)} == expected("EX405", which)


@pytest.mark.parametrize("which", ["wrong", "right"])
def test_the_example_of_ex408_has_the_fault_or_none(which, tmp_path):
    from exengine.kernel.registry.plugins import PluginRegistry

    for file in getattr(explain("EX408"), which).split():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        metadata = "Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n"
        entries = "[exengine.storage_backends]\nshelf = my_package:Shelf\n"
        path.write_text(metadata if path.name == "METADATA" else entries)
    registry = PluginRegistry("exengine.storage_backends", "backend", [str(tmp_path)])
    stages = {record.stage for record in registry.records().values()}
    assert stages == ({"metadata"} if which == "wrong" else {""})


@pytest.mark.parametrize("which", ["wrong", "right"])
def test_the_example_of_ex213_has_the_page_or_not(which, make_distribution, tmp_path):
    from exengine.checks.documentation import narrative_page

    site = make_distribution("my-package", {"shelf": "my_package:Shelf"}, "", module="my_package/__init__")
    for file in getattr(explain("EX213"), which).split():
        path = site / file.removeprefix("src/")
        path.parent.mkdir(exist_ok=True)
        path.write_text("The page." if path.suffix == ".rst" else "")
    record = PluginRecord("shelf", "exengine.storage_backends", "my_package:Shelf", "my-package", "1.0")
    assert narrative_page(record) == ("" if which == "wrong" else "The page.")


# -- the text ------------------------------------------------------------------------------------


def test_every_code_has_an_explanation_and_nothing_else_has():
    text = Path(distribution.__file__).with_name("codes.toml").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\[(EX\d+)\]", text) == list(FAULTS) == list(explanations())
    for one in explanations().values():
        assert one.why.endswith(".") and one.fix.endswith(".") and one.wrong != one.right


def test_the_command_explains_a_code_in_any_case(capsys):
    assert main(["explain", "ex202"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("EX202: an option is not documented")
    assert "Wrong:" in out and "Right:" in out and "width : int" in out and "``" not in out


def test_the_command_lists_all_codes(capsys):
    assert main(["explain"]) == 0
    out = capsys.readouterr().out
    assert all(code in out for code in FAULTS)
    assert main(["explain", "--json"]) == 0
    assert [one["code"] for one in json.loads(capsys.readouterr().out)] == list(FAULTS)


def test_an_unknown_code_is_wrong_use_and_names_the_nearest(capsys):
    assert main(["explain", "EX2002"]) == 2
    assert "did you mean" in capsys.readouterr().err
    with pytest.raises(OptionError, match="EX101 - EX408"):
        explain("nothing")


def test_the_error_for_an_invalid_plugin_names_the_command(
    make_distribution, backends_of, monkeypatch, capsys
):
    from exengine.kernel.registry import plugins

    source = "from exengine import DataStorage\nclass Shelf(DataStorage):\n    pass\n"
    make_distribution("my-package", {"shelf": "my_package:Shelf"}, source)
    monkeypatch.setattr(plugins, "BACKENDS", backends_of())
    assert main(["backends", "show", "shelf"]) == 1
    assert "run: exengine explain EX103" in capsys.readouterr().err
