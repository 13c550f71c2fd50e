"""``exengine backends list / show`` and ``exengine sources list / show``."""

import argparse

from exengine.cli.output import print_json, print_table
from exengine.kernel.registry import plugins
from exengine.kernel.registry.names import INSTALL_ALL
from exengine.kernel.registry.plugins import PluginRegistry
from exengine.kernel.registry.records import PluginRecord
from exengine.kernel.registry.static_summary import summary_of


def run(options: argparse.Namespace) -> int:
    """List all plugins, or show a single plugin."""
    registry = plugins.BACKENDS if options.verb == "backends" else plugins.SOURCES
    return _list(registry, options) if options.what == "list" else _show(registry, options)


def _list(registry: PluginRegistry, options: argparse.Namespace) -> int:
    records = registry.records().values()
    if options.json:
        print_json(
            [
                {**record.to_dict(), "class_summary": summary_of(record), "state_text": record.state_text}
                for record in records
            ]
        )
    elif records:
        print_table(
            ("NAME", "PACKAGE", "STATE", "SUMMARY"),
            (
                (record.name, _package(record), record.state_text, record.error or shown_summary(record))
                for record in records
            ),
        )
    else:
        print(f"no {registry.kind} is installed; {INSTALL_ALL}")
    return 0


def shown_summary(record: PluginRecord) -> str:
    """Return the summary of a plugin's class, or of its distribution if the class cannot be read."""
    return summary_of(record) or record.summary


def _package(record: PluginRecord) -> str:
    return f"{record.distribution} {record.version}".strip() or "-"


def _show(registry: PluginRegistry, options: argparse.Namespace) -> int:
    import textwrap

    from exengine.checks.describe import capability_text, config_snippet
    from exengine.kernel.registry.docstrings import documentation_of
    from exengine.kernel.registry.options import options_of
    from exengine.kernel.registry.variants import variants_of

    cls = registry.load(options.name)
    record = registry.find(options.name)
    doc, known = documentation_of(cls), options_of(cls)
    capabilities = dict(cls.capabilities.items()) if hasattr(cls, "capabilities") else {}
    variants = variants_of(cls) if hasattr(cls, "variants") else []
    snippet = config_snippet(record.name, cls, record.group)
    if options.json:
        described = [
            {
                "name": option.name, "type": option.type_text, "required": option.required,
                "default": None if option.required else option.default, "text": option.text,
                "schema": option.json_schema, "python_only": option.python_only,
            }
            for option in known
        ]  # fmt: skip
        print_json(
            {**record.to_dict(), "summary": doc.summary, "description": doc.description, "options": described,
             "capabilities": capabilities,
             "variants": {
                 one.name: {"options": one.options, "capabilities": one.differences} for one in variants
             },
             "example": doc.examples, "config": snippet}
        )  # fmt: skip
        return 0
    print(f"{record.name}: {doc.summary}\n\n{_package(record)}, {record.target}")
    if doc.description:
        print(f"\n{textwrap.indent(doc.description, '  ')}")
    print("\nOptions" if known else "\nThis plugin has no options.")
    for option in known:
        note = ", in Python only" if option.python_only else ""
        print(f"  {option.name} : {option.type_text}; default {option.default_text}{note}")
        print(textwrap.fill(option.text, 96, initial_indent="      ", subsequent_indent="      "))
    if capabilities:
        print("\nCapabilities")
        for name, value in capabilities.items():
            print(f"  {name:20} {capability_text(value)}")
    for variant in variants:
        print(f"\nWith {variant.text}")
        for name, value in variant.differences.items():
            print(f"  {name:20} {capability_text(value)}")
    print(f"\nIn a config\n{textwrap.indent(snippet, '  ')}")
    if doc.examples:
        print(f"\nExample\n{textwrap.indent(doc.examples, '  ')}")
    return 0
