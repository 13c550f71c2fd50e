"""Renders pages for plugins that cannot be used. The pages describe the faults and how to fix them."""

from collections.abc import Iterable

from exengine.checks.report import PluginReport
from exengine.kernel.registry.codes import FAULTS, Finding
from exengine.kernel.registry.records import PluginRecord
from exengine.sphinxext.kinds import Kind
from exengine.sphinxext.rst import escape, heading, line, literal, literal_block, table

_FIX = {
    "metadata": "Install the distribution again, because its metadata cannot be read.",
    "name": "Give the entry point another name in the plugin's ``pyproject.toml``.",
    "target": "Write the entry point as ``module:Class`` in the plugin's ``pyproject.toml``.",
    "import": "Import the module in Python to see the traceback; often a library is missing.",
    "attribute": "The module does not define this class; correct the entry point or the name of the class.",
    "contract": "Fix each fault in the class; the page appears with the next build.",
}


def error_page(report: PluginReport, kind: Kind) -> str:
    """Return the page for a plugin that cannot be used."""
    record = report.record
    if record.state == "conflict":
        return _conflict_page(record, kind)
    faults = findings_table(report.findings)
    where = f"failed at the stage: {record.stage}" if record.stage else "failed to load"
    provider = (
        f"{escape(record.distribution)} {escape(record.version)}".strip() or "a distribution without a name"
    )
    target = f":Entry point: {literal(record.target)}\n" if record.target else ""
    what = f"This {kind.name} is installed, but **{escape(record.state)}** ({escape(where)})."
    then = "The plugin cannot be used until it is fixed; other plugins are not affected."
    parts = [
        heading(escape(record.name or record.distribution), "#"),
        f".. error::\n\n   {what} {then}\n",
        f":Provided by: {provider}\n{target}",
        heading("Faults", "="),
        faults or literal_block(record.error),
        heading("How to fix it", "="),
        _FIX.get(record.stage, "See the message above.") + "\n",
    ]
    if record.target:
        parts.append(literal_block(f"exengine {kind.folder} show {line(record.name)} --debug", "console"))
    return "\n".join(part for part in parts if part.strip())


def findings_table(findings: Iterable[Finding]) -> str:
    """Return a table of the findings, or an empty string if the plugin has no findings."""
    rows = [
        (f":exengine-code:`{finding.code}`", escape(FAULTS.get(finding.code, "")), escape(finding.message))
        for finding in findings
    ]
    return table(("Code", "Fault", "Found"), rows, "exengine-faults", "14 36 50") if rows else ""


def _conflict_page(record: PluginRecord, kind: Kind) -> str:
    rows = [
        (f"{escape(claim.distribution)} {escape(claim.version)}", literal(claim.target), escape(claim.state))
        for claim in record.candidates
    ]
    names = "\n".join(line(claim.qualified_name) for claim in record.candidates)
    parts = [
        heading(escape(record.name), "#"),
        f".. error::\n\n   Several distributions register this {kind.name}; ExEngine does not choose one.\n",
        table(("Distribution", "Entry point", "State"), rows, "exengine-conflict", "34 44 22"),
        heading("How to fix it", "="),
        "Uninstall all but one of them, or specify the distribution in the config:\n",
        literal_block(names),
    ]
    return "\n".join(parts)
