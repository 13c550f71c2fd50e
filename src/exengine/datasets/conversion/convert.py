"""Converts a dataset: copies its frames to a new dataset of any backend, and compares the two.

The result is built in a :class:`~exengine.datasets.workshop.Workshop`, next to its final path, and is renamed
once it is finished and compared with the source. The settings and the progress of the conversion are also
stored in that hidden folder, never in the published dataset. The same command therefore continues a
conversion that was killed; a command with different settings is rejected.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exengine.datasets.conversion.build import Build
from exengine.datasets.conversion.cluster import Cluster
from exengine.datasets.conversion.frame_work import UnexpectedFrameError
from exengine.datasets.conversion.losses import Loss
from exengine.datasets.conversion.result import compare
from exengine.datasets.conversion.selection import Choice, Selection
from exengine.datasets.conversion.settings import Settings, published_note, published_settings, state_of
from exengine.datasets.conversion.shares import Share
from exengine.datasets.conversion.source import SourceFrames
from exengine.datasets.conversion.units import Units
from exengine.datasets.creation import IfExists, StoragePlan, files_of_writer
from exengine.datasets.opening import open_dataset
from exengine.datasets.overwriting import moved_aside, refuse_if_not_deletable
from exengine.datasets.recovery_base import status_of
from exengine.datasets.verification import backend_of
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage
from exengine.kernel.errors import (
    DatasetDamagedError,
    DatasetExistsError,
    DatasetLockedError,
    ExEngineError,
    OptionError,
    UnsupportedOperationError,
)
from exengine.kernel.storage.building import cannot_create
from exengine.kernel.storage.manifest import has_writer
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system.files import expanded
from exengine.kernel.wording import listed

if TYPE_CHECKING:
    from os import PathLike

OnProgress = Callable[[str, int, int], None]
"""Called at intervals with the phase (``checked``, ``converted`` or ``compared``), the number of frames done,
and the total number of frames."""

_MOST_NAMED = 20  # maximum number of jobs in one message


@dataclass
class ConvertReport:
    """The result of :func:`exengine.convert`.

    Attributes
    ----------
    source : str
        The dataset that was converted.
    path : str
        The path of the result.
    source_backend, backend : str
        The names of the backends that read the source and wrote the result.
    outcome : {'converted', 'already converted', 'part converted'}
        ``part converted`` means that the result does not exist yet, because other parts are incomplete.
    frames : int
        The number of frames in the result, or in the part.
    total : int
        The number of frames in the source.
    resumed_at : int
        The number of frames that an earlier attempt had converted.
    status : str
        The status of the result, which is that of the source.
    verified : bool
        Whether the result was compared with the source.
    pixel_bytes : int
        The total size of the pixels, in bytes.
    seconds : float
        The duration of this attempt.
    losses : list of str
        The parts that the backend cannot store, if losses are allowed: one phrase each.
    notes : list of str
        The parts of the source that the result does not contain, one sentence each.
    """

    source: str
    path: str
    source_backend: str = ""
    backend: str = ""
    outcome: str = "converted"
    frames: int = 0
    total: int = 0
    resumed_at: int = 0
    status: str = ""
    verified: bool = False
    pixel_bytes: int = 0
    seconds: float = 0.0
    losses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-serializable dict."""
        return {**vars(self)}


