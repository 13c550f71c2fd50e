"""Paths as users write them: ``~`` is expanded; environment variables and URLs are not paths of folders."""

import os
import re

_VARIABLE = re.compile(r"\$\w+|\$\{|%\w+%")


def expanded(path: str | os.PathLike[str]) -> str:
    """Return a path with a leading ``~`` replaced by the home folder, as in a config file.

    Examples
    --------
    >>> expanded("~/data") == os.path.join(os.path.expanduser("~"), "data")
    True
    """
    return os.path.expanduser(os.fspath(path))


def refusal_of(path: str) -> str:
    """Return why a text cannot be meant as the path of a folder, or an empty string.

    Examples
    --------
    >>> refusal_of("data"), refusal_of("$HOME/data")[:40]
    ('', 'variables such as $HOME are not expanded')
    """
    variable = _VARIABLE.search(path)
    if variable is not None:
        return (
            f"variables such as {variable[0]} are not expanded; write the folder itself, or ~ for the home "
            "folder"
        )
    return "it is a URL; write the path of a folder on this machine" if "://" in path else ""


def refusal_of_new(path: str) -> str:
    """Return the same for a new dataset. In a folder that exists, its name may be any text."""
    named_here = os.path.isabs(path) and os.path.isdir(os.path.dirname(path))
    return "" if named_here or os.path.lexists(path) else refusal_of(path)
