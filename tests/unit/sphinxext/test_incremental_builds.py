"""A build notices what changed in a plugin since the one before, and reads nothing else again."""

import os
import sys

import pytest

from exengine.testing.results import TestReport, make_results, write_results

DOC = '''"""Put frames on a shelf.

Parameters
----------
width : int
    How many lie side by side.

Examples
--------
>>> 6 * 7
42
"""'''
INIT = "def __init__(self, width: int = 4): ..."


@pytest.fixture
def project(site, build, tmp_path):
    """Build a plugin's page; then change the plugin, and build again as another process would."""
    package = site.backend(doc=DOC, init=INIT, guide="Dust it.\n")
    home = site.folder / package

    class Project:
        folder = home
        before = build()

        def change(self, file, old, new):
            path = home / file
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new))
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 2_000_000_000))

        def again(self):
            sys.modules.pop(package, None)
            return build().text("usage/backends/shelf")

    return Project()


@pytest.mark.parametrize(
    ("file", "old", "new", "shown"),
    [
        ("__init__.py", "Put frames on a shelf.", "Put frames on a board.", "Put frames on a board."),
        ("__init__.py", "How many lie", "How many stand", "How many stand side by side."),
        ("__init__.py", "width: int = 4", "width: int = 5", "int 5 How many"),
        ("__init__.py", "def __init__", "capabilities = StorageCapabilities(metadata=True)\n    def __init__", "metadata yes"),
        ("__init__.py", "Keep a frame.", "Keep one frame for ever.", "Keep one frame for ever."),
        ("__init__.py", "6 * 7", "6 * int('7')", ">>> 6 * int ( '7' ) 42"),
        ("docs/shelf.rst", "Dust it.", "Polish it.", "Polish it."),
    ],
    ids=["summary", "option text", "default", "capability", "docstring of a method", "example", "narrative page"],
)  # fmt: skip
def test_what_changed_in_a_plugin_is_on_its_page_after_the_next_build(project, file, old, new, shown):
    assert shown not in project.again()
    project.change(file, old, new)
    assert shown in project.again()


def test_new_results_of_the_conformance_kit_are_on_the_page_after_the_next_build(project, tmp_path):
    results = make_results(
        "shelf", [TestReport("test_put", ("P1",), "", "kept")], distribution="shelf-dist", version="2.5"
    )
    write_results(tmp_path / "docs" / "_results" / "shelf.json", results)
    assert "found 1 of 1 promises kept" in project.again()


def test_a_page_whose_plugin_did_not_change_is_not_written_again(project):
    page = project.before.source / "usage/backends/shelf.rst"
    matrix = project.before.source / "usage/backends/matrix.rst"
    before = page.stat().st_mtime_ns, matrix.stat().st_mtime_ns
    project.again()
    assert (page.stat().st_mtime_ns, matrix.stat().st_mtime_ns) == before
