"""Settings from the command line: ``--backend``, ``--path`` and ``--set``."""

import argparse
from typing import Any

from exengine.config.layers import Config, resolve
from exengine.kernel.errors import ConfigError
from exengine.kernel.registry.options import TextValue


def resolve_settings(options: argparse.Namespace) -> Config:
    """Return the config of a verb, with the command line as a layer."""
    layer: dict[str, Any] = {}
    for item in options.set:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set takes KEY=VALUE, such as storage.if_exists=number; got {item!r}")
        layer[key.strip()] = TextValue(value)
    if options.backend is not None:
        layer["storage.backend"] = options.backend
    if options.path is not None:
        layer["storage.path"] = options.path
    return resolve(options.config, command_line=layer)
