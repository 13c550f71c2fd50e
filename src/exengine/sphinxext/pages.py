"""From a plugin's record to its page, as reStructuredText.

Everything on a page comes from the record, the signature and the docstring of the class, and the
page that the plugin brings along. Nothing here writes files or knows of Sphinx events.
"""

import importlib.resources
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exengine.kernel import config, options
from exengine.kernel.contract import FAULTS
from exengine.kernel.data_storage_base import DataStorage, StorageCapabilities
from exengine.kernel.records import PluginRecord
from exengine.kernel.registry import BACKENDS_GROUP, SOURCES_GROUP
from exengine.sphinxext.attribute_docs import attribute_docs
from exengine.sphinxext.rst import (
    escape,
    heading,
    indent,
    line,
    literal,
    literal_block,
    safe_block,
    safe_line,
    table,
)

MARK = ".. Made by exengine.sphinxext from an installed plugin; changes are overwritten.\n"
"""First line of every generated file."""

KERNEL = "exengine"
"""The distribution that needs no installing."""


@dataclass(frozen=True)
class Kind:
    """What differs between the pages of backends and those of frame sources."""

    group: str
    name: str
    plural: str
    folder: str
    """Of the pages; and the verb of the command line."""
    section: str
    """Of the config."""
    name_key: str
    """The key in that section that names the plugin."""


BACKENDS = Kind(BACKENDS_GROUP, "storage backend", "Storage backends", "backends", "storage", "backend")
SOURCES = Kind(SOURCES_GROUP, "frame source", "Frame sources", "sources", "source", "name")
KINDS = (BACKENDS, SOURCES)


@dataclass(frozen=True)
class Setup:
    """What the documentation project says of its plugins.

    Attributes
    ----------
    local : mapping of str to str
        Distribution -> folder to install it from, in a clone.
    own : frozenset of str
        Normalized distributions whose text the project owns, so that faults in it are shown as such.
    """

    local: Mapping[str, str] = field(default_factory=dict)
    own: frozenset[str] = frozenset()

    def owns(self, record: PluginRecord) -> bool:
        """Return whether the text of a plugin is the project's own."""
        return normalized(record.distribution) in self.own


def normalized(distribution: str) -> str:
    """Return the name of a distribution in the form in which names are compared."""
    return distribution.lower().replace("_", "-").replace(".", "-")


# -- one plugin ----------------------------------------------------------------------------------


def plugin_page(record: PluginRecord, kind: Kind, setup: Setup) -> str:
    """Return the page of a plugin, whatever its state."""
    if record.loaded is None or record.state != "valid":
        return error_page(record, kind, setup)
    cls, own = record.loaded, setup.owns(record)
    doc = options.documentation_of(cls)
    parts = [
        heading(escape(record.name), "#"),
        safe_line(doc.summary, trusted=own) + "\n",
        _badges(record),
        safe_block(doc.description, trusted=own),
        heading("Install", "="),
        _install(record, setup),
        heading("Use it in a config", "="),
        literal_block(config_snippet(record.name, cls, kind), "yaml"),
        heading("Options", "="),
        options_table(cls, kind, own),
    ]
    if issubclass(cls, DataStorage):
        parts += [heading("Capabilities", "="), capabilities_table(cls.capabilities)]
    if doc.examples:
        parts += [heading("Example", "="), safe_block(doc.examples, trusted=own)]
    if doc.notes:
        parts += [heading("Notes", "="), safe_block(doc.notes, trusted=own)]
    guide = guide_text(record)
    if guide:
        parts += [heading("Guide", "="), safe_block(guide, trusted=own, sections=True)]
    parts += [heading("API reference", "="), _autoclass(record, cls, setup)]
    return "\n".join(part for part in parts if part.strip())


