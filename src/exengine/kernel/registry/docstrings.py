"""Parses numpy-style docstrings into a summary, parameters with types and defaults, examples and notes."""

import ast
import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

_T = TypeVar("_T")


def once_per_class(function: Callable[[type], _T]) -> Callable[[type], _T]:
    """Cache the function's result separately for each class, for the lifetime of the class.

    Each result is stored as an attribute of the class. It therefore cannot outlive the class, even if it
    refers to the class, and each subclass has its own result. If a class does not allow new attributes, its
    result is not cached.
    """
    name = f"_exengine_{function.__name__}"

    @functools.wraps(function)
    def cached(cls: type) -> _T:
        attributes = type.__dict__["__dict__"].__get__(cls)  # bypasses the metaclass
        owner, result = attributes.get(name, (None, None))
        if owner is cls:  # false if the attributes were copied from another class
            return result  # type: ignore[no-any-return]
        result = function(cls)
        with contextlib.suppress(TypeError):  # a built-in class does not allow new attributes
            type.__setattr__(cls, name, (cls, result))
        return result

    return cached


@dataclass(frozen=True)
class DocumentedParameter:
    """A parameter as described in a docstring."""

    name: str
    type_text: str
    text: str
    default: str | None
    """The default stated in the docstring; None if the docstring states no default."""


@dataclass(frozen=True)
class Documentation:
    """A parsed docstring."""

    summary: str = ""
    description: str = ""
    parameters: Mapping[str, DocumentedParameter] = field(default_factory=dict)
    examples: str = ""
    notes: str = ""


@once_per_class
def documentation_of(cls: type) -> Documentation:
    """Return the parsed docstring of a class; parameters may be described in ``__init__`` instead."""
    own = _parse(cls.__dict__.get("__doc__"))
    if not own.parameters:
        of_init = _parse(getattr(cls.__dict__.get("__init__"), "__doc__", None))
        if of_init.parameters:
            return Documentation(own.summary, own.description, of_init.parameters, own.examples, own.notes)
    return own


def _parse(docstring: Any) -> Documentation:
    if not isinstance(docstring, str) or not docstring.strip():
        return Documentation()
    import docstring_parser

    text = inspect.cleandoc(docstring)
    try:
        parsed = docstring_parser.parse(text, docstring_parser.DocstringStyle.NUMPYDOC)
    except docstring_parser.ParseError:
        return Documentation(summary=text.split("\n\n")[0])
    sections = _sections(text)
    parameters = {}
    heads = sections.get("Parameters", "").splitlines()
    for item in parsed.params:
        if item.args[0] != "param":
            continue
        text = " ".join((item.description or "").split())
        # The library recognizes fewer ways of stating a default, and it infers a default from any sentence
        # that contains the word "default".
        head = re.compile(rf"{re.escape(item.arg_name)}\s*:\s*(?P<type>.*)")
        found = next(filter(None, map(head.match, heads)), None)
        type_text = found["type"] if found else item.type_name or ""
        in_type = _DEFAULT_IN_TYPE.search(type_text)
        stated = _stated(in_type or _DEFAULT_IN_TEXT.search(text))
        if in_type:
            type_text = type_text[: in_type.start()]
        type_text = re.sub(r"[,;\s(]+optional\)?[.\s]*$", "", type_text)
        for name in item.arg_name.split(","):
            parameters[name.strip()] = DocumentedParameter(name.strip(), type_text, text, stated)
    return Documentation(
        summary=" ".join((parsed.short_description or "").split()),
        description=sections.get("", ""),
        parameters=parameters,
        examples=sections.get("Examples", sections.get("Example", "")),
        notes=sections.get("Notes", ""),
    )


def _sections(text: str) -> dict[str, str]:
    """Split a numpy-style docstring at its underlined headings; '' maps to the text after the summary."""
    lines = text.splitlines()
    sections: dict[str, list[str]] = {"": []}
    heading = ""
    position = 0
    while position < len(lines):
        follows = lines[position + 1] if position + 1 < len(lines) else ""
        if lines[position].strip() and follows.strip() and set(follows.strip()) <= {"-"} and len(follows) > 2:
            heading = lines[position].strip()
            sections[heading] = []
            position += 2
            continue
        sections[heading].append(lines[position])
        position += 1
    texts = {name: "\n".join(body).strip("\n") for name, body in sections.items()}
    texts[""] = texts[""].partition("\n\n")[2].strip("\n")
    return texts


_VALUE = r"(?:-?\d+(?:[\d_.]*\d)?(?:e[+-]?\d+)?|'[^']*'|\"[^\"]*\"|True|False|None)"
_LITERAL = rf"(?:``{_VALUE}``|`{_VALUE}`|(?<![\w.'-]){_VALUE}(?![\w'.-]*\w))"
_DEFAULT_IN_TYPE = re.compile(
    rf"[,.;(\s]*\b(?:by\s+)?[Dd]efault(?:s\s+to|\s+is|\s*[:=])?\s*"
    rf"(?P<value>``[^`]+``|'[^']*'|\"[^\"]*\"|\([^()]*\)|\[[^][]*\]|\{{[^{{}}]*\}}|-?[\w.+-]*\w)\)?"
    rf"|[,.;(\s]*(?P<before>{_LITERAL})\s+by\s+default\)?"
)
_DEFAULT_IN_TEXT = re.compile(
    rf"\bDefault:\s+(?P<word>``[^`]+``|{_LITERAL}|-?[\w.+]*\w)"
    rf"|\b[Dd]efault(?:s\s+to|\s+is)\s+(?P<value>{_LITERAL})"
    rf"|\(default[:=]?\s+(?P<inside>{_LITERAL})\)"
    rf"|(?P<before>{_LITERAL})\s+by\s+default\b"
)


def _stated(match: "re.Match[str] | None") -> str | None:
    return next((value for value in match.groups() if value is not None), None) if match else None


def same_default(stated: str, default: Any) -> bool:
    """Return whether the default stated in a docstring matches the actual default.

    Examples
    --------
    >>> same_default("512", 512), same_default("'a'", "a"), same_default("4", 5)
    (True, True, False)
    """
    stated = stated.strip("`").strip()
    if stated in (repr(default), str(default)):
        return True
    try:
        return bool(ast.literal_eval(stated) == default)
    except (ValueError, SyntaxError):
        return False
