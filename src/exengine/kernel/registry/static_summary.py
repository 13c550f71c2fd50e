"""The summary of a plugin's class, read from the source code without importing the plugin.

Lists of plugins show a summary of each plugin. Importing every plugin for this purpose would load heavy
libraries and run code that the user did not select, so the first line of the class's docstring is read from
the source instead. Regular expressions find it in most modules. Only if they fail, Python's parser is used,
which takes ten times as long.
"""

import importlib.util
import itertools
import os
import re
from collections.abc import Callable

from exengine.kernel.registry.records import PluginRecord

_MOST_STEPS = 8  # maximum number of modules to search when following imports
_MOST_BYTES = 2**20
_CLASS = r'^class {name}(?:\([^()]*\))?:[ \t]*\n[ \t]+[rR]?"""(.*?)"""'
_IMPORT = re.compile(
    r"^[ \t]*from[ \t]+([\w.]+)[ \t]+import[ \t]+(?:\(([^()#]*)\)|([^()#\n]*)$)", re.MULTILINE
)

_Step = tuple[str, tuple[str, str] | None]
"""Either the docstring of a class, or the module and the name from which the class is imported."""


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
    return _found(module, name, _by_pattern) or _found(module, name, _by_parser)


def _found(module: str, name: str, look: Callable[[str, str, str], _Step]) -> str:
    """Follow the imports of a class, and return the first line of its docstring, or an empty string."""
    for _ in range(_MOST_STEPS):
        source = _source(module)
        if source is None:
            return ""
        docstring, origin = look(source, module, name)
        if origin is None:
            return _first_line(docstring)
        module, name = origin
    return ""


def _by_pattern(source: str, module: str, name: str) -> _Step:
    match = re.search(_CLASS.format(name=name), source, re.MULTILINE | re.DOTALL)
    if match is not None:
        return ("" if "\\" in match[1] else match[1]), None
    for origin, *lists in _IMPORT.findall(source):
        for imported in "".join(lists).split(","):
            original, *alias = imported.split(" as ")
            if (alias[0] if alias else original).strip() == name:
                level = len(origin) - len(origin.lstrip("."))
                return "", (_absolute(module, origin.lstrip("."), level), original.strip())
    return "", None


def _by_parser(source: str, module: str, name: str) -> _Step:
    import ast

    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "", None
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return ast.get_docstring(statement, clean=False) or "", None
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return "", (_absolute(module, node.module or "", node.level), alias.name)
    return "", None


def _absolute(module: str, origin: str, level: int) -> str:
    """Return the absolute name of an imported module; the import may be relative to a package."""
    if not level:
        return origin
    path = _file_of(module)
    parts = module.split(".")
    if path is not None and os.path.basename(path) == "__init__.py":
        parts.append("")
    return ".".join([*parts[: len(parts) - level], *filter(None, [origin])])


def _source(module: str) -> str | None:
    """Return the source of a module, without importing it; return None if it cannot be read."""
    path = _file_of(module)
    try:
        if path is None or os.path.getsize(path) > _MOST_BYTES:
            return None
        with open(path, "rb") as file:
            text = file.read()
        try:
            return text.decode()
        except ValueError:
            return importlib.util.decode_source(text)
    except (OSError, ValueError, SyntaxError):
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
