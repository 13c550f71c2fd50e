"""The table of settings: every key of the config, with its default, type, unit and description.

The value checks, the environment variables, the JSON Schema and the reference page are all derived from this
table.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from exengine.kernel.errors import ConfigError
from exengine.kernel.system import files
from exengine.kernel.wording import did_you_mean

ENVIRONMENT_PREFIX = "EXENGINE_"


@dataclass(frozen=True)
class Setting:
    """One key of the config, with its default, JSON Schema and description."""

    key: str
    default: Any
    schema: Mapping[str, Any]
    text: str


SETTINGS = (
    Setting("storage.backend", None, {"type": "string"}, "Name of the storage backend; there is no default."),
    Setting("storage.path", None, {"type": "string"}, "Exact path of the dataset."),
    Setting(
        "storage.if_exists",
        "error",
        {"enum": ["error", "number", "overwrite"]},
        "Action to take if the path exists: reject it, append the next free number, or delete the old "
        "dataset.",
    ),
    Setting(
        "storage.check_space",
        True,
        {"type": "boolean"},
        "Whether to reject an acquisition that would not fit on disk or in memory.",
    ),
    Setting("storage.options", {}, {"type": "object"}, "Options of the backend, as listed on its page."),
    Setting(
        "handler.max_pending",
        2**30,
        {"type": ["integer", "string"]},
        "Maximum total size of the frames that wait in memory, in bytes or with a unit, such as 1 GiB.",
    ),
    Setting(
        "handler.max_frames",
        None,
        {"type": ["integer", "null"], "minimum": 1},
        "Maximum number of frames that wait in memory; by default, only max_pending limits it.",
    ),
    Setting(
        "handler.when_full",
        "block",
        {"enum": ["block", "drop", "error"]},
        "Action to take when max_pending or max_frames is reached: block the source, drop the new frame, or "
        "end the acquisition with an error. The ledger counts and lists dropped frames.",
    ),
    Setting(
        "handler.block_timeout_s",
        None,
        {"type": ["number", "null"], "exclusiveMinimum": 0},
        "Maximum time in seconds for which the source is blocked before the acquisition ends with an "
        "error; unlimited by default.",
    ),
    Setting(
        "handler.process",
        None,
        {"type": ["string", "null"]},
        "Name of an installed process function, which modifies, discards or adds frames before they are "
        "stored. In Python, the function itself is also accepted.",
    ),
    Setting(
        "handler.workers",
        1,
        {"type": "integer", "minimum": 1, "maximum": 64},
        "Number of threads that call the process function; the order of the frames is preserved.",
    ),
    Setting(
        "handler.on_process_error",
        "stop",
        {"enum": ["stop", "skip", "raw"]},
        "Action to take when the process function fails: end the acquisition with an error, lose only this "
        "frame, or store the frame as it arrived.",
    ),
    Setting(
        "handler.sync_every_s",
        None,
        {"type": ["number", "null"], "exclusiveMinimum": 0},
        "Maximum time in seconds between storing a frame and the start of the sync that makes it survive a "
        "power cut; by default, the dataset is synced only at the end of the acquisition.",
    ),
    Setting("source.name", None, {"type": "string"}, "Name of the frame source; there is no default."),
    Setting("source.options", {}, {"type": "object"}, "Options of the source, as listed on its page."),
    Setting(
        "sequence",
        {},
        {"type": "object"},
        "The acquisition sequence, as the fields of a useq-schema MDASequence.",
    ),
)
"""All settings of the config. Everything that lists settings is generated from this table."""

BY_KEY = {setting.key: setting for setting in SETTINGS}
_NUMBERS = ("handler.max_frames", "handler.block_timeout_s", "handler.workers", "handler.sync_every_s")
SECTIONS = tuple(dict.fromkeys(setting.key.partition(".")[0] for setting in SETTINGS))
FREE_SECTIONS = ("storage.options", "source.options", "sequence")
"""Sections whose keys are defined by plugins or by useq."""
NAMED_BY = {"storage.options": "storage.backend", "source.options": "source.name"}
"""Maps each section of options to the setting that names the plugin."""


def check_keys(keys: Mapping[str, Any], where: str) -> None:
    """Reject keys that are not settings.

    Parameters
    ----------
    keys : mapping
        Flat keys, such as ``storage.options.width``, and their values.
    where : str
        The origin of the keys, used in messages.

    Raises
    ------
    ConfigError
    """
    for key in keys:
        if key in FREE_SECTIONS:
            raise ConfigError(f"{where}: {key} is a section with keys; write {key}.NAME=VALUE")
        if key not in BY_KEY and not key.startswith(tuple(free + "." for free in FREE_SECTIONS)):
            known = [known for known in BY_KEY if known not in FREE_SECTIONS] + [
                "storage.options.NAME",
                "source.options.NAME",
            ]
            hint = did_you_mean(key, known)
            section, _, name = key.partition(".")
            if not hint and f"{section}.options" in FREE_SECTIONS and "." not in name:
                hint = f" (an option of a plugin is written as {section}.options.{name})"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}; the keys are {', '.join(known)}")


def check_values(values: dict[str, Any], origin: Callable[[str], object]) -> None:
    """Check the values of settings, and convert them in place to the units of the settings.

    Parameters
    ----------
    values : dict
        Maps the keys of settings to values. None is accepted for string settings.
    origin : callable
        Returns the origin of a key's value, used in messages.

    Raises
    ------
    ConfigError
    """
    for key, value in values.items():
        choices = BY_KEY[key].schema.get("enum")
        if choices is not None:
            if value not in choices:
                near = did_you_mean(str(value), choices)
                raise ConfigError(
                    f"{key} ({origin(key)}) is {value!r:.60}{near}; the allowed values are "
                    f"{', '.join(choices)}"
                )
        elif BY_KEY[key].schema.get("type") == "boolean":
            values[key] = parse_bool(value, f"{key} ({origin(key)})")
        elif key == "handler.max_pending":
            values[key] = parse_bytes(value, f"{key} ({origin(key)})")
        elif key in _NUMBERS:
            values[key] = parse_number(value, f"{key} ({origin(key)})", BY_KEY[key].schema)
        elif key == "handler.process" and callable(value):
            pass  # from Python; a config file can only name a function
        elif value is not None and not isinstance(value, (str, os.PathLike)):
            raise ConfigError(f"{key} ({origin(key)}) must be a string, got {value!r:.60}")
        elif key == "storage.path" and value is not None:
            values[key] = user_path(value, f"{key} ({origin(key)})")


def user_path(path: "str | os.PathLike[str]", key: str) -> "str | os.PathLike[str]":
    """Return a path with ``~`` expanded.

    Parameters
    ----------
    path : path
    key : str
        The setting, for messages.

    Raises
    ------
    ConfigError
        If the path contains an environment variable, because only a shell expands it.
    """
    text = os.fsdecode(path)
    if not files.UNUSUAL.search(text):
        return path
    if "://" not in text and (refusal := files.refusal_of(text)):  # some backends accept URLs
        raise ConfigError(f"{key} is {text!r:.80}: {refusal}")
    return files.expanded(text) if text.startswith("~") else path


_BOOLEANS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)


def parse_bool(value: Any, key: str) -> bool:
    """Return a bool from a bool or a word, for example from an environment variable.

    Parameters
    ----------
    value : bool or str
    key : str
        The setting, for messages.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> parse_bool("no", "storage.check_space")
    False
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise ConfigError(f"{key} must be true or false, got {value!r:.60}")


