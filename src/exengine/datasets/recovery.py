"""Recovers an incomplete or damaged dataset by creating a finished dataset from its readable frames.

A dataset can be recovered into a copy next to the original, if its backend can both read and write it. It can
also be recovered in place, if the backend can repair its own format. This package decides which frames are
kept, and reports the frames that are lost. If a recovery is killed, it leaves nothing that could be mistaken
for a finished dataset, and running it again gives the same result.

A copy is built under a lock, in a hidden folder next to its final path, and is renamed once it is finished
and synced. For a recovery in place, the lost frames are recorded in the manifest before anything else,
because they cannot be found later. The final version of the manifest is written last.
"""

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from exengine.datasets.content import paths_of_dataset
from exengine.datasets.opening import open_dataset, reader_class, remote_reader
from exengine.datasets.recovery_base import (
    FINISHED,
    RecoverReport,
    Recovery,
    is_whole,
    metadata_note,
    status_of,
)
from exengine.datasets.recovery_copy import RecoveryIntoCopy
from exengine.datasets.verification import LostFrame, OnProgress, backend_of
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
from exengine.kernel.storage.one_file.place import reclaim
from exengine.kernel.storage.place import DatasetPlace
from exengine.kernel.storage.remote import RemoteDatasets, is_url
from exengine.kernel.system.files import expanded

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
    """Create a finished dataset from those frames of a dataset that can be read correctly.

    Use this function if a dataset is damaged, or incomplete because its writer was killed. The recovered
    dataset has the status ``aborted``, and its reason names the source. A frame with intact pixels and
    damaged metadata is kept, with a note in place of its metadata. The recovery can be killed at any point
    and run again. Running it again after it has succeeded changes nothing.

    Parameters
    ----------
    path : path
        The dataset. It is not modified unless ``in_place`` is set.
    output : path, optional
        The path of the finished dataset. By default, it is next to the original and has the same name with
        ``-recovered`` added.
    in_place : bool
        Whether to repair the dataset itself, which needs no additional disk space. Frames with damaged pixels
        are removed from its index, and the old index is kept next to the new index.
    dry_run : bool
        Whether to report the result without writing anything.
    on_progress : callable, optional
        Called with the number of frames read so far and the total number of frames.

    Returns
    -------
    RecoverReport
        The result, including the frames that could not be recovered.

    Raises
    ------
    DatasetLockedError
        If a writer, or another recovery, is active.
    DatasetExistsError
        If the output path exists, and is not the result of an earlier recovery of the same dataset.
    UnsupportedOperationError
        If the backend cannot recover the dataset in place.
    ExEngineError
        If the dataset cannot be opened, or the finished dataset cannot be written.

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
        raise OptionError(
            "in_place repairs the dataset itself and needs no output; pass either in_place or output"
        )
    if is_url(path):
        return _recover_remote(os.fspath(path), output, in_place, dry_run, on_progress)
    path, output = expanded(path), None if output is None else expanded(output)
    cls = reader_class(path)  # an empty path is an error; it does not mean the current folder
    source = os.path.realpath(path)
    if manifest.has_writer(source):
        raise DatasetLockedError(
            f"{source} is being written; wait until its writer has ended, then recover it"
        )
    if in_place:
        return _InPlace(source, cls, dry_run, on_progress).run()
    if output is not None and os.path.islink(output) and not os.path.exists(output):
        raise DatasetExistsError(f"{output} is a broken symbolic link; choose another output")
    target = os.path.realpath(output) if output is not None else _beside(source, cls)
    return RecoveryIntoCopy(source, target, cls, dry_run, on_progress).run()


def _recover_remote(
    url: str,
    output: "str | PathLike[str] | None",
    in_place: bool,
    dry_run: bool,
    on_progress: OnProgress | None,
) -> RecoverReport:
    """Finish a dataset at a URL, or copy it into a folder if an output is given."""
    cls = remote_reader(url)
    if output is not None:
        target = os.path.realpath(output)
        return RecoveryIntoCopy(url, target, cls, dry_run, on_progress).run()
    assert issubclass(cls, RemoteDatasets)
    report = RecoverReport(url, url, in_place=in_place, dry_run=dry_run)
    with contextlib.closing(open_dataset(url)) as dataset:
        report.backend = backend_of(dataset)
        if status_of(dataset) in FINISHED:
            report.outcome, report.frames = "nothing to recover", len(dataset)
            report.status, report.reason = str(dataset.status), dataset.status_reason
            report.total = report.frames
            return report
    found = cls.recover_remote(url, dry_run=dry_run, in_place=in_place)
    report.lost = [LostFrame(coordinates, reason) for coordinates, reason in found.lost]
    report.frames, report.total = found.frames, found.frames + len(found.lost)
    report.status, report.reason = str(DatasetStatus.ABORTED), found.reason
    return report


def _beside(source: str, cls: type[DataStorage]) -> str:
    for suffix in sorted(cls.capabilities.path_suffixes, key=len, reverse=True):
        if source.endswith(suffix):
            return f"{source.removesuffix(suffix)}-recovered{suffix}"
    return f"{source}-recovered"


class _InPlace(Recovery):
    """Recovers a dataset in place."""

    def __init__(
        self, source: str, cls: type[DataStorage], dry_run: bool, on_progress: OnProgress | None
    ) -> None:
        super().__init__(RecoverReport(source, source, in_place=True, dry_run=dry_run), cls, on_progress)

    def run(self) -> RecoverReport:
        source = self.report.source
        with contextlib.closing(open_dataset(source)) as dataset:
            self.report.backend = backend_of(dataset)
            # Check a finished dataset before touching its lock, because it may need no recovery.
            if self.report.dry_run or status_of(dataset) in FINISHED:
                found = self.survey(dataset)
                if is_whole(found):
                    return self.nothing(found)
                self.take(found, dict(dataset.annotations))
        self._refuse_what_cannot_be_mended()
        if self.report.dry_run:
            return self.report
        place = reclaim(source)
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
        if manifest.read_manifest(source) is None:
            raise UnsupportedOperationError(
                f"{source} was not written by ExEngine, so it is unknown whether its writer is still active; "
                "recover it into a copy, without --in-place"
            )
        if self.cls.recover_in_place.__func__ is DataStorage.recover_in_place.__func__:  # type: ignore[attr-defined]
            raise UnsupportedOperationError(
                f"{self.cls.__name__} cannot recover a dataset in place; recover it into a copy, without "
                "--in-place"
            )
        for path in paths_of_dataset(source):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                raise UnsupportedOperationError(
                    f"{path} has another hard link (as in some backups), whose content would also "
                    "change; recover the dataset into a copy, without --in-place"
                )

    def _mend(self, place: DatasetPlace) -> RecoverReport:
        with contextlib.closing(open_dataset(place.path)) as dataset:
            annotations = dict(dataset.annotations)
            found = self.survey(dataset)
        if is_whole(found):  # another recovery has finished first
            return self.nothing(found)
        unread = [*found.damaged, *found.missing]
        lost = [DataCoordinates(frame.coordinates) for frame in unread if not frame.has_pixels]
        notes = {DataCoordinates(f.coordinates): metadata_note(f.reason) for f in unread if f.has_pixels}
        self.take(found, annotations)
        # Record the lost frames first, because a later run cannot find frames that are removed now.
        place.reopen(recovery=self.note())
        # A backend that was written for an earlier release does not accept notes.
        self.cls.recover_in_place(place.path, lost, *([notes] if notes else ()))
        place.conclude(DatasetStatus.ABORTED, self.report.reason, self.report.frames)
        return self.report
