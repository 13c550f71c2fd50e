"""The JSON Schema of the config, generated from the table of settings and the installed plugins."""

from typing import Any

from exengine.config.settings import SETTINGS
from exengine.kernel.registry import plugins
from exengine.kernel.registry.options import options_of


def config_schema() -> dict[str, Any]:
    """Return a JSON Schema that editors can use to check and complete config files.

    It includes the options of every valid installed plugin. All plugins are imported to find these options.
    """
    sections: dict[str, Any] = {}
    for setting in SETTINGS:
        section, _, key = setting.key.partition(".")
        schema = {**setting.schema, "description": setting.text}
        if setting.default is not None and not isinstance(setting.default, dict):
            schema["default"] = setting.default
        if not key:
            sections[section] = schema
            continue
        body = sections.setdefault(
            section, {"type": "object", "additionalProperties": False, "properties": {}, "allOf": []}
        )
        body["properties"][key] = schema
    for section, name_key, registry in (
        ("storage", "backend", plugins.BACKENDS),
        ("source", "name", plugins.SOURCES),
    ):
        valid = [record for record in registry.probe().values() if record.state == "valid"]
        sections[section]["properties"][name_key]["examples"] = [record.name for record in valid]
        for record in valid:
            assert record.loaded is not None
            sections[section]["allOf"].append(
                {
                    "if": {"properties": {name_key: {"const": record.name}}, "required": [name_key]},
                    "then": {"properties": {"options": _options_schema(record.loaded)}},
                }
            )
    for body in sections.values():
        if not body.get("allOf", True):
            del body["allOf"]
    import useq

    sequence = _as_useq_reads(useq.MDASequence.model_json_schema())
    definitions = sequence.pop("$defs", {})
    sections["sequence"] = {**sequence, "description": sections["sequence"]["description"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ExEngine config",
        "type": "object",
        "additionalProperties": False,
        "properties": sections,
        "$defs": definitions,
    }


_SHORT_FORMS = {"Channel": {"type": "string"}, "AbsolutePosition": {"type": "array"}}


def _as_useq_reads(schema: Any) -> Any:
    """Allow the short forms that useq accepts but omits from its schema.

    A duration can be a number of seconds, a channel a name, and a position a list of x, y and z.
    """
    if isinstance(schema, list):
        return [_as_useq_reads(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "duration":
        return {
            **{key: value for key, value in schema.items() if key != "format"},
            "type": ["number", "string"],
        }
    inner = {key: _as_useq_reads(value) for key, value in schema.items()}
    short = _SHORT_FORMS.get(str(schema.get("title")))
    return {"anyOf": [short, inner]} if short and schema.get("type") == "object" else inner


def _options_schema(cls: type) -> dict[str, Any]:
    options = [option for option in options_of(cls) if not option.python_only]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {option.name: option.json_schema for option in options},
        "required": [option.name for option in options if option.required],
    }
