"""The page of a plugin that cannot be used: what is wrong with it, and how to mend it."""

from exengine.kernel.registry.codes import FAULTS
from exengine.kernel.registry.records import PluginRecord
from exengine.sphinxext.kinds import Kind
from exengine.sphinxext.rst import escape, heading, line, literal, literal_block, table

_MEND = {
    "metadata": "Install the distribution again; its metadata cannot be read.",
    "name": "Give the entry point another name in the plugin's ``pyproject.toml``.",
    "target": "Write the entry point as ``module:Class`` in the plugin's ``pyproject.toml``.",
    "import": "Import the module in Python to see the traceback; often a library that it needs is missing.",
    "attribute": "The module has no such class: correct the entry point, or the name of the class.",
    "contract": "Mend each point in the class; the page appears with the next build.",
}


def error_page(record: PluginRecord, kind: Kind) -> str:
    """Return the page of a plugin that cannot be used: what is wrong, and how to mend it."""
    if record.state == "conflict":
        return _conflict_page(record, kind)
    faults = findings_table(record)
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
        faults or literal_block(record.error),
        heading("How to mend it", "="),
        _MEND.get(record.stage, "See the message above.") + "\n",
    ]
    if record.target:
        parts.append(literal_block(f"exengine {kind.folder} show {line(record.name)} --debug", "console"))
    return "\n".join(part for part in parts if part.strip())


def findings_table(record: PluginRecord) -> str:
    """Return the table of a plugin's findings; empty where there are none."""
    rows = [
        (f":exengine-code:`{finding.code}`", escape(FAULTS.get(finding.code, "")), escape(finding.message))
        for finding in record.findings
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
        f".. error::\n\n   Two distributions register this {kind.name}; neither is chosen silently.\n",
        table(("Distribution", "Entry point", "State"), rows, "exengine-conflict", "34 44 22"),
        heading("How to mend it", "="),
        "Uninstall one of them, or write in the config which one is meant:\n",
        literal_block(names),
    ]
    return "\n".join(parts)
