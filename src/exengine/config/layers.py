"""Settings: where each value came from, and the one schema that they follow.

Layers, the highest first: arguments, command line, environment, the file named, the user's config
folder, defaults. Unknown keys are refused with a near match. When a higher layer names another
backend (or source), the options of the one below are set aside, and that is remembered. Nothing here
knows a plugin: what the options of a backend are is checked where it is loaded.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exengine.kernel.errors import ConfigError
from exengine.kernel.registry.options import TextValue
from exengine.kernel.system import files
from exengine.kernel.system.bounded import parse_toml, parse_yaml
from exengine.kernel.wording import did_you_mean

MAX_FILE_BYTES = 2**20
"""A config file that is larger is refused."""

ENVIRONMENT_PREFIX = "EXENGINE_"


@dataclass(frozen=True)
class Setting:
    """One key of the config: its place, default, JSON Schema and meaning."""

    key: str
    default: Any
    schema: Mapping[str, Any]
    text: str


SETTINGS = (
    Setting("storage.backend", None, {"type": "string"}, "Name of the storage backend; there is no default."),
    Setting("storage.path", None, {"type": "string"}, "Where the dataset will lie, exactly."),
    Setting(
        "storage.if_exists",
        "error",
        {"enum": ["error", "number", "overwrite"]},
        "What to do when something is at the path: refuse, append the next free number, or "
        "delete the old dataset.",
    ),
    Setting("storage.options", {}, {"type": "object"}, "Options of the backend: see its page."),
    Setting(
        "handler.max_pending",
        2**30,
        {"type": ["integer", "string"]},
        "How many bytes of frames may wait in memory, such as 1 GiB.",
    ),
    Setting(
        "handler.when_full",
        "block",
        {"enum": ["block", "error"]},
        "When so much waits: let the source wait, or end the acquisition with an error.",
    ),
    Setting("source.name", None, {"type": "string"}, "Name of the frame source; there is no default."),
    Setting("source.options", {}, {"type": "object"}, "Options of the source: see its page."),
    Setting("sequence", {}, {"type": "object"}, "What to acquire: the fields of a useq-schema MDASequence."),
)
"""The whole config; everything that lists settings is made from this."""

_BY_KEY = {setting.key: setting for setting in SETTINGS}
_SECTIONS = tuple(dict.fromkeys(setting.key.partition(".")[0] for setting in SETTINGS))
_FREE = ("storage.options", "source.options", "sequence")  # their keys are not ours
_NAMED_BY = {"storage.options": "storage.backend", "source.options": "source.name"}


@dataclass(frozen=True)
class Origin:
    """Where a value came from."""

    layer: str
    """``default``, ``user``, ``file``, ``environment``, ``command line`` or ``argument``."""
    place: str = ""
    """The file, or the name of the variable."""

    def __str__(self) -> str:
        return f"{self.layer}: {self.place}" if self.place else self.layer


@dataclass(frozen=True)
class SetAside:
    """A value that does not apply, and why."""

    key: str
    value: Any
    origin: Origin
    reason: str


@dataclass
class Config:
    """Resolved settings. Made by :func:`resolve`.

    Attributes
    ----------
    values : dict
        Key -> value. Options are one key each, such as ``storage.options.width``.
    origins : dict
        Key -> where the value came from.
    set_aside : list of SetAside
        What lower layers said of another backend or source.
    files : list of str
        The config files that were read, the lowest layer first.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def __getitem__(self, key: str) -> Any:
        return self.values[key] if key in self.values else _BY_KEY[key].default

    def origin(self, key: str) -> Origin:
        """Return where the value of a key came from."""
        return self.origins.get(key, Origin("default"))

    def section(self, prefix: str) -> dict[str, Any]:
        """Return the keys below ``storage.options``, ``source.options`` or ``sequence`` as a dict."""
        start = prefix + "."
        return {key[len(start) :]: value for key, value in self.values.items() if key.startswith(start)}

    def set_aside_value(self, key: str, reason: str) -> None:
        """Take a value out, and remember it and why."""
        if key in self.values:
            self.set_aside.append(SetAside(key, self.values.pop(key), self.origins.pop(key), reason))

    def rows(self) -> Iterator[tuple[str, Any, Origin]]:
        """Yield every setting with its value and origin, defaults included, in the order of the schema."""
        for setting in SETTINGS:
            if setting.key in _FREE:
                for key in self.values:
                    if key.startswith(setting.key + "."):
                        yield key, self.values[key], self.origin(key)
            else:
                yield setting.key, self[setting.key], self.origin(setting.key)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as the nested mapping that a config file holds, as plain JSON."""
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
        A YAML or TOML file, or what such a file holds. A ``Config`` is returned as it is.
    command_line, arguments : mapping, optional
        Flat keys, such as ``storage.backend``, of the two highest layers.
    environment : mapping, optional
        By default the environment of the process.
    user : bool
        Whether the user's config folder counts.

    Raises
    ------
    ConfigError
        When a file cannot be read or understood, or a key is unknown.
    """
    if isinstance(config, Config):
        return config
    if isinstance(config, bytes) or not isinstance(config, (str, os.PathLike, Mapping, type(None))):
        raise ConfigError(f"a config is the path of a file or a mapping, got {type(config).__name__}")
    resolved = Config()
    user_file = _user_file() if user else None
    if user_file:
        _add_layer(resolved, _flatten(read_file(user_file), user_file), Origin("user", user_file))
        resolved.files.append(user_file)
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
    _add_layer(resolved, _checked_flat(command_line or {}, "the command line"), Origin("command line"))
    _add_layer(resolved, _checked_flat(arguments or {}, "the arguments"), Origin("argument"))
    _check_values(resolved)
    return resolved