def convert(
    source: "str | PathLike[str]",
    path: "str | PathLike[str]",
    *,
    backend: str,
    options: Mapping[str, Any] | None = None,
    select: Mapping[str, Choice] | None = None,
    rename: Mapping[str, str] | None = None,
    if_exists: IfExists = "error",
    verify: bool = True,
    restart: bool = False,
    allow_loss: bool = False,
    dask: str | Cluster | None = None,
    units: str | Units | None = None,
    on_progress: OnProgress | None = None,
) -> ConvertReport:
    """Copy the frames of a dataset to a new dataset of another backend.

    Coordinates, pixels, metadata, annotations and the status are the same in the result. Every frame of the
    source is read before anything is written, and the result is compared with the source before it appears at
    its path. To continue a conversion that was interrupted or killed, repeat the same call.

    Parameters
    ----------
    source : path
        The dataset to convert. It must have no active writer, and is not modified.
    path : path
        The path of the result, on this machine.
    backend : str
        The name of the backend that writes the result.
    options : mapping, optional
        Options of the backend.
    select : mapping, optional
        The positions to convert, by axis: one position, a list, a range, or a string such as ``"0:5"``. By
        default, all frames are converted.
    rename : mapping of str to str, optional
        Maps names of axes in the source to their new names.
    if_exists : {'error', 'number', 'overwrite'}
        As for :func:`exengine.open_storage`. An old dataset is deleted only when the result is complete.
    verify : bool
        Whether to compare the result with the source before it is published.
    restart : bool
        Whether to discard the progress of an earlier attempt.
    allow_loss : bool
        Whether to leave out the frames that the backend cannot store. By default, they are an error. The
        report and the annotation ``conversion`` of the result list the losses.
    dask : str, optional
        The address of a dask scheduler, such as ``tcp://scheduler:8786``. Its workers read the frames, and
        need the datasets at the same paths. This process writes the result.
    units : str, optional
        The share of this job in a job array, such as ``"2/8"``. Each job converts a part; the job that
        completes the last part publishes the result. The backend must support this, as ``ome-zarr`` does.
    on_progress : callable, optional
        Called with the phase (``checked``, ``converted`` or ``compared``), the number of frames done, and the
        total number of frames.

    Returns
    -------
    ConvertReport

    Raises
    ------
    DatasetDamagedError
        If a frame of the source cannot be read, or the result differs from the source.
    DatasetExistsError
        If the path is in use, or contains an unfinished conversion with different settings.
    DatasetLockedError
        If the source is being written, or another process is converting to the same path.
    UnsupportedDataError, CoordinatesError
        If the format cannot store every frame or, with ``allow_loss``, any frame. Nothing was written.
    ClusterError
        If the scheduler cannot be reached, or the cluster fails.
    ExEngineError
        If the source cannot be opened, or the result cannot be written.

    Examples
    --------
    >>> import exengine, numpy as np, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with exengine.open_storage("ndtiff", f"{folder}/data") as storage:
    ...     for time in range(3):
    ...         storage.put({"time": time}, np.full((4, 4), time, np.uint16), {"time": time})
    >>> copy = f"{folder}/copy"
    >>> report = exengine.convert(f"{folder}/data", copy, backend="ndtiff", select={"time": "0:2"})
    >>> report.frames, report.status
    (2, 'complete')
    """
    begin = time.monotonic()
    source = os.fspath(source) if is_url(source) else os.path.realpath(expanded(source))
    target = StoragePlan(backend, path, if_exists=if_exists, options=dict(options or {}))
    with contextlib.closing(open_dataset(source)) as dataset:
        selection = Selection(dataset.axes, select or {}, rename or {})
        job = _Conversion(dataset, source, target, selection, allow_loss, on_progress or (lambda *_: None))
        share = Units.parse(units) if isinstance(units, str) else units
        report = job.run(verify=verify, restart=restart, dask=dask, units=share)
    report.seconds = time.monotonic() - begin
    return report


