"""Settings from the command line: ``--backend``, ``--path`` and ``--set``."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exengine.config.layers import Config


def settings_parser() -> argparse.ArgumentParser:
    """Return a parent parser with the arguments for settings."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--backend", metavar="NAME", help="storage backend, instead of the one in the config")
    parser.add_argument("--path", metavar="P", help="path of the new dataset")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any setting, such as storage.if_exists=number",
    )
    return parser


def resolve_settings(options: argparse.Namespace) -> "Config":
    """Return the config for a verb, with the settings from the command line as one of its layers."""
    from exengine.config.layers import resolve
    from exengine.kernel.errors import ConfigError
    from exengine.kernel.registry.options import TextValue

    layer: dict[str, Any] = {}
    for item in options.set:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set needs KEY=VALUE, such as storage.if_exists=number, got {item!r}")
        layer[key.strip()] = TextValue(value)
    if options.backend is not None:
        layer["storage.backend"] = options.backend
    if options.path is not None:
        layer["storage.path"] = options.path
    return resolve(options.config, command_line=layer)
