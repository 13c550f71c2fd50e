"""The options of a class, from its signature and its docstring: the one source, no second copy.

From here come the validation of options, ``exengine backends show``, the environment variables, the
JSON Schema of the config and the options table in the docs. What a class says in its signature and
docstring is said nowhere else.
"""

import ast
import enum
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exengine.kernel.config import TextValue
from exengine.kernel.errors import OptionError
from exengine.kernel.suggest import did_you_mean

REQUIRED = inspect.Parameter.empty
"""The default of an option that has none."""


@dataclass(frozen=True)
class DocumentedParameter:
    """A parameter as the docstring tells it."""

    name: str
    type_text: str
    text: str
    default: str | None
    """As stated; None where no default is stated."""


@dataclass(frozen=True)
class Documentation:
    """A docstring, taken apart."""

    summary: str = ""
    description: str = ""
    parameters: Mapping[str, DocumentedParameter] = field(default_factory=dict)
    examples: str = ""
    notes: str = ""


@dataclass(frozen=True)
class Option:
    """One option of a plugin.

    Attributes
    ----------
    name : str
    annotation : object
        As resolved from the signature; ``Parameter.empty`` where there is none.
    default : object
        ``REQUIRED`` where there is none.
    type_text : str
        The type for people.
    text : str
        What it means.
    """

    name: str
    annotation: Any
    default: Any
    type_text: str
    text: str

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is REQUIRED

    @property
    def default_text(self) -> str:
        """The default for people."""
        return "required" if self.required else repr(self.default)

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """JSON Schema of its values; None where a config cannot express them (Python only)."""
        if self.annotation is inspect.Parameter.empty:
            return {}
        import pydantic

        try:
            schema = pydantic.TypeAdapter(self.annotation).json_schema()
        except Exception:  # whatever pydantic raises for a type that it does not know
            return None
        if not self.required and _is_json(self.default):
            schema["default"] = self.default
        return {**schema, "description": self.text}

    @property
    def python_only(self) -> bool:
        """Whether its values cannot be written in a config."""
        return self.json_schema is None


def place_parameters(cls: type) -> tuple[str, ...]:
    """Return the parameters of ``__init__`` that say where the dataset lies, and so are no options."""
    declared = getattr(cls, "place_parameters", None)
    if declared is not None:
        return tuple(declared)
    capabilities = getattr(cls, "capabilities", None)
    if getattr(capabilities, "persistent", False):
        collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return tuple(
            parameter.name for parameter in _init_parameters(cls)[:1] if parameter.kind not in collecting
        )
    return ()


def _init_parameters(cls: type) -> list[inspect.Parameter]:
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return []
    return list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]


def init_parameters(cls: type) -> list[inspect.Parameter]:
    """Return the parameters of ``__init__`` without ``self`` and without the place."""
    place = place_parameters(cls)
    return [parameter for parameter in _init_parameters(cls) if parameter.name not in place]


def annotations_of(cls: type) -> dict[str, Any]:
    """Return the resolved annotations of ``__init__``.

    Raises
    ------
    Exception
        Whatever resolving one of them raises.
    """
    return typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]


def options_of(cls: type) -> tuple[Option, ...]:
    """Return the options of a valid plugin class, in the order of its signature.

    Parameters
    ----------
    cls : type
        A storage backend or a frame source.
    """
    documented = documentation_of(cls).parameters
    annotations = annotations_of(cls)
    options = []
    for parameter in init_parameters(cls):
        annotation = annotations.get(parameter.name, inspect.Parameter.empty)
        doc = documented.get(parameter.name)
        unannotated = annotation is inspect.Parameter.empty
        options.append(
            Option(
                parameter.name,
                annotation,
                parameter.default,
                (doc.type_text if doc else "") if unannotated else describe_type(annotation),
                doc.text if doc else "",
            )
        )
    return tuple(options)


# -- docstrings ----------------------------------------------------------------------------------


def documentation_of(cls: type) -> Documentation:
    """Return the documentation of a class: its own docstring, or parameters from ``__init__``'s."""
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
        description = " ".join((item.description or "").split())
        # The library also guesses a default from any sentence with "default" in it; only what stands
        # in the type, or as "Default: x", is a statement.
        own = re.compile(rf"{re.escape(item.arg_name)}\s*:.*default")
        in_type = any(map(own.match, heads))
        stated = item.default if in_type else _default_in_text(description)
        for name in item.arg_name.split(","):
            parameters[name.strip()] = DocumentedParameter(
                name.strip(), item.type_name or "", description, stated
            )
    return Documentation(
        summary=" ".join((parsed.short_description or "").split()),
        description=sections.get("", ""),
        parameters=parameters,
        examples=sections.get("Examples", sections.get("Example", "")),
        notes=sections.get("Notes", ""),
    )


