"""Tests of a backend's options and of the summary metadata: O1, N6.

The values of the options come from their annotations.

An option with a few choices or with limits must change something that can be seen from outside: the
capabilities, a refusal, the calls to the operating system, or the files. If it does not, the backend ignores
the option. An option is not tested if it needs a second option for which the kit has no value, such as the
address of a server, or if it changes nothing outside a backend that stores no files.
"""

import enum
import os
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exengine.kernel.errors import ExEngineError, UnsupportedOperationError, describe
from exengine.kernel.registry.options import Option, options_of
from exengine.testing.frames import frame_of
from exengine.testing.promises import NotPromised, NotRun, PromiseBrokenError, promise
from exengine.testing.subject import Model, Subject, same_json, tree_of
from exengine.testing.tasks.calls import SYNCS, SYNCS_OF_ALL

_FRAMES = 7
_SUMMARY = "summary_metadata"
_LARGE = (1100, 1200)  # a pyramid, for example, is written only for large frames
_MOST_OTHERS = 8
_RECORDED_BYTES = 24  # an option's value may be recorded in a file even if the option is ignored
_KERNELS = ("exengine.json", "exengine.lock")
SUMMARIES: tuple[dict[str, Any], ...] = (
    {"Objective": "40x/0.95 µ", "nested": {"list": [1, 2.5, None, True]}, "": 0, "long": "x" * 5000},
    {},
)


class OptionPromises:
    """Tests that exercise every option of a backend."""

    @promise("N6")
    def test_the_summary_metadata_is_the_same_after_reopening(self, subject: Subject) -> None:
        if _SUMMARY not in [option.name for option in options_of(subject.cls)]:
            raise NotPromised(f"the backend has no option {_SUMMARY}")
        for summary in SUMMARIES:
            for ended in (True, False):
                own = subject.with_options(**{_SUMMARY: summary})
                path = own.new_path()
                storage = own.create(path)
                try:
                    _has_summary(storage, summary, "in a new storage")
                    own.fill(storage, 2)
                    if ended:
                        storage.finish()
                    storage.close()
                    if own.can.persistent and own.can.reopen:
                        when = "a finished dataset" if ended else "an unfinished dataset"
                        _has_summary(own.open(path), summary, f"after reopening {when}")
                finally:
                    own.close_all()

    @promise("O1")
    def test_every_value_of_an_option_stores_frames_or_is_refused(self, subject: Subject) -> None:
        for option in _options(subject):
            refusals: list[str] = []
            values = values_of(option.annotation)
            for value in values:
                own = subject.with_options(**{option.name: value})
                try:
                    refused = _stores(own)
                except PromiseBrokenError as fault:
                    raise PromiseBrokenError("O1", f"with {option.name}={value!r}: {fault}") from fault
                finally:
                    own.close_all()
                refusals += [refused] if refused else []
            if values and len(refusals) == len(values):
                raise PromiseBrokenError(
                    "O1", f"every value of {option.name} was refused, for example: {refusals[0]}"
                )

    @promise("O1")
    def test_every_option_takes_effect(self, subject: Subject) -> None:
        options = _options(subject)
        exercised = [option for option in options if len(values_of(option.annotation)) > 1]
        unknown = [option.name for option in options_of(subject.cls) if option not in exercised]
        traces: dict[str, Any] = {}
        unseen = []
        for option in exercised:
            needs = [name for name in unknown if name in option.name or f"``{name}``" in option.text]
            if needs or not _is_chosen(option):
                continue
            others = [*_others(exercised, option), *map(dict, subject.cls.variants.values())]
            tries = [({}, False), ({}, True), *((other, False) for other in others[:_MOST_OTHERS])]
            if not any(_has_effect(subject, option, other, traces, large=large) for other, large in tries):
                if not subject.can.persistent:
                    unseen.append(option.name)
                    continue
                shown = ", ".join(repr(value) for value in values_of(option.annotation))
                raise PromiseBrokenError(
                    "O1",
                    f"{option.name} has no effect: the values {shown} result in the same capabilities, calls "
                    "and files",
                )
        if unseen:
            raise NotRun(f"the backend stores no files that show the effect of {', '.join(unseen)}")


def _options(subject: Subject) -> list[Option]:
    """Return the options to which the kit may assign values."""
    return [
        option
        for option in options_of(subject.cls)
        if option.name not in subject.options and option.name != _SUMMARY
    ]


