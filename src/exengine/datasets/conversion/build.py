"""The dataset that a conversion builds, and the files next to it that record the progress."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

from exengine.datasets.conversion.copy import FrameCopy
from exengine.datasets.conversion.losses import Loss, TargetLimits
from exengine.datasets.conversion.result import same_frames, summary_of
from exengine.datasets.conversion.settings import Settings
from exengine.datasets.conversion.source import SourceFrames, write_durably
from exengine.datasets.creation import StoragePlan, files_of_writer
from exengine.datasets.recovery_base import status_of
from exengine.datasets.verification import OnProgress
from exengine.datasets.workshop import CONVERTING, Workshop, folder_beside
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage, JsonValue
from exengine.kernel.errors import (
    CoordinatesError,
    DatasetAccessError,
    DatasetDamagedError,
    DatasetExistsError,
    DatasetNotFoundError,
    ExEngineError,
    OptionError,
    StorageFailedError,
    StorageStateError,
    UnsupportedDataError,
    UnsupportedOperationError,
    from_os,
)
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.description import CONVERSION, PLAN, plan_to_json
from exengine.kernel.storage.managed import ManagedStorage
from exengine.kernel.system import files
from exengine.kernel.system.bounded import parse_json

SETTINGS, CHECKED, PROGRESS, SHARED = "settings.json", "checked", "progress.json", "shared.json"
OWN_FILES = [name for file in (SETTINGS, CHECKED, PROGRESS, SHARED) for name in (file, f"{file}.new")]
_MOST_NAMED = 3  # maximum number of losses in one message
_OF_ALL_FRAMES = ("ledger", "recovery", "runs")
"""Annotations that are valid only for the entire source, not for a selection of its frames."""


class Build:
    """The unfinished result of a conversion, as a context manager that keeps the progress after an error.

    Parameters
    ----------
    path : str
        The final path of the result.
    target : StoragePlan
        The backend and its options.
    settings : Settings
    source : SourceFrames
    ending : str
        The ending of the name of the folder in which the result is built.
    """

    def __init__(
        self,
        path: str,
        target: StoragePlan,
        settings: Settings,
        source: SourceFrames,
        ending: str = CONVERTING,
    ) -> None:
        self.target = target
        self._settings = settings
        self.source = source
        self._workshop = Workshop(path, ending, "conversion", OWN_FILES)
        self._keep = True
        self._limits = TargetLimits(target)
        self.losses: list[Loss] = []
        """The parts of the source that the result does not contain; empty until the frames are checked."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._workshop.leave(keep=self._keep)

    def path_of(self, name: str) -> str:
        """Return the path of a file that records the progress."""
        return os.path.join(self._workshop.folder, name)

    # -- before the copy -------------------------------------------------------------------------

    def begin(self, *, restart: bool) -> None:
        """Continue an earlier attempt, or start from the beginning.

        Raises
        ------
        DatasetExistsError
            If the folder contains an unfinished conversion with different settings.
        """
        earlier = Settings.read(self.path_of(SETTINGS))
        if earlier is not None and not restart and earlier.fingerprint == self._settings.fingerprint:
            return
        if earlier is not None and not restart:
            raise DatasetExistsError(
                f"{self._workshop.folder} contains an unfinished conversion with different settings: "
                f"{', '.join(self._settings.differing(earlier))}. Set restart to discard it, choose another "
                "path, or, if the source is unchanged, repeat the command with those settings to finish it"
            )
        self.discard()
        write_durably(self.path_of(SETTINGS), self._settings.encode())

    @staticmethod
    def left_beside(path: str) -> bool:
        """Return whether there is an unfinished conversion to a path."""
        return os.path.isdir(folder_beside(path, CONVERTING))

    def tidy(self) -> None:
        """Remove the progress record, unless it belongs to a different conversion."""
        earlier = Settings.read(self.path_of(SETTINGS))
        if earlier is None or earlier.fingerprint == self._settings.fingerprint:
            self.discard()
            self._keep = False

    def discard(self) -> None:
        """Remove the unfinished dataset and its progress record."""
        self._workshop.clear(files_of_writer)

    def assume(self) -> bool:
        """If the first frame can be read and stored, assume the same of all frames, and return True.

        The frames are then read only once. If the copy encounters a frame that contradicts this assumption,
        all frames must be checked.
        """
        source = self.source
        if source.load(self.path_of(CHECKED)):
            return False
        source.assume(source.first_layout())
        try:
            self._refuse(source.plan())
        except (UnsupportedDataError, CoordinatesError):
            source.forget()
            return False
        return self._limits.stores_metadata

    def start_again(self) -> None:
        """Discard the frames that were copied unchecked, so that the conversion can begin with the check."""
        self._workshop.clear(files_of_writer, keep=(SETTINGS,))
        self.source.forget()

    def check(self, on_progress: OnProgress) -> None:
        """Check that the backend accepts every frame and, unless this is already known, that all can be read.

        If losses are allowed, frames that the backend does not accept are left out instead.

        Raises
        ------
        DatasetDamagedError, UnsupportedDataError, CoordinatesError
        """
        source, allowed = self.source, self._settings.allow_loss
        is_known = source.load(self.path_of(CHECKED))
        if not is_known:
            self._keep = False  # nothing has been written yet
            if not allowed:  # refuse early, without reading all frames
                source.layouts = [source.first_layout()]
                self._refuse_frames()
                source.layouts = []
            source.check(on_progress)
        kept = self._find_losses() if allowed else None
        self._refuse_frames(kept)
        if not is_known:
            source.save(self.path_of(CHECKED))
            self._keep = True
        if kept is not None:
            source.leave_out(kept)

    def _find_losses(self) -> bytearray | None:
        """Find the losses. Return for each frame whether it is kept, or None if all are kept."""
        source = self.source
        source.without_metadata = not self._limits.stores_metadata
        losses: list[Loss] = []
        kept = None
        try:
            self._refuse(source.plan())
        except (UnsupportedDataError, CoordinatesError):
            kept, losses = self._limits.losses(source.with_layouts, source.count)
        if source.without_metadata:
            first = next(new for _, new in source.pairs())
            count = source.count if kept is None else sum(kept)
            losses.append(Loss("the backend does not store it", count, dict(first.__dict__), "metadata"))
        self.losses = losses
        return kept

    def _refuse(self, plan: SourcePlan) -> None:
        assert plan.coordinates is not None
        self._limits.refuse(plan.layouts, plan.coordinates, plan.pixel_bytes)

    def _refuse_frames(self, kept: bytearray | None = None) -> None:
        """Raise the error that the backend would raise for the frames.

        If ``kept`` is given, an error is raised only if no frame is kept.
        """
        source = self.source
        if kept is not None:
            if not any(kept):
                raise UnsupportedDataError(
                    f"{self.target.name} cannot store any frame of {source.path}: "
                    f"{self.losses[0].reason}. Nothing was written"
                )
            return
        try:
            if not self._limits.stores_metadata and not self._settings.allow_loss:
                raise UnsupportedDataError("the backend does not store metadata")
            self._refuse(source.plan())
        except (UnsupportedDataError, CoordinatesError) as error:
            text = (
                f"{self.target.name} cannot store the frames of {source.path}: {self._refused() or error}. "
                "Nothing was written; set allow_loss (--allow-loss) to leave out the frames that the "
                "backend cannot store"
            )
            error.args = (text,)
            raise

    def _refused(self) -> str:
        """Return the losses as a phrase; empty if only the first frame has been read."""
        source = self.source
        if len(source.layout_numbers) != source.count:
            return ""
        losses = self._limits.losses(source.with_layouts, source.count)[1]
        more = f"; losses not listed: {len(losses) - _MOST_NAMED}" if len(losses) > _MOST_NAMED else ""
        return "; ".join(loss.text(source.count) for loss in losses[:_MOST_NAMED]) + more

    # -- the copy --------------------------------------------------------------------------------

    def copy(self, on_progress: OnProgress) -> int:
        """Copy the frames that the result does not contain yet, and finish the result.

        Returns
        -------
        int
            The number of frames that an earlier attempt had copied.
        """
        if self.is_finished():
            return self.source.count
        storage = self._continued() or self.created()
        found = len(storage)
        copy = FrameCopy(self.source, storage, self.note_synced)
        try:
            copy.run(lambda: self.finish(storage), on_progress)
        except StorageFailedError as error:
            raise from_os(
                DatasetAccessError,
                f"writing the result failed after {copy.done} of {self.source.count} frames: "
                f"{error.__cause__ or error}; fix the cause, and run the same command again. The conversion "
                "then starts from the beginning",
                error,
            ) from error
        finally:
            with contextlib.suppress(StorageFailedError):  # this error was already reported
                storage.close()
        return found

    def is_finished(self) -> bool:
        """Return whether an earlier attempt finished the dataset."""
        try:
            with self.opened() as result:
                note = result.annotations.get(CONVERSION)
                same = isinstance(note, dict) and note.get("fingerprint") == self._settings.fingerprint
                return same and result.status == (status_of(self.source.dataset) or DatasetStatus.COMPLETE)
        except ExEngineError:
            return False

    def _continued(self) -> DataStorage | None:
        """Return the unfinished dataset of an earlier attempt, open for writing, or None."""
        cls = self.target.cls
        if not issubclass(cls, ManagedStorage):
            return None
        try:
            with self.opened() as result:
                count = len(result)
                if result.status != DatasetStatus.INCOMPLETE or not 0 < count <= self.source.count:
                    return None
                if not same_frames(self.source, result, self.reopen, min(self._synced(), count), count):
                    return None
            return cls.resume(self._workshop.built, **self._options())
        except (DatasetNotFoundError, DatasetDamagedError, OptionError, UnsupportedOperationError):
            return None  # the dataset has no complete frame, or cannot be continued

    def created(self) -> DataStorage:
        """Create the dataset, and return its storage. An earlier attempt is removed."""
        self._workshop.clear(files_of_writer, keep=(SETTINGS, CHECKED))
        storage = self.target.cls.create(self._workshop.built, **self._options())
        try:
            storage.expect(self.source.plan())
        except StorageStateError:
            storage.close()
            raise
        return storage

    def _options(self) -> dict[str, JsonValue]:
        if self.source.without_metadata:
            return dict(self.target.options)
        return {"summary_metadata": summary_of(self.source.dataset), **self.target.options}

    def _synced(self) -> int:
        """Return the number of frames that survive power loss."""
        try:
            with os.fdopen(files.open_regular(self.path_of(PROGRESS)), "rb") as file:
                return int(parse_json(file.read(1000))["synced"])
        except (OSError, ValueError, TypeError, KeyError):
            return 0

    def note_synced(self, count: int) -> None:
        """Record the number of frames that survive power loss."""
        write_durably(self.path_of(PROGRESS), json.dumps({"synced": count}).encode())

    def finish(self, storage: DataStorage) -> None:
        """Store the annotations, and give the dataset the status of the source."""
        dataset = self.source.dataset
        for name, value in self._annotations().items():
            with contextlib.suppress(UnsupportedOperationError):
                storage.annotate(name, value)
        status = status_of(dataset)
        if status in (None, DatasetStatus.COMPLETE):
            storage.finish()
        else:
            storage.abort(dataset.status_reason, failed=status is DatasetStatus.FAILED)

    @property
    def built(self) -> str:
        """The path of the unfinished dataset."""
        return self._workshop.built

    def _annotations(self) -> dict[str, Any]:
        dataset, settings = self.source.dataset, self._settings
        kept = dict(dataset.annotations)
        note: dict[str, Any] = {
            "source": settings.source,
            "backend": dataset.backend_name or type(dataset).__name__,
            "fingerprint": settings.fingerprint,
        }
        if plan := plan_to_json(self.source.facts()):
            note["plan"] = plan
        if self.losses:
            note["losses"] = [loss.to_json() for loss in self.losses]
        if settings.select or settings.rename:
            note |= {"select": settings.select, "rename": settings.rename}
        if not self.source.is_whole:
            note |= {name: kept.pop(name) for name in _OF_ALL_FRAMES if name in kept}
            kept.pop(PLAN, None)  # describes the source; the parts that still apply are in the note
        if CONVERSION in kept:
            note["earlier"] = kept.pop(CONVERSION)
        return {**kept, CONVERSION: note}

    # -- after the copy --------------------------------------------------------------------------

    @contextlib.contextmanager
    def opened(self) -> Iterator[DataStorage]:
        """Open the dataset for reading."""
        with contextlib.closing(self.reopen()) as dataset:
            yield dataset

    @property
    def reopen(self) -> Callable[[], DataStorage]:
        """A function that opens the dataset for reading, even in another process."""
        return partial(self.target.cls.open, self._workshop.built)

    def publish(self, path: str) -> None:
        """Rename the dataset to its final path.

        Raises
        ------
        DatasetExistsError
            If the path is in use. The dataset is kept.
        """
        self._workshop.publish(path)
        self._keep = False
