"""Parsers for untrusted JSON, YAML and TOML: no custom objects, no code, and bounded time and memory.

A hundred bytes can expand to billions of values, and text such as ``[[],[],...`` takes forty times as much
memory once it is parsed into Python objects. Values are therefore counted before they are created.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

MAX_JSON_VALUES = 1_000_000
"""The maximum number of values in a JSON document, including lists and dicts.
That many values take about 200 MB of memory."""
MAX_VALUES = 50_000
"""The maximum number of values in a YAML or TOML document; values are counted again for each alias."""
MAX_DEPTH = 50
"""The maximum nesting depth of lists and mappings in YAML and TOML."""
MAX_INT_BITS = 64
MAX_KEY_PARTS = 30
"""The maximum number of parts in a dotted TOML key."""
_MAX_SCALAR_CHARS = 400  # maximum length of a number, a date or a word such as true

_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_TYPOGRAPHIC = ("\u201c", "\u201d", "\u2018", "\u2019", "\u201e")

# The time that tomllib takes is quadratic in the number of parts.
_LONG_KEY = re.compile(
    r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+)"""
    f"{{{MAX_KEY_PARTS}}}"
)


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON document with at most ``MAX_JSON_VALUES`` values.

    Raises
    ------
    ValueError
        If the document is not JSON, or contains too many values.
    RecursionError
        If the document is nested too deeply.

    Examples
    --------
    >>> parse_json(b'{"Width": 512}')
    {'Width': 512}
    """
    refuse_too_many_values(data)
    return json.loads(data)


def refuse_too_many_values(data: bytes) -> None:
    """Raise ValueError if a JSON document could contain more than ``MAX_JSON_VALUES`` values."""
    # Every value but the first follows one of these characters, either directly or after its key.
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if values > MAX_JSON_VALUES:
        raise ValueError(f"the document could contain {values} values; the limit is {MAX_JSON_VALUES}")


NOTE_KEY = "exengine_note"
"""The metadata key under which a note about unreadable parts is added."""


def parse_foreign_json(data: bytes) -> Any:
    r"""Return the readable part of metadata that another program wrote.

    Bytes that are not UTF-8 are replaced, and numbers that JSON cannot represent become None. If the metadata
    is a mapping, a note about these changes is added under :data:`NOTE_KEY`.

    Raises
    ------
    ValueError, RecursionError
        As in :func:`parse_json`.

    Examples
    --------
    >>> parse_foreign_json(b'{"Unit": "\xb5m"}')["Unit"] == "\ufffdm"
    True
    """
    refuse_too_many_values(data)
    try:
        text, replaced = data.decode(), False
    except UnicodeDecodeError:
        text, replaced = data.decode(errors="replace"), True
    value, changed = _as_json(json.loads(text))
    if isinstance(value, dict) and (replaced or changed):
        value[NOTE_KEY] = (
            "text that is not UTF-8 was replaced"
            if replaced
            else "numbers that JSON cannot represent were replaced with null"
        )
    return value


def _as_json(value: Any) -> tuple[Any, bool]:
    """Replace NaN, infinities and unpaired surrogates; return the value and whether any were replaced."""
    if isinstance(value, float):
        return (value, False) if math.isfinite(value) else (None, True)
    if isinstance(value, str):
        if value.isascii():
            return value, False
        text = value.encode("utf-8", "replace").decode()
        return text, text != value
    if isinstance(value, list):
        items = [_as_json(item) for item in value]
        return [item for item, _ in items], any(changed for _, changed in items)
    if isinstance(value, dict):
        pairs = [(_as_json(key), _as_json(item)) for key, item in value.items()]
        return {key: item for (key, _), (item, _) in pairs}, any(a or b for (_, a), (_, b) in pairs)
    return value, False


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document, according to YAML's safe schema.

    Raises
    ------
    ValueError
        If the text is not YAML, requests Python objects, or exceeds a limit.
    RecursionError
        If the document is nested too deeply.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        nodes = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.nodes += 1  # stops early, because PyYAML reads only 20,000 nodes per second
            if self.nodes > MAX_VALUES:
                raise ValueError(f"the document contains more than {MAX_VALUES} values")
            return super().compose_node(parent, index)

    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, 1, _children_of_node, {})
            return _without_excess(loader.construct_document(node))
        finally:
            loader.dispose()
    except (ValueError, RecursionError):
        raise
    except yaml.scanner.ScannerError as error:
        tabs = "; indent with spaces, because YAML does not allow tabs there" if "'\\t'" in str(error) else ""
        raise ValueError(f"{error}{tabs}") from None
    except Exception as error:  # YAMLError and other errors, such as an IndexError for "!!int ''"
        raise ValueError(str(error) or type(error).__name__) from None


def parse_toml(text: str) -> Any:
    """Return the content of a TOML document, or None if it is empty.

    Raises the same errors as :func:`parse_yaml`.
    """
    import tomllib

    if _LONG_KEY.search(text):
        raise ValueError(f"a dotted key has more than {MAX_KEY_PARTS} parts")
    return _without_excess(tomllib.loads(text) or None)


def _without_excess(content: Any) -> Any:
    _measure(content, 1, _children_of_value, {})
    return content


def _measure(
    thing: Any, level: int, children_of: Callable[[Any], Iterable[Any]], known: dict[int, tuple[int, int]]
) -> tuple[int, int]:
    """Return the number of values in an object, with aliases expanded, and the depth of the object.

    Raises
    ------
    ValueError
        If the object has more than ``MAX_VALUES`` values or ``MAX_DEPTH`` levels, or contains itself.
    """
    count, height = known.get(id(thing), (1, 1))
    if level + height - 1 > MAX_DEPTH:
        raise ValueError(f"the document is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if id(thing) not in known:
        for child in children_of(thing):
            more, levels = _measure(child, level + 1, children_of, known)
            count, height = count + more, max(height, levels + 1)
            if count > MAX_VALUES:
                raise ValueError(f"the document contains more than {MAX_VALUES} values")
        known[id(thing)] = (count, height)
    return count, height


def _children_of_node(node: Any) -> Iterable[Any]:
    """Yield the child nodes of a PyYAML node, before any value is created."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        _refuse_repeated_keys(node)
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif node.tag != "tag:yaml.org,2002:str" and len(node.value) > _MAX_SCALAR_CHARS:
        raise ValueError(
            f"{node.value[:20]}... has {len(node.value)} characters; only a string may be that long"
        )
    else:
        _refuse_ambiguous_value(node)