def _badges(record: PluginRecord) -> str:
    findings = ", ".join(finding.code for finding in record.findings)
    state = f"valid, with findings: {findings}" if findings else "valid"
    return (
        f":Provided by: {escape(record.distribution)} {escape(record.version)}\n"
        f":State: {state}\n"
        f":Entry point: {literal(record.target)}\n"
    )


def _install(record: PluginRecord, setup: Setup) -> str:
    if normalized(record.distribution) == KERNEL:
        return "It is part of ExEngine; there is nothing more to install.\n"
    folder = setup.local.get(normalized(record.distribution))
    if folder is None:
        return literal_block(f"pip install {line(record.distribution)}", "console")
    return "In a clone of the ExEngine repository:\n\n" + literal_block(f"pip install {folder}", "console")


def guide_text(record: PluginRecord) -> str:
    """Return the page that a plugin brings along: ``docs/<name>.rst`` in its top-level package."""
    package = record.target.partition(":")[0].partition(".")[0]
    for name in dict.fromkeys((record.name, record.name.replace("-", "_"), record.name.replace("_", "-"))):
        try:
            page = importlib.resources.files(package) / "docs" / f"{name}.rst"
            if page.is_file():
                return page.read_bytes().decode("utf-8", "replace")
        except (OSError, ImportError, TypeError, ValueError):
            continue
    return ""


def _autoclass(record: PluginRecord, cls: type, setup: Setup) -> str:
    hooks = ", ".join(_hooks(cls))
    lines = [f".. autoclass:: {record.target.replace(':', '.')}", "   :members:", "   :show-inheritance:"]
    if hooks:
        lines.append(f"   :exclude-members: {hooks}")
    if normalized(record.distribution) not in setup.local:
        lines.append("   :no-index:")  # the project may describe the class elsewhere, too
    return "\n".join(lines) + "\n"


def _hooks(cls: type) -> Iterator[str]:
    """Yield the methods that only the kernel calls: no part of what a user sees of a storage."""
    for name in vars(cls):
        homes = [base for base in cls.__mro__[1:] if name in vars(base)]
        ours = [base for base in homes if base.__module__.startswith("exengine.kernel.")]
        if ours and not name.startswith("_") and name not in dir(DataStorage):
            if ours[-1].__module__ != "exengine.kernel.frame_source_base":
                yield name


# -- the parts of a page -------------------------------------------------------------------------


def config_snippet(name: str, cls: type, kind: Kind) -> str:
    """Return YAML to paste into a config file.

    What must be given is there with its type; what has a default stands behind ``#``.
    """
    lines = [f"{kind.section}:", f"  {kind.name_key}: {name}"]
    capabilities = getattr(cls, "capabilities", None)
    if getattr(capabilities, "persistent", False):
        suffixes = getattr(capabilities, "path_suffixes", ())
        lines.append(f"  path: data/example{suffixes[0] if suffixes else ''}")
    settable = [option for option in options.options_of(cls) if not option.python_only]
    if settable:
        lines.append("  options:")
    for option in settable:
        if option.required:
            lines.append(f"    {option.name}:   # required: {line(option.type_text)}")
        else:
            lines.append(f"    # {option.name}: {_yaml_default(option)}")
    return "\n".join(lines)


def _yaml_default(option: options.Option) -> str:
    try:
        return json.dumps(option.default, ensure_ascii=False)  # JSON is YAML
    except (TypeError, ValueError):
        shown = getattr(option.default, "value", option.default)  # of an enumeration
        return json.dumps(_text_of(str, shown), ensure_ascii=False)


def environment_variable(kind: Kind, option: str) -> str:
    """Return the variable that sets an option; empty where its name cannot be written as one."""
    name = f"{config.ENVIRONMENT_PREFIX}{kind.section.upper()}__OPTIONS__{option.upper()}"
    return name if option == option.lower() and "__" not in option else ""


