"""Describes the annotations of options, and checks values against them."""

import enum
import inspect
import operator
import os
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from exengine.kernel.wording import either


def describe_type(annotation: Any) -> str:
    """Return a readable description of a type, including its choices and its limits.

    Examples
    --------
    >>> from typing import Literal
    >>> describe_type(Literal["a", "b"]), describe_type(int | None)
    ("'a' or 'b'", 'int or None')
    """
    if annotation is inspect.Parameter.empty or annotation is Any:
        return "any"
    if annotation is None or annotation is type(None):
        return "None"
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return describe_type(args[0]) + "".join(f", {words} {value}" for words, _, value in _limits(args[1:]))
    if origin is typing.Literal:
        return either(map(repr, args))
    if origin in (typing.Union, types.UnionType):
        return either(map(describe_type, args))
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return either(repr(member.value) for member in annotation)
    if origin is not None and getattr(origin, "__name__", "") == "PathLike":
        return "path"
    if origin is not None and args:
        inner = ", ".join(describe_type(part) for part in args if part is not Ellipsis)
        return f"{getattr(origin, '__name__', str(origin)).lower()} of {inner}"
    if inspect.isclass(annotation):
        return "path" if annotation.__name__ in ("Path", "PathLike") else annotation.__name__
    return str(annotation).removeprefix("typing.")


_LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "gt": ("more than", operator.gt),
    "ge": ("at least", operator.ge),
    "lt": ("less than", operator.lt),
    "le": ("at most", operator.le),
}


def _limits(marks: tuple[Any, ...]) -> Iterator[tuple[str, Callable[[Any, Any], bool], Any]]:
    """Yield the wording, the comparison function and the value of each limit."""
    for mark in marks:
        parts = mark if isinstance(mark, (list, tuple)) else [mark, *getattr(mark, "metadata", ())]
        for part in parts:
            for attribute, (words, holds) in _LIMITS.items():
                value = getattr(part, attribute, None)
                if value is not None:
                    yield words, holds, value


_WORDS = {
    "int": "int", "integer": "int", "float": "float", "number": "float", "str": "str", "string": "str",
    "text": "str", "bool": "bool", "boolean": "bool", "bytes": "bytes", "list": "list", "tuple": "list",
    "sequence": "list", "iterable": "list", "set": "list", "dict": "dict", "mapping": "dict", "path": "str",
    "pathlike": "str", "path-like": "str", "enum": "", "none": "None",
}  # fmt: skip
"""Maps names of simple types to kinds of values. Paths count as ``str``, because strings are accepted."""
_ACCEPTED_AS = {"int": {"int", "bool"}, "float": {"float", "int"}}


def kinds_of(annotation: Any) -> set[str] | None:
    """Return the kinds of values that an annotation accepts, such as ``{"int", "None"}``.

    Return None if the annotation contains any type that is not simple.

    Examples
    --------
    >>> sorted(kinds_of(int | None)), kinds_of(complex)
    (['None', 'int'], None)
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None or annotation is type(None):
        return {"None"}
    if origin is typing.Annotated:
        return kinds_of(args[0])
    if origin is typing.Literal:
        return {_kind_of(value) for value in args}
    if origin in (typing.Union, types.UnionType):
        kinds: set[str] = set()
        for part in map(kinds_of, args):
            if part is None:
                return None
            kinds |= part
        return kinds
    cls = origin or annotation
    name = getattr(cls, "__name__", "") if inspect.isclass(cls) else ""
    kind = _WORDS.get(name.lower(), "")
    return {kind} if kind else None


def _kind_of(value: Any) -> str:
    if value is None:
        return "None"
    name = "path" if isinstance(value, os.PathLike) else type(value).__name__
    return _WORDS.get(name.lower(), name)


def contradicts(type_text: str, annotation: Any) -> bool:
    """Return whether the type stated in a docstring contradicts the annotation.

    Only the names of simple types are compared; any other words are ignored.

    Examples
    --------
    >>> contradicts("str", int), contradicts("int or str", int), contradicts("array_like", int)
    (True, False, False)
    """
    kinds = kinds_of(annotation)
    words = set(re.findall(r"[a-z-]+", re.sub(r"['\"`{\[(].*", "", type_text.lower())))
    stated = {_WORDS[word] for word in words if word in _WORDS} - {"", "None"}
    if not kinds or not stated or kinds == {"None"}:
        return False
    return not stated & kinds and not (stated == {"int"} and "float" in kinds)


def refusal_of(value: Any, annotation: Any) -> str:
    """Return the type, choices or limit that a value violates, or ``""`` if the value is acceptable.

    Annotations that contain anything other than simple types are not checked.

    Examples
    --------
    >>> from typing import Annotated
    >>> from annotated_types import Le
    >>> refusal_of(11, Annotated[int, Le(9)]), refusal_of(None, int), refusal_of(1, float)
    ('at most 9', 'int', '')
    """
    kinds = kinds_of(annotation)
    if kinds is not None and not any(_kind_of(value) in _ACCEPTED_AS.get(kind, {kind}) for kind in kinds):
        return describe_type(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal and value not in args:
        return describe_type(annotation)
    if origin in (typing.Union, types.UnionType):
        refusals = [refusal_of(value, part) for part in args]
        return "" if not all(refusals) else describe_type(annotation)
    if origin is typing.Annotated:
        inner = refusal_of(value, args[0])
        if inner or value is None:
            return inner
        for words, holds, limit in _limits(args[1:]):
            try:
                if not holds(value, limit):
                    return f"{words} {limit}"
            except TypeError:  # the value and the limit cannot be compared
                continue
    return ""