class _Conversion:
    """One conversion, with checked arguments."""

    def __init__(
        self,
        dataset: DataStorage,
        source: str,
        target: StoragePlan,
        selection: Selection,
        allow_loss: bool,
        on_progress: OnProgress,
    ) -> None:
        if target.path is None or is_url(target.path):
            in_memory = f"{target.name} keeps frames in memory"
            where = in_memory if target.path is None else f"{target.path} is a URL"
            raise UnsupportedOperationError(
                f"the result of a conversion must be a dataset on this machine, but {where}; choose another "
                "backend or path"
            )
        self._dataset = dataset
        self._target = target
        self._path = os.path.realpath(expanded(target.path))
        self._selection = selection
        self._on_progress = on_progress
        self._report = ConvertReport(source, self._path, backend_of(dataset), target.name)
        for one, other in ((self._path, source), (source, self._path)):
            if os.path.join(one, "").startswith(os.path.join(other, "")):
                raise OptionError(f"the result {self._path} must not be inside {source} or contain it")
        _refuse_unfinished(dataset, source)
        self._frames = SourceFrames(dataset, source, selection)
        self._settings = Settings(
            source=source,
            source_state=state_of(source, dataset),
            backend=target.name,
            options=dict(target.options),
            select=selection.chosen,
            rename=selection.rename,
            allow_loss=allow_loss,
        )

    def run(
        self, *, verify: bool, restart: bool, dask: str | Cluster | None, units: Units | None
    ) -> ConvertReport:
        report = self._report
        report.frames, report.total = self._frames.count, len(self._dataset)
        report.status = str(status_of(self._dataset) or DatasetStatus.COMPLETE)
        if len(self._dataset.resolution_levels) > 1:
            report.notes.append("only the frames at full resolution are converted")
        share = None
        if units is not None and units.count > 1:
            share = Share(self._path, self._target, self._settings, self._frames, units)
            self._refuse_with_units()
        if self._is_published():
            self._report_published(share)
            return report
        self._refuse_what_is_there()
        if not self._frames.count:
            raise UnsupportedOperationError(f"{report.source} contains no frames to convert")
        try:
            with self._connected(dask):
                if share is not None:
                    self._build_share(share, verify=verify, restart=restart)
                else:
                    with self._new_build() as build:
                        self._build(build, verify=verify, restart=restart)
        except OSError as error:
            if isinstance(error, ExEngineError):
                raise
            raise cannot_create(self._path, error) from error
        return report

    @contextlib.contextmanager
    def _connected(self, dask: str | Cluster | None) -> Iterator[None]:
        """Let the workers of a cluster read the frames."""
        with contextlib.ExitStack() as stack:
            self._frames.cluster = stack.enter_context(Cluster(dask)) if isinstance(dask, str) else dask
            yield

    def _new_build(self) -> Build:
        return Build(self._path, self._target, self._settings, self._frames)

    def _build_share(self, share: Share, *, verify: bool, restart: bool) -> None:
        """Convert the share of one job. If all parts are complete, join them and publish the result."""
        report = self._report
        with share.part() as part:
            part.begin(restart=restart)
            report.frames = part.source.count
            if not part.is_finished():
                if part.source.count:
                    report.resumed_at = self._fill(part, verify=verify)
                part.mark()
            if not part.source.count:
                report.notes.append(
                    "this job had no frames to convert, because the result has fewer units, such as shards, "
                    "than there are jobs"
                )
        if self._is_published():  # another job found this part complete
            self._report_published(share)
            return
        missing = share.missing()
        if missing or not self._join(share, verify=verify):
            report.outcome, report.pixel_bytes = "part converted", part.source.pixel_bytes
            jobs = f"{'jobs' if len(missing) > 1 else 'job'} {listed(missing[:_MOST_NAMED])}"
            waiting = f"the result appears when all parts are complete; still waiting for {jobs}"
            report.notes.append(waiting if missing else "another job is publishing the result")

    def _join(self, share: Share, *, verify: bool) -> bool:
        """Join the parts and publish the result; return False if another job is doing this."""
        try:
            build = self._new_build()
        except DatasetLockedError:
            return False
        with build:
            if self._is_published():
                build.tidy()
                self._report_published(share)
                return True
            build.begin(restart=False)
            try:
                self._build(build, verify=verify, share=share)
            except DatasetDamagedError:
                share.remove()
                raise
        share.remove()
        return True

    def _fill(self, build: Build, *, verify: bool) -> int:
        """Check the frames and copy them; return how many an earlier attempt had copied."""
        if verify or not build.assume():
            self._check(build)
        try:
            return self._copy(build)
        except UnexpectedFrameError:
            build.start_again()
            self._check(build)
            self._copy(build)
            return 0

    def _build(
        self, build: Build, *, verify: bool, restart: bool = False, share: Share | None = None
    ) -> None:
        report = self._report
        if share is None:
            build.begin(restart=restart)
        else:
            share.join(build)
        resumed_at = self._fill(build, verify=verify)
        report.resumed_at = resumed_at if share is None else 0
        report.losses = [loss.text(self._frames.count_before_losses) for loss in build.losses]
        report.frames = self._frames.count
        report.pixel_bytes = self._frames.pixel_bytes
        if verify:
            with build.opened() as result:
                try:
                    compare(
                        self._frames,
                        result,
                        build.reopen,
                        lambda done, total: self._on_progress("compared", done, total),
                    )
                except DatasetDamagedError:
                    build.discard()
                    raise
            report.verified = True
        report.path = self._publish(build)

    def _check(self, build: Build) -> None:
        build.check(lambda done, total: self._on_progress("checked", done, total))

    def _copy(self, build: Build) -> int:
        return build.copy(lambda done, total: self._on_progress("converted", done, total))

    def _refuse_with_units(self) -> None:
        """Reject settings that cannot be used if several jobs convert one dataset."""
        if self._target.if_exists != "error" or self._settings.allow_loss:
            which = "allow_loss" if self._settings.allow_loss else f"if_exists: {self._target.if_exists}"
            raise OptionError(f"{which} cannot be combined with units for a single dataset; leave one out")

    # -- the path of the result ------------------------------------------------------------------

    def _is_published(self) -> bool:
        """Return whether the path contains the result of a conversion with the same settings."""
        if self._target.if_exists != "error" or not os.path.exists(self._path):
            return False
        return published_settings(self._path) == self._settings.fingerprint

    def _report_published(self, share: Share | None) -> None:
        """Report the result of an earlier attempt, and remove files that a killed attempt left behind."""
        note, report = published_note(self._path) or {}, self._report
        report.outcome, report.verified = "already converted", True
        report.frames = self._frames.count
        if Build.left_beside(self._path):
            with contextlib.suppress(DatasetLockedError), self._new_build() as build:
                build.tidy()
        if share is not None:
            share.remove()
        losses = [Loss(**loss) for loss in note.get("losses", ())]
        report.losses = [loss.text(report.frames) for loss in losses]
        report.frames -= sum(loss.frames for loss in losses if loss.what == "frames")

    def _refuse_what_is_there(self) -> None:
        path = self._path
        if self._target.if_exists == "overwrite":
            refuse_if_not_deletable(path, files_of_writer)
        elif self._target.if_exists == "error" and os.path.lexists(path):
            if not (os.path.isdir(path) and not os.listdir(path)):
                raise DatasetExistsError(
                    f"{path} already exists; choose another path, or set if_exists: number to add a number "
                    "(overwrite deletes an old dataset)"
                )

    def _publish(self, build: Build) -> str:
        if self._target.if_exists == "overwrite":
            with moved_aside(self._path, files_of_writer) as path:
                build.publish(path)
                return path
        if self._target.if_exists == "error":
            build.publish(self._path)
            return self._path
        for path in self._target.numbered_paths(self._path):
            if os.path.lexists(path):
                continue
            try:
                build.publish(path)
            except DatasetExistsError:
                continue
            return path
        raise DatasetExistsError(f"{self._path} already exists, and so do all numbered paths")


def _refuse_unfinished(dataset: DataStorage, path: str) -> None:
    """Reject a source that is still being written, is unfinished, or is known to be damaged."""
    if not is_url(path) and has_writer(path):
        raise DatasetLockedError(f"{path} is being written; wait until its writer has ended")
    status = status_of(dataset)
    if status in (DatasetStatus.INCOMPLETE, DatasetStatus.DAMAGED):
        reason = f" ({dataset.status_reason})" if dataset.status_reason else ""
        raise DatasetDamagedError(
            f"{path} is {status}{reason}; run exengine recover, and convert the recovered dataset"
        )
