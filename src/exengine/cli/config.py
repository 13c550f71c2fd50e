"""``exengine config explain`` and ``exengine config schema``."""

import argparse
import json

from exengine.cli.output import print_json, print_table, say
from exengine.cli.settings import resolve_settings
from exengine.config.layers import Config
from exengine.kernel.errors import ExEngineError


def run(options: argparse.Namespace) -> int:
    """Explain the settings, or print their JSON Schema."""
    if options.what == "schema":
        from exengine.config.schema import config_schema

        print_json(config_schema())
        return 0
    config = resolve_settings(options)
    problem = _settle(config)
    if options.json:
        print_json(
            {
                "settings": [
                    {"key": key, "value": value, "origin": {"layer": origin.layer, "place": origin.place}}
                    for key, value, origin in config.rows()
                ],
                "set_aside": [
                    {"key": item.key, "value": item.value, "origin": str(item.origin), "reason": item.reason}
                    for item in config.set_aside
                ],
                "files": config.files,
                "problem": problem,
            }
        )
        return 0
    print_table(
        ("SETTING", "VALUE", "FROM"),
        ((key, "-" if value is None else _short(value), str(origin)) for key, value, origin in config.rows()),
    )
    if config.set_aside:
        print("\nSet aside")
        for item in config.set_aside:
            print(f"  {item.key} = {_short(item.value)} ({item.origin}): {item.reason}")
    if problem:
        say(f"exengine: 'exengine acquire' would reject these settings: {problem}")
    return 0


def _settle(config: Config) -> str:
    """Set aside the settings that the backend does not use. Return an error message, or ``""``."""
    from exengine.datasets.creation import StoragePlan

    try:
        StoragePlan.from_config(config)
    except ExEngineError as error:
        return str(error)
    return ""


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
