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
import os
import stat
from typing import TYPE_CHECKING

from exengine.datasets.opening import open_dataset, reader_class
from exengine.datasets.recovery_base import FINISHED, RecoverReport, Recovery, is_whole, status_of
from exengine.datasets.recovery_copy import RecoveryIntoCopy
from exengine.datasets.verification import OnProgress, backend_of
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage
from exengine.kernel.errors import (
    DatasetAccessError,
    DatasetExistsError,
    DatasetLockedError,
    ExEngineError,
    OptionError,
    UnsupportedOperationError,
    from_os,
)
from exengine.kernel.storage import manifest
from exengine.kernel.storage.place import DatasetPlace

if TYPE_CHECKING:
    from os import PathLike


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
    cls = reader_class(os.fspath(path))  # an empty path is none, and not the current folder
    source = os.path.realpath(path)
    if manifest.has_writer(source):
        raise DatasetLockedError(f"{source} is being written; recover it when its writer has ended")
    if in_place:
        return _InPlace(source, cls, dry_run, on_progress).run()
    if output is not None and os.path.islink(output) and not os.path.exists(output):
        raise DatasetExistsError(f"{output} is a symbolic link that leads nowhere; choose another output")
    target = os.path.realpath(output) if output is not None else _beside(source, cls)
    return RecoveryIntoCopy(source, target, cls, dry_run, on_progress).run()


def _beside(source: str, cls: type[DataStorage]) -> str:
    for suffix in sorted(cls.capabilities.path_suffixes, key=len, reverse=True):
        if source.endswith(suffix):
            return f"{source.removesuffix(suffix)}-recovered{suffix}"
    return f"{source}-recovered"


class _InPlace(Recovery):
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
            if self.report.dry_run or status_of(dataset) in FINISHED:
                found = self.survey(dataset)
                if is_whole(found):
                    return self.nothing(found)
                self.take(found, dict(dataset.annotations))
        self._refuse_what_cannot_be_mended()
        if self.report.dry_run:
            return self.report
        place = DatasetPlace.reclaim(source)
        try:
            return self._mend(place)
        except OSError as error:
            if isinstance(error, ExEngineError):
                raise
            message = f"{source} cannot be recovered in place: {error}"
            raise from_os(DatasetAccessError, message, error) from error
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
        for folder, _, names in os.walk(source):
            for path in (os.path.join(folder, name) for name in names):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                    raise UnsupportedOperationError(
                        f"{path} has another name elsewhere (a hard link, as in some backups), where its "
                        "content would change, too; recover the dataset into a copy, without --in-place"
                    )

    def _mend(self, place: DatasetPlace) -> RecoverReport:
        with contextlib.closing(open_dataset(place.path)) as dataset:
            annotations = dict(dataset.annotations)
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
