"""Settings from several layers, each value with its origin.

The layers, from highest to lowest, are: arguments, command line, environment variables, the given config
file, the user's config folder, and defaults. Unknown keys are rejected, with a suggestion of a similar key.
If a higher layer names a different backend (or source) than a lower layer, the options in the lower layer are
set aside and listed. This module has no knowledge of plugins. A backend's options are checked when the
backend is loaded.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exengine.config.files import read_file, user_file
from exengine.config.settings import (
    BY_KEY,
    ENVIRONMENT_PREFIX,
    FREE_SECTIONS,
    NAMED_BY,
    SECTIONS,
    SETTINGS,
    check_keys,
    check_values,
)
from exengine.kernel.errors import ConfigError
from exengine.kernel.registry.options import TextValue
from exengine.kernel.system.bounded import parse_yaml
from exengine.kernel.wording import did_you_mean


@dataclass(frozen=True)
class Origin:
    """The origin of a setting's value."""

    layer: str
    """``default``, ``user``, ``file``, ``environment``, ``command line`` or ``argument``."""
    place: str = ""
    """The path of the file, or the name of the environment variable."""

    def __str__(self) -> str:
        return f"{self.layer}: {self.place}" if self.place else self.layer


_LAYERS = ("default", "user", "file", "environment", "command line", "argument")


def _rank(origin: Origin) -> int:
    """Return the rank of a layer; a config that is a mapping has the rank of a file."""
    return _LAYERS.index("file" if origin == Origin("argument", "mapping") else origin.layer)


@dataclass(frozen=True)
class SetAside:
    """A value that was set aside, and the reason."""

    key: str
    value: Any
    origin: Origin
    reason: str


