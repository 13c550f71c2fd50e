"""Renders the capabilities of a backend as a table. The explanations are read from source code."""

import ast
import inspect
from collections.abc import Callable

from exengine.checks.describe import capability_text
from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.registry.variants import Variant
from exengine.sphinxext.option_sets import joined_texts, option_sets
from exengine.sphinxext.rst import escape, table


def capabilities_table(cls: type[DataStorage]) -> str:
    """Return a table of a backend's capabilities: their meanings, and their values with any options."""
    meanings = attribute_docs(StorageCapabilities)
    rows = [
        (
            f"``{name}``",
            with_differences(cls, name, escape(capability_text(value)), capability_text),
            meanings.get(name, ""),
        )
        for name, value in cls.capabilities.items()
    ]
    return table(("Capability", "Value", "Meaning"), rows, "exengine-capabilities", "24 22 54")


def capability_mark(value: object) -> str:
    """Return the value of a capability as shown in the comparison of backends."""
    if value is True:
        return "\N{CHECK MARK} yes"
    return "\N{EN DASH}" if value is False or value == () else escape(capability_text(value))


def with_differences(
    cls: type[DataStorage], capability: str, shown: str, text_of: Callable[[object], str]
) -> str:
    """Return the value of a capability, followed by its value with each set of options that changes it."""
    changed: dict[str, list[Variant]] = {}
    for one in option_sets(cls):
        if capability in one.differences:
            changed.setdefault(text_of(one.differences[capability]), []).append(one)
    lines = [f"{escape(text)}, with {escape(joined_texts(sets))}" for text, sets in changed.items()]
    return "\n\n".join([shown, *lines])


def attribute_docs(cls: type) -> dict[str, str]:
    """Return the docstring of each documented attribute of a class.

    Python does not store the docstrings of attributes, so they are read from the source code.

    Parameters
    ----------
    cls : type
        The class. Its source code is parsed but not run.

    Returns
    -------
    dict
        Maps each attribute to its docstring as a single line. Empty if the source code is unavailable.

    Examples
    --------
    >>> from exengine.kernel.data_storage_base import StorageCapabilities
    >>> attribute_docs(StorageCapabilities).keys() >= {"persistent", "dtypes"}
    True
    """
    try:
        module = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    definition = module.body[0]
    if not isinstance(definition, ast.ClassDef):
        return {}
    meanings = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                meanings[name] = " ".join(text.split())
    return meanings
