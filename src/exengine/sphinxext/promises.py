"""Renders conformance results, as a section on the plugin's page and as marks in the matrix."""

from exengine.checks.conformance import Promise, Results
from exengine.checks.report import PluginReport
from exengine.sphinxext.rst import escape, line, literal, literal_block, table
from exengine.testing.promises import PROMISES, SOURCE_PROMISES

MARKS = {
    "kept": "\N{CHECK MARK} kept",
    "broken": "**\N{BALLOT X} broken**",
    "not promised": "not promised",
    "not run": "not run",
}
"""The text that tables show for each outcome."""


def promises_section(report: PluginReport, kind: str = "backend") -> str:
    """Return a plugin's promises with their outcomes, or the command that tests the promises.

    Parameters
    ----------
    report : PluginReport
        The report on the plugin.
    kind : {'backend', 'source'}
        The kind of the plugin.
    """
    record, results = report.record, report.results
    if results is None:
        name = line(record.name)
        command = f"pytest --exengine-{kind} {name} --exengine-results {name}.json"
        return (
            f"Not run; this documentation has no results of the conformance kit for this {kind}. To run the "
            "kit:\n\n" + literal_block(command, "console")
        )
    where = f"{escape(record.distribution)} {escape(results.version)} and ExEngine {escape(results.kernel)}"
    campaigns = any(promise.campaigns for promise in results.promises.values())
    tests = "The conformance kit and fault campaigns" if campaigns else "The conformance kit"
    parts = [f"{tests} confirmed {results.kept} of {results.tested} promises. Tested: {where}.\n"]
    if results.shipped:
        authors = f"The authors of {escape(record.distribution)} measured these results"
        parts.append(f"{authors} and included them in the package.\n")
    if results.version != record.version:
        versions = f"version {escape(results.version)}, but version {escape(record.version)} is installed"
        parts.append(f".. note::\n\n   These results are from {versions}.\n")
    rows = [
        (promise_name(label), MARKS[promise.outcome], _found(promise))
        for label, promise in results.promises.items()
    ]
    parts.append(table(("Promise", "Outcome", "Found"), rows, "exengine-promises", "46 18 36"))
    parts += [_variant(name, found, results) for name, found in results.variants.items()]
    return "\n".join(parts)


def _variant(name: str, found: Results, default: Results) -> str:
    """Return those outcomes for a variant that differ from the outcomes with the default options."""
    differing = [
        f"{literal(label)} {MARKS[promise.outcome]}"
        for label, promise in found.promises.items()
        if label not in default.promises or default.promises[label].outcome != promise.outcome
    ]
    outcome = ", ".join(differing) if differing else "the same outcomes"
    return f"With the options of the variant {literal(name)}: {outcome}.\n"


def _found(promise: Promise) -> str:
    count = f"{promise.tests} test{'' if promise.tests == 1 else 's'}"
    if promise.failed:
        count = f"{promise.failed} of {count} failed"
    shown = escape(" / ".join(promise.because)) if promise.because and promise.outcome != "kept" else ""
    campaigns = [f"Fault campaign: {escape(text)}." for text in promise.campaigns]
    parts = (count if promise.tests else "", shown, *campaigns)
    return "\n\n".join(part for part in parts if part) or "\N{EN DASH}"


def promise_name(label: str) -> str:
    """Return the label and meaning of a promise."""
    meaning = {**PROMISES, **SOURCE_PROMISES}.get(label, "").replace("`", "``")
    return f"{literal(label)}\n\n{meaning}" if meaning else literal(label)


def promise_mark(results: Results | None, label: str) -> str:
    """Return the mark for one promise; ``not run`` if there are no results for it."""
    promise = results.promises.get(label) if results else None
    return MARKS[promise.outcome if promise else "not run"]
