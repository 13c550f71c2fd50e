"""Temporary distributions and documentation projects for tests."""

import io
import re
import sys
import textwrap
import warnings as python_warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from jinja2 import FileSystemBytecodeCache
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

METHODS = '''
    def put(self, data_coordinates, data, metadata):
        """Keep a frame."""
    def get_data(self, data_coordinates): ...
    def get_metadata(self, data_coordinates): ...
    def __contains__(self, data_coordinates): return False
    def finish(self): ...
    def close(self): ...
'''
IMPORTS = """
from pathlib import Path
from typing import Annotated, Any, Callable, Literal
from exengine import DataStorage, StorageCapabilities
"""
METADATA = """\
Metadata-Version: 2.4
Name: {distribution}
Version: 2.5
Summary: A shelf
License-Expression: BSD-3-Clause
Requires-Python: >=3.11
Requires-Dist: exengine>=1,<2
"""
_numbers = count()


class Site:
    """A folder of installed distributions, which is on ``sys.path``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def install(
        self, distribution: str, source: str, *, name: str = "shelf", guide: str | None = None
    ) -> str:
        """Install a distribution with one backend; return the name of its package."""
        package = f"fake_package_{next(_numbers)}"
        home = self.folder / package
        (home / "docs").mkdir(parents=True)
        (home / "py.typed").touch()
        (home / "__init__.py").write_text(IMPORTS + textwrap.dedent(source), encoding="utf-8")
        if guide is not None:
            (home / "docs" / f"{name}.rst").write_text(textwrap.dedent(guide), encoding="utf-8")
        info = self.folder / f"{distribution.replace('-', '_')}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(METADATA.format(distribution=distribution))
        (info / "entry_points.txt").write_text(f"[exengine.storage_backends]\n{name} = {package}:Shelf\n")
        return package

    def backend(
        self,
        distribution: str = "shelf-dist",
        *,
        doc: str = '"""Put frames on a shelf."""',
        init: str = "",
        extra: str = "",
        **more: Any,
    ) -> str:
        """Install a backend with a given docstring, ``__init__`` and capabilities."""
        body = textwrap.indent(textwrap.dedent(f"{doc}\n{extra}\n{init}\n"), "    ")
        return self.install(distribution, f"class Shelf(DataStorage):\n{body}\n{METHODS}", **more)


@dataclass
class Built:
    """The result of a build."""

    source: Path
    output: Path
    warnings: str

    def rst(self, document: str) -> str:
        return (self.source / f"{document}.rst").read_text(encoding="utf-8")

    def text(self, document: str) -> str:
        """Return a page as a reader sees it, as one line."""
        html = (self.output / f"{document}.html").read_text(encoding="utf-8")
        body = html.partition('<div class="body"')[2]
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())

    def rows(self, document: str) -> list[list[str]]:
        """Return the cells of every table row of a page."""
        html = (self.output / f"{document}.html").read_text(encoding="utf-8")
        rows = re.findall(r"<tr.*?</tr>", html, re.S)
        return [[_plain(cell) for cell in re.findall(r"<td>(.*?)</td>", row, re.S)] for row in rows]


def _plain(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", "", html)).split())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    monkeypatch.syspath_prepend(str(made.folder))
    known = set(sys.modules)
    yield made
    for module in set(sys.modules) - known:
        if module.startswith("fake_package_"):
            del sys.modules[module]


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> FileSystemBytecodeCache:
    """A cache for the templates of the theme, which Sphinx compiles again in every build."""
    return FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))


@pytest.fixture
def build(tmp_path: Path, site: Site, templates: FileSystemBytecodeCache) -> Callable[..., Built]:
    """Build a documentation project; by default, warnings are errors."""

    def run(*, index: str | None = None, strict: bool = True, **settings: Any) -> Built:
        source, output, doctrees = tmp_path / "docs", tmp_path / "out", tmp_path / "doctrees"
        source.mkdir(exist_ok=True)
        start = "Start\n=====\n\n.. toctree::\n   :glob:\n\n   usage/*/index\n" if index is None else index
        if not (source / "index.rst").is_file() or (source / "index.rst").read_text() != start:
            (source / "index.rst").write_text(start)
        status, warnings = io.StringIO(), io.StringIO()
        overrides = {
            "extensions": ["exengine.sphinxext"],
            "html_theme": "basic",
            "exengine_path": [str(site.folder)],
            **settings,
        }
        with patch_docutils(), docutils_namespace(), python_warnings.catch_warnings():
            # Sphinx's own extensions use what Sphinx deprecates.
            for category in (DeprecationWarning, PendingDeprecationWarning):
                python_warnings.filterwarnings("ignore", category=category)
            app = Sphinx(
                source, None, output, doctrees, "html", overrides, status, warnings, warningiserror=strict
            )
            environment = app.builder.templates.environment
            environment.bytecode_cache = environment.bytecode_cache or templates
            app.build()
        if strict:
            assert app.statuscode == 0, warnings.getvalue()
        return Built(source, output, warnings.getvalue())

    return run
