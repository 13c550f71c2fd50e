"""The options of a class, derived only from its signature and docstring.

The validation of options, ``exengine backends show``, the environment variables, the JSON Schema of the
config and the option tables in the documentation are all derived from this module.
"""

import functools
import inspect
import math
import numbers
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exengine.kernel.errors import OptionError
from exengine.kernel.registry.annotations import describe_type, refusal_of
from exengine.kernel.registry.docstrings import documentation_of, once_per_class
from exengine.kernel.system.bounded import parse_yaml
from exengine.kernel.wording import did_you_mean

if TYPE_CHECKING:
    import pydantic


class TextValue(str):
    """A string from the environment or the command line; its type has not been determined yet.

    Attributes
    ----------
    variable : str
        The environment variable that it comes from; empty for the command line.
    """

    variable = ""

    @classmethod
    def of(cls, environment: Mapping[str, str], variable: str) -> "TextValue":
        """Return the value of an environment variable."""
        value = cls(environment[variable])
        value.variable = variable
        return value


REQUIRED = inspect.Parameter.empty
"""The placeholder used as the default of a required option."""


@dataclass(frozen=True)
class Option:
    """One option of a plugin.

    Attributes
    ----------
    name : str
        Name of the parameter.
    annotation : object
        The resolved annotation; ``Parameter.empty`` if the signature has no annotation.
    default : object
        The default value; ``REQUIRED`` if the signature has no default.
    type_text : str
        A readable description of the type.
    text : str
        The description from the docstring.
    """

    name: str
    annotation: Any
    default: Any
    type_text: str
    text: str

    @property
    def required(self) -> bool:
        """Whether the option has no default."""
        return self.default is REQUIRED

    @property
    def default_text(self) -> str:
        """The default as a readable string."""
        return "required" if self.required else repr(self.default)

    @functools.cached_property
    def adapter(self) -> "pydantic.TypeAdapter[Any] | None":
        """The validator for the annotation; None if pydantic does not support the type."""
        import pydantic

        # The options are stored with the dataset as JSON, which cannot represent infinity or NaN.
        for config in (pydantic.ConfigDict(allow_inf_nan=False), None):
            try:
                return pydantic.TypeAdapter(self.annotation, config=config)
            except Exception:  # pydantic rejects the config or the type
                continue
        return None

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the values; None if the values can be given only in Python, not in a config."""
        if self.annotation is inspect.Parameter.empty:
            return {}
        if self.adapter is None:
            return None
        try:
            schema = self.adapter.json_schema()
        except Exception:  # the exception depends on the type
            return None
        if not self.required and _is_json(self.default):
            schema["default"] = self.default
        return {**schema, "description": self.text}

    @property
    def python_only(self) -> bool:
        """Whether the values can be given only in Python, because a config cannot express them."""
        return self.json_schema is None


def place_parameters(cls: type) -> tuple[str, ...]:
    """Return the ``__init__`` parameters that specify the dataset's path and are therefore not options."""
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
    """Return the parameters of ``__init__`` other than ``self`` and those that specify the path."""
    place = place_parameters(cls)
    return [parameter for parameter in _init_parameters(cls) if parameter.name not in place]


def annotations_of(cls: type) -> dict[str, Any]:
    """Return the resolved annotations of ``__init__``.

    Raises
    ------
    Exception
        Any exception raised while an annotation is evaluated.
    """
    return typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]


@once_per_class
def options_of(cls: type) -> tuple[Option, ...]:
    """Return the options of a valid plugin class, in the order of its signature.

    Parameters
    ----------
    cls : type
        The class of a storage backend or a frame source.
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


def validate_options(cls: type, given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Return the given options of a class after validating them and converting them to their types.

    Parameters
    ----------
    cls : type
        A valid plugin class.
    given : mapping
        Option name -> value. Values from the environment or the command line are instances of ``TextValue``.
    owner : str
        Description of the plugin for messages, such as ``"backend 'ndtiff'"``.

    Raises
    ------
    OptionError
        If any option is unknown, missing or invalid. A single error lists all faults, and gives the allowed
        values for each invalid value.
    """
    options: dict[str, Option] = {}
    faults, missing = [], []
    checked = {}
    for option in options_of(cls):
        options[option.name] = option
        if option.default is REQUIRED and option.name not in given:
            missing.append(f"{owner} needs the option {option.name!r} ({option.type_text}): {option.text}")
    for name, value in given.items():
        chosen = options.get(name)
        if chosen is None:
            known = f"the options are {', '.join(options)}" if options else "the plugin has no options"
            near = did_you_mean(str(name), options)
            faults.append(f"{_origin(value)}{owner} has no option {name!r}{near}; {known}")
            continue
        try:
            checked[name] = _validate(chosen, value)
        except ValueError as error:
            faults.append(_origin(value) + _refusal(name, owner, _plain(value), str(error)))
    if faults or missing:
        raise OptionError("\n".join(faults + missing))
    return checked