def _sections(text: str) -> dict[str, str]:
    """Split a numpy-style docstring at its underlined headings; '' is the text after the summary."""
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


_DEFAULT_IN_TEXT = re.compile(
    r"\bDefault(?:s to|:| is)\s+(?P<value>``[^`]+``|'[^']*'|\"[^\"]*\"|-?[\w.+]*\w)"
)


def _default_in_text(text: str) -> str | None:
    match = _DEFAULT_IN_TEXT.search(text)
    return match["value"] if match else None


def same_default(stated: str, default: Any) -> bool:
    """Return whether a default, as stated in a docstring, is the real one.

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


# -- types for people ----------------------------------------------------------------------------


def describe_type(annotation: Any) -> str:
    """Return a type as people write it, with its choices and its range.

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
        return describe_type(args[0]) + "".join(f", {text}" for text in _limits(args[1:]))
    if origin is typing.Literal:
        return " or ".join(map(repr, args))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(part) for part in args)
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return " or ".join(repr(member.value) for member in annotation)
    if origin is not None and getattr(origin, "__name__", "") == "PathLike":
        return "path"
    if origin is not None and args:
        inner = ", ".join(describe_type(part) for part in args if part is not Ellipsis)
        return f"{getattr(origin, '__name__', str(origin)).lower()} of {inner}"
    if inspect.isclass(annotation):
        return "path" if annotation.__name__ in ("Path", "PathLike") else annotation.__name__
    return str(annotation).removeprefix("typing.")


_LIMIT_WORDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


def _limits(marks: tuple[Any, ...]) -> Iterator[str]:
    for mark in marks:
        parts = mark if isinstance(mark, (list, tuple)) else [mark, *getattr(mark, "metadata", ())]
        for part in parts:
            for attribute, words in _LIMIT_WORDS.items():
                value = getattr(part, attribute, None)
                if value is not None:
                    yield f"{words} {value}"


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list, dict))


# -- validation ----------------------------------------------------------------------------------


def validate_options(cls: type, given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the options of a class, checked and converted to their types.

    Parameters
    ----------
    cls : type
        A valid plugin class.
    given : mapping
        Option name -> value; ``TextValue`` for what came as text.
    what : str
        Whose options, for messages, such as ``"backend 'ndtiff'"``.

    Raises
    ------
    OptionError
        For every fault at once: unknown names, missing options, wrong values with those allowed.
    """
    options = {option.name: option for option in options_of(cls)}
    faults = []
    checked = {}
    for name, value in given.items():
        option = options.get(name)
        if option is None:
            known = f"its options are {', '.join(options)}" if options else "it has no options"
            faults.append(f"{what} has no option {name!r}{did_you_mean(str(name), options)}; {known}")
            continue
        try:
            checked[name] = _validate(option, value)
        except ValueError as error:
            faults.append(f"option {name!r} of {what}: got {_plain(value)!r:.80}; {error}")
    faults += [
        f"{what} needs the option {option.name!r} ({option.type_text}): {option.text}"
        for option in options.values()
        if option.required and option.name not in given
    ]
    if faults:
        raise OptionError("\n".join(faults))
    return checked


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, TextValue) else value


def _validate(option: Option, value: Any) -> Any:
    if option.annotation is inspect.Parameter.empty:
        return _plain(value)
    import pydantic

    try:
        adapter = pydantic.TypeAdapter(option.annotation)
    except pydantic.errors.PydanticUserError:
        raise ValueError("this option can be given in Python only") from None
    attempts = [value]
    if isinstance(value, TextValue):
        import yaml

        text = str(value)
        try:
            read = yaml.safe_load(text)
            plain = isinstance(read, str) and text.lstrip()[:1] not in ("'", '"')
            attempts = [text] if plain else [read, text]  # YAML would fold the blanks of plain text
        except yaml.YAMLError:
            attempts = [text]
    problem: pydantic.ValidationError | None = None
    for attempt in attempts:
        try:
            return adapter.validate_python(attempt)
        except pydantic.ValidationError as error:
            problem = problem or error
    assert problem is not None
    first = problem.errors()[0]
    where = "".join(f"[{part!r}]" for part in first["loc"] if isinstance(part, int))
    detail = "" if "literal" in first["type"] else f" ({where}{' ' if where else ''}{first['msg'].lower()})"
    raise ValueError(f"it takes {option.type_text}{detail}")