def parse_number(value: Any, key: str, schema: Mapping[str, Any]) -> int | float | None:
    """Return a number from a number or a string, for example from an environment variable.

    Parameters
    ----------
    value : int, float, str or None
        None, and the text ``none``, are accepted if the setting has no default.
    key : str
        The setting, for messages.
    schema : mapping
        The JSON Schema of the setting, with its type and limits.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> parse_number("4", "handler.workers", {"type": "integer", "minimum": 1})
    4
    """
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "null" in kinds and (value is None or (isinstance(value, str) and value.lower() in ("none", "null"))):
        return None
    convert = int if "integer" in kinds else float
    least, most = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    try:
        number = convert(value) if isinstance(value, str) else value
        is_number = type(number) is int or (convert is float and type(number) is float)
        too_small = number < least or (number == least and "exclusiveMinimum" in schema)
        if is_number and math.isfinite(number) and not too_small and not (most and number > most):
            return number
    except (TypeError, ValueError):
        pass
    kind = "an int" if convert is int else "a number"
    limits = f"above {least}" if "exclusiveMinimum" in schema else f"at least {least}"
    limits += f" and at most {most}" if most else ""
    raise ConfigError(f"{key} must be {kind} {limits}, got {value!r:.60}")


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40
}  # fmt: skip


def parse_bytes(value: Any, key: str) -> int:
    """Return a number of bytes from an int or from a string with a unit.

    Parameters
    ----------
    value : int or str
    key : str
        The setting, for messages.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> parse_bytes("1 GiB", "handler.max_pending")
    1073741824
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str):
        number = value.strip().rstrip("abBgGiIkKmMtT ")
        unit = value.strip()[len(number) :].strip().lower()
        try:
            size = float(number) * _UNITS[unit]
        except (ValueError, KeyError):
            size = 0
        if 1 <= size < 2**63:
            return int(size)
    raise ConfigError(f"{key} must be a number of bytes, such as 268435456 or 1 GiB, got {value!r:.60}")
