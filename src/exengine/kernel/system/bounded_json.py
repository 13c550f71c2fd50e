"""JSON of strangers: what opening a dataset parses takes bounded memory.

A text of ``[[],[],...`` becomes forty times its size as Python objects. So values are counted before
they are made.
"""

import json
from typing import Any

MAX_VALUES = 1_000_000
"""Values in one document, lists and dicts included: at most some 200 MB as Python objects."""


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON document, which must not hold more than ``MAX_VALUES``.

    Raises
    ------
    ValueError
        When it is no JSON, or holds more.
    RecursionError
        When it is nested too deeply.

    Examples
    --------
    >>> parse_json(b'{"Width": 512}')
    {'Width': 512}
    """
    refuse_too_many_values(data)
    return json.loads(data)


def refuse_too_many_values(data: bytes) -> None:
    """Raise ValueError for a JSON document that may hold more than ``MAX_VALUES``."""
    # Each value but the first follows one of these, or the colon of a key that follows one.
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if values > MAX_VALUES:
        raise ValueError(f"it may hold {values} values; at most {MAX_VALUES} are read")
