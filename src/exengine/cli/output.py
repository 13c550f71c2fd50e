"""How results are shown: tables and JSON on stdout, messages on stderr."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(value: Any) -> None:
    """Print one JSON document."""
    import json

    print(json.dumps(value, indent=1, default=str))


def say(text: str) -> None:
    """Say something to the person at the terminal."""
    print(text, file=sys.stderr, flush=True)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns; the last one is as wide as it is."""
    table = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head) - 1)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]).rstrip())


MOST_LINES = 200
"""Of a list that may have one line per frame, so many are printed."""


def print_some(label: str, things: Sequence[object]) -> None:
    """Print things, a line each under a label, and of very many the number that is left out."""
    for thing in things[:MOST_LINES]:
        print(f"  {label:8} {thing}")
    if len(things) > MOST_LINES:
        print(f"  {label:8} {len(things) - MOST_LINES} more; --json lists all")


def human_bytes(size: float) -> str:
    """Return a size for people.

    Examples
    --------
    >>> human_bytes(52428800)
    '52.4 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_time(seconds: float) -> str:
    """Return a duration for people.

    Examples
    --------
    >>> human_time(3.21), human_time(4000)
    ('3.2 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
