"""Makes a finished dataset of what survives of another one.

Into a copy, beside the original, with any backend that can write what it reads; or in place, where
the backend mends its own format. Responsible for what is kept, for what is said of the rest, and for
this: whoever is killed on the way leaves nothing that can be taken for a finished dataset, and a
second run comes to the same end.

A copy is built in a hidden folder beside its place, under a lock, and renamed when it is finished and
on the disk. In place, the manifest is written last; what is lost is noted in it first, because
afterwards nothing of it can be found any more.
"""

import contextlib
import errno
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from exengine.kernel import manifest, platform
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage, JsonValue
from exengine.kernel.dataset_place import DatasetPlace
from exengine.kernel.errors import (
    DatasetAccessError,
    DatasetDamagedError,
    DatasetExistsError,
    DatasetLockedError,
    ExEngineError,
    MetadataError,
    OptionError,
    PluginError,
    StorageStateError,
    UnsupportedOperationError,
)
from exengine.kernel.options import options_of
from exengine.kernel.storage_factory import open_dataset, reader_class
from exengine.kernel.verification import (
    LostFrame,
    OnProgress,
    VerifyReport,
    annotations_of,
    as_count,
    backend_of,
    describe,
    lost_frames,
    read_all,
    survey,
)

if TYPE_CHECKING:
    from os import PathLike

MAX_NAMED = 1000
"""How many lost frames the manifest names; the others are counted."""
_MAX_NAMED_BYTES = 2**20
_MAX_SENTENCE = 500

_FINISHED = frozenset((DatasetStatus.COMPLETE, DatasetStatus.ABORTED, DatasetStatus.FAILED))


