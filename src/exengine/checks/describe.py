"""Describes a plugin's config and capabilities, for both the command line and the documentation."""

import json
from collections.abc import Callable

from exengine.kernel.registry import options
from exengine.kernel.registry.names import SOURCES_GROUP


def capability_text(value: object) -> str:
    """Return the value of a capability as a readable string.

    Examples
    --------
    >>> capability_text(True), capability_text(None), capability_text(("uint8", "uint16"))
    ('yes', 'any', 'uint8, uint16')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "any"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def config_keys(group: str) -> tuple[str, str]:
    """Return the config section for a group of plugins, and the key in that section for a plugin's name."""
    return ("source", "name") if group == SOURCES_GROUP else ("storage", "backend")


def config_snippet(name: str, cls: type, group: str) -> str:
    """Return a YAML snippet to paste into a config file.

    Each required option has a comment with its type, and each option with a default is commented out.
    """
    section, key = config_keys(group)
    lines = [f"{section}:", f"  {key}: {name}"]
    capabilities = getattr(cls, "capabilities", None)
    if getattr(capabilities, "persistent", False):
        suffixes = getattr(capabilities, "path_suffixes", ())
        lines.append(f"  path: data/example{suffixes[0] if suffixes else ''}")
    settable = [option for option in options.options_of(cls) if not option.python_only]
    if settable:
        lines.append("  options:")
    for option in settable:
        if option.required:
            lines.append(f"    {option.name}:   # required: {' '.join(option.type_text.split())}")
        else:
            lines.append(f"    # {option.name}: {_yaml_default(option)}")
    return "\n".join(lines)


def _yaml_default(option: options.Option) -> str:
    try:
        return json.dumps(option.default, ensure_ascii=False)  # JSON is valid YAML
    except (TypeError, ValueError):
        shown = getattr(option.default, "value", option.default)  # the value of an enumeration member
        return json.dumps(text_of(str, shown), ensure_ascii=False)


def text_of(how: Callable[[object], str], value: object) -> str:
    """Return the ``str`` or ``repr`` of a value, or a fallback if this raises an exception."""
    try:
        return how(value)
    except Exception:  # an object from the plugin can raise any exception
        return f"an object of type {type(value).__name__}"
