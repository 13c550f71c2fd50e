"""YAML and TOML of strangers: no objects, no code, and no more than a config can hold.

A text of a hundred bytes can stand for billions of values, or keep a parser busy for hours. So what
it stands for is counted before values are made of it.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

MAX_DEPTH = 50
"""How deep lists and mappings may be nested."""
MAX_VALUES = 50_000
"""Values in one file; what an alias repeats counts each time."""
MAX_INT_BITS = 64
MAX_KEY_PARTS = 30
"""Parts of a dotted key of TOML."""
_MOST_DIGITS = 400  # of a number, a date or a word such as true

# tomllib needs a time that grows with the square of the number of parts.
_LONG_KEY = re.compile(
    r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+)"""
    f"{{{MAX_KEY_PARTS}}}"
)


def parse_yaml(text: str) -> Any:
    """Return what a YAML document holds, by YAML's safe schema.

    Raises
    ------
    ValueError
        When it is no YAML, asks for Python objects, or holds more than a config does.
    RecursionError
        When it is nested too deeply.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        nodes = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.nodes += 1  # here and not at the end, because PyYAML reads 20,000 in a second
            if self.nodes > MAX_VALUES:
                raise ValueError(f"it holds more than {MAX_VALUES} values")
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
    except Exception as error:  # YAMLError; and PyYAML lets out others, such as an IndexError for "!!int ''"
        raise ValueError(str(error) or type(error).__name__) from None


def parse_toml(text: str) -> Any:
    """Return what a TOML document holds; None for an empty one. Raises as :func:`parse_yaml`."""
    import tomllib

    if _LONG_KEY.search(text):
        raise ValueError(f"a key has more than {MAX_KEY_PARTS} parts")
    return _without_excess(tomllib.loads(text) or None)


def _without_excess(content: Any) -> Any:
    _measure(content, 1, _children_of_value, {})
    return content


def _measure(
    thing: Any, level: int, children_of: Callable[[Any], Iterable[Any]], known: dict[int, tuple[int, int]]
) -> tuple[int, int]:
    """Return how many values a thing is when it is written out, and how many levels it has.

    Raises
    ------
    ValueError
        When it is more than ``MAX_VALUES``, deeper than ``MAX_DEPTH``, or holds itself.
    """
    count, height = known.get(id(thing), (1, 1))
    if level + height - 1 > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels, or holds itself")
    if id(thing) not in known:
        for child in children_of(thing):
            more, levels = _measure(child, level + 1, children_of, known)
            count, height = count + more, max(height, levels + 1)
            if count > MAX_VALUES:
                raise ValueError(f"it holds more than {MAX_VALUES} values")
        known[id(thing)] = (count, height)
    return count, height


def _children_of_node(node: Any) -> Iterable[Any]:
    """Yield what a node of PyYAML holds, as it was written: nothing was made of it yet."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif node.tag != "tag:yaml.org,2002:str" and len(node.value) > _MOST_DIGITS:
        raise ValueError(f"{node.value[:20]}... has {len(node.value)} characters and is no text")


def _children_of_value(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        raise ValueError(f"it holds a number of {value.bit_length()} bits; at most {MAX_INT_BITS} are read")