def values_of(annotation: Any) -> list[Any]:
    """Return values that an annotation accepts: each choice and each limit; none if it states neither.

    Examples
    --------
    >>> from typing import Annotated, Literal
    >>> from annotated_types import Interval
    >>> values_of(Literal["a", "b"]), values_of(bool), values_of(Annotated[int, Interval(ge=1, le=9)])
    (['a', 'b'], [False, True], [1, 2, 9])
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is bool:
        return [False, True]
    if annotation is None or annotation is type(None):
        return [None]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return [member.value for member in annotation]
    if origin is typing.Literal:
        return list(args)
    if origin in (typing.Union, types.UnionType):
        return [value for part in args for value in values_of(part)]
    if origin is typing.Annotated:
        if args[0] in (int, float):
            return _at_limits(args[0], args[1:])
        return values_of(args[0])
    return []


def _at_limits(kind: type, marks: tuple[Any, ...]) -> list[Any]:
    limits = {
        name: getattr(mark, name)
        for mark in marks
        for name in ("gt", "ge", "lt", "le")
        if getattr(mark, name, None) is not None
    }
    step = 1 if kind is int else 0.5
    least = limits["ge"] if "ge" in limits else limits["gt"] + step if "gt" in limits else None
    most = limits["le"] if "le" in limits else limits["lt"] - step if "lt" in limits else None
    found = [] if least is None else [least, least + step]
    return list(dict.fromkeys(kind(at) for at in [*found, *([] if most is None else [most])]))


def _is_chosen(option: Option) -> bool:
    """Return whether an option has several known values, so that the values can be compared."""
    values = [value for value in values_of(option.annotation) if value is not None]
    return len(values) > 1


def _others(options: list[Option], option: Option) -> Iterator[dict[str, Any]]:
    """Yield a dict for each value of every other option, because one option may depend on another."""
    for other in options:
        if other is not option:
            for value in values_of(other.annotation):
                if value is not None and value != other.default:
                    yield {other.name: value}


def _stores(subject: Subject) -> str:
    """Store frames and read them back. Return the refusal if there is one, otherwise an empty string."""
    try:
        path = subject.new_path()
        storage = subject.create(path)
        model = Model(subject)
        for number in range(_FRAMES):
            axes = subject.axes(number)
            model.put(storage, axes, subject.numbered(number), _smooth(subject.frame(axes)))
    except ExEngineError as error:
        return describe(error, 150)
    except Exception as error:
        raise PromiseBrokenError("O1", f"{describe(error, 200)} was raised") from error
    model.check(storage, "O1")
    storage.finish()
    model.check(storage, "O1")
    storage.close()
    if subject.can.persistent and subject.can.reopen:
        model.check(subject.open(path), "O1")
    return ""


def _smooth(frame: Any) -> Any:
    """Return a frame with many equal pixels, so that the compression level affects the size of the file."""
    flat = frame.reshape(-1)
    flat[flat.size // 2 :] = (np.arange(flat.size - flat.size // 2) // 7 % 5).astype(frame.dtype)
    return frame


def _has_effect(
    subject: Subject, option: Option, others: dict[str, Any], traces: dict[str, Any], *, large: bool
) -> bool:
    """Return whether two values of an option have different visible effects, with small or large frames."""
    first: Any = None
    values = [value for value in values_of(option.annotation) if value is not None]
    sets = [others, *({**others, option.name: value} for value in values)]
    for given in sets[option.required :]:
        key = f"{large} {sorted(given.items(), key=str)!r}"
        if key not in traces:
            traces[key] = _trace_of(
                subject.with_options(**given), _LARGE if large and len(subject.shape) == 2 else subject.shape
            )
        trace = traces[key]
        if first is not None and _differ(trace, first):
            return True
        first = trace
    return False


def _trace_of(subject: Subject, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the visible effects of a backend: capabilities, refusals, syncs, files."""
    counts: dict[str, int] = {}
    said: list[str] = []
    able: tuple[Any, ...] = ()
    files: list[dict[str, int]] = []
    with _counted(counts):
        try:
            able = tuple(subject.can.items())
            path = subject.new_path()
            storage = subject.create(path)
            for number in range(_FRAMES if shape == subject.shape else 2):
                axes = subject.axes(number)
                storage.put(axes, _smooth(frame_of(axes, shape, subject.dtype)), subject.numbered(number))
                said.append("put")
            files.append(_sizes(path))
            storage.finish()
            storage.close()
            files.append(_sizes(path))
        except Exception as error:
            said.append(type(error).__name__)
        finally:
            subject.close_all()
    return (able, said, counts), files


def _differ(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Return whether two traces differ by more than the space that a recorded option value needs."""
    if one[0] != other[0] or len(one[1]) != len(other[1]):
        return True
    for sizes, others in zip(one[1], other[1], strict=True):
        if sizes.keys() != others.keys():
            return True
        if any(abs(size - others[name]) > _RECORDED_BYTES for name, size in sizes.items()):
            return True
    return False


class _counted:  # noqa: N801 - a context manager
    """Count the calls that sync."""

    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts
        self._real: list[tuple[Any, str, Callable[..., Any]]] = []

    def __enter__(self) -> None:
        for module, name in (*((os, name) for name in SYNCS), *SYNCS_OF_ALL):
            if hasattr(module, name):
                real = getattr(module, name)
                self._real.append((module, name, real))
                setattr(module, name, self._wrapped(name, real))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._counts[name] = self._counts.get(name, 0) + 1
            return real(*arguments)

        return call

    def __exit__(self, *_: object) -> None:
        for module, name, real in self._real:
            setattr(module, name, real)


def _sizes(path: Path) -> dict[str, int]:
    """Return the size of each file of a dataset, by name, except for the files that the kernel writes."""
    if not path.exists():
        return {}
    return {
        name: (path / name).stat().st_size if (path / name).is_file() else 0
        for name in (tree_of(path) if path.is_dir() else ("",))
        if not name.startswith(_KERNELS)
    }


def _has_summary(storage: Any, wanted: Any, when: str) -> None:
    try:
        got = storage.summary_metadata
    except UnsupportedOperationError as error:
        raise PromiseBrokenError(
            "N6", f"{_SUMMARY} is an option, but reading it raised {describe(error)}"
        ) from error
    if not same_json(got, wanted):
        raise PromiseBrokenError(
            "N6", f"{when}, the summary metadata is {got!r:.150}, but {wanted!r:.150} was given"
        )
