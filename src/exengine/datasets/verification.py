"""Verifies a dataset: its frames, the ledger stored with it, and the structure of its format.

This module reads every frame that a dataset lists and reports every fault. It changes nothing. Repairs are
made by :mod:`exengine.datasets.recovery`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from exengine.datasets.opening import open_dataset
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage, JsonValue
from exengine.kernel.errors import UnsupportedOperationError, message_of
from exengine.kernel.storage import manifest
from exengine.kernel.storage.reading import DatasetReader
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system.files import expanded

if TYPE_CHECKING:
    from os import PathLike

OnProgress = Callable[[int, int], None]
"""Called at intervals with the number of frames read so far and the total number of frames."""


@dataclass(frozen=True)
class LostFrame:
    """A frame that cannot be read, and the reason.

    Attributes
    ----------
    coordinates : dict of str to int or str
        The coordinates of the frame.
    reason : str
        The human-readable reason.
    has_pixels : bool
        Whether the pixels can be read although the metadata cannot. A recovery keeps such a frame.
    """

    coordinates: dict[str, int | str]
    reason: str
    has_pixels: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the frame as a JSON-serializable dict."""
        return {"coordinates": self.coordinates, "reason": self.reason}

    def __str__(self) -> str:
        return f"{self.coordinates}: {self.reason}"


@dataclass
class VerifyReport:
    """The result of :func:`exengine.verify`.

    Attributes
    ----------
    path : str
        The path of the dataset.
    backend : str
        The name of the backend that reads the dataset.
    status : str
        The status of the dataset, a value of :class:`DatasetStatus`, or ``unknown`` if the backend does not
        record a status.
    reason : str
        The human-readable reason for the status of the dataset.
    frames : int
        The number of frames that the dataset lists, at all resolution levels.
    full_frames : int
        The number of frames at full resolution.
    checked : int
        The number of frames whose pixels and metadata were read without a fault.
    has_checksums : bool
        Whether the frames were compared with checksums. If not, the frames are only known to be readable.
    structure_checked : bool
        Whether the backend checked the structure of its format.
    damaged : list of LostFrame
        Frames that differ from the data that were written.
    missing : list of LostFrame
        Frames whose data no longer exist, and frames that the ledger lists as not stored.
    problems : list of str
        Other faults in the status, the structure or the ledger, one sentence each.
    """

    path: str
    backend: str = ""
    status: str = "unknown"
    reason: str = ""
    frames: int = 0
    full_frames: int = 0
    checked: int = 0
    has_checksums: bool = False
    structure_checked: bool = False
    damaged: list[LostFrame] = field(default_factory=list)
    missing: list[LostFrame] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no fault was found."""
        return not (self.damaged or self.missing or self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-serializable dict."""
        return {
            **vars(self),
            "damaged": [frame.to_dict() for frame in self.damaged],
            "missing": [frame.to_dict() for frame in self.missing],
            "ok": self.ok,
        }


def verify(
    path: "str | PathLike[str]", *, backend: str | None = None, on_progress: OnProgress | None = None
) -> VerifyReport:
    """Read every frame of a dataset and report every fault. Writes nothing.

    If the dataset is still being written, the frames that it contains so far are verified.

    Parameters
    ----------
    path : path
        The dataset.
    backend : str, optional
        The name of the backend that reads the dataset, as for :func:`exengine.open_dataset`.
    on_progress : callable, optional
        Called with the number of frames read so far and the total number of frames.

    Returns
    -------
    VerifyReport
        The faults found. ``ok`` is False if anything is damaged, missing or wrong.

    Raises
    ------
    ExEngineError
        If the dataset cannot be opened, as for :func:`exengine.open_dataset`.

    Examples
    --------
    >>> import exengine, numpy as np, tempfile
    >>> path = tempfile.mkdtemp()
    >>> with exengine.open_storage("ndtiff", path) as storage:
    ...     storage.put({"time": 0}, np.zeros((4, 4), np.uint16), None)
    >>> report = exengine.verify(path)
    >>> report.ok, report.checked, report.status
    (True, 1, 'complete')
    """
    path = expanded(path)
    dataset = open_dataset(path, backend=backend)
    try:
        report = survey(dataset, path, on_progress)
        if is_url(path):
            content = dataset.manifest if isinstance(dataset, DatasetReader) else None
            frames = None
        else:
            content = manifest.read_manifest(path)
            frames = as_count(content.frames) if content is not None else None
        if content is not None and content.problem and content.problem not in report.problems:
            _add(report, content.problem)
        _compare_with_ledger(report, dict(dataset.annotations), frames)
    finally:
        dataset.close()
    return report


def survey(dataset: DataStorage, path: str, on_progress: OnProgress | None = None) -> VerifyReport:
    """Read every frame of an open dataset and check its structure, but not the ledger."""
    report = VerifyReport(path, backend_of(dataset))
    report.has_checksums = dataset.has_checksums
    for name, tiles in _parts(dataset):
        for frame in read_all(tiles, report, on_progress):
            if frame.problem is None:
                report.checked += 1
            else:
                lost = LostFrame(
                    frame.coordinates.coordinate_dict,
                    name + frame.problem,
                    frame.metadata_problem is not None,
                )
                (report.missing if frame.gone else report.damaged).append(lost)
        if not name:
            report.full_frames = report.frames
    try:
        report.problems += dataset.check_structure()
        report.structure_checked = True
    except UnsupportedOperationError:
        pass
    except Exception as error:
        report.problems.append(f"the structure cannot be checked: {message_of(error)}")
    # Read the status after the frames. If the dataset is still being written, the final status is reported.
    try:
        report.status = str(dataset.status)
    except UnsupportedOperationError:
        report.status = "unknown"
    report.reason = dataset.status_reason
    if report.status == DatasetStatus.DAMAGED and report.reason not in report.problems:
        report.problems.insert(0, report.reason or "the backend reports that the dataset is damaged")
    return report


