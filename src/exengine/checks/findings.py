"""Notes what ``exengine backends check`` would say of each plugin beside its record, for its page.

EX101 - EX207 come with loading the class, EX212 from running the example for the page, EX3 from the
result files of the conformance kit. What else there is to say of documentation (EX211, EX213, EX214)
and packaging (EX4) is added here.
"""

from collections.abc import Iterable

from exengine.checks.documentation import check_documentation
from exengine.checks.packaging import check_packaging, of_installed
from exengine.kernel.errors import describe
from exengine.kernel.registry.class_checks import Finding
from exengine.kernel.registry.records import PluginRecord


def note_findings(records: Iterable[PluginRecord]) -> None:
    """Add what is wrong with each valid plugin to the findings of its record, sorted by code.

    Parameters
    ----------
    records : iterable of PluginRecord
        Those that are not loaded are left as they are: their pages say what is wrong.
    """
    for record in records:
        if record.loaded is None:
            continue
        found = [*record.findings]
        for check in (_documentation, _packaging):
            try:
                found += check(record)
            except Exception as error:  # something of the plugin raised while it was looked at
                found.append(Finding("EX101", f"looking at the class raised {describe(error)}"))
        record.findings = tuple(sorted(dict.fromkeys(found), key=lambda finding: finding.code))


def _documentation(record: PluginRecord) -> list[Finding]:
    return check_documentation(record, run_example=False)


def _packaging(record: PluginRecord) -> list[Finding]:
    try:
        return check_packaging(of_installed(record))
    except ValueError as error:
        return [Finding("EX408", str(error))]
