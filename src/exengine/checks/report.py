"""Checks a plugin as a whole: contract, documentation, conformance, packaging; each fault with a code.

Responsible for what is looked at, in which order, and for saying what was not. The faults themselves
are found elsewhere: by the registry in a process of its own, :mod:`exengine.checks.documentation`,
:mod:`exengine.checks.packaging` and the conformance kit.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exengine.checks import documentation, packaging
from exengine.kernel.errors import PluginError, PluginNotFoundError, describe
from exengine.kernel.registry import plugins
from exengine.kernel.registry.class_checks import Finding
from exengine.kernel.registry.plugins import SOURCES_GROUP, PluginRegistry
from exengine.kernel.registry.probing import probe_record
from exengine.kernel.registry.records import PluginRecord

_CODE_OF_STAGE = {"metadata": "EX408", "name": "EX403", "target": "EX403"}
"""What a record that is broken before it is imported stands for; after that it is EX101."""


@dataclass
class PluginReport:
    """What was found of one plugin.

    Attributes
    ----------
    record : PluginRecord
        With its state; in it, too, what the plugin printed and its traceback.
    findings : list of Finding
        In the order of their codes.
    not_run : list of str
        What was not looked at, and why.
    conformance : dict
        Promise -> what was found; empty where the kit did not run.
    """

    record: PluginRecord
    findings: list[Finding] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    conformance: dict[str, Any] = field(default_factory=dict)

    @property
    def broken_promises(self) -> dict[str, str]:
        """Promises that the conformance kit found broken: label -> why."""
        return {
            label: "; ".join(str(why).removeprefix(f"{label}: ") for why in found.get("because", ()))
            or "see pytest --exengine-backend"
            for label, found in self.conformance.items()
            if found["outcome"] == "broken"
        }

    @property
    def clean(self) -> bool:
        """Whether nothing was found; something may not have been looked at."""
        return not self.findings and not self.broken_promises

    def place_of(self, finding: Finding) -> tuple[str, int]:
        """Return file and line to which a finding belongs; ``("", 0)`` where neither is known."""
        return ("", 0) if finding.code >= "EX4" else self.record.source

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            **self.record.to_dict(),
            "findings": [
                {**finding.to_dict(), "file": self.place_of(finding)[0], "line": self.place_of(finding)[1]}
                for finding in self.findings
            ],
            "not_run": self.not_run,
            "conformance": self.conformance,
        }


def check_name(name: str, registry: PluginRegistry | None = None) -> PluginReport:
    """Check an installed backend by its name.

    Parameters
    ----------
    name : str
        ``distribution:name`` settles a conflict.
    registry : PluginRegistry, optional
        By default that of the installed backends.

    Raises
    ------
    PluginNotFoundError, PluginConflictError
        As :meth:`exengine.kernel.registry.plugins.PluginRegistry.find`.
    """
    registry = plugins.BACKENDS if registry is None else registry
    report = check_class(registry.find(name), registry)
    if report.record.stage != "metadata":
        report.findings += _packaging_of(report)
    return _sorted(report)


def check_folder(folder: Path) -> list[PluginReport]:
    """Check every plugin that the ``pyproject.toml`` of a folder registers.

    What concerns the classes is looked at where the distribution is installed; the packaging is that
    of the folder.

    Raises
    ------
    PluginNotFoundError
        When the folder is no project, or registers nothing.
    """
    try:
        facts = packaging.of_project(folder)
    except ValueError as error:
        raise PluginNotFoundError(str(error)) from None
    if not facts.entries:
        raise PluginNotFoundError(
            f"{folder} registers no plugin: [project.entry-points] has no group of ours"
        )
    reports = []
    for entry in facts.entries:
        registry = plugins.SOURCES if entry.group == SOURCES_GROUP else plugins.BACKENDS
        report = PluginReport(entry)
        try:
            installed = registry.find(f"{facts.name}:{entry.name}")
        except PluginNotFoundError:
            report.not_run.append(
                f"contract, documentation and conformance: {facts.name} is not installed here; "
                f"run pip install {folder}"
            )
        else:
            report = check_class(installed, registry)
            facts.files = _files_of(installed)
        one = packaging.Packaging(**{**vars(facts), "entries": [entry]})
        report.findings += packaging.check_packaging(one)
        if facts.files is None:
            report.not_run.append("files of the wheel (EX405): no wheel of the plugin is installed here")
        reports.append(_sorted(report))
    return reports


def check_class(record: PluginRecord, registry: PluginRegistry, *, conformance: bool = True) -> PluginReport:
    """Check the class of a record: contract first, in a process of its own, and the rest if it is valid."""
    report = PluginReport(record)
    if record.state == "found":
        probe_record(record, registry.group, registry.kind)
    report.findings += list(_contract(record))
    if record.state != "valid":
        report.not_run.append("documentation and conformance: the class cannot be used")
        return report
    try:
        registry.load(record.qualified_name)
    except PluginError as error:
        report.findings.append(Finding("EX101", f"it can be imported only in a process of its own: {error}"))
        return report
    report.findings += documentation.check_documentation(record)
    if not conformance or registry.group == SOURCES_GROUP:
        report.not_run.append("conformance: the kit is for storage backends")
        return report
    _conformance(report)
    return report


def _contract(record: PluginRecord) -> Iterator[Finding]:
    yield from record.findings
    if record.state == "broken":
        yield Finding(_CODE_OF_STAGE.get(record.stage, "EX101"), record.error)


def _conformance(report: PluginReport) -> None:
    import exengine.testing as kit

    try:
        run_conformance: Any = kit.run_conformance
    except ImportError as error:
        report.not_run.append(f"conformance: it needs the extra, pip install exengine[test] ({error})")
        return
    with tempfile.TemporaryDirectory(prefix="exengine-check-") as folder:
        try:
            results = run_conformance(report.record.qualified_name, Path(folder, "results.json"))
        except ImportError as error:
            report.not_run.append(f"conformance: it needs the extra, pip install exengine[test] ({error})")
            return
        except Exception as error:  # of the kit, or of the plugin in it
            report.not_run.append(f"conformance: the kit stopped with {describe(error)}")
            return
    report.conformance = dict(results["promises"])
    if results.get("outcome") == "not run":
        report.not_run.append(f"conformance: {results.get('reason') or 'the kit gave no reason'}")
    report.findings += [Finding(found["code"], found["message"]) for found in results["findings"]]


def _packaging_of(report: PluginReport) -> list[Finding]:
    try:
        facts = packaging.of_installed(report.record)
    except ValueError as error:
        return [Finding("EX408", str(error))]
    if facts.files is None:
        report.not_run.append("files of the wheel (EX405): it is not known what a wheel of the plugin holds")
    return packaging.check_packaging(facts)


def _files_of(record: PluginRecord) -> set[str] | None:
    try:
        return packaging.of_installed(record).files
    except ValueError:
        return None


def _sorted(report: PluginReport) -> PluginReport:
    report.findings = sorted(dict.fromkeys(report.findings), key=lambda finding: finding.code)
    return report


def is_folder(target: str) -> bool:
    """Return whether what a person wrote means a folder, and no name."""
    return target in (".", "..") or os.sep in target or "/" in target or os.path.isdir(target)