def options_table(cls: type, kind: Kind, own: bool) -> str:
    """Return the table of every parameter of ``__init__``."""
    rows = [*_place_rows(cls, own)]
    for option in options.options_of(cls):
        meaning = safe_line(option.text, trusted=own)
        if option.python_only:
            meaning += "\n\n*From Python only: a config cannot express its values.*"
        else:
            variable = environment_variable(kind, option.name)
            meaning += f"\n\n*Environment:* {literal(variable)}" if variable else ""
        default = "*required*" if option.required else literal(_text_of(repr, option.default))
        rows.append((literal(option.name), escape(option.type_text or "any"), default, meaning))
    if not rows:
        return f"This {kind.name} has no options.\n"
    return table(("Option", "Type", "Default", "Meaning"), rows, "exengine-options", "18 20 16 46")


def _place_rows(cls: type, own: bool) -> Iterator[tuple[str, str, str, str]]:
    names = options.place_parameters(cls)
    if not names:
        return
    import inspect

    documented = options.documentation_of(cls).parameters
    annotations = options.annotations_of(cls)
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.name in names:
            doc = documented.get(parameter.name)
            kind = annotations.get(parameter.name, parameter.empty)
            shown = doc.type_text if kind is parameter.empty and doc else options.describe_type(kind)
            required = parameter.default is parameter.empty
            default = "*required*" if required else literal(_text_of(repr, parameter.default))
            text = safe_line(doc.text, trusted=own) if doc else "Where the dataset lies."
            yield (
                literal(parameter.name),
                escape(shown),
                default,
                f"{text}\n\n*From Python only: in a config the place is* ``storage.path``.",
            )


def _text_of(how: Callable[[object], str], value: object) -> str:
    try:
        return how(value)
    except Exception:  # of a plugin's own object
        return f"a {type(value).__name__}"


def capabilities_table(capabilities: StorageCapabilities) -> str:
    """Return the table of capabilities, each with its meaning."""
    meanings = attribute_docs(StorageCapabilities)
    rows = [
        (f"``{name}``", capability_text(value), meanings.get(name, ""))
        for name, value in capabilities.items()
    ]
    return table(("Capability", "Value", "Meaning"), rows, "exengine-capabilities", "24 22 54")


