"""The report on a plugin, as printed by ``exengine backends check`` and shown in the documentation.

This module determines the order of the checks and notes which checks were not run. Other components find the
faults: the registry in a separate process, :mod:`exengine.checks.documentation`,
:mod:`exengine.checks.distribution` and the conformance kit.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exengine.checks import distribution
from exengine.checks.conformance import Conformance, Results, run_kit
from exengine.checks.documentation import check_documentation, narrative_page
from exengine.checks.examples import ExampleRun, run_examples
from exengine.kernel.errors import PluginNotFoundError, describe
from exengine.kernel.registry import plugins
from exengine.kernel.registry.codes import Finding
from exengine.kernel.registry.names import SOURCES_GROUP
from exengine.kernel.registry.plugins import PluginRegistry
from exengine.kernel.registry.records import PluginRecord

_NO_WHEEL = "files of the wheel (EX405): the plugin was not installed from a wheel"
_CODE_OF_STAGE = {"metadata": "EX408", "name": "EX403", "target": "EX403"}
"""The codes of faults found before a plugin is imported, by stage. Any later fault has the code EX101."""


@dataclass(frozen=True)
class PluginReport:
    """Everything known about one plugin.

    Attributes
    ----------
    record : PluginRecord
        Record of the plugin, including its outcome.
    findings : tuple of Finding
        All faults, in the order of their codes.
    not_run : tuple of str
        The checks that were not run, each with the reason.
    page : str
        The text of the narrative page in the plugin's package; empty if the package has no such page.
    example : ExampleRun or None
        The result of running the example, or None if the example was not run.
    results : Results or None
        The results of the conformance kit, or None if no results are available.
    """

    record: PluginRecord
    findings: tuple[Finding, ...] = ()
    not_run: tuple[str, ...] = ()
    page: str = ""
    example: ExampleRun | None = None
    results: Results | None = None

    @property
    def broken_promises(self) -> dict[str, str]:
        """Maps the label of each broken promise to its failures, as found by the conformance kit."""
        return self.results.broken_promises if self.results else {}

    @property
    def clean(self) -> bool:
        """Whether no fault was found, even if some checks were not run."""
        return not self.findings and not self.broken_promises

    def place_of(self, finding: Finding) -> tuple[str, int]:
        """Return the file and line of a finding; ``("", 0)`` if they are unknown."""
        return ("", 0) if finding.code >= "EX4" else self.record.source

    def to_dict(self) -> dict[str, Any]:
        """Return the report in a form that can be written as JSON."""
        return {
            **self.record.to_dict(),
            "findings": [
                {**finding.to_dict(), "file": self.place_of(finding)[0], "line": self.place_of(finding)[1]}
                for finding in self.findings
            ],
            "not_run": list(self.not_run),
            "conformance": self.results.to_dict() if self.results else {},
        }

    def _with(self, findings: Sequence[Finding] = (), not_run: Sequence[str] = ()) -> "PluginReport":
        """Return a copy with more findings, sorted by code, and more checks that were not run."""
        unique = dict.fromkeys((*self.findings, *findings))
        return replace(
            self,
            findings=tuple(sorted(unique, key=lambda finding: finding.code)),
            not_run=(*self.not_run, *not_run),
        )


# -- making reports ------------------------------------------------------------------------------


def make_reports(
    records: Sequence[PluginRecord],
    registry: PluginRegistry,
    conformance: Callable[[PluginRecord], Conformance] = run_kit,
) -> list[PluginReport]:
    """Check each plugin's contract in its own process, then perform the remaining checks.

    Documentation and conformance are checked only for valid plugins.

    Parameters
    ----------
    records : sequence of PluginRecord
        Records from the registry. Afterwards, each record has an outcome.
    registry : PluginRegistry
        The registry from which the records were obtained.
    conformance : callable
        A function that returns the results of the conformance kit for a record, either by running the kit
        or by reading saved results.

    Returns
    -------
    list of PluginReport
        The reports, in the order of the records.
    """
    return [_with_packaging(report) for report in _reports(records, registry, conformance)]


def _reports(
    records: Sequence[PluginRecord],
    registry: PluginRegistry,
    conformance: Callable[[PluginRecord], Conformance] = run_kit,
) -> list[PluginReport]:
    """Return reports on plugins, without checking their packaging."""
    registry.examine(records)
    runs = run_examples(records)
    return [_report(record, runs.get(record), conformance) for record in records]


def _report(
    record: PluginRecord, run: ExampleRun | None, conformance: Callable[[PluginRecord], Conformance]
) -> PluginReport:
    report = PluginReport(record, example=run)._with(list(_contract(record)))
    if record.loaded is None:
        return report._with(not_run=["documentation and conformance: the class cannot be used"])
    report = replace(report, page=narrative_page(record))
    try:
        report = report._with(list(check_documentation(record, report.page, run)))
    except Exception as error:  # objects from the plugin can raise any exception
        report = report._with([Finding("EX101", f"inspecting the class raised {describe(error)}")])
    results, not_run = conformance(record)
    report = replace(report, results=results)._with(not_run=[f"conformance: {not_run}"] if not_run else [])
    if results and results.version in ("", record.version):
        report = report._with(results.findings)
    return report


def _contract(record: PluginRecord) -> Iterator[Finding]:
    yield from record.findings
    if record.state == "broken":
        yield Finding(_CODE_OF_STAGE.get(record.stage, "EX101"), record.error)


def _with_packaging(report: PluginReport) -> PluginReport:
    record = report.record
    if record.stage == "metadata" or record.state == "conflict":
        return report
    try:
        facts = distribution.of_installed(record)
    except ValueError as error:
        return report._with([Finding("EX408", str(error))])
    not_run = []
    if facts.files is None:
        not_run = [_NO_WHEEL]
    return report._with(distribution.check_packaging(facts), not_run)


# -- for `exengine backends check` -----------------------------------------------------------------


def check_name(name: str, registry: PluginRegistry | None = None, *, thorough: bool = False) -> PluginReport:
    """Check an installed backend by name.

    Parameters
    ----------
    name : str
        Name of the backend. If several distributions register the name, use ``distribution:name``.
    registry : PluginRegistry, optional
        The registry to search; by default the registry of installed backends.
    thorough : bool
        Whether the conformance kit searches longer.

    Raises
    ------
    PluginNotFoundError, PluginConflictError
        Under the same conditions as in :meth:`exengine.kernel.registry.plugins.PluginRegistry.find`.
    """
    registry = plugins.BACKENDS if registry is None else registry
    kit = functools.partial(run_kit, thorough=True) if thorough else run_kit
    return make_reports([registry.find(name)], registry, kit)[0]


def check_folder(folder: Path, *, thorough: bool = False) -> list[PluginReport]:
    """Check every plugin that is registered in a folder's ``pyproject.toml``.

    The plugin classes are checked only if the distribution is installed. The packaging checks use the folder.

    Parameters
    ----------
    folder : Path
        Folder of the project.
    thorough : bool
        Whether the conformance kit searches longer.

    Raises
    ------
    PluginNotFoundError
        If the folder is not a project, or if its project registers no plugin.
    """
    try:
        facts = distribution.of_project(folder)
    except ValueError as error:
        raise PluginNotFoundError(str(error)) from None
    if not facts.entries:
        raise PluginNotFoundError(
            f"{folder} registers no plugin; [project.entry-points] in pyproject.toml has no ExEngine group"
        )
    return [_check_entry(entry, facts, thorough) for entry in facts.entries]


def _check_entry(entry: PluginRecord, facts: distribution.Packaging, thorough: bool) -> PluginReport:
    registry = plugins.SOURCES if entry.group == SOURCES_GROUP else plugins.BACKENDS
    files: set[str] | None = None
    try:
        installed = registry.find(f"{facts.name}:{entry.name}")
    except PluginNotFoundError:
        how = f"{facts.name} is not installed in this environment; run pip install {facts.folder}"
        report = PluginReport(entry, not_run=(f"contract, documentation and conformance: {how}",))
    else:
        kit = functools.partial(run_kit, thorough=True) if thorough else run_kit
        (report,) = _reports([installed], registry, kit)
        files = _installed_files(installed)
    not_run = []
    if files is None:
        not_run = [_NO_WHEEL]
    one = replace(facts, entries=[entry], files=files)
    return report._with(distribution.check_packaging(one), not_run)


def _installed_files(record: PluginRecord) -> set[str] | None:
    try:
        return distribution.of_installed(record).files
    except ValueError:
        return None