@dataclass
class RecoverReport:
    """What :func:`exengine.recover` did, or would do.

    Attributes
    ----------
    source : str
        The dataset that was looked at.
    path : str
        Where the finished dataset lies: the copy, or the source itself.
    outcome : {'recovered', 'already recovered', 'nothing to recover'}
    backend : str
        Who writes it.
    status : str
        Of the finished dataset.
    reason : str
        Why the status is what it is.
    frames : int
        How many the finished dataset holds.
    total : int
        How many there were, as far as index, manifest and ledger tell.
    lost : list of LostFrame
        Frames that did not survive, and why. There may be more of them that nothing names: see
        ``total``.
    problems : list of str
        What else was wrong with the source, a sentence each.
    in_place, dry_run : bool
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
        """Whether every frame survived."""
        return not self.lost and self.frames == self.total

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {**vars(self), "lost": [frame.to_dict() for frame in self.lost], "ok": self.ok}


def recover(
    path: "str | PathLike[str]",
    *,
    output: "str | PathLike[str] | None" = None,
    in_place: bool = False,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> RecoverReport:
    """Make a finished dataset of every frame that reads back right.

    Of a dataset whose writer was killed, or of a damaged one. The status is ``aborted``, and the
    reason says from what it was recovered. It may be killed at any point and run again. Run twice, it
    changes nothing the second time.

    Parameters
    ----------
    path : path
        Of the dataset. It is not written to, unless ``in_place``.
    output : path, optional
        Where the finished dataset will lie; by default beside the other, with ``-recovered`` added to
        its name.
    in_place : bool
        Mend the dataset itself, which needs no more space on the disk. What is damaged is taken out of
        its index, and an older index is kept beside the new one.
    dry_run : bool
        Only tell what would be done. Nothing at all is written.
    on_progress : callable, optional
        Called with the number of frames that were read, and of all.

    Returns
    -------
    RecoverReport
        With the frames that did not survive.

    Raises
    ------
    DatasetLockedError
        When a writer, or another recovery, is at work.
    DatasetExistsError
        When something else is where the finished dataset should lie.
    UnsupportedOperationError
        When the backend cannot do it in place.
    ExEngineError
        When the dataset cannot be opened, or the disk cannot take the other one.

    Examples
    --------
    >>> import exengine, numpy as np, tempfile
    >>> path = tempfile.mkdtemp()
    >>> storage = exengine.open_storage("ndtiff", path)
    >>> storage.put({"time": 0}, np.zeros((4, 4), np.uint16), None)
    >>> storage.close()  # without finish: as after a crash
    >>> report = exengine.recover(path)
    >>> report.frames, report.status
    (1, 'aborted')
    >>> exengine.verify(report.path).ok
    True
    """
    if in_place and output is not None:
        raise OptionError("in_place mends the dataset where it lies: it goes with no output")
    source = os.path.realpath(path)
    cls = reader_class(source)
    if manifest.has_writer(source):
        raise DatasetLockedError(f"{source} is being written; recover it when its writer has ended")
    if in_place:
        return _InPlace(source, cls, dry_run, on_progress).run()
    target = os.path.realpath(output) if output is not None else _beside(source, cls)
    return _Copy(source, target, cls, dry_run, on_progress).run()


def _beside(source: str, cls: type[DataStorage]) -> str:
    for suffix in sorted(cls.capabilities.path_suffixes, key=len, reverse=True):
        if source.endswith(suffix):
            return f"{source.removesuffix(suffix)}-recovered{suffix}"
    return f"{source}-recovered"


class _Recovery:
    """What both ways have in common: what is known of the source, and what is said of it.

    Parameters
    ----------
    report : RecoverReport
    on_progress : callable or None
    """

    def __init__(self, report: RecoverReport, cls: type[DataStorage], on_progress: OnProgress | None) -> None:
        self.report = report
        self.cls = cls
        self.on_progress = on_progress

    def survey(self, dataset: DataStorage) -> VerifyReport:
        return survey(dataset, self.report.source, self.on_progress)

    def take(self, found: VerifyReport, annotations: dict[str, Any]) -> None:
        """Note what survives and what does not, this time and in recoveries before."""
        report = self.report
        report.lost = [*found.damaged, *found.missing]
        report.frames = found.frames - len(report.lost)
        self.complete(found.problems, annotations)

    def complete(self, problems: list[str], annotations: dict[str, Any]) -> None:
        """Add to what was found what manifest, ledger and earlier recoveries say."""
        report = self.report
        before = annotations.get("recovery")
        before = before if isinstance(before, dict) else {}
        known = {_key(frame.coordinates) for frame in report.lost}
        earlier = [f for f in lost_frames(before.get("lost")) if _key(f.coordinates) not in known]
        report.lost = [*earlier, *report.lost]
        noted = before.get("problems")
        noted = [str(problem) for problem in noted] if isinstance(noted, list) else []
        report.problems = [*dict.fromkeys([*noted, *problems])]
        ledger = annotations.get("ledger")
        counts = [
            before.get("total"),
            manifest_count(report.source),
            ledger.get("stored") if isinstance(ledger, dict) else None,
        ]
        report.total = max(report.frames + len(report.lost), *(as_count(count) or 0 for count in counts))
        report.status = str(DatasetStatus.ABORTED)
        report.reason = f"recovered from {report.source}: {report.frames} of {report.total} frames"

    def nothing(self, found: VerifyReport) -> RecoverReport:
        """Report that the source is finished and whole."""
        report = self.report
        report.outcome, report.path = "nothing to recover", report.source
        report.frames = report.total = found.frames
        report.status, report.reason = found.status, found.reason
        return report

    def note(self) -> dict[str, Any]:
        """Return what the manifest of the finished dataset keeps of the recovery."""
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


def _named(lost: list[LostFrame]) -> list[dict[str, Any]]:
    """Return the first of the lost frames, as many as a manifest has room for."""
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
    """Return whether a dataset is finished and nothing of it is damaged."""
    return found.status in _FINISHED and found.ok


def manifest_count(path: str) -> int | None:
    """Return how many frames the manifest of a finished dataset says that it has."""
    content = manifest.read_manifest(path) if os.path.isdir(path) else None
    return as_count(content.get("frames")) if content else None


def _key(coordinates: dict[str, int | str]) -> frozenset[tuple[str, str]]:
    return frozenset((axis, repr(value)) for axis, value in coordinates.items())


# -- in place ------------------------------------------------------------------------------------


class _InPlace(_Recovery):
    """Recovers a dataset where it lies."""

    def __init__(
        self, source: str, cls: type[DataStorage], dry_run: bool, on_progress: OnProgress | None
    ) -> None:
        super().__init__(RecoverReport(source, source, in_place=True, dry_run=dry_run), cls, on_progress)

    def run(self) -> RecoverReport:
        source = self.report.source
        with contextlib.closing(open_dataset(source)) as dataset:
            self.report.backend = backend_of(dataset)
            # A dataset that is finished is looked at before its lock is touched: it may be whole.
            if self.report.dry_run or _status_of(dataset) in _FINISHED:
                found = self.survey(dataset)
                if is_whole(found):
                    return self.nothing(found)
                self.take(found, annotations_of(dataset))
        self._refuse_what_cannot_be_mended()
        if self.report.dry_run:
            return self.report
        place = DatasetPlace.reclaim(source)
        try:
            return self._mend(place)
        except OSError as error:
            if isinstance(error, ExEngineError):
                raise
            refusal = DatasetAccessError(f"{source} cannot be recovered in place: {error}")
            refusal.errno = error.errno
            raise refusal from error
        finally:
            place.unlock()

    def _refuse_what_cannot_be_mended(self) -> None:
        source = self.report.source
        if not os.path.isdir(source) or manifest.read_manifest(source) is None:
            raise UnsupportedOperationError(
                f"{source} was not written by ExEngine, so that nothing tells whether its writer is still at "
                "work; recover it into a copy, without --in-place"
            )
        if self.cls.recover_in_place.__func__ is DataStorage.recover_in_place.__func__:  # type: ignore[attr-defined]
            raise UnsupportedOperationError(
                f"{self.cls.__name__} cannot recover a dataset in place; recover it into a copy, without "
                "--in-place"
            )

    def _mend(self, place: DatasetPlace) -> RecoverReport:
        with contextlib.closing(open_dataset(place.path)) as dataset:
            annotations = annotations_of(dataset)
            found = self.survey(dataset)
        lost = [frame.coordinates for frame in (*found.damaged, *found.missing)]
        if is_whole(found):  # somebody else was faster
            return self.nothing(found)
        self.take(found, annotations)
        # First, because the frames that are taken out now are not found by the run after this one.
        place.reopen("recovery", self.note())
        self.cls.recover_in_place(place.path, [DataCoordinates(axes) for axes in lost])
        place.conclude(DatasetStatus.ABORTED, self.report.reason, self.report.frames)
        return self.report


# -- into a copy ---------------------------------------------------------------------------------


class _Copy(_Recovery):
    """Recovers a dataset into another one."""

    def __init__(
        self, source: str, target: str, cls: type[DataStorage], dry_run: bool, on_progress: OnProgress | None
    ) -> None:
        super().__init__(RecoverReport(source, target, dry_run=dry_run), cls, on_progress)

    def run(self) -> RecoverReport:
        report = self.report
        if report.path == report.source:
            raise OptionError(f"{report.path} is the dataset itself; to recover it there, say in_place")
        if os.path.join(report.path, "").startswith(os.path.join(report.source, "")):
            raise OptionError(f"{report.path} lies inside the dataset, which is not written to")
        with contextlib.closing(open_dataset(report.source)) as dataset:
            report.backend = backend_of(dataset)
            taken = os.path.lexists(report.path) and not _is_empty_folder(report.path)
            if (report.dry_run and not taken) or _status_of(dataset) in _FINISHED:
                found = self.survey(dataset)
                if is_whole(found):
                    return self.nothing(found)
                self.take(found, annotations_of(dataset))
            if taken:
                return self._compare(dataset)
            if not report.dry_run:
                self._build(dataset)
        return report

    def _compare(self, dataset: DataStorage) -> RecoverReport:
        """Look whether what is at the target was recovered from this dataset, and is the same."""
        report = self.report
        refusal = DatasetExistsError(
            f"{report.path} is there already, and was not recovered from {report.source}; choose another "
            "output"
        )
        try:
            other = open_dataset(report.path)
        except ExEngineError as error:
            raise refusal from error
        with contextlib.closing(other):
            note = annotations_of(other).get("recovery")
            if not isinstance(note, dict) or note.get("source") != report.source:
                raise refusal
            found = VerifyReport(report.source)
            report.lost, report.frames = [], 0
            for frame in read_all(dataset, found, self.on_progress):
                lost = LostFrame(frame.coordinates.coordinate_dict, frame.problem or "")
                if frame.problem is not None:
                    report.lost.append(lost)
                elif _holds(other, frame):
                    report.frames += 1
                elif frame.coordinates in other:
                    raise DatasetExistsError(
                        f"{report.path} was recovered from {report.source}, but differs at "
                        f"{frame.coordinates.coordinate_dict}; remove it, or choose another output"
                    )
                else:  # the backend could not take it, which was said then
                    report.lost.append(LostFrame(lost.coordinates, "it is not in what was recovered"))
            if report.frames != len(other):
                raise DatasetExistsError(
                    f"{report.path} was recovered from {report.source}, but holds {len(other)} frames "
                    f"instead of {report.frames}; remove it, or choose another output"
                )
            self.complete([], annotations_of(other))
            report.outcome = "already recovered"
            report.status = str(other.status)
            report.reason = str(getattr(other, "status_reason", ""))
        return report

    def _build(self, dataset: DataStorage) -> None:
        """Write the copy in a hidden folder, and rename it when it is finished and on the disk."""
        report = self.report
        parent, name = os.path.split(report.path)
        workshop = os.path.join(parent, f".{name}.recovering")
        built = os.path.join(workshop, name)
        try:
            os.makedirs(parent, exist_ok=True)
            lock = _enter(workshop)
        except OSError as error:
            if isinstance(error, ExEngineError):
                raise
            raise _access_error(report.path, error) from error
        try:
            _clear(workshop)
            self._write(dataset, built)
            if os.path.lexists(report.path) and not _is_empty_folder(report.path):
                raise DatasetExistsError(f"{report.path} has come to be there meanwhile; it is left as it is")
            os.rename(built, report.path)
            platform.sync_folder(parent)
            platform.sync_folder(workshop)
        except OSError as error:
            if isinstance(error, ExEngineError):
                raise
            raise _access_error(report.path, error) from error
        finally:
            _leave(workshop, lock)

    def _write(self, dataset: DataStorage, built: str) -> None:
        report = self.report
        storage = self._create(dataset, built)
        try:
            found = VerifyReport(report.source)
            report.lost, report.frames = [], 0
            for frame in read_all(dataset, found, self.on_progress):
                problem = frame.problem
                if problem is None:
                    assert frame.pixels is not None
                    try:
                        storage.put(frame.coordinates, frame.pixels, frame.metadata)
                    except StorageStateError:
                        raise  # the disk, and not the frame
                    except ExEngineError as error:
                        problem = f"it cannot be written again: {error}"
                if problem is None:
                    report.frames += 1
                else:
                    report.lost.append(LostFrame(frame.coordinates.coordinate_dict, problem))
            self.complete(self._problems_of(dataset) + found.problems, annotations_of(dataset))
            for name, value in {**annotations_of(dataset), "recovery": self.note()}.items():
                try:
                    storage.annotate(name, value)
                except (UnsupportedOperationError, MetadataError) as error:
                    report.problems.append(f"the annotation {name!r} could not be kept: {error}")
            storage.abort(report.reason)
            if _status_of(storage) not in (None, DatasetStatus.ABORTED):
                storage.flush(True)  # raises why it could not be finished
                raise DatasetAccessError(f"{report.path} could not be finished")
        finally:
            storage.close()

    def _create(self, dataset: DataStorage, built: str) -> DataStorage:
        """Make the storage of the copy, with the metadata of the whole dataset where there are such."""
        options: dict[str, JsonValue] = {}
        if any(option.name == "summary_metadata" for option in options_of(self.cls)):
            with contextlib.suppress(ExEngineError):
                options["summary_metadata"] = dataset.summary_metadata
        try:
            try:
                return self.cls.create(built, **options)
            except ExEngineError as error:
                if not options or isinstance(error, OSError):
                    raise
                self.report.problems.append(f"the summary metadata could not be kept: {error}")
                return self.cls.create(built)
        except ExEngineError:
            raise
        except OSError as error:
            raise _access_error(self.report.path, error) from error
        except Exception as error:
            raise PluginError(f"{self.cls.__name__} cannot make the copy: {describe(error)}") from error

    def _problems_of(self, dataset: DataStorage) -> list[str]:
        problems = list(self.report.problems)
        with contextlib.suppress(UnsupportedOperationError, DatasetDamagedError):
            problems += dataset.check_structure()
        status, reason = _status_of(dataset), str(getattr(dataset, "status_reason", ""))
        if status is DatasetStatus.DAMAGED and reason and reason not in problems:
            problems.append(reason)
        if len(getattr(dataset, "resolution_levels", ())) > 1:
            problems.append("only the frames at full resolution were kept, not the other resolution levels")
        return problems


def _holds(other: DataStorage, frame: Any) -> bool:
    try:
        pixels = other.get_data(frame.coordinates)
        same = pixels.dtype == frame.pixels.dtype and np.array_equal(pixels, frame.pixels)
        return bool(same) and other.get_metadata(frame.coordinates) == frame.metadata
    except Exception:  # it is not there, or it is damaged: not the same
        return False


def _status_of(storage: DataStorage) -> DatasetStatus | None:
    try:
        return storage.status
    except UnsupportedOperationError:
        return None


def _is_empty_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.listdir(path)


def _access_error(path: str, error: OSError) -> DatasetAccessError:
    refusal = DatasetAccessError(f"cannot make a dataset at {path}: {error.strerror or error}")
    refusal.errno = error.errno
    return refusal


def _enter(workshop: str) -> int:
    """Take the lock of the hidden folder, which is made where it is not there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(workshop)
    if os.path.islink(workshop):  # what it leads to would be cleared
        raise OSError(errno.EINVAL, f"{workshop} is a symbolic link; remove it")
    busy = DatasetLockedError(f"another recovery is at work in {workshop}; wait until it has ended")
    try:
        lock = manifest.take_lock(workshop)
    except FileNotFoundError:  # another one has just ended there
        raise busy from None
    if lock is None:
        raise busy
    # Another one may have ended, and taken the file away, between opening it and locking it.
    try:
        same = os.path.samestat(os.fstat(lock), os.stat(os.path.join(workshop, manifest.LOCK_NAME)))
    except FileNotFoundError:
        same = False
    if not same:
        os.close(lock)
        raise busy
    return lock


def _clear(workshop: str) -> None:
    """Remove what one that was killed has left."""
    with os.scandir(workshop) as entries:
        for entry in entries:
            if entry.name == manifest.LOCK_NAME:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def _leave(workshop: str, lock: int) -> None:
    """Remove the hidden folder as far as possible, the lock last, and let others in."""
    with contextlib.suppress(OSError):
        _clear(workshop)
        if os.name == "nt":  # pragma: no cover - an open file cannot be removed there
            os.close(lock)
            lock = -1
        os.unlink(os.path.join(workshop, manifest.LOCK_NAME))
        os.rmdir(workshop)
    if lock >= 0:
        os.close(lock)