@dataclass
class Config:
    """Resolved settings. Created by :func:`resolve`.

    Attributes
    ----------
    values : dict
        Maps keys to values. Each option has its own key, such as ``storage.options.width``.
    origins : dict
        Maps keys to the origins of their values.
    set_aside : list of SetAside
        Values from lower layers that are meant for a different backend or source.
    files : list of str
        The config files that were read, starting with the lowest layer.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def __getitem__(self, key: str) -> Any:
        return self.values[key] if key in self.values else BY_KEY[key].default

    def origin(self, key: str) -> Origin:
        """Return the origin of a key's value."""
        return self.origins.get(key, Origin("default"))

    def is_above(self, key: str, other: str) -> bool:
        """Return whether the value of a key comes from a higher layer than the value of another key."""
        return _rank(self.origin(key)) > _rank(self.origin(other))

    def section(self, prefix: str) -> dict[str, Any]:
        """Return the keys below ``storage.options``, ``source.options`` or ``sequence`` as a dict."""
        start = prefix + "."
        return {key[len(start) :]: value for key, value in self.values.items() if key.startswith(start)}

    def set_aside_value(self, key: str, reason: str) -> None:
        """Move a value to the list of values set aside, and record the reason."""
        if key in self.values:
            self.set_aside.append(SetAside(key, self.values.pop(key), self.origins.pop(key), reason))

    def rows(self) -> Iterator[tuple[str, Any, Origin]]:
        """Yield every setting with its value and origin, including defaults, in schema order."""
        for setting in SETTINGS:
            if setting.key in FREE_SECTIONS:
                for key in self.values:
                    if key.startswith(setting.key + "."):
                        yield key, self.values[key], self.origin(key)
            else:
                yield setting.key, self[setting.key], self.origin(setting.key)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a nested mapping, as in a config file, with plain JSON types."""
        tree: dict[str, Any] = {}
        for key, value, _ in self.rows():
            if value is None:
                continue
            section, _, rest = key.partition(".")
            place = tree.setdefault(section, {})
            if rest.startswith("options."):
                place, rest = place.setdefault("options", {}), rest.removeprefix("options.")
            plain = isinstance(value, (TextValue, os.PathLike))
            place[rest] = str(value) if plain else value
        return tree


def resolve(
    config: "str | os.PathLike[str] | Mapping[str, Any] | Config | None" = None,
    *,
    command_line: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    user: bool = True,
) -> Config:
    """Return the settings, each with its origin.

    Parameters
    ----------
    config : path, mapping or Config, optional
        A YAML or TOML file, or the content of such a file. A ``Config`` is returned unchanged.
    command_line, arguments : mapping, optional
        The two highest layers, with flat keys such as ``storage.backend``.
    environment : mapping, optional
        The environment variables. By default, the environment of the process is used.
    user : bool
        Whether to read the user's config folder.

    Raises
    ------
    ConfigError
        If a file cannot be read or parsed, or if a key is unknown.
    """
    if isinstance(config, Config):
        return config
    if isinstance(config, bytes) or not isinstance(config, (str, os.PathLike, Mapping, type(None))):
        raise ConfigError(f"a config must be a file path or a mapping, got {type(config).__name__}")
    resolved = Config()
    users = user_file() if user else None
    if users:
        _add_layer(resolved, _flatten(read_file(users), users), Origin("user", users))
        resolved.files.append(users)
    if isinstance(config, Mapping):
        _add_layer(resolved, _flatten(config, "the mapping"), Origin("argument", "mapping"))
    elif config is not None:
        path = os.fspath(config)
        _add_layer(resolved, _flatten(read_file(path), path), Origin("file", path))
        resolved.files.append(path)
    variables = _from_environment(os.environ if environment is None else environment)
    _add_layer(
        resolved,
        {key: value for key, (_, value) in variables.items()},
        None,
        {key: Origin("environment", name) for key, (name, _) in variables.items()},
    )
    for flat, layer in ((command_line or {}, "command line"), (arguments or {}, "argument")):
        check_keys(flat, f"the {layer}")
        _add_layer(resolved, flat, Origin(layer))
    _check_values(resolved)
    return resolved


def _folded(name: Any) -> Any:
    """Return a plugin name with each ``-`` replaced by ``_``, so that names can be compared."""
    return name.replace("-", "_") if isinstance(name, str) else name


def _add_layer(
    config: Config,
    flat: Mapping[str, Any],
    origin: Origin | None,
    origins: Mapping[str, Origin] | None = None,
) -> None:
    for options, name_key in NAMED_BY.items():
        old, new = config.values.get(name_key), flat.get(name_key)
        if old is not None and new is not None and _folded(old) != _folded(new):
            reason = (
                f"the value belongs to {old!r}, but {(origins or {}).get(name_key, origin)} selects {new!r}"
            )
            for key in [key for key in config.values if key.startswith(options + ".")]:
                config.set_aside_value(key, reason)
    if any(key.startswith("sequence.") for key in flat) and origin and origin.layer in ("file", "argument"):
        # Sequences are not merged: a sequence replaces the whole sequence of a lower layer.
        for key in [key for key in config.values if key.startswith("sequence.")]:
            config.set_aside_value(key, f"{origin} sets a sequence of its own")
    for key, value in flat.items():
        came_from = (origins or {}).get(key) or origin or Origin("argument")
        if key.startswith("sequence.") and key.count(".") > 1:
            _set_inside(config, key, value, came_from)
        else:
            config.values[key], config.origins[key] = value, came_from


def _set_inside(config: Config, key: str, value: Any, origin: Origin) -> None:
    """Set a nested field of the sequence, such as ``sequence.time_plan.loops``."""
    section, name, *inner = key.split(".")
    whole = f"{section}.{name}"
    below = config.origins.get(whole)
    tree = {name: copy.deepcopy(_read_text(config, whole, config.values.get(whole)))}
    place, part = tree, name
    for inside in inner:
        if place.get(part) is None:
            place[part] = {}
        place, part = place[part], inside
        if not isinstance(place, dict):
            raise ConfigError(
                f"{key} ({origin}): {whole} ({below}) has no field {'.'.join(inner)}, because its value is "
                f"{place!r:.60}; set {whole} as a whole"
            )
    place[part] = _read_text(config, key, value, origin)
    config.values[whole] = tree[name]
    field = origin.place or ".".join(inner)
    config.origins[whole] = Origin(origin.layer, f"{field}, over {below}") if below else origin


def _read_text(config: Config, key: str, value: Any, origin: Origin | None = None) -> Any:
    """Return a value, parsed as YAML if it is from the environment or the command line."""
    if not isinstance(value, TextValue):
        return value
    try:
        return parse_yaml(value)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{key} ({origin or config.origin(key)}) is not valid YAML: {error}") from None


def _flatten(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, body in content.items():
        if section not in SECTIONS:
            raise ConfigError(
                f"{where}: unknown key {section!r}{did_you_mean(str(section), SECTIONS)}; "
                f"the sections are {', '.join(SECTIONS)}"
            )
        if body is None:
            continue
        if not isinstance(body, Mapping):
            raise ConfigError(f"{where}: {section} must be a section with keys, got {body!r:.60}")
        for key, value in body.items():
            full = f"{section}.{key}"
            if full in ("storage.options", "source.options"):
                if value is not None and not isinstance(value, Mapping):
                    raise ConfigError(f"{where}: {full} must map option names to values, got {value!r:.60}")
                flat.update({f"{full}.{name}": item for name, item in (value or {}).items()})
            else:
                flat[full] = value
    check_keys(flat, where)
    return flat


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, TextValue]]:
    found = {}
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        body = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        section, double, rest = body.partition("__")
        if not double and body.partition("_")[0] not in SECTIONS:
            continue  # not meant as a setting; a near miss such as EXENGINE_STORAGE_PATH is reported
        key = f"{section}.{rest.replace('__', '.')}" if double else body
        try:
            check_keys({key: 0}, f"environment variable {name}")
        except ConfigError:
            names = [ENVIRONMENT_PREFIX + known.upper().replace(".", "__") for known in BY_KEY]
            raise ConfigError(
                f"the environment variable {name} is not a setting{did_you_mean(name, names)}; the settings "
                f"are {', '.join(names)} (to set an option or a field of the sequence, append __ and "
                "its name)"
            ) from None
        found[key] = (name, TextValue.of(environment, name))
    return found


def _check_values(config: Config) -> None:
    values = config.values
    for key, value in values.items():
        if key.startswith("sequence."):
            values[key] = _read_text(config, key, value)
        elif key in BY_KEY and isinstance(value, TextValue):
            values[key] = str(value)
    checked = {key: value for key, value in values.items() if key in BY_KEY}
    check_values(checked, config.origin)
    values.update(checked)