@dataclass(slots=True)
class ReadFrame:
    """A frame that was read, or the reason why it could not be read.

    Attributes
    ----------
    coordinates : DataCoordinates
        The coordinates of the frame.
    pixels, metadata
        The content of the frame, or None if it cannot be read. If only the metadata cannot be read, the
        pixels are still set.
    problem : str or None
        The reason why the frame cannot be read.
    gone : bool
        Whether the frame's data no longer exist.
    metadata_problem : str or None
        The reason why the metadata cannot be read although the pixels can. ``problem`` has the same text.
    readable : str or None
        The readable text of the damaged metadata. Any part of this text may be wrong.
    """

    coordinates: DataCoordinates
    pixels: npt.NDArray[Any] | None = None
    metadata: JsonValue = None
    problem: str | None = None
    gone: bool = False
    metadata_problem: str | None = None
    readable: str | None = None


def read_all(
    dataset: DataStorage, report: VerifyReport, on_progress: OnProgress | None = None
) -> Iterator[ReadFrame]:
    """Yield every frame that a dataset lists, with its metadata. Read errors are recorded."""
    try:
        count = len(dataset)
        listed = iter(dataset)
    except UnsupportedOperationError as error:
        report.problems.append(f"the dataset's frames cannot be listed: {error}")
        return
    before = report.frames
    for number, coordinates in enumerate(listed, 1):
        report.frames += 1
        frame = ReadFrame(coordinates)
        try:
            frame.pixels = dataset.get_data(coordinates)
            try:
                frame.metadata = dataset.get_metadata(coordinates)
            except UnsupportedOperationError:  # frames at reduced resolution may have none
                pass
            except Exception as error:  # the pixels are still intact
                frame.problem = frame.metadata_problem = message_of(error)
                frame.gone = _says_gone(error)
                frame.readable = getattr(error, "readable", None)
        except Exception as error:  # any error, even from a library that the backend uses
            frame.pixels = None
            frame.problem, frame.gone = message_of(error), _says_gone(error)
        yield frame
        if on_progress is not None:
            on_progress(before + number, before + max(count, number))


def _parts(dataset: DataStorage) -> Iterator[tuple[str, DataStorage]]:
    """Yield a dataset and its reduced resolution levels, each with a prefix for messages."""
    yield "", dataset
    for level in dataset.resolution_levels[1:]:
        yield f"resolution level {level}: ", dataset.level(level)


def _says_gone(error: BaseException) -> bool:
    """Return whether an error was caused by a missing file."""
    seen: BaseException | None = error
    for _ in range(10):
        if isinstance(seen, FileNotFoundError):
            return True
        seen = None if seen is None else seen.__cause__ or seen.__context__
    return False


def backend_of(dataset: DataStorage) -> str:
    """Return the name of the backend that is reading a dataset."""
    return dataset.backend_name or type(dataset).__name__


def as_count(value: Any) -> int | None:
    """Return a frame count from a file, or None if the value is not a valid count."""
    return value if type(value) is int and value >= 0 else None


def stored_of(ledger: Any) -> int | None:
    """Return the number of frames that a ledger records as stored, in all runs; None if it is unknown."""
    stored = as_count(ledger.get("stored")) if isinstance(ledger, dict) else None
    return None if stored is None else stored + (as_count(ledger.get("stored_before")) or 0)


def lost_frames(value: Any) -> list[LostFrame]:
    """Return the frames listed by a ledger or a recovery, or an empty list if the value is malformed."""
    return [
        LostFrame(item["coordinates"], str(item.get("reason", "")))
        for item in (value if isinstance(value, list) else [])
        if isinstance(item, dict) and isinstance(item.get("coordinates"), dict)
    ]


def _compare_with_ledger(report: VerifyReport, annotations: dict[str, Any], in_manifest: int | None) -> None:
    """Add the faults that are evident from the manifest, the ledger or an earlier recovery."""
    frames = report.full_frames
    if in_manifest is not None and in_manifest != frames:
        _add(report, f"the number of frames is {in_manifest} in the manifest, but {frames} in the dataset")
    recovery = annotations.get("recovery")
    total = frames
    if isinstance(recovery, dict):
        lost = lost_frames(recovery.get("lost"))
        report.missing += [
            LostFrame(frame.coordinates, f"lost in the recovery: {frame.reason}") for frame in lost
        ]
        total = max(frames, as_count(recovery.get("total")) or 0)
        if total > frames + len(lost):
            _add(
                report,
                f"further frames lost by the recovery, at unknown coordinates: {total - frames - len(lost)}",
            )
    ledger = annotations.get("ledger")
    if not isinstance(ledger, dict):
        return
    stored = stored_of(ledger)
    if stored is not None and stored != total:
        _add(
            report,
            f"the number of stored frames is {stored} in the ledger, but the dataset accounts for {total}",
        )
    if ledger.get("balanced") is False:
        _add(report, "the ledger does not balance, because some frames were in flight when it was written")
    unstored = lost_frames(ledger.get("not_stored"))
    report.missing += [LostFrame(frame.coordinates, f"not stored: {frame.reason}") for frame in unstored]
    counted = (as_count(ledger.get("failed")) or 0) + (as_count(ledger.get("dropped")) or 0)
    if counted > len(unstored):
        _add(
            report,
            f"the ledger counts more frames as not stored ({counted}) than it lists ({len(unstored)})",
        )


def _add(report: VerifyReport, problem: str) -> None:
    if problem not in report.problems:
        report.problems.append(problem)
