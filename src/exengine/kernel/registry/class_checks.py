"""The rules that the contract and documentation of a plugin class must follow, with a code for each fault.

Codes EX101 - EX109 concern the interface, and codes EX201 - EX207 concern the options and their docstring.
The registry rejects a class that has any of these faults. The codes are stable, and the documentation
explains each of them.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import describe
from exengine.kernel.registry import annotations, codes, docstrings, options
from exengine.kernel.registry.codes import Finding  # ExEngine 1.0 exported Finding from this module
from exengine.kernel.wording import a, did_you_mean

RESERVED_OPTIONS = frozenset(("path", "if_exists", "backend", "config", "options"))
"""Names of the kernel's settings, which the options of a backend cannot use."""

DOCS_STRIPPED = sys.flags.optimize >= 2
"""Whether ``python -OO`` has removed the docstrings, in which case documentation cannot be checked."""

FAULTS = codes.CONTRACT
"""The code and meaning of every fault that can be found when a class is loaded."""


def check_class(cls: Any, base: type) -> list[Finding]:
    """Return the faults of a plugin class in the order of their codes; empty if the class is valid.

    Parameters
    ----------
    cls : object
        The object that an entry point names. It is never called.
    base : type
        The required base class: ``DataStorage`` or ``FrameSource``.

    Examples
    --------
    >>> from exengine.kernel.data_storage_base import DataStorage
    >>> [finding.code for finding in check_class(print, DataStorage)]
    ['EX101']
    """
    try:
        findings = list(_interface(cls, base))
        blocking = {"EX101", "EX102", "EX105", "EX106"}
        if not DOCS_STRIPPED and not blocking & {finding.code for finding in findings}:
            findings += _documentation(cls)
    except BaseException as error:  # raised by a property or a metaclass in the plugin
        return [Finding("EX101", f"inspecting the class raised {describe(error)}")]
    return findings


def _interface(cls: Any, base: type) -> Iterator[Finding]:
    if not inspect.isclass(cls):
        yield Finding("EX101", f"the entry point names {a(type(cls).__name__)}, not a class")
        return
    # Only real base classes count, not those claimed by a metaclass or added with register().
    if base not in type.__dict__["__mro__"].__get__(cls) or cls is base:
        yield Finding("EX102", f"{cls.__name__} is not a subclass of exengine.{base.__name__}")
        return
    left = sorted(getattr(cls, "__abstractmethods__", ()))
    if left:
        yield Finding("EX103", f"{cls.__name__} does not implement {', '.join(left)}")
    yield from _signatures(cls, base, left)
    parameters = options.init_parameters(cls)
    hiding = [
        str(parameter)
        for parameter in parameters
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if hiding:
        yield Finding(
            "EX105", f"__init__ accepts {', '.join(hiding)}, so options are hidden; name every option instead"
        )
    try:
        options.annotations_of(cls)
    except Exception as error:  # evaluating an annotation can raise any exception
        yield Finding("EX106", f"an annotation of __init__ cannot be resolved: {describe(error)}")
    if issubclass(base, DataStorage):
        for parameter in parameters:
            if parameter.name in RESERVED_OPTIONS:
                yield Finding(
                    "EX107",
                    f"option {parameter.name!r} has the same name as a setting of ExEngine; rename the "
                    "option",
                )
        capabilities = inspect.getattr_static(cls, "capabilities", None)
        if not isinstance(capabilities, StorageCapabilities):
            yield Finding(
                "EX108", f"`capabilities` is {a(type(capabilities).__name__)}, not a StorageCapabilities"
            )
        elif capabilities.persistent and not _accepts_path(cls):
            yield Finding(
                "EX109",
                "the backend is persistent, but the first parameter of __init__ does not accept a path, "
                "and create() is not overridden",
            )


def _signatures(cls: type, base: type, left: list[str]) -> Iterator[Finding]:
    for name in sorted(getattr(base, "__abstractmethods__", ())):
        if name in left:
            continue
        method = inspect.getattr_static(cls, name)
        function = getattr(method, "__func__", method)
        if not inspect.isfunction(function):
            if not callable(function):
                yield Finding("EX104", f"{name} is {a(type(function).__name__)}, not a method")
            continue
        expected = list(inspect.signature(getattr(base, name)).parameters)
        try:
            inspect.signature(function).bind(*expected)
        except TypeError as error:
            wanted = ", ".join(expected)
            yield Finding(
                "EX104", f"{name}{inspect.signature(function)} cannot be called as {name}({wanted}): {error}"
            )


def _accepts_path(cls: type) -> bool:
    if cls.create.__func__ is not DataStorage.create.__func__:  # type: ignore[attr-defined]
        return True
    first = next(iter(inspect.signature(cls).parameters.values()), None)
    return first is not None and first.kind not in (first.KEYWORD_ONLY, first.VAR_KEYWORD)


def _documentation(cls: type) -> Iterator[Finding]:
    doc = docstrings.documentation_of(cls)
    parameters = {parameter.name: parameter for parameter in options.init_parameters(cls)}
    known = {*parameters, *options.place_parameters(cls)}
    annotated = options.annotations_of(cls)
    if not doc.summary:
        yield Finding(
            "EX201",
            f"{cls.__name__} has no docstring; write one, and state the purpose of the class in its first "
            "line",
        )
    for name in parameters:
        if name not in doc.parameters or not doc.parameters[name].text:
            yield Finding(
                "EX202",
                f"option {name!r} is not documented; describe it in the Parameters section of the docstring",
            )
    for name in doc.parameters:
        if name not in known:
            hint = did_you_mean(name, known)
            yield Finding(
                "EX203", f"the docstring documents {name!r}, which is not a parameter of __init__{hint}"
            )
    for name in parameters:
        documented = doc.parameters.get(name)
        if name not in annotated and not (documented and documented.type_text):
            yield Finding(
                "EX204", f"option {name!r} has no type; annotate it, or state the type in the docstring"
            )
    yield from _defaults(parameters, doc, annotated)


def _defaults(
    parameters: Mapping[str, inspect.Parameter], doc: docstrings.Documentation, annotated: Mapping[str, Any]
) -> Iterator[Finding]:
    """Yield each disagreement among the docstring, annotation and default of an option."""
    for name, parameter in parameters.items():
        documented = doc.parameters.get(name)
        if documented is None or documented.default is None:
            continue
        if parameter.default is parameter.empty:
            yield Finding(
                "EX205", f"option {name!r} has no default, but the docstring states {documented.default}"
            )
        elif not docstrings.same_default(documented.default, parameter.default):
            yield Finding(
                "EX205",
                f"the default of option {name!r} is {parameter.default!r}, but the docstring states "
                f"{documented.default}",
            )
    for name in parameters.keys() & annotated.keys() & doc.parameters.keys():
        type_text = doc.parameters[name].type_text
        if annotations.contradicts(type_text, annotated[name]):
            yield Finding(
                "EX206",
                f"the annotation of option {name!r} is {annotations.describe_type(annotated[name])}, but "
                f"the docstring states {type_text}",
            )
    for name, parameter in parameters.items():
        if name in annotated and parameter.default is not parameter.empty:
            refusal = annotations.refusal_of(parameter.default, annotated[name])
            if refusal:
                yield Finding(
                    "EX207",
                    f"the default of option {name!r} is {parameter.default!r}, but its annotation "
                    f"requires {refusal}",
                )
