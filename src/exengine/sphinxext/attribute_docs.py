"""The docstrings below the attributes of a class, which Python itself does not keep."""

import ast
import inspect


def attribute_docs(cls: type) -> dict[str, str]:
    """Return the meaning of each documented attribute of a class, from its source.

    Parameters
    ----------
    cls : type
        Its source is parsed, not run.

    Returns
    -------
    dict
        Attribute name -> text as one line; empty where there is no source.

    Examples
    --------
    >>> from exengine.kernel.capabilities import StorageCapabilities
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
