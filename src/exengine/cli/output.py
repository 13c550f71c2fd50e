"""Output functions for all verbs: tables and JSON go to stdout, messages to stderr."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def print_json(value: Any) -> None:
    """Print one JSON document."""
    import json

    print(json.dumps(value, indent=1, default=str))


def say(text: str) -> None:
    """Print a human-readable message on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table in aligned columns. The last column is not padded."""
    table = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head) - 1)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]).rstrip())


MOST_LINES = 200
"""Maximum number of lines printed for a list that can have one line per frame."""


def print_some(label: str, things: Sequence[object]) -> None:
    """Print one labeled line per item. Shorten a long list to its first items and a count."""
    for thing in things[:MOST_LINES]:
        print(f"  {label:8} {thing}")
    if len(things) > MOST_LINES:
        print(f"  {label:8} {len(things) - MOST_LINES} more; --json lists all of them")


def counts(ledger: Mapping[str, Any], *names: str) -> str:
    """Return counts of frames as a string. Names that are not in the ledger are omitted.

    Examples
    --------
    >>> counts({"offered": 3, "stored": 2}, "offered", "stored", "failed")
    '3 offered, 2 stored'
    """
    return ", ".join(f"{ledger[name]} {name}" for name in names if name in ledger)
