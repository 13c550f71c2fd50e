"""What the conformance kit found: its result files, one for each backend, as the pages need them.

Responsible for finding the file of a backend and for taking what the pages show. Not responsible for
the format of the file, nor for what a promise means (:mod:`exengine.testing`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exengine.kernel.errors import describe
from exengine.kernel.registry.class_checks import Finding
from exengine.kernel.registry.records import PluginRecord
from exengine.testing.results import read_results

OUTCOMES = ("kept", "broken", "not promised", "not run")
"""What can be said of a promise."""


@dataclass(frozen=True)
class Promise:
    """What was found of one promise.

    Attributes
    ----------
    outcome : {'kept', 'broken', 'not promised', 'not run'}
    tests, failed : int
        How many tests looked at it, and how many of them failed.
    because : tuple of str
        The failures; or the capability that does not promise it; or why it was not run.
    """

    outcome: str
    tests: int = 0
    failed: int = 0
    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """The result file of one backend.

    Attributes
    ----------
    distribution, version, kernel : str
        What was tested: the plugin's distribution, its version, and the version of ExEngine.
    promises : mapping of str to Promise
        Label, such as ``P1`` -> what was found.
    findings : tuple of Finding
        Capabilities that are declared and not kept, or kept and not declared.
    """

    distribution: str
    version: str
    kernel: str
    promises: Mapping[str, Promise] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def kept(self) -> int:
        """How many promises are kept."""
        return sum(promise.outcome == "kept" for promise in self.promises.values())

    @property
    def tested(self) -> int:
        """How many promises were put to the test: kept or broken."""
        return sum(promise.outcome in ("kept", "broken") for promise in self.promises.values())


def results_in(path: Path) -> Results:
    """Return the content of a result file.

    Parameters
    ----------
    path : Path
        Written by ``pytest --exengine-backend NAME --exengine-results FILE``.

    Raises
    ------
    ValueError
        When it is no such file; the message says why.
    """
    content = read_results(path)
    try:
        return Results(
            str(content["distribution"]),
            str(content["version"]),
            str(content["kernel"]),
            {str(label): _promise(found) for label, found in content["promises"].items()},
            tuple(Finding(str(f["code"]), str(f["message"])) for f in content.get("findings", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {describe(error)}") from None


def _promise(found: Mapping[str, Any]) -> Promise:
    outcome = found["outcome"]
    if outcome not in OUTCOMES:
        raise ValueError(f"the outcome of a promise is {outcome!r}, not one of {', '.join(OUTCOMES)}")
    because = tuple(str(text) for text in found.get("because", ()))
    return Promise(outcome, int(found.get("tests", 0)), int(found.get("failed", 0)), because)


def results_of(records: Iterable[PluginRecord], folder: Path) -> tuple[dict[str, Results], list[str]]:
    """Return what was found for each plugin, and what is wrong with the files.

    Parameters
    ----------
    records : iterable of PluginRecord
        Backends; the file of one is called by its name. Codes that were found are added to the findings
        of a record when they are about the version that is installed.
    folder : Path
        May be missing.

    Returns
    -------
    results : dict
        Qualified name -> results; only of plugins that have a file, from the distribution it names.
    faults : list of str
        One for each file that cannot be used.
    """
    results, faults = {}, []
    for record in records:
        if not re.fullmatch(r"[\w.-]+", record.name):
            continue  # no file name
        path = folder / f"{record.name}.json"
        if not path.is_file():
            continue
        try:
            found = results_in(path)
        except (ValueError, OSError) as error:
            faults.append(str(error))
            continue
        if _plain(found.distribution) not in ("", _plain(record.distribution)):
            continue  # of another plugin with this name
        results[record.qualified_name] = found
        if found.version in ("", record.version):
            new = [finding for finding in found.findings if finding not in record.findings]
            record.findings = (*record.findings, *new)
    return results, faults


def _plain(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