def check_options(cls: type, /, **values: Any) -> None:
    """Check arguments of ``__init__`` against the types, choices and limits in its annotations.

    The registry validates the options that it passes. If Python code also calls an ``__init__`` directly,
    call this function at the start of that ``__init__``. Annotations that contain anything other than simple
    types are not checked.

    Parameters
    ----------
    cls : type
        The class that defines the ``__init__``.
    **values
        Option name -> value.

    Raises
    ------
    OptionError
        If an argument is invalid; the message gives the argument and the allowed values.

    Examples
    --------
    >>> from typing import Annotated
    >>> from annotated_types import Ge
    >>> class Camera:
    ...     def __init__(self, gain: Annotated[int, Ge(1)] = 1):
    ...         check_options(Camera, gain=gain)
    >>> Camera(0)
    Traceback (most recent call last):
    exengine.kernel.errors.OptionError: option 'gain' of Camera: got 0; expected int, at least 1
    """
    for option in options_of(cls):
        value = values.get(option.name, option.default)
        if value is option.default or option.annotation is inspect.Parameter.empty:
            continue
        value = _as_builtin(value)
        if refusal_of(value, option.annotation):
            message = _refusal(option.name, cls.__name__, value, f"expected {option.type_text}")
            raise OptionError(message)
        if isinstance(value, float) and not math.isfinite(value):
            takes = f"expected {option.type_text} (input should be a finite number)"
            raise OptionError(_refusal(option.name, cls.__name__, value, takes))


def _refusal(name: str, owner: str, value: Any, reason: str) -> str:
    return f"option {name!r} of {owner}: got {value!r:.80}; {reason}"


def _origin(value: Any) -> str:
    """Return the start of a message about a value from the environment, which a user may have forgotten."""
    variable = value.variable if isinstance(value, TextValue) else ""
    return f"environment variable {variable}: " if variable else ""


def _as_builtin(value: Any) -> Any:
    """Convert a number of another type, such as a numpy scalar, to an int or a float."""
    if type(value) in (bool, int, float) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, TextValue) else value


def _validate(option: Option, value: Any) -> Any:
    if option.annotation is inspect.Parameter.empty:
        return _plain(value)
    if option.adapter is None:
        raise ValueError("this option can be set only in Python")
    import pydantic

    problem: pydantic.ValidationError | None = None
    for reading in _readings(value, option.annotation) if isinstance(value, TextValue) else [value]:
        try:
            return option.adapter.validate_python(reading)
        except pydantic.ValidationError as error:
            problem = problem or error
    assert problem is not None
    first = problem.errors()[0]
    where = "".join(f"[{part!r}]" for part in first["loc"] if isinstance(part, int))
    detail = "" if "literal" in first["type"] else f" ({where}{' ' if where else ''}{first['msg'].lower()})"
    raise ValueError(f"expected {option.type_text}{detail}")


def _readings(value: TextValue, annotation: Any) -> list[Any]:
    """Return the possible interpretations of a string, starting with the most likely.

    An option of type ``str`` takes the text as it is, with its quotes. For other types, such as
    ``str | None``, quotes mark a string, so that ``'null'`` can be distinguished from ``null``.
    """
    text = str(value)
    if (
        typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
    ) is str:
        return [text]
    try:
        read = parse_yaml(text)
    except (ValueError, RecursionError):
        return [text]
    if isinstance(read, str) and text.lstrip()[:1] not in ("'", '"'):
        return [text]  # YAML would collapse whitespace in plain text
    return [read, text]
