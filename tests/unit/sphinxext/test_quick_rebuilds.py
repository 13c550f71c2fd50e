"""``docs/_ext/quick_rebuilds.py``: a build imports no module whose page is up to date, and compiles no template twice."""

import os
import sys
from pathlib import Path

import pytest
from sphinx.pycode import ModuleAnalyzer

EXT = Path(__file__).parents[3] / "docs" / "_ext"
MODULE = """
import os
with open(os.environ["IMPORTED"], "a") as file:
    file.write("imported ")

def area():
    \"\"\"Return an area.\"\"\"
    return {}
"""


def test_a_module_is_imported_again_only_if_its_source_is_newer_than_its_page(build, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXT))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("IMPORTED", str(tmp_path / "imported"))
    source = tmp_path / "shapes_of_a_test.py"
    source.write_text(MODULE.format(1))
    index = "Start\n=====\n\n.. autofunction:: shapes_of_a_test.area\n"
    extensions = [
        "sphinx.ext.autodoc",
        "sphinx.ext.viewcode",
        "exengine.sphinxext",
        "quick_rebuilds",
    ]

    def built():
        found = build(index=index, extensions=extensions, suppress_warnings=["toc"])
        monkeypatch.delitem(sys.modules, "shapes_of_a_test", raising=False)
        ModuleAnalyzer.cache.clear()  # each build runs in a process of its own
        times = (tmp_path / "imported").read_text().split()
        (tmp_path / "imported").write_text("")
        return len(times), (found.output / "_modules" / "shapes_of_a_test.html").read_text(encoding="utf-8")

    times, page = built()
    assert times == 1 and "area" in page
    assert list((tmp_path / "doctrees" / "templates").iterdir())
    with monkeypatch.context() as patch:
        # Jinja calls it for each template that it compiled because the cache does not have it.
        compiled = "jinja2.FileSystemBytecodeCache.dump_bytecode"
        patch.setattr(compiled, lambda *_: pytest.fail("a template was compiled again"))
        assert built() == (0, page)
    later = (tmp_path / "out" / "_modules" / "shapes_of_a_test.html").stat().st_mtime + 5
    source.write_text(MODULE.format(2))
    os.utime(source, (later, later))
    times, changed = built()
    assert times >= 1 and changed != page
