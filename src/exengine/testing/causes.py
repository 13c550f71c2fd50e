"""Groups the failures of the kit by their probable cause, so that one fault of a backend is one finding.

A fault in storing frames makes most tests fail, with messages of the same kind: wrong pixels, lost frames, or
the same exception. The simplest of these tests states the finding, and the others are counted under it.

Many tests begin with the same actions, such as reopening a finished dataset. If the test of these actions
finds wrong frames, wrong frames in the other tests are attributed to the same cause, whatever the messages
say.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

_FROM_SIMPLE = (
    "P1", "P8", "P9", "P3", "P2", "P4", "P5", "R1", "R2", "R4", "N1", "N2", "N6", "N4", "N5", "O1", "P6",
    "F1", "F2", "R3", "P7", "N3", "C4", "D1", "D2", "D4", "C3", "C5", "C1", "C2", "C7", "D5", "D3", "C6",
    "S1", "S2", "S3",
)  # fmt: skip
"""The labels, ordered by their tests: those that use the least of a backend come first."""

_KINDS = {
    "pixels": r"wrong pixels|with the pixels of|as zeros|was returned with shape|not as an array",
    "metadata": r"the metadata at .* was (stored|returned)|the metadata read at",
    "frames": r"frames (\[[\d, ]*\] )?(are|were) (lost|missing)|(lost|missing|stored) frames"
    r"|is not in the storage"
    r"|frames (were )?(stored|put)|no frame was put|in the order of|cannot be found at|a reader that opened"
    r"|not in the order|reader found",
    "harm": r"\b(marshal|pickle)\.\w+|opened (outside|a special file)|import of exengine",
    "replaced": r"where a frame exists|was replaced|must have exactly one|already have a frame|was put again",
    "summary": r"summary metadata (is|was returned)",
    "files": r"changed (the|its|a) .*files|changed (files|the original|it)\b|opened a file for writing",
    "hang": r"\bhung\b|did not end|hangs",
    "end": r"exited with code|ended with status|ended too early",
    "status": r"the status is|has the status|the dataset is (\w+;|complete|incomplete|aborted|failed|damaged)"
    r"|with the outcome|is_finished\(\)",
}
"""The kinds of failures, each with a pattern that finds the kit's messages about them."""

_CONTENT = {"pixels", "metadata", "frames", "raised"}
"""The kinds of failures in which a frame is wrong or missing; "raised" means that reading it failed."""

_UNFINISHED = ("P6", "F1", "F2", "N3", "N5", "R3", "C3", "C4", "C6", "D2", "P7")
_RESTS_ON: dict[str, tuple[str, ...]] = {
    "test_every_frame_that_was_put_is_there_bit_equal": _FROM_SIMPLE,
    "test_a_finished_dataset_reopens_equal": _FROM_SIMPLE,
    "test_a_dataset_that_was_closed_without_finish_keeps_its_frames": _UNFINISHED,
    "test_a_frame_survives_the_death_of_the_process_when_put_has_returned": _UNFINISHED,
}
"""Maps each test of common first steps to the promises whose tests begin with these steps."""

_READING = re.compile(r"^(\w\d: )?(\w+(Error|Exception)\b|get_(meta)?data\(|opening raised)")
_RAISED = re.compile(r"\b([A-Z]\w*(?:Error|Exception|Exit|Interrupt))\b[:(]?\s*['\"]?(.{0,60})")
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\{[^}]*\}|\([^)]*\)|/\S+|0x[0-9a-f]+|-?\d+(\.\d+)?")


def causes_of(reports: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the probable causes of the failures in some reports, sorted by their simplest failed test.

    Parameters
    ----------
    reports : iterable of TestReport
        The reports of one backend with one set of options.

    Returns
    -------
    list of dict
        ``labels`` and ``codes`` of the failed tests, beginning with the simplest test; ``test``, ``code`` and
        ``message`` of the simplest test; and the number of failed tests as ``tests``.

    Examples
    --------
    >>> from exengine.testing.results import TestReport
    >>> wrong = "the frame at {'time': 0} was returned with wrong pixels: 1 of 960 values differ"
    >>> reports = [
    ...     TestReport("b", ("N2",), "EX301", "broken", wrong),
    ...     TestReport("a", ("P1",), "", "broken", wrong),
    ... ]
    >>> [(cause["labels"], cause["codes"], cause["test"]) for cause in causes_of(reports)]
    [(['P1', 'N2'], ['EX301'], 'a')]
    """
    broken = sorted(
        (r for r in reports if r.outcome == "broken"),
        key=lambda r: (r.test not in _RESTS_ON, _rank(r.labels), r.test),
    )
    groups: list[list[Any]] = []
    for report in broken:
        related = [members for members in groups if any(_are_related(report, one) for one in members)]
        merged = [*(one for members in related for one in members), report]
        groups = [members for members in groups if members not in related]
        groups.append(merged)
    causes = [_cause(sorted(members, key=broken.index)) for members in groups]
    return sorted(causes, key=lambda cause: (_rank(cause["labels"][:1]), cause["test"]))


def _are_related(one: Any, other: Any) -> bool:
    """Return whether two failures have the same cause, or one follows from the other."""
    if marks_of_failure(one.message) & marks_of_failure(other.message):
        return True
    return _follows(one, other) or _follows(other, one)


def _follows(report: Any, basis: Any) -> bool:
    rests = set(report.labels) & set(_RESTS_ON.get(basis.test, ()))
    return bool(rests) and _spoils_frames(report.message) and _spoils_frames(basis.message)


def _spoils_frames(message: str) -> bool:
    kinds = marks_of_failure(message) | ({"raised"} if _READING.search(message) else set())
    return bool(kinds & _CONTENT)


def _cause(members: Sequence[Any]) -> dict[str, Any]:
    return {
        "labels": list(dict.fromkeys(label for report in members for label in report.labels)),
        "code": members[0].code,
        "codes": list(dict.fromkeys(report.code for report in members if report.code)),
        "test": members[0].test,
        "message": members[0].message,
        "tests": len(members),
    }


def _rank(labels: Sequence[str]) -> int:
    return min((_FROM_SIMPLE.index(label) for label in labels if label in _FROM_SIMPLE), default=99)


def marks_of_failure(message: str) -> set[str]:
    """Return marks that a message shares with other messages about the same fault.

    Examples
    --------
    >>> sorted(marks_of_failure("P1: get_data({'time': 3}) raised ValueError: 7 is not a size"))
    ['ValueError # is not a size']
    >>> sorted(marks_of_failure("N2: the frame at {} was returned as zeros"))
    ['pixels']
    """
    found = {kind for kind, pattern in _KINDS.items() if re.search(pattern, message)}
    found |= {f"{name} {_plain(text)}".strip() for name, text in _RAISED.findall(message)}
    return found or {_plain(message)}


def _plain(text: str) -> str:
    """Return the beginning of a text without the parts that differ from case to case."""
    return re.sub(r"\s+", " ", _VARIABLE.sub("#", text)).strip()[:40]
