"""Recovers a dataset into a copy next to it.

The copy is built in a :class:`~exengine.datasets.workshop.Workshop`, so it appears either complete or not at
all. If a recovery is killed, the next recovery removes the unfinished copy and starts again.
"""

import contextlib
import itertools
import os
from typing import Any

import numpy as np

from exengine.datasets.opening import open_dataset
from exengine.datasets.recovery_base import (
    FINISHED,
    RecoverReport,
    Recovery,
    is_whole,
    metadata_lost,
    metadata_note,
    status_of,
)
from exengine.datasets.verification import (
    LostFrame,
    OnProgress,
    ReadFrame,
    VerifyReport,
    backend_of,
    read_all,
)
from exengine.datasets.workshop import Workshop
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage, JsonValue
from exengine.kernel.errors import (
    DatasetAccessError,
    DatasetDamagedError,
    DatasetExistsError,
    ExEngineError,
    MetadataError,
    OptionError,
    PluginError,
    StorageStateError,
    UnsupportedOperationError,
    message_of,
)
from exengine.kernel.frames.axis_collector import AxisCollector
from exengine.kernel.registry.options import options_of
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.building import cannot_create

_MOST_TRIED = 10  # maximum number of frames that are read to determine the common layout


class RecoveryIntoCopy(Recovery):
    """Recovers a dataset into a copy."""

    def __init__(
        self, source: str, target: str, cls: type[DataStorage], dry_run: bool, on_progress: OnProgress | None
    ) -> None:
        super().__init__(RecoverReport(source, target, dry_run=dry_run), cls, on_progress)

    def run(self) -> RecoverReport:
        report = self.report
        if report.path == report.source:
            raise OptionError(
                f"the output {report.path} is the dataset itself; to recover it in place, pass in_place"
            )
        if os.path.join(report.path, "").startswith(os.path.join(report.source, "")):
            raise OptionError(
                f"the output {report.path} is inside the dataset, which must not be modified; choose "
                "another output"
            )
        with contextlib.closing(open_dataset(report.source)) as dataset:
            report.backend = backend_of(dataset)
            taken = os.path.lexists(report.path) and not _is_empty_folder(report.path)
            if (report.dry_run and not taken) or status_of(dataset) in FINISHED:
                found = self.survey(dataset)
                if is_whole(found):
                    return self.nothing(found)
                self.take(found, dict(dataset.annotations))
            if taken:
                return self._compare(dataset)
            if not report.dry_run:
                self._build(dataset)
        return report

    def _compare(self, dataset: DataStorage) -> RecoverReport:
        """Check whether the target dataset was recovered from this source and has the same frames."""
        report = self.report
        refusal = DatasetExistsError(
            f"{report.path} already exists and was not recovered from {report.source}; choose another output"
        )
        try:
            other = open_dataset(report.path)
        except ExEngineError as error:
            raise refusal from error
        with contextlib.closing(other):
            note = other.annotations.get("recovery")
            if not isinstance(note, dict) or note.get("source") != report.source:
                raise refusal
            found = VerifyReport(report.source)
            report.lost, report.frames = [], 0
            for frame in read_all(dataset, found, self.on_progress):
                _keep_pixels(frame)
                lost = LostFrame(frame.coordinates.coordinate_dict, frame.problem or "")
                if frame.problem is not None:
                    report.lost.append(lost)
                elif _holds(other, frame):
                    report.frames += 1
                elif frame.coordinates in other:
                    raise DatasetExistsError(
                        f"{report.path} was recovered from {report.source}, but has a different frame at "
                        f"{frame.coordinates.coordinate_dict}; remove that dataset, or choose another output"
                    )
                else:  # the backend rejected this frame in the first run, which reported the loss
                    report.lost.append(
                        LostFrame(lost.coordinates, "the frame is not in the recovered dataset")
                    )
            if report.frames != len(other):
                raise DatasetExistsError(
                    f"{report.path} was recovered from {report.source}, but has a different number "
                    f"of frames ({len(other)} instead of {report.frames}); remove that dataset, or choose "
                    "another output"
                )
            self.complete([], dict(other.annotations))
            report.outcome = "already recovered"
            report.status = str(other.status)
            report.reason = other.status_reason
        return report

    def _build(self, dataset: DataStorage) -> None:
        """Write the copy to a hidden folder, and rename it once it is finished and synced."""
        report = self.report
        workshop = None
        try:
            workshop = Workshop(report.path, "recovering", "recovery")
            workshop.clear(lambda _: self.cls.dataset_files)
            self._write(dataset, workshop.built)
            workshop.publish()
        except OSError as error:
            if isinstance(error, ExEngineError):
                raise
            raise cannot_create(report.path, error) from error
        finally:
            if workshop is not None:
                workshop.leave()

    def _write(self, dataset: DataStorage, built: str) -> None:
        report = self.report
        storage = self._create(dataset, built)
        try:
            self._announce(dataset, storage)
            found = VerifyReport(report.source)
            report.lost, report.frames = [], 0
            for frame in read_all(dataset, found, self.on_progress):
                report.problems += _keep_pixels(frame)
                problem = frame.problem
                if problem is None:
                    assert frame.pixels is not None
                    try:
                        storage.put(frame.coordinates, frame.pixels, frame.metadata)
                    except StorageStateError:
                        raise  # the disk is at fault, not the frame
                    except ExEngineError as error:
                        problem = f"the frame cannot be written to the copy: {error}"
                if problem is None:
                    report.frames += 1
                else:
                    report.lost.append(LostFrame(frame.coordinates.coordinate_dict, problem))
            self.complete(self._problems_of(dataset) + found.problems, dict(dataset.annotations))
            for name, value in {**dataset.annotations, "recovery": self.note()}.items():
                try:
                    storage.annotate(name, value)
                except (UnsupportedOperationError, MetadataError) as error:
                    report.problems.append(f"the annotation {name!r} could not be stored: {error}")
            storage.abort(report.reason)
            if status_of(storage) not in (None, DatasetStatus.ABORTED):
                storage.flush(True)  # raises the underlying error, if it is known
                raise DatasetAccessError(f"{report.path} could not be finished")
        finally:
            storage.close()

    def _announce(self, dataset: DataStorage, storage: DataStorage) -> None:
        """Pass a plan of the frames to the storage, if possible; the copy also works without a plan."""
        collector = AxisCollector()
        try:
            count = 0
            for coordinates in dataset:
                collector.add(coordinates)
                count += 1
            shape, dtype = _common_layout(dataset)
            plan = SourcePlan(
                frames=count,
                shape=shape,
                dtype=dtype,
                axes=collector.axes(),
                coordinates=lambda: iter(dataset),
            )
        except ExEngineError:  # the coordinates cannot be listed or read, so there is no plan
            return
        try:
            storage.expect(plan)
        except StorageStateError:
            raise  # the disk is at fault
        except ExEngineError as error:
            self.report.problems.append(f"the copy was written without a plan: {error}")

    def _create(self, dataset: DataStorage, built: str) -> DataStorage:
        """Create the storage for the copy, with the summary metadata of the source if it has any."""
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
                self.report.problems.append(f"the summary metadata could not be stored: {error}")
                return self.cls.create(built)
        except ExEngineError:
            raise
        except OSError as error:
            raise cannot_create(self.report.path, error) from error
        except Exception as error:
            raise PluginError(f"{self.cls.__name__} cannot create the copy: {message_of(error)}") from error

    def _problems_of(self, dataset: DataStorage) -> list[str]:
        problems = list(self.report.problems)
        with contextlib.suppress(UnsupportedOperationError, DatasetDamagedError):
            problems += dataset.check_structure()
        status, reason = status_of(dataset), dataset.status_reason
        if status is DatasetStatus.DAMAGED and reason and reason not in problems:
            problems.append(reason)
        if len(dataset.resolution_levels) > 1:
            problems.append("only the frames at full resolution were kept, not the other resolution levels")
        return problems


def _keep_pixels(frame: ReadFrame) -> list[str]:
    """If a frame's metadata is unreadable, replace it with a note, and return a message about the loss."""
    reason = frame.metadata_problem
    if reason is None:
        return []
    frame.metadata, frame.problem = metadata_note(reason, frame.readable), None
    return [metadata_lost(frame.coordinates.coordinate_dict, reason)]


def _holds(other: DataStorage, frame: Any) -> bool:
    try:
        pixels = other.get_data(frame.coordinates)
        same = pixels.dtype == frame.pixels.dtype and np.array_equal(pixels, frame.pixels)
        return bool(same) and other.get_metadata(frame.coordinates) == frame.metadata
    except Exception:  # a missing or damaged frame does not equal any other frame
        return False


def _common_layout(dataset: DataStorage) -> tuple[tuple[int, ...] | None, str | None]:
    """Return the shape and dtype that all frames share, if the format requires this."""
    if dataset.capabilities.same_shape:
        for coordinates in itertools.islice(dataset, _MOST_TRIED):
            with contextlib.suppress(ExEngineError):  # this frame is damaged
                pixels = dataset.get_data(coordinates)
                return pixels.shape, pixels.dtype.name
    return None, None


def _is_empty_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.listdir(path)