def _folded(name: Any) -> Any:
    """Return a name of a plugin in the one spelling: ``-`` and ``_`` are the same."""
    return name.replace("-", "_") if isinstance(name, str) else name


def _add_layer(
    config: Config,
    flat: Mapping[str, Any],
    origin: Origin | None,
    origins: Mapping[str, Origin] | None = None,
) -> None:
    for options, name_key in _NAMED_BY.items():
        old, new = config.values.get(name_key), flat.get(name_key)
        if old is not None and new is not None and _folded(old) != _folded(new):
            reason = f"it belongs to {old!r}; {(origins or {}).get(name_key, origin)} names {new!r}"
            for key in [key for key in config.values if key.startswith(options + ".")]:
                config.set_aside_value(key, reason)
    if any(key.startswith("sequence.") for key in flat) and origin and origin.layer in ("file", "argument"):
        # A sequence is one thing: a file that has one replaces the one of the user's folder.
        for key in [key for key in config.values if key.startswith("sequence.")]:
            config.set_aside_value(key, f"{origin} has a sequence of its own")
    for key, value in flat.items():
        came_from = (origins or {}).get(key) or origin or Origin("argument")
        if key.startswith("sequence.") and key.count(".") > 1:
            _set_inside(config, key, value, came_from)
        else:
            config.values[key], config.origins[key] = value, came_from


def _set_inside(config: Config, key: str, value: Any, origin: Origin) -> None:
    """Set a field within a field of the sequence, such as ``sequence.time_plan.loops``."""
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
                f"{key} ({origin}): {whole} ({below}) has no field {'.'.join(inner)}: there stands "
                f"{place!r:.60}; give {whole} as a whole"
            )
    place[part] = _read_text(config, key, value, origin)
    config.values[whole] = tree[name]
    field = origin.place or ".".join(inner)
    config.origins[whole] = Origin(origin.layer, f"{field}, over {below}") if below else origin


def _read_text(config: Config, key: str, value: Any, origin: Origin | None = None) -> Any:
    """Return what a text means for the sequence, as YAML; anything else is returned as it is."""
    if not isinstance(value, TextValue):
        return value
    try:
        return parse_yaml(value)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{key} ({origin or config.origin(key)}) is no YAML: {error}") from None


# -- reading -------------------------------------------------------------------------------------


