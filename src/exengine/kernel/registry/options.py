"""The options of a class, from its signature and its docstring: the one source, no second copy.

From here come the validation of options, ``exengine backends show``, the environment variables, the
JSON Schema of the config and the options table in the docs. What a class says in its signature and
docstring is said nowhere else.
"""

import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exengine.kernel.errors import OptionError
from exengine.kernel.registry.annotations import describe_type
from exengine.kernel.registry.docstrings import documentation_of
from exengine.kernel.wording import did_you_mean


class TextValue(str):
    """A value that came as text, from the environment or the command line, of no known type yet."""

    __slots__ = ()


REQUIRED = inspect.Parameter.empty
"""The default of an option that has none."""


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
