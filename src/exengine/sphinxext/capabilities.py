"""A backend's capabilities as a table, with their meanings taken from the source code of the class."""

import ast
import inspect

from exengine.checks.describe import capability_text
from exengine.kernel.capabilities import StorageCapabilities
from exengine.sphinxext.rst import escape, table


def capabilities_table(capabilities: StorageCapabilities) -> str:
    """Return a table of the capabilities with their values and meanings."""
    meanings = attribute_docs(StorageCapabilities)
    rows = [
        (f"``{name}``", escape(capability_text(value)), meanings.get(name, ""))
        for name, value in capabilities.items()
    ]
    return table(("Capability", "Value", "Meaning"), rows, "exengine-capabilities", "24 22 54")


def capability_mark(value: object) -> str:
    """Return the value of a capability as shown in the comparison of backends."""
    if value is True:
        return "\N{CHECK MARK} yes"
    return "\N{EN DASH}" if value is False or value == () else escape(capability_text(value))


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
        Attribute name -> docstring as a single line. The dict is empty if the source code is unavailable.

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
