"""The summary of a plugin is read from its source, and nothing of it is imported."""

import sys

import pytest

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