def capability_text(value: object) -> str:
    """Return the value of a capability for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "any"
    if isinstance(value, tuple | list):
        return escape(", ".join(map(str, value))) if value else "none"
    return escape(value)


# -- what went wrong -----------------------------------------------------------------------------

_MEND = {
    "metadata": "Install the distribution again; its metadata cannot be read.",
    "name": "Give the entry point another name in the plugin's ``pyproject.toml``.",
    "target": "Write the entry point as ``module:Class`` in the plugin's ``pyproject.toml``.",
    "import": "Import the module in Python to see the traceback; often a library that it needs is missing.",
    "attribute": "The module has no such class: correct the entry point, or the name of the class.",
    "contract": "Mend each point in the class; the page appears with the next build.",
}


def error_page(record: PluginRecord, kind: Kind, setup: Setup) -> str:
    """Return the page of a plugin that cannot be used: what is wrong, and how to mend it."""
    if record.state == "conflict":
        return _conflict_page(record, kind)
    rows = [
        (f":exengine-code:`{finding.code}`", escape(FAULTS.get(finding.code, "")), escape(finding.message))
        for finding in record.findings
    ]
    where = f"while looking at: {record.stage}" if record.stage else "when it was loaded"
    who = f"{escape(record.distribution)} {escape(record.version)}".strip() or "a distribution without a name"
    target = f":Entry point: {literal(record.target)}\n" if record.target else ""
    what = f"This {kind.name} is installed, but **{escape(record.state)}** ({escape(where)})."
    then = "It cannot be used until it is mended; the others are not affected."
    parts = [
        heading(escape(record.name or record.distribution), "#"),
        f".. error::\n\n   {what} {then}\n",
        f":Provided by: {who}\n{target}",
        heading("What is wrong", "="),
        table(("Code", "Fault", "Found"), rows, "exengine-faults", "14 36 50") if rows else "",
        literal_block(record.error) if not rows else "",
        heading("How to mend it", "="),
        _MEND.get(record.stage, "See the message above.") + "\n",
    ]
    if record.target:
        parts.append(literal_block(f"exengine {kind.folder} show {line(record.name)} --debug", "console"))
    return "\n".join(part for part in parts if part.strip())


def _conflict_page(record: PluginRecord, kind: Kind) -> str:
    rows = [
        (f"{escape(claim.distribution)} {escape(claim.version)}", literal(claim.target), escape(claim.state))
        for claim in record.candidates
    ]
    names = "\n".join(line(claim.qualified_name) for claim in record.candidates)
    parts = [
        heading(escape(record.name), "#"),
        f".. error::\n\n   Two distributions register this {kind.name}; neither is chosen silently.\n",
        table(("Distribution", "Entry point", "State"), rows, "exengine-conflict", "34 44 22"),
        heading("How to mend it", "="),
        "Uninstall one of them, or write in the config which one is meant:\n",
        literal_block(names),
    ]
    return "\n".join(parts)


# -- the index -----------------------------------------------------------------------------------


def index_page(pages: Mapping[str, PluginRecord], kind: Kind, setup: Setup) -> str:
    """Return the page that lists all plugins of a kind.

    Parameters
    ----------
    pages : mapping of str to PluginRecord
        File name without its ending -> the record shown there.
    """
    rows = [
        (f":doc:`{_title(record)} <{page}>`", _what(record, setup), _from(record), _state(record))
        for page, record in pages.items()
    ]
    toctree = ".. toctree::\n   :hidden:\n\n" + indent("\n".join(pages)) + "\n" if pages else ""
    parts = [
        f".. _exengine-{kind.folder}:\n",
        heading(kind.plural, "#"),
        f"Every {kind.name} that was installed when this documentation was built.\n",
        toctree,
        table(("Name", "What it is for", "Provided by", "State"), rows, "exengine-index", "18 44 24 14")
        if rows
        else "None was installed.\n",
        _matrix(pages) if kind is BACKENDS else "",
    ]
    return ":orphan:\n\n" + "\n".join(part for part in parts if part.strip())


def _title(record: PluginRecord) -> str:
    """Return the name of a plugin as the title of a reference."""
    return escape(record.name or record.distribution or "unnamed")


def _what(record: PluginRecord, setup: Setup) -> str:
    if record.loaded is not None:
        return safe_line(options.documentation_of(record.loaded).summary, trusted=setup.owns(record))
    return escape(record.summary)


def _from(record: PluginRecord) -> str:
    claims = record.candidates or (record,)
    return ", ".join(f"{escape(claim.distribution)} {escape(claim.version)}".strip() for claim in claims)


def _state(record: PluginRecord) -> str:
    return "valid" if record.state == "valid" else f"**{escape(record.state)}**"


def _matrix(pages: Mapping[str, PluginRecord]) -> str:
    header = ["Capability"]
    columns: list[dict[str, Any]] = []
    for page, record in pages.items():
        if record.loaded is not None and issubclass(record.loaded, DataStorage):
            header.append(f":doc:`{_title(record)} <{page}>`")
            columns.append(dict(record.loaded.capabilities.items()))
    if not columns:
        return ""
    meanings = attribute_docs(StorageCapabilities)
    names = [name for name, _ in StorageCapabilities().items()]
    rows = [
        (f"``{name}``\n\n{meanings.get(name, '')}", *(_mark(column[name]) for column in columns))
        for name in names
    ]
    return heading("What each can do", "=") + "\n" + table(header, rows, "exengine-matrix")


def _mark(value: object) -> str:
    if value is True:
        return "\N{CHECK MARK} yes"
    return "\N{EN DASH}" if value is False or value == () else capability_text(value)
