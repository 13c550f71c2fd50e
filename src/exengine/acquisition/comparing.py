"""Compares the config of a dataset with the config of a run that is to continue the dataset.

The comparison covers all settings that determine the frames and how they are stored: the source and the
backend with their options, the sequence, and the process function. An omitted option has its default value.
"""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from exengine.config.layers import Config
from exengine.frame_sources.sequence import parse_sequence
from exengine.kernel.errors import ExEngineError
from exengine.kernel.registry import plugins
from exengine.kernel.registry.options import TextValue, options_of, validate_options

if TYPE_CHECKING:
    from exengine.datasets.creation import StoragePlan

_MISSING = object()


def differences(kept: Mapping[str, Any], config: Config, storage: "StoragePlan") -> list[str]:
    """Return one line for each setting that differs between the two configs.

    Parameters
    ----------
    kept : mapping
        The config stored with a dataset. It may contain anything.
    config : Config
    storage : StoragePlan
        The backend of the config.
    """
    given = config.to_dict()
    found = list(_named(kept, given, "source.name")) + list(_named(kept, given, "storage.backend"))
    if found:  # the options belong to different plugins
        return found
    source = plugins.SOURCES.load(config["source.name"]) if config["source.name"] else None
    for key, cls in (("source.options", source), ("storage.options", storage.cls)):
        before, now = _part(kept, key, {}), _part(given, key, {})
        if cls is not None:
            before, now = _with_defaults(cls, before), _with_defaults(cls, now)
        found += _compared(before, now, key)
    before, now = _part(kept, "sequence", {}), _part(given, "sequence", {})
    if before != now:
        found += _compared(_complete(before), _complete(now), "sequence")
    found += _compared(_part(kept, "handler.process"), _part(given, "handler.process"), "handler.process")
    return found


def _part(tree: Any, key: str, default: Any = None) -> Any:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return default if tree is None else tree


def _named(kept: Mapping[str, Any], given: Mapping[str, Any], key: str) -> Iterator[str]:
    """Yield a line if two plugin names differ. The characters ``-`` and ``_`` count as equal."""
    before, now = _part(kept, key), _part(given, key)
    if _folded(before) != _folded(now):
        yield _line(key, before, now)


def _folded(name: Any) -> Any:
    return name.replace("-", "_") if isinstance(name, str) else name


def _with_defaults(cls: type, given: Any) -> Any:
    """Convert options to their types, and add the defaults; return invalid options unchanged."""
    if not isinstance(given, Mapping):
        return given
    texts = {name: TextValue(value) if isinstance(value, str) else value for name, value in given.items()}
    try:
        checked = validate_options(cls, texts, cls.__name__)
    except ExEngineError:
        return given
    return {**{option.name: option.default for option in options_of(cls)}, **checked}


def _complete(sequence: Any) -> Any:
    """Return all fields of a sequence; an invalid sequence is returned unchanged."""
    try:
        return parse_sequence(sequence).model_dump(mode="json", exclude={"uid"})
    except Exception:  # the sequence of the dataset may contain anything
        return sequence


def _compared(before: Any, now: Any, place: str) -> Iterator[str]:
    """Yield a line for each changed value, with the place, the old value and the new value."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*before, *now]):
            inside = f"{place}.{name}"
            yield from _compared(before.get(name, _MISSING), now.get(name, _MISSING), inside)
    elif isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _compared(one, other, f"{place}[{number}]")
    elif _plain(before) != _plain(now):
        yield _line(place, before, now)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple) or value is _MISSING:
        return value
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    return (
        text if isinstance(text, int | float | str | type(None)) else getattr(text, "__qualname__", str(text))
    )


def _line(place: str, before: Any, now: Any) -> str:
    def shown(value: Any) -> str:
        return "nothing" if value is None or value is _MISSING else f"{value!r:.100}"

    return f"{place}: {shown(before)} in the dataset, {shown(now)} in the config"
