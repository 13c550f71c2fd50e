"""The results of the kit: the outcome of each promise, in a file that the docs and ``check`` read."""

import datetime
import json
import os
import platform
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from exengine.kernel.registry.codes import CONFORMANCE
from exengine.kernel.system.files import open_new, open_regular
from exengine.testing.promises import NEED_FAULTS, PROMISES

Outcome = Literal["kept", "broken", "not promised", "not run"]
Results = dict[str, Any]
"""The content of a results file; see ``make_results``."""

FORMAT = "exengine-conformance"
FORMAT_VERSION = 1
MAX_BYTES = 16 * 2**20
_MOST_FAILURES = 5
_MOST_CHARACTERS = 600


@dataclass(frozen=True)
class TestReport:
    """The result of one test for one backend.

    Attributes
    ----------
    test : str
        The name of the test.
    labels : tuple of str
        The promises that the test is about; after a failure, those that are broken.
    code : str
        The code of the tested capability, or empty.
    outcome : {'kept', 'broken', 'not promised', 'not run'}
    message : str
        The failure, the capability that does not promise it, or the reason why it was not run.
    """

    __test__ = False  # pytest collects classes with names that start with Test

    test: str
    labels: tuple[str, ...]
    code: str
    outcome: Outcome
    message: str = ""


def make_results(
    backend: str,
    reports: Iterable[TestReport],
    *,
    distribution: str = "",
    version: str = "",
    reason: str = "",
    known: Mapping[str, str] = PROMISES,
) -> Results:
    """Return the results of a backend, in an order independent of the order of the tests.

    Parameters
    ----------
    backend : str
        The name of the backend.
    reports : iterable of TestReport
    distribution, version : str
        The distribution that contains the backend, and its version.
    reason : str
        The reason why nothing was run.
    known : mapping
        The promises, by label: those of backends or those of sources.

    Returns
    -------
    dict
        ``backend``, ``distribution``, ``version``, ``kernel`` (the version of ExEngine), ``python``,
        ``date``, ``outcome``, ``reason``, ``promises`` (label -> ``outcome``, ``tests``, ``failed``,
        ``codes``, and ``because`` with the capabilities, reasons or failures), ``codes`` (those found),
        ``findings`` (each code with the message of its first failure).

    Examples
    --------
    >>> results = make_results("ndram", [TestReport("test_put", ("P1",), "", "kept")])
    >>> results["outcome"], results["promises"]["P1"]["outcome"], results["promises"]["P2"]["outcome"]
    ('kept', 'kept', 'not run')
    """
    in_order = sorted(reports, key=lambda report: report.test)
    promises = {label: _of_one(label, [r for r in in_order if label in r.labels]) for label in known}
    outcomes = {entry["outcome"] for entry in promises.values()}
    findings = []
    for code in CONFORMANCE:
        messages = [r.message for r in in_order if r.code == code and r.outcome == "broken"]
        if messages:
            findings.append(
                {"code": code, "message": f"{CONFORMANCE[code]}: {shortened(messages[0], _MOST_CHARACTERS)}"}
            )
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "backend": backend,
        "distribution": distribution,
        "version": version,
        "kernel": _kernel_version(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "outcome": "broken" if "broken" in outcomes else "kept" if "kept" in outcomes else "not run",
        "reason": reason,
        "promises": promises,
        "codes": [finding["code"] for finding in findings],
        "findings": findings,
    }


def _of_one(label: str, reports: list[TestReport]) -> dict[str, Any]:
    outcomes = [report.outcome for report in reports]
    outcome: Outcome = "not run"
    for candidate in ("broken", "kept", "not promised"):
        if candidate in outcomes:
            outcome = candidate
            break
    because = [shortened(r.message, _MOST_CHARACTERS) for r in reports if r.outcome == outcome and r.message]
    if not reports and label in NEED_FAULTS:
        because = [NEED_FAULTS[label]]
    return {
        "outcome": outcome,
        "tests": sum(1 for some in outcomes if some != "not run"),
        "failed": outcomes.count("broken"),
        "codes": sorted({r.code for r in reports if r.outcome == "broken" and r.code}),
        "because": list(dict.fromkeys(because))[:_MOST_FAILURES],
    }


def shortened(text: str, most: int) -> str:
    """Return a text on one line, cut at a space if it exceeds a number of characters."""
    return textwrap.shorten(text, most, placeholder=" ...")


def _kernel_version() -> str:
    try:
        return metadata.version("exengine")
    except metadata.PackageNotFoundError:  # imported from a folder, not installed
        return ""


def write_results(path: "str | os.PathLike[str]", results: Results) -> None:
    """Write a results file atomically; create its folder if it does not exist.

    Raises
    ------
    FileExistsError
        If the path exists and is not a results file.
    """
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    refuse_other_file(path)
    temporary = os.fspath(path) + ".new"
    with os.fdopen(open_new(temporary), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1, ensure_ascii=False)
        file.write("\n")
    os.replace(temporary, path)


def refuse_other_file(path: "str | os.PathLike[str]") -> None:
    """Raise if a path exists and is not a results file.

    Raises
    ------
    FileExistsError
    """
    if os.path.lexists(path) and not _is_results_file(path):
        raise FileExistsError(
            f"{os.fspath(path)} already exists and is not a results file of the conformance kit; choose "
            "another path, or remove it yourself"
        )


def _is_results_file(path: "str | os.PathLike[str]") -> bool:
    """Return whether a path is a regular file with the results of the kit, in any version of the format."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return bool(json.loads(file.read(MAX_BYTES + 1)).get("format") == FORMAT)
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def read_results(path: "str | os.PathLike[str]") -> Results:
    """Return the content of a results file.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict
        See ``make_results``.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not a results file, or its format version is not one that this release reads.
    """
    with open(path, "rb") as file:
        text = file.read(MAX_BYTES + 1)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a results file of the conformance kit: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a results file of the conformance kit")
    if content.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {content.get('format_version')!r}; this release reads version "
            f"{FORMAT_VERSION}: run the kit again"
        )
    return content