def read_file(path: str) -> Mapping[str, Any]:
    """Return what a YAML or TOML file holds.

    Raises
    ------
    ConfigError
        When it is not there, empty, too large, not YAML or TOML, or no mapping.
    """
    try:
        # A link to a file is the user's own business; a pipe or a device would never end.
        with os.fdopen(files.open_regular(path, follow_links=True), "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with NUL in it
        raise ConfigError(
            f"cannot read the config file {path}: {getattr(error, 'strerror', None) or error}; "
            "give the path of a YAML or TOML file"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes, which no config file is")
    kind = "TOML" if path.endswith(".toml") else "YAML"
    try:
        text = data.decode()
        content = parse_toml(text) if kind == "TOML" else parse_yaml(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no {kind}: {' '.join(str(error).split())}") from None
    if content is None:
        raise ConfigError(
            f"{path} is empty; it needs at least storage: {{backend: ...}}; see exengine config schema"
        )
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{path} holds {_article(type(content).__name__)}, not sections such as storage: and source:"
        )
    return content


def _user_file() -> str | None:
    for name in ("config.yaml", "config.toml"):
        path = os.path.join(files.config_folder(), name)
        if os.path.isfile(path):
            return path
    return None


def _flatten(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, body in content.items():
        if section not in _SECTIONS:
            raise ConfigError(
                f"{where}: unknown key {section!r}{did_you_mean(str(section), _SECTIONS)}; "
                f"the sections are {', '.join(_SECTIONS)}"
            )
        if body is None:
            continue
        if not isinstance(body, Mapping):
            raise ConfigError(f"{where}: {section} is a section with keys of its own, got {body!r:.60}")
        for key, value in body.items():
            full = f"{section}.{key}"
            if full in ("storage.options", "source.options"):
                if value is not None and not isinstance(value, Mapping):
                    raise ConfigError(f"{where}: {full} maps option names to values, got {value!r:.60}")
                flat.update({f"{full}.{name}": item for name, item in (value or {}).items()})
            else:
                flat[full] = value
    return _checked_flat(flat, where)


def _checked_flat(flat: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key in flat:
        if key in _FREE:
            raise ConfigError(f"{where}: {key} has keys of its own; write {key}.NAME=VALUE")
        if key not in _BY_KEY and not key.startswith(tuple(free + "." for free in _FREE)):
            known = [known for known in _BY_KEY if known not in _FREE] + [
                "storage.options.NAME",
                "source.options.NAME",
            ]
            raise ConfigError(
                f"{where}: unknown key {key!r}{did_you_mean(key, known)}; the keys are {', '.join(known)}"
            )
    return dict(flat)


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, TextValue]]:
    found = {}
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        body = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        section, double, rest = body.partition("__")
        if not double and body.partition("_")[0] not in _SECTIONS:
            continue  # of something else; with one underscore a setting would have no effect, in silence
        key = f"{section}.{rest.replace('__', '.')}" if double else body
        try:
            _checked_flat({key: 0}, f"environment variable {name}")
        except ConfigError:
            names = [ENVIRONMENT_PREFIX + known.upper().replace(".", "__") for known in _BY_KEY]
            raise ConfigError(
                f"the environment variable {name} is no setting{did_you_mean(name, names)}; "
                f"they are {', '.join(names)} (options and fields of the sequence with another __)"
            ) from None
        found[key] = (name, TextValue(environment[name]))
    return found


# -- checking ------------------------------------------------------------------------------------


def _check_values(config: Config) -> None:
    for key, value in list(config.values.items()):
        setting = _BY_KEY.get(key)
        if setting is None:
            if key.startswith("sequence."):
                config.values[key] = _read_text(config, key, value)
            continue
        if isinstance(value, TextValue):
            value = config.values[key] = str(value)
        where = f"{key} ({config.origin(key)})"
        choices = setting.schema.get("enum")
        if choices is not None:
            if value not in choices:
                raise ConfigError(
                    f"{where} is {value!r:.60}{did_you_mean(str(value), choices)}; it takes "
                    f"{', '.join(choices)}"
                )
        elif key == "handler.max_pending":
            config.values[key] = parse_bytes(value, where)
        elif value is not None and not isinstance(value, (str, os.PathLike)):
            raise ConfigError(f"{where} is a text, got {value!r:.60}")


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40
}  # fmt: skip


def parse_bytes(value: Any, what: str) -> int:
    """Return a number of bytes from an int or a text with a unit.

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
    raise ConfigError(f"{what} is a number of bytes such as 268435456 or 1 GiB, got {value!r:.60}")


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
