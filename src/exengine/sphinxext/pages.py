"""From a plugin's record to its page, as reStructuredText.

Everything on a page comes from the record, the signature and the docstring of the class, the page that
the plugin brings along, what its example printed, and what the conformance kit found. Nothing here
writes files or knows of Sphinx events.
"""

import importlib.resources
import json
from collections.abc import Callable, Iterator

from exengine.config import settings
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.registry import annotations, docstrings, hooks, options
from exengine.kernel.registry.records import PluginRecord
from exengine.sphinxext.capabilities import capabilities_table
from exengine.sphinxext.error_pages import error_page, findings_table
from exengine.sphinxext.example_section import example_section
from exengine.sphinxext.kinds import KERNEL, Kind, Setup, normalized
from exengine.sphinxext.promises import promises_section
from exengine.sphinxext.rst import escape, heading, line, literal, literal_block, safe_block, safe_line, table


def plugin_page(record: PluginRecord, kind: Kind, setup: Setup) -> str:
    """Return the page of a plugin, whatever its state."""
    if record.loaded is None or record.state != "valid":
        return error_page(record, kind)
    cls, own = record.loaded, setup.owns(record)
    doc = docstrings.documentation_of(cls)
    parts = [
        heading(escape(record.name), "#"),
        safe_line(doc.summary, trusted=own) + "\n",
        _badges(record, setup),
        safe_block(doc.description, trusted=own),
        heading("Install", "="),
        _install(record, setup),
        heading("Use it in a config", "="),
        literal_block(config_snippet(record.name, cls, kind), "yaml"),
        heading("Options", "="),
        options_table(cls, kind, own),
    ]
    if issubclass(cls, DataStorage):
        results = setup.results.get(record.qualified_name)
        parts += [heading("Capabilities", "="), capabilities_table(cls.capabilities)]
        parts += [heading("Promises", "="), promises_section(record, results)]
    if doc.examples:
        run = setup.examples.get(record.qualified_name)
        parts += [heading("Example", "="), example_section(record, doc.examples, run, trusted=own)]
    if doc.notes:
        parts += [heading("Notes", "="), safe_block(doc.notes, trusted=own)]
    guide = guide_text(record)
    if guide:
        parts += [heading("Guide", "="), safe_block(guide, trusted=own, sections=True)]
    parts += _extra_sections(record, cls, setup)
    if record.findings:
        parts += [heading("What the check found", "="), findings_table(record)]
    parts += [heading("API reference", "="), _autoclass(record, cls, setup)]
    return "\n".join(part for part in parts if part.strip())


def _badges(record: PluginRecord, setup: Setup) -> str:
    findings = ", ".join(finding.code for finding in record.findings)
    state = f"valid, with findings: {findings}" if findings else "valid"
    results = setup.results.get(record.qualified_name)
    kept = f":Promises: {results.kept} of {results.tested} kept\n" if results else ""
    return (
        f":Provided by: {escape(record.distribution)} {escape(record.version)}\n"
        f":State: {state}\n"
        f"{kept}"
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


def _extra_sections(record: PluginRecord, cls: type, setup: Setup) -> Iterator[str]:
    """Yield what the installed hooks add to the page, and what went wrong when they were asked."""
    sections, problems = hooks.hooks.docs_sections(record.name, cls)
    for section in sections:
        yield heading(escape(section.title) or "More", "=")
        yield safe_block(section.text, trusted=setup.owns(section.record), sections=True)
    for problem in problems:
        yield f".. note::\n\n   Something is missing here: {escape(problem)}\n"


def _autoclass(record: PluginRecord, cls: type, setup: Setup) -> str:
    hooks = ", ".join(_hooks(cls))
    lines = [f".. autoclass:: {record.target.replace(':', '.')}", "   :members:", "   :show-inheritance:"]
    if hooks:
        lines.append(f"   :exclude-members: {hooks}")
    distribution = normalized(record.distribution)
    if distribution not in setup.local and not (distribution == KERNEL and setup.owns(record)):
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
    name = f"{settings.ENVIRONMENT_PREFIX}{kind.section.upper()}__OPTIONS__{option.upper()}"
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

    documented = docstrings.documentation_of(cls).parameters
    annotated = options.annotations_of(cls)
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.name in names:
            doc = documented.get(parameter.name)
            kind = annotated.get(parameter.name, parameter.empty)
            shown = doc.type_text if kind is parameter.empty and doc else annotations.describe_type(kind)
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
