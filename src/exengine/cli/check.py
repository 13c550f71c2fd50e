"""``exengine backends check NAME|PATH``: checks a plugin's contract, docs, conformance and packaging."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from exengine.cli.output import print_json, say
from exengine.kernel.registry import plugins
from exengine.kernel.registry.codes import FAULTS, Finding

if TYPE_CHECKING:
    from exengine.checks.report import PluginReport


def run(options: argparse.Namespace) -> int:
    """Check a plugin, or all plugins in a folder.

    Return 0 if there are no faults, 1 if there are faults, and 2 if a plugin cannot be checked.
    """
    from exengine.checks.report import check_folder, check_name

    if sys.stderr.isatty():
        say("The conformance kit writes many datasets; this may take a minute.")
    by_folder = _is_folder(options.target)
    folder = Path(options.target)
    reports = (
        check_folder(folder, thorough=options.thorough)
        if by_folder
        else [check_name(options.target, thorough=options.thorough)]
    )
    project = str(folder / "pyproject.toml") if by_folder else ""
    clean = all(report.clean for report in reports)
    incomplete = any(report.record.state == "found" for report in reports)  # the project is not installed
    if options.json:
        print_json(
            {
                "target": options.target,
                "ok": clean and not incomplete,
                "plugins": [report.to_dict() for report in reports],
            }
        )
    for report in reports:
        if options.json:
            continue
        if options.format == "github":
            for finding in report.findings:
                print(github_line(finding, *_place(report, finding, project)))
            for label, why in report.broken_promises.items():
                print(f"::error title={label}::{_escape(f'the promise {label} is broken: {why}')}")
        else:
            _print_report(report)
    for report in reports:
        if options.debug and report.record.traceback:
            say(report.record.traceback)
        for text in report.not_run:
            say(f"{report.record.name}: not run: {text}")
    return 2 if clean and incomplete else 0 if clean else 1


def _is_folder(target: str) -> bool:
    """Return whether the argument refers to a folder rather than to a backend.

    The name of an installed backend refers to the backend, even if there is a folder with the same name. To
    check that folder, write ``./NAME``.
    """
    if target in (".", "..") or os.sep in target or "/" in target:
        return True
    return os.path.isdir(target) and target not in plugins.BACKENDS


def _print_report(report: "PluginReport") -> None:
    record = report.record
    where = f"{record.distribution} {record.version}".strip()
    if report.clean:
        print(
            f"{record.name} ({where}): no faults" + (" in the checks that were run" if report.not_run else "")
        )
        return
    count = len(report.findings) + len(report.broken_promises)
    print(f"{record.name} ({where}): {count} {'fault' if count == 1 else 'faults'}")
    for finding in report.findings:
        first, *rest = finding.message.splitlines() or [FAULTS.get(finding.code, "")]
        print(f"  {finding.code}  {first}")
        for line in rest:
            print(f"         {line}")
    for label, why in report.broken_promises.items():
        print(f"  {label:5}  this promise is broken: {why}")
    if report.findings:
        print(f"For an example of each fault, run: exengine explain {report.findings[0].code}")


def _place(report: "PluginReport", finding: Finding, project: str) -> tuple[str, int]:
    """Return the relative path of the faulty file, and the line. Packaging faults are in the project file."""
    file, line = (project, 1 if project else 0) if finding.code >= "EX4" else report.place_of(finding)
    here = os.getcwd() + os.sep
    return file.removeprefix(here), line


def github_line(finding: Finding, file: str, line: int) -> str:
    """Return an annotation that GitHub shows next to a line of a file.

    Examples
    --------
    >>> github_line(Finding("EX202", "100 %"), "a.py", 3)
    '::error file=a.py,line=3,title=EX202::100 %25'
    """
    place = f"file={_escape(file, ':,')}," if file else ""
    place += f"line={line}," if file and line else ""
    return f"::error {place}title={finding.code}::{_escape(finding.message)}"


def _escape(text: str, also: str = "") -> str:
    """Escape text for use in GitHub workflow commands."""
    for mark in "%\r\n" + also:
        text = text.replace(mark, f"%{ord(mark):02X}")
    return text
