"""Code shared by all recoveries: the report, and the facts about the source and its lost frames."""

from dataclasses import dataclass, field
from typing import Any

from exengine.datasets.verification import (
    LostFrame,
    OnProgress,
    VerifyReport,
    as_count,
    lost_frames,
    stored_of,
    survey,
)
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage, JsonValue
from exengine.kernel.errors import UnsupportedOperationError
from exengine.kernel.storage import manifest
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system.bounded import NOTE_KEY

MAX_NAMED = 1000
"""Maximum number of lost frames listed in the manifest. Any further frames are only counted."""
READABLE_KEY = "exengine_damaged_metadata"
"""The metadata key under which a recovery keeps any text that it can still read in damaged metadata.

Any part of this text may be wrong.
"""
_MAX_NAMED_BYTES = 2**20
_MAX_SENTENCE = 500

FINISHED = frozenset((DatasetStatus.COMPLETE, DatasetStatus.ABORTED, DatasetStatus.FAILED))


@dataclass
class RecoverReport:
    """The result of :func:`exengine.recover`, or of a dry run.

    Attributes
    ----------
    source : str
        The dataset to recover.
    path : str
        The path of the finished dataset: either the copy or the source itself.
    outcome : {'recovered', 'already recovered', 'nothing to recover'}
    backend : str
        The name of the backend that writes the finished dataset.
    status : str
        The status of the finished dataset.
    reason : str
        The human-readable reason for the status of the dataset.
    frames : int
        The number of frames in the finished dataset.
    total : int
        The number of frames that existed, according to the index, the manifest and the ledger.
    lost : list of LostFrame
        The frames that could not be recovered, with the reasons. ``total`` may include lost frames that are
        not listed here.
    problems : list of str
        Other faults of the source, one sentence each.
    in_place, dry_run : bool
        The options with which the recovery was run.
    """

    source: str
    path: str
    outcome: str = "recovered"
    backend: str = ""
    status: str = ""
    reason: str = ""
    frames: int = 0
    total: int = 0
    lost: list[LostFrame] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    in_place: bool = False
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Whether every frame was recovered."""
        return not self.lost and self.frames == self.total

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-serializable dict."""
        return {**vars(self), "lost": [frame.to_dict() for frame in self.lost], "ok": self.ok}


class Recovery:
    """Base class of both kinds of recovery. Collects the facts about the source in a report.

    Parameters
    ----------
    report : RecoverReport
        The report to fill in.
    cls : type
        The class of the backend.
    on_progress : callable or None
        See :func:`exengine.recover`.
    """

    def __init__(self, report: RecoverReport, cls: type[DataStorage], on_progress: OnProgress | None) -> None:
        self.report = report
        self.cls = cls
        self.on_progress = on_progress

    def survey(self, dataset: DataStorage) -> VerifyReport:
        return survey(dataset, self.report.source, self.on_progress)

    def take(self, found: VerifyReport, annotations: dict[str, Any]) -> None:
        """Record which frames survive, and which frames are lost now or were lost in earlier recoveries."""
        report = self.report
        unread = [*found.damaged, *found.missing]
        report.lost = [frame for frame in unread if not frame.has_pixels]
        report.frames = found.frames - len(report.lost)
        without = [metadata_lost(frame.coordinates, frame.reason) for frame in unread if frame.has_pixels]
        self.complete([*without, *found.problems], annotations)

    def complete(self, problems: list[str], annotations: dict[str, Any]) -> None:
        """Add the facts recorded by the manifest, the ledger and earlier recoveries."""
        report = self.report
        before = annotations.get("recovery")
        before = before if isinstance(before, dict) else {}
        known = {_key(frame.coordinates) for frame in report.lost}
        earlier = [f for f in lost_frames(before.get("lost")) if _key(f.coordinates) not in known]
        report.lost = [*earlier, *report.lost]
        noted = before.get("problems")
        noted = [str(problem) for problem in noted] if isinstance(noted, list) else []
        report.problems = [*dict.fromkeys([*noted, *problems])]
        counts = [
            before.get("total"),
            manifest_count(report.source),
            stored_of(annotations.get("ledger")),
        ]
        report.total = max(report.frames + len(report.lost), *(as_count(count) or 0 for count in counts))
        report.status = str(DatasetStatus.ABORTED)
        report.reason = f"recovered from {report.source}: {report.frames} of {report.total} frames"

    def nothing(self, found: VerifyReport) -> RecoverReport:
        """Report that there is nothing to recover, because the source is finished and undamaged."""
        report = self.report
        report.outcome, report.path = "nothing to recover", report.source
        report.frames = report.total = found.frames
        report.status, report.reason = found.status, found.reason
        return report

    def note(self) -> dict[str, Any]:
        """Return the record of the recovery, to be stored in the finished dataset's manifest."""
        report = self.report
        return {
            "source": report.source,
            "in_place": report.in_place,
            "frames": report.frames,
            "total": report.total,
            "lost_count": len(report.lost),
            "lost": _named(report.lost),
            "problems": [problem[:_MAX_SENTENCE] for problem in report.problems[:MAX_NAMED]],
        }


def metadata_lost(coordinates: dict[str, int | str], reason: str) -> str:
    """Return a message about a frame that is kept without its metadata."""
    return f"the metadata of the frame at {coordinates} were lost: {reason}"


def metadata_note(reason: str, readable: str | None = None) -> dict[str, JsonValue]:
    """Return a note that replaces a frame's lost metadata. It contains any text that can still be read."""
    note: dict[str, JsonValue] = {NOTE_KEY: f"the metadata were lost: {reason}"}
    if readable is not None:
        note[READABLE_KEY] = readable
    return note


def _named(lost: list[LostFrame]) -> list[dict[str, Any]]:
    """Return the first :data:`MAX_NAMED` lost frames, for the manifest."""
    named: list[dict[str, Any]] = []
    room = _MAX_NAMED_BYTES
    for frame in lost[:MAX_NAMED]:
        item = {"coordinates": frame.coordinates, "reason": frame.reason[:_MAX_SENTENCE]}
        room -= len(str(item))
        if room < 0:
            break
        named.append(item)
    return named


def is_whole(found: VerifyReport) -> bool:
    """Return whether a dataset is finished and undamaged."""
    return found.status in FINISHED and found.ok


def manifest_count(path: str) -> int | None:
    """Return the number of frames recorded in a finished dataset's manifest."""
    content = None if is_url(path) else manifest.read_manifest(path)
    return as_count(content.frames) if content else None


def _key(coordinates: dict[str, int | str]) -> frozenset[tuple[str, str]]:
    return frozenset((axis, repr(value)) for axis, value in coordinates.items())


def status_of(storage: DataStorage) -> DatasetStatus | None:
    """Return the status of a storage or a dataset, or None if the backend does not record one."""
    try:
        return storage.status
    except UnsupportedOperationError:
        return None
