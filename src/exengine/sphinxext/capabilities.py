"""The capabilities of a backend as a table, each with its meaning from the source of the class."""

import ast
import inspect

from exengine.checks.describe import capability_text
from exengine.kernel.capabilities import StorageCapabilities
from exengine.sphinxext.rst import escape, table


def capabilities_table(capabilities: StorageCapabilities) -> str:
    """Return the table of capabilities, each with its meaning."""
    meanings = attribute_docs(StorageCapabilities)
    rows = [
        (f"``{name}``", escape(capability_text(value)), meanings.get(name, ""))
        for name, value in capabilities.items()
    ]
    return table(("Capability", "Value", "Meaning"), rows, "exengine-capabilities", "24 22 54")


def capability_mark(value: object) -> str:
    """Return the value of a capability for the comparison of backends."""
    if value is True:
        return "\N{CHECK MARK} yes"
    return "\N{EN DASH}" if value is False or value == () else escape(capability_text(value))


def attribute_docs(cls: type) -> dict[str, str]:
    """Return the meaning of each documented attribute of a class: Python itself does not keep it.

    Parameters
    ----------
    cls : type
        Its source is parsed, not run.

    Returns
    -------
    dict
        Attribute name -> text as one line; empty if there is no source.

    Examples
    --------
    >>> from exengine.kernel.data_storage_base import StorageCapabilities
    >>> attribute_docs(StorageCapabilities)["persistent"]
    'The dataset outlives the process and lies at a path.'
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