def _refuse_repeated_keys(node: Any) -> None:
    """Reject a mapping with a repeated key. YAML parsers would silently use the last value of the key."""
    import yaml

    seen: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
            continue
        line = key.start_mark.line + 1
        if key.value in seen:
            raise ValueError(
                f"the key {key.value!r:.60} occurs on line {seen[key.value]} and again on line {line}; keep "
                "only one"
            )
        seen[key.value] = line


def _refuse_ambiguous_value(node: Any) -> None:
    """Reject unquoted values that YAML 1.1 converts to an unexpected value, such as ``no`` or ``010``."""
    kind, value = node.tag.rpartition(":")[2], node.value
    if node.style is not None:
        return
    line = node.start_mark.line + 1
    if kind == "bool" and value.lower() not in ("true", "false"):
        meaning = str(value.lower() in ("yes", "on", "y")).lower()
        raise ValueError(
            f"line {line}: YAML reads {value} as {meaning}; write '{value}' with quotes if it is text, "
            f"otherwise {meaning}"
        )
    if kind == "int" and (_OCTAL.fullmatch(value) or ":" in value):
        import yaml

        number = yaml.safe_load(value)
        raise ValueError(
            f"line {line}: YAML reads {value} as {number}; write '{value}' with quotes if it is text, "
            "otherwise the number without colons or leading zeros"
        )
    if value[:1] in _TYPOGRAPHIC or value[-1:] in _TYPOGRAPHIC:
        raise ValueError(
            f"line {line}: {value!r:.60} has typographic quotes, which YAML treats as part of the text; "
            "use \" or ' instead"
        )


def _children_of_value(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        raise ValueError(
            f"the document contains a number with {value.bit_length()} bits; the limit is {MAX_INT_BITS} bits"
        )
