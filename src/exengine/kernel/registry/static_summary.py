"""The summary of a plugin's class, read from the source code without importing the plugin.

Lists of plugins show a summary of each plugin. Importing every plugin for this purpose would load heavy
libraries and run code that the user did not select, so the first line of the class's docstring is parsed
instead.
"""

import ast
import importlib.util
import itertools
import os
from collections.abc import Iterator

from exengine.kernel.registry.records import PluginRecord

_MOST_STEPS = 8  # maximum number of modules to search when following imports
_MOST_BYTES = 2**20


def summary_of(record: PluginRecord) -> str:
    """Return the first line of a plugin class's docstring, or an empty string if none is found.

    If the module of the entry point imports the class, even inside a function such as ``__getattr__``, the
    import is followed to the module that defines the class.

    Parameters
    ----------
    record : PluginRecord
        The record of the plugin. The plugin's package is not imported.
    """
    module, _, name = record.target.partition(":")
    if not name.isidentifier():
        return ""
    for _ in range(_MOST_STEPS):
        tree = _parsed(module)
        if tree is None:
            return ""
        for statement in tree.body:
            if isinstance(statement, ast.ClassDef) and statement.name == name:
                return _first_line(ast.get_docstring(statement, clean=False) or "")
        found = next(_origins(tree, module, name), None)
        if found is None:
            return ""
        module, name = found
    return ""


def _origins(tree: ast.Module, module: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield each module from which a name is imported, and the name in that module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    yield _absolute(module, node), alias.name


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """Return the absolute name of an imported module; the import may be relative to a package."""
    if not node.level:
        return node.module or ""
    path = _file_of(module)
    parts = module.split(".")
    if path is not None and os.path.basename(path) == "__init__.py":
        parts.append("")
    return ".".join([*parts[: len(parts) - node.level], *filter(None, [node.module])])


def _parsed(module: str) -> ast.Module | None:
    path = _file_of(module)
    try:
        if path is None or os.path.getsize(path) > _MOST_BYTES:
            return None
        with open(path, "rb") as file:
            return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _file_of(module: str) -> str | None:
    """Return the source file of a module, without importing any package."""
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    if not below:
        return spec.origin if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        stem = os.path.join(folder, *below)
        for path in (os.path.join(stem, "__init__.py"), f"{stem}.py"):
            if os.path.isfile(path):
                return path
    return None


def _first_line(docstring: str) -> str:
    """Return the first paragraph as one line."""
    lines = itertools.takewhile(str.strip, docstring.strip().splitlines())
    return " ".join(" ".join(lines).split())
