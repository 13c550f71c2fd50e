"""Patterns for the file names of a dataset, such as ``NDTiffStack_{number}.tif``.

A pattern is a path relative to the folder of the dataset, with ``/`` between its parts. ``{number}`` matches
decimal digits. ``{name}`` matches any characters except ``/``, but not a leading dot. ``{{`` and ``}}`` stand
for literal braces. All other characters match literally. Matching is fast for every possible pattern; this
matters because patterns also come from untrusted manifests.

The patterns of a single-file dataset are ``{file}``, and ``{file}.exengine.NAME`` for each file next to it;
:func:`parts_beside` checks these.
"""

import re
import string
from collections.abc import Iterable

MOST_PATTERNS = 1000
MOST_CHARACTERS = 1000
"""The maximum length of a pattern, in characters."""

_FIELDS = {"number": "[0-9]++", "name": r"(?![.])[^/]+"}


FILE = "{file}"
"""The pattern that stands for the dataset itself, if it is one file."""
_BESIDE = re.compile(r"\{file\}\.exengine\.([a-z][a-z0-9-]{0,30})")
_RESERVED = ("json", "lock")


def parts_beside(patterns: Iterable[str]) -> tuple[str, ...] | None:
    """Return the names of the files next to a single-file dataset, without the dataset's name as a prefix.

    Parameters
    ----------
    patterns : iterable of str
        The ``dataset_files`` of a backend, or those that a manifest records.

    Returns
    -------
    tuple of str or None
        Names such as ``exengine.journal``; None if the patterns are those of a folder.

    Raises
    ------
    ValueError
        If patterns of a folder and of a file are mixed, or if a name is reserved.

    Examples
    --------
    >>> parts_beside(["{file}", "{file}.exengine.journal"]), parts_beside(["index"])
    (('exengine.journal',), None)
    """
    texts = list(patterns)
    if not any(isinstance(text, str) and text.startswith(FILE) for text in texts):
        return None
    parts: dict[str, None] = {}
    for text in texts:
        match = _BESIDE.fullmatch(text) if isinstance(text, str) else None
        if text != FILE and (match is None or match[1] in _RESERVED):
            raise ValueError(
                f"{text!r:.80} is not a pattern for a file next to a single-file dataset; write "
                f"'{FILE}.exengine.NAME', where NAME begins with a lowercase letter, contains only lowercase "
                f"letters, digits and hyphens, and is not {' or '.join(_RESERVED)}"
            )
        if match is not None:
            parts[text.removeprefix(f"{FILE}.")] = None
    if FILE not in texts:
        raise ValueError(f"the patterns of a single-file dataset must include {FILE!r}")
    return tuple(parts)


class FilePatterns:
    """Matches names against the patterns for a dataset's files.

    Parameters
    ----------
    patterns : iterable of str

    Raises
    ------
    ValueError
        If a pattern is malformed, leads outside the folder, or matches every name.

    Examples
    --------
    >>> patterns = FilePatterns(["index", "{number}/c/{number}.raw"])
    >>> patterns.match_file("0/c/12.raw"), patterns.match_file("notes.txt")
    (True, False)
    >>> patterns.match_folder("0/c"), patterns.match_folder(".git")
    (True, False)
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        if isinstance(patterns, str):
            raise ValueError(f"file name patterns must be a tuple of str, got the str {patterns!r:.80}")
        files: dict[str, None] = {}
        folders: dict[str, None] = {}
        for number, pattern in enumerate(patterns):
            if number == MOST_PATTERNS:
                raise ValueError(f"there are more than {MOST_PATTERNS} file name patterns")
            parts = _parts_of(pattern)
            files["/".join(parts)] = None
            folders.update(("/".join(parts[:depth]), None) for depth in range(1, len(parts)))
        self._files = _compiled(files)
        self._folders = _compiled(folders)

    def match_file(self, name: str) -> bool:
        """Return whether a file with this relative path can belong to the dataset."""
        return self._files.fullmatch(name) is not None

    def match_folder(self, name: str) -> bool:
        """Return whether a folder with this relative path can contain files of the dataset."""
        return self._folders.fullmatch(name) is not None


def _compiled(alternatives: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(alternatives) or r"(?!)", re.DOTALL)


def _parts_of(pattern: str) -> list[str]:
    """Return a regular expression for each part of a pattern."""
    if not isinstance(pattern, str) or len(pattern) > MOST_CHARACTERS:
        raise ValueError(f"a file name pattern must be a str of at most {MOST_CHARACTERS} characters")
    parts, literal, names = [""], "", 0
    for text, field, spec, conversion in string.Formatter().parse(pattern):
        for piece in re.split("(/)", text):
            if piece == "/":
                parts.append("")
                literal = ""
            else:
                parts[-1] += re.escape(piece)
                literal += piece
        if field is None:
            continue
        if field not in _FIELDS or spec or conversion:
            raise ValueError(
                f"{pattern!r:.80} has the field {field!r:.40}; only {{number}} and {{name}} are allowed"
            )
        parts[-1] += _FIELDS[field] if not parts[-1] or field == "number" else "[^/]+"
        names += field == "name"
    if any(part in ("", r"\.", r"\.\.") for part in parts):
        raise ValueError(f"{pattern!r:.80} is not a relative path inside a dataset's folder")
    if names > 1 or (names and "{name}" in pattern.rpartition("/")[2] and not re.search("[^\\W_]", literal)):
        raise ValueError(
            f"{pattern!r:.80} matches too much; {{name}} may occur only once, next to letters or digits"
        )
    return parts
