"""A build notices what changed in a plugin since the one before, and reads nothing else again."""

import os
import sys

import pytest
from sphinx.errors import ExtensionError

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
    assert shown not in project.before.text("usage/backends/shelf")
    project.change(file, old, new)
    assert shown in project.again()


def test_new_results_of_the_conformance_kit_are_on_the_page_after_the_next_build(project, tmp_path):
    results = make_results(
        "shelf", [TestReport("test_put", ("P1",), "", "kept")], distribution="shelf-dist", version="2.5"
    )
    write_results(tmp_path / "docs" / "_results" / "shelf.json", results)
    assert "confirmed 1 of 1 promises" in project.again()


def test_a_page_whose_plugin_did_not_change_is_not_written_again(project):
    page = project.before.source / "usage/backends/shelf.rst"
    matrix = project.before.source / "usage/backends/matrix.rst"
    before = page.stat().st_mtime_ns, matrix.stat().st_mtime_ns
    project.again()
    assert (page.stat().st_mtime_ns, matrix.stat().st_mtime_ns) == before


def test_a_build_in_which_nothing_changed_loads_no_plugin_and_runs_no_example(project, monkeypatch):
    from exengine.sphinxext import build

    project.again()
    page = project.before.source / "usage/backends/shelf.rst"
    monkeypatch.setattr(build, "make_reports", None)
    assert "Put frames on a shelf." in project.again()
    page.write_text(page.read_text() + "\nA reader's words.\n")
    with pytest.raises(ExtensionError, match="not callable"):  # the pages are made again
        project.again()


def test_a_page_that_cannot_be_written_is_warned_of_in_every_build(site, build):
    site.backend()
    built = build()
    page = built.source / "usage/backends/shelf.rst"
    page.write_text("Shelf\n=====\n\nMine.\n")
    for _ in range(2):
        assert "was not written by exengine.sphinxext" in build(strict=False).warnings


def test_the_facts_of_the_pickers_survive_a_build_in_which_nothing_changed(project):
    matrix = project.before.output / "usage/backends/matrix.html"
    project.again()
    matrix.unlink()
    (project.before.source / "usage/backends/matrix.rst").touch()
    project.again()
    assert '"name": "shelf"' in matrix.read_text()


def test_a_distribution_that_was_updated_is_noticed(project, site):
    info = next(site.folder.glob("*.dist-info"))
    metadata = (info / "METADATA").read_text()
    (info / "METADATA").write_text(metadata.replace("Version: 2.5", "Version: 2.6"))
    info.rename(info.with_name(info.name.replace("2.5", "2.6")))
    assert "shelf-dist 2.6" in project.again()
