"""The kit's results: the outcome for each promise, in a file that ``check`` and the documentation read."""

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
from exengine.testing.causes import causes_of
from exengine.testing.promises import PROMISES

Outcome = Literal["kept", "broken", "not promised", "not run"]
Results = dict[str, Any]
"""The content of a results file, as described for ``make_results``."""

FORMAT = "exengine-conformance"
FORMAT_VERSION = 1
MAX_BYTES = 16 * 2**20
_MOST_FAILURES = 5
_MOST_CHARACTERS = 600


@dataclass(frozen=True)
class TestReport:
    """The result of one test for one backend or source.

    Attributes
    ----------
    test : str
        The name of the test.
    labels : tuple of str
        The promises that the test checks; if the test failed, only the promises that are broken.
    code : str
        The code of the tested capability; empty if the test has no code.
    outcome : {'kept', 'broken', 'not promised', 'not run'}
        The outcome of the test.
    message : str
        The failure, the declared capabilities that rule out the promise, or the reason why the test was not
        run.
    """

    __test__ = False  # Otherwise, pytest would collect this class, because its name starts with Test.

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
    """Return the results for a backend or source. Their order does not depend on that of the tests.

    Parameters
    ----------
    backend : str
        The name of the backend or source.
    reports : iterable of TestReport
        The reports of the tests.
    distribution, version : str
        The distribution that contains the backend or source, and the version of that distribution.
    reason : str
        The reason why no test was run.
    known : mapping
        The promises by label: ``PROMISES`` for a backend, ``SOURCE_PROMISES`` for a source.

    Returns
    -------
    dict
        ``backend``, ``distribution``, ``version``, ``kernel`` (the version of ExEngine), ``python``,
        ``date``, ``outcome``, ``reason``, ``promises`` (which maps each label to ``outcome``, ``tests``,
        ``failed``, ``codes``, and ``because`` with the capabilities, reasons or failures), ``codes`` (the
        codes that were reported), ``findings`` (each reported code with the message of its first failure),
        ``causes`` (the failures by probable cause; see :func:`exengine.testing.causes.causes_of`) and
        ``variants``, which :func:`with_variants` fills.

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
        "causes": [
            {**cause, "message": shortened(cause["message"], _MOST_CHARACTERS)}
            for cause in causes_of(in_order)
        ],
        "variants": {},
    }


def with_variants(results: Results, variants: Mapping[str, Results]) -> Results:
    """Return the results of a backend together with those of its variants.

    The ``outcome`` is ``"broken"`` if a promise is broken in any of them.

    Parameters
    ----------
    results : dict
        The results with the default options.
    variants : mapping
        Maps the name of each variant to its results.
    """
    broken = any(found["outcome"] == "broken" for found in variants.values())
    outcome = "broken" if broken else results["outcome"]
    return {**results, "outcome": outcome, "variants": dict(variants)}


def _of_one(label: str, reports: list[TestReport]) -> dict[str, Any]:
    outcomes = [report.outcome for report in reports]
    outcome: Outcome = "not run"
    for candidate in ("broken", "kept", "not promised"):
        if candidate in outcomes:
            outcome = candidate
            break
    because = [shortened(r.message, _MOST_CHARACTERS) for r in reports if r.outcome == outcome and r.message]
    return {
        "outcome": outcome,
        "tests": sum(1 for some in outcomes if some != "not run"),
        "failed": outcomes.count("broken"),
        "codes": sorted({r.code for r in reports if r.outcome == "broken" and r.code}),
        "because": list(dict.fromkeys(because))[:_MOST_FAILURES],
    }


def shortened(text: str, most: int) -> str:
    """Return a string as a single line, truncated at a space if it exceeds ``most`` characters."""
    return textwrap.shorten(text, most, placeholder=" ...")


def _kernel_version() -> str:
    try:
        return metadata.version("exengine")
    except metadata.PackageNotFoundError:  # ExEngine is imported from a folder and is not installed
        return ""


def write_results(path: "str | os.PathLike[str]", results: Results) -> None:
    """Write a results file atomically. Create its folder if the folder does not exist.

    Raises
    ------
    FileExistsError
        If the path already exists and is not a results file.
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
    """Raise an error if a path exists and is not a results file.

    Raises
    ------
    FileExistsError
        If the path exists and is not a results file.
    """
    if os.path.lexists(path) and not _is_results_file(path):
        raise FileExistsError(
            f"{os.fspath(path)} already exists and is not a results file of the conformance kit; remove "
            "it yourself, or choose another path"
        )


def _is_results_file(path: "str | os.PathLike[str]") -> bool:
    """Return whether a path is a regular file that contains results of the kit, in any format version."""
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
        The results file.

    Returns
    -------
    dict
        The results, as described for ``make_results``.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not a results file, or if this release cannot read its format version.
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
            f"{path} has format version {content.get('format_version')!r}, but this release reads version "
            f"{FORMAT_VERSION}; run the kit again"
        )
    return content
