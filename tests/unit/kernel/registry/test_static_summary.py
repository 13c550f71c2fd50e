"""The summary of a plugin is read from its source, and nothing of it is imported."""

import re
import sys
from pathlib import Path

import pytest

from exengine.kernel.registry import static_summary
from exengine.kernel.registry.records import PluginRecord
from exengine.kernel.registry.static_summary import summary_of

CLASS = 'class Shelf:\n    """Put frames\n    on a shelf.\n\n    More.\n    """\n'
EXPLODES = "raise SystemExit('imported')\n"


@pytest.fixture
def package(make_distribution):
    def make(**files):
        site = make_distribution("my-package")
        for name, text in files.items():
            path = site / "my_package" / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        make.site = site

    return make


def summary(target="my_package:Shelf"):
    found = summary_of(PluginRecord("shelf", "exengine.storage_backends", target, "my-package", "1.0"))
    assert "my_package" not in sys.modules
    return found


def test_it_is_the_first_paragraph_of_the_docstring_in_one_line(package):
    package(__init__=EXPLODES + CLASS)
    assert summary() == "Put frames on a shelf."


@pytest.mark.parametrize(
    "statement",
    [
        "from my_package.shelf import Shelf",
        "from .shelf import Shelf",
        "from my_package.shelf import Board as Shelf",
        "def __getattr__(name):\n    from my_package.shelf import Shelf\n    return Shelf",
    ],
    ids=["absolute", "relative", "renamed", "lazy"],
)
def test_a_class_is_followed_to_the_module_that_defines_it(package, statement):
    source = CLASS.replace("Shelf", "Board") if "Board" in statement else CLASS
    package(__init__=EXPLODES + statement + "\n", shelf=EXPLODES + source)
    assert summary() == "Put frames on a shelf."


@pytest.mark.parametrize(
    "source",
    [
        "",
        "class Shelf: ...",
        "Shelf = make()",
        "def (",
        "from my_package import Shelf",
        "from nowhere import Shelf",
    ],
)
def test_it_is_empty_where_the_source_does_not_tell(package, source):
    package(__init__=source)
    assert summary() == ""


@pytest.mark.parametrize(
    "target", ["", "my_package", "no_such_package:Shelf", "my_package.none:Shelf", ":", "a:b.c"]
)
def test_it_is_empty_for_a_target_that_leads_nowhere(package, target):
    package(__init__=CLASS)
    assert summary(target) == ""


USUAL = {
    "bases": CLASS.replace("Shelf", "Shelf(Board, material='oak')"),
    "bases in lines": CLASS.replace("Shelf", "Shelf(\n    Board,\n)"),
    "raw": CLASS.replace('"""Put', 'r"""Put'),
    "after another class": 'class Shelf2:\n    """No."""\n\n' + CLASS,
    "imported in parentheses": "from .shelf import (\n    Board,\n    Shelf,\n)",
    "imported among others": "from my_package.shelf import Board, Shelf",
    "imported from a module above": "from .inner.above import Shelf",
}
UNUSUAL = {
    "a comment": CLASS.replace(":\n", ":  # oak\n", 1),
    "calls in the bases": CLASS.replace("Shelf", "Shelf(made(of='oak'))"),
    "type parameters": CLASS.replace("Shelf", "Shelf(Board[int], metaclass=type(Board))"),
    "single quotes": CLASS.replace('"""', "'''"),
    "an escape": CLASS.replace("frames", "frame\\x73"),
    "a semicolon": CLASS.replace("    ", "\t").replace("Shelf:", "Shelf :"),
    "Latin-1": "# coding: latin-1\n" + CLASS.replace("shelf", "sh\u00e9lf"),
    "imported with a comment": "from my_package.shelf import (\n    Board,  # oak\n    Shelf,\n)",
    "an import in a docstring that leads nowhere": '"""\n    from nowhere import Shelf\n"""\nfrom .shelf import Shelf',
}


@pytest.mark.parametrize("form", USUAL | UNUSUAL)
def test_it_is_found_in_any_form_and_usual_code_needs_no_parser(package, form, monkeypatch):
    source = (USUAL | UNUSUAL)[form]
    package(shelf=CLASS, __init__=EXPLODES + source)
    site = package.site / "my_package"
    (site / "inner").mkdir()
    (site / "inner" / "__init__.py").touch()
    (site / "inner" / "above.py").write_text("from ..shelf import Shelf\n")
    if form == "Latin-1":
        (site / "__init__.py").write_bytes(source.encode("latin-1"))
    if form in USUAL:
        monkeypatch.setattr(static_summary, "_by_parser", None)
    assert summary() == ("Put frames on a sh\u00e9lf." if form == "Latin-1" else "Put frames on a shelf.")


def test_patterns_find_what_the_parser_finds_for_each_class_of_this_project():
    compared = 0
    for module in Path(static_summary.__file__).parents[1].rglob("*.py"):
        source = module.read_text(encoding="utf-8")
        for name in re.findall(r"^class (\w+)", source, re.MULTILINE):
            found, parsed = (
                look(source, "exengine", name)
                for look in (static_summary._by_pattern, static_summary._by_parser)
            )
            assert found in (parsed, ("", None)), (module, name)
            compared += found == parsed
    assert compared > 50
