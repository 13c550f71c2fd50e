"""Renders the report on a plugin as a page in reStructuredText.

The content of a page comes from the report, the signature and docstring of the class, the settings of the
documentation project, and installed hooks. This module writes no files and handles no Sphinx events.
"""

import inspect
from collections.abc import Iterator

from exengine.checks.describe import config_snippet, text_of
from exengine.checks.report import PluginReport
from exengine.config import settings
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.frame_source_base import FrameSource
from exengine.kernel.registry import annotations, docstrings, hooks, options
from exengine.kernel.registry.names import fold
from exengine.kernel.registry.records import PluginRecord
from exengine.sphinxext.capabilities import capabilities_table
from exengine.sphinxext.error_pages import error_page, findings_table
from exengine.sphinxext.example_section import example_section
from exengine.sphinxext.kinds import KERNEL, Kind, Setup
from exengine.sphinxext.promises import promises_section
from exengine.sphinxext.rst import escape, heading, line, literal, literal_block, safe_block, safe_line, table


def plugin_page(report: PluginReport, kind: Kind, setup: Setup) -> str:
    """Return the page for a plugin, whatever its state."""
    record = report.record
    if record.loaded is None:
        return error_page(report, kind)
    cls, own = record.loaded, setup.owns(record)
    doc = docstrings.documentation_of(cls)
    parts = [
        heading(escape(record.name), "#"),
        safe_line(doc.summary, trusted=own) + "\n",
        _badges(report),
        safe_block(doc.description, trusted=own),
        heading("Install", "="),
        _install(record, setup),
        heading("Use it in a config", "="),
        literal_block(config_snippet(record.name, cls, record.group), "yaml"),
        heading("Options", "="),
        options_table(cls, kind, own),
    ]
    if issubclass(cls, DataStorage):
        parts += [heading("Capabilities", "="), capabilities_table(cls)]
        parts += [heading("Promises", "="), promises_section(report)]
    elif issubclass(cls, FrameSource):
        parts += [heading("Promises", "="), promises_section(report, "source")]
    if doc.examples:
        parts += [heading("Example", "="), example_section(report, doc.examples, trusted=own)]
    if doc.notes:
        parts += [heading("Notes", "="), safe_block(doc.notes, trusted=own)]
    if report.page:
        parts += [heading("Guide", "="), safe_block(report.page, trusted=own, sections=True)]
    parts += _extra_sections(record, cls, setup)
    if report.findings:
        parts += [heading("Faults", "="), findings_table(report.findings)]
    parts += [heading("API reference", "="), _autoclass(record, cls, setup)]
    return "\n".join(part for part in parts if part.strip())


def _badges(report: PluginReport) -> str:
    record, results = report.record, report.results
    findings = ", ".join(finding.code for finding in report.findings)
    state = f"valid, with findings: {findings}" if findings else "valid"
    kept = f":Promises: {results.kept} of {results.tested} kept\n" if results else ""
    return (
        f":Provided by: {escape(record.distribution)} {escape(record.version)}\n"
        f":State: {state}\n"
        f"{kept}"
        f":Entry point: {literal(record.target)}\n"
    )


def _install(record: PluginRecord, setup: Setup) -> str:
    if fold(record.distribution) == KERNEL:
        return "This plugin is part of ExEngine; no further installation is needed.\n"
    folder = setup.local.get(fold(record.distribution))
    if folder is None:
        return literal_block(f"pip install {line(record.distribution)}", "console")
    return "In a clone of the ExEngine repository:\n\n" + literal_block(f"pip install {folder}", "console")


def _extra_sections(record: PluginRecord, cls: type, setup: Setup) -> Iterator[str]:
    """Yield the sections that installed hooks add to the page, followed by notes on faults in those hooks."""
    sections, problems = hooks.hooks.docs_sections(record.name, cls)
    for section in sections:
        yield heading(escape(section.title) or "More", "=")
        yield safe_block(section.text, trusted=setup.owns(section.record), sections=True)
    for problem in problems:
        yield f".. note::\n\n   A section is missing here: {escape(problem)}\n"


def _autoclass(record: PluginRecord, cls: type, setup: Setup) -> str:
    hooks = ", ".join(_hooks(cls))
    lines = [f".. autoclass:: {record.target.replace(':', '.')}", "   :members:", "   :show-inheritance:"]
    if hooks:
        lines.append(f"   :exclude-members: {hooks}")
    distribution = fold(record.distribution)
    if distribution not in setup.local and not (distribution == KERNEL and setup.owns(record)):
        lines.append("   :no-index:")  # the project may also document the class elsewhere
    return "\n".join(lines) + "\n"


def _hooks(cls: type) -> Iterator[str]:
    """Yield the names of the methods that only the kernel calls, and that users therefore do not need."""
    for name in vars(cls):
        homes = [base for base in cls.__mro__[1:] if name in vars(base)]
        kernel = [base for base in homes if base.__module__.startswith("exengine.kernel.")]
        if kernel and not name.startswith("_") and name not in dir(DataStorage):
            if kernel[-1].__module__ != "exengine.kernel.frame_source_base":
                yield name


# -- parts of a page -----------------------------------------------------------------------------


def environment_variable(kind: Kind, option: str) -> str:
    """Return the environment variable for an option, or an empty string if its name does not allow one."""
    name = f"{settings.ENVIRONMENT_PREFIX}{kind.section.upper()}__OPTIONS__{option.upper()}"
    return name if option == option.lower() and "__" not in option else ""


def options_table(cls: type, kind: Kind, own: bool) -> str:
    """Return a table of all parameters of ``__init__``."""
    rows = [*_place_rows(cls, own)]
    for option in options.options_of(cls):
        meaning = safe_line(option.text, trusted=own)
        if option.python_only:
            meaning += "\n\n*Only from Python, because a config cannot express the values.*"
        else:
            variable = environment_variable(kind, option.name)
            meaning += f"\n\n*Environment:* {literal(variable)}" if variable else ""
        default = "*required*" if option.required else literal(text_of(repr, option.default))
        rows.append((literal(option.name), escape(option.type_text or "any"), default, meaning))
    if not rows:
        return f"This {kind.name} has no options.\n"
    return table(("Option", "Type", "Default", "Meaning"), rows, "exengine-options", "18 20 16 46")


def _place_rows(cls: type, own: bool) -> Iterator[tuple[str, str, str, str]]:
    names = options.place_parameters(cls)
    if not names:
        return
    documented = docstrings.documentation_of(cls).parameters
    annotated = options.annotations_of(cls)
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.name in names:
            doc = documented.get(parameter.name)
            kind = annotated.get(parameter.name, parameter.empty)
            shown = doc.type_text if kind is parameter.empty and doc else annotations.describe_type(kind)
            required = parameter.default is parameter.empty
            default = "*required*" if required else literal(text_of(repr, parameter.default))
            text = safe_line(doc.text, trusted=own) if doc else "Path of the dataset."
            yield (
                literal(parameter.name),
                escape(shown),
                default,
                f"{text}\n\n*Only from Python; in a config, set* ``storage.path``.",
            )
