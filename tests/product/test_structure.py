"""The floor plan of the source: no import circles, packages and modules of a size that a reader can survey."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "src", *sorted(ROOT.glob("plugins/*/src"))]

MOST_MODULES = 16
MOST_LINES = 450
FEWEST_LINES_OF_CODE = 20

ONE_MODULE_PER_VERB = {"exengine.cli"}
ADDRESSES = {
    "exengine.data",
    "exengine.errors",
    "exengine.notifications",
    "exengine.kernel.notifications",
    "exengine.storage_backends.ndtiff_and_ndram.NDTiffandRAM",
    "exengine_ndstorage.legacy",
    "exengine_ndstorage.pyramid",
    "exengine_ndstorage.reader",
}
"""Doors, import paths of ExEngine 0.4.0, and paths that stand in pickles: short modules on purpose."""


def modules_below(*folders):
    """Return the name of each module -> its file."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path, known):
    """Return the modules that a module imports anywhere: at the top, in functions, for type checking."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # `from package import module` imports the module, `from module import name` the module.
            found |= {
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in known else node.module
                for alias in node.names
            }
    return found & known.keys()


def circles(graph):
    """Return the sets of modules that import each other, directly or through others (Tarjan's algorithm)."""
    index, low, stack, found = {}, {}, [], []

    def visit(module):
        index[module] = low[module] = len(index)
        stack.append(module)
        for imported in sorted(graph[module]):
            if imported not in index:
                visit(imported)
                low[module] = min(low[module], low[imported])
            elif imported in stack:
                low[module] = min(low[module], index[imported])
        if low[module] == index[module]:
            position = stack.index(module)
            circle, stack[position:] = stack[position:], []
            if len(circle) > 1 or module in graph[module]:
                found.append(sorted(circle))

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return found


def lines_of_code(text):
    """Return the number of lines with code: without blank lines, comments and docstrings."""
    ignored = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*ignored, tokenize.ENDMARKER):
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):  # of a module, class, function or attribute
                lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


MODULES = modules_below(*SOURCES)


def test_no_modules_import_each_other():
    assert circles({name: imports_of(path, MODULES) for name, path in MODULES.items()}) == []


def test_no_package_has_more_modules_than_a_reader_can_survey():
    packages = {}
    for name, path in MODULES.items():
        if path.name != "__init__.py":
            packages.setdefault(name.rpartition(".")[0], []).append(name)
    crowded = {package: len(names) for package, names in packages.items() if len(names) > MOST_MODULES}
    assert {package for package in crowded if package not in ONE_MODULE_PER_VERB} == set(), crowded


def test_no_module_is_too_long():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_no_module_is_too_short():
    short = {
        name: lines
        for name, path in MODULES.items()
        if path.name not in ("__init__.py", "__main__.py")
        and name not in ADDRESSES
        and (lines := lines_of_code(path.read_text(encoding="utf-8"))) < FEWEST_LINES_OF_CODE
    }
    assert short == {}


# -- the tests themselves find what they look for ------------------------------------------------


@pytest.fixture
def package(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    return tmp_path / "pkg"


@pytest.mark.parametrize(
    "source",
    [
        "import pkg.b",
        "from pkg import b",
        "from pkg.b import name",
        "def f():\n    from pkg.b import name",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg import b",
    ],
)
def test_an_import_circle_is_found_wherever_the_import_is(package, source):
    (package / "a.py").write_text(source)
    (package / "b.py").write_text("import pkg.c")
    (package / "c.py").write_text("from pkg.a import x")
    (package / "d.py").write_text("import pkg.a")
    known = modules_below(package.parent)
    assert circles({name: imports_of(path, known) for name, path in known.items()}) == [
        ["pkg.a", "pkg.b", "pkg.c"]
    ]


def test_blank_lines_comments_and_docstrings_are_not_code():
    text = '"""Module."""\n\n# comment\nx = 1\n"""About x."""\n\n\ndef f():\n    """Do.\n\n    It.\n    """\n    return """\n"""\n'
    assert lines_of_code(text) == 4
