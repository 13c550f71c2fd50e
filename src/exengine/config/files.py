"""Finds the user's config file, and reads YAML and TOML config files up to a maximum size."""

import os
from collections.abc import Mapping
from typing import Any

from exengine.kernel.errors import ConfigError
from exengine.kernel.system import files
from exengine.kernel.system.bounded import parse_toml, parse_yaml
from exengine.kernel.wording import a

MAX_FILE_BYTES = 2**20
"""Maximum size of a config file, in bytes."""


def user_file() -> str | None:
    """Return the path of the config file in the user's config folder, or None if there is none."""
    for name in ("config.yaml", "config.toml"):
        path = os.path.join(files.config_folder(), name)
        if os.path.isfile(path):
            return path
    return None


def read_file(path: str) -> Mapping[str, Any]:
    """Return the content of a YAML or TOML file.

    Raises
    ------
    ConfigError
        If the file is missing, empty, too large, not YAML or TOML, or not a mapping.
    """
    try:
        # Links to files are allowed. Pipes and devices are rejected, because reading them might never end.
        with os.fdopen(files.open_regular(path, follow_links=True), "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # a file name that contains NUL raises ValueError
        raise ConfigError(
            f"cannot read the config file {path}: {getattr(error, 'strerror', None) or error}; "
            "give the path of a YAML or TOML file"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            f"{path} is larger than {MAX_FILE_BYTES} bytes, which is the limit for a config file"
        )
    language = "TOML" if path.lower().endswith(".toml") else "YAML"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError(f"{path} is encoded as UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
        content = parse_toml(text) if language == "TOML" else parse_yaml(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid {language}: {' '.join(str(error).split())}") from None
    if content is None:
        raise ConfigError(
            f"{path} is empty; a config needs at least storage: {{backend: ...}}; see exengine config schema"
        )
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{path} contains {a(type(content).__name__)} instead of sections such as storage: and source:"
        )
    return content
