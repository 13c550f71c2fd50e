"""A project that names a distribution in ``exengine_strict`` is not built while it has any fault; others are."""

import json

import pytest
from sphinx.errors import ConfigError, ExtensionError

DOC = '''"""Put frames on a shelf.

Parameters
----------
width : int, default: 3
    How many frames lie side by side.

Examples
--------
>>> Shelf(width=2).width
2
"""'''
INIT = "def __init__(self, width: int = 3) -> None: self.width = width"


@pytest.fixture
def strict(site, build, tmp_path):
    """Return what builds a project that is strict about a plugin, after changes to it."""

    def run(old="", new="", *, remove="", metadata=None, results=None, foreign=False):
        source = f"{DOC}|{INIT}|"
        assert old in source
        doc, init, extra = source.replace(old, new, 1).split("|") if old else source.split("|")
        package = site.backend(doc=doc, init=init, extra=extra, guide="Shelves are wide.\n")
        if remove:
            (site.folder / package / remove).unlink()
        if metadata:
            file = site.folder / "shelf_dist-2.5.dist-info" / "METADATA"
            assert metadata in file.read_text()
            file.write_text(file.read_text().replace(metadata, "X"))
        if results:
            folder = tmp_path / "docs" / "_results"
            folder.mkdir(parents=True)
            (folder / "shelf.json").write_text(json.dumps(results))
        return build(**({} if foreign else {"exengine_strict": ["shelf-dist"]}))

    return run


def test_a_plugin_in_order_is_built(strict):
    assert "Put frames on a shelf." in strict().text("usage/backends/shelf")


NOT_KEPT = {
    "format": "exengine-conformance", "format_version": 1, "backend": "shelf", "distribution": "shelf-dist",
    "version": "2.5", "kernel": "1.0.0", "outcome": "broken", "reason": "", "codes": ["EX304"],
    "promises": {"P9": {"outcome": "broken", "tests": 1, "failed": 1, "codes": ["EX304"], "because": ["lost"]}},
    "findings": [{"code": "EX304", "message": "metadata is declared, and was lost"}],
}  # fmt: skip
FAULTS = {
    "EX202": ("width : int, default: 3\n    How many frames lie side by side.", "\n"),
    "EX203": ("width : int", "breadth : int"),
    "EX204": (f"{DOC}|{INIT}", f"{DOC.replace(' : int, default: 3', '')}|{INIT.replace(': int', '')}"),
    "EX205": ("default: 3", "default: 4"),
    "EX211": (">>> Shelf(width=2).width\n2", ""),
    "EX212": ("width\n2", "width\n5"),
    "EX213": {"remove": "docs/shelf.rst"},
    "EX214": ("= width|", "= width|capabilities = StorageCapabilities(readers=('napari',))"),
    "EX304": {"results": NOT_KEPT},
    "EX401": {"metadata": "License-Expression"},
    "EX402": {"remove": "py.typed"},
    "EX404": {"metadata": "exengine>=1,<2"},
    "EX406": {"metadata": "Summary"},
    "EX407": {"metadata": "Requires-Python"},
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_ends_the_build_and_its_code_is_said(strict, code):
    change = FAULTS[code]
    positional, named = ((), change) if isinstance(change, dict) else (change, {})
    with pytest.raises(ExtensionError, match=f"shelf-dist, 'shelf': {code} "):
        strict(*positional, **named)


@pytest.mark.parametrize("code", ["EX211", "EX213", "EX304", "EX401"])
def test_the_same_fault_of_a_plugin_that_nobody_is_strict_about_is_shown_on_its_page(strict, code):
    change = FAULTS[code]
    built = strict(foreign=True, **change) if isinstance(change, dict) else strict(*change, foreign=True)
    assert code in built.text("usage/backends/shelf")


def test_what_ends_the_process_is_never_imported_by_the_build(site, build):
    site.install("deadly-dist", "import os; os._exit(3)", name="deadly")
    site.backend()
    built = build()
    assert "ended the process with exit code 3" in built.text("usage/backends/deadly")
    assert "Put frames on a shelf." in built.text("usage/backends/shelf")


def test_a_project_that_does_not_read_rst_is_refused_with_what_to_write(build):
    with pytest.raises(ConfigError, match="source_suffix.*'.rst': 'restructuredtext'"):
        build(source_suffix={".md": "restructuredtext"})


def test_sources_that_cannot_be_written_to_end_the_build_with_what_to_do(site, build, tmp_path):
    site.backend()
    (tmp_path / "docs").mkdir(exist_ok=True)
    (tmp_path / "docs" / "usage").write_text("not a folder")
    with pytest.raises(ExtensionError, match=r"cannot be written into .*docs: .*; copy the sources"):
        build()
