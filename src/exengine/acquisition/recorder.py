"""The storing half of an acquisition: the storage of one dataset, its data handler and its observers.

This module does not produce frames. A caller passes frames to it: :class:`~exengine.Acquisition` passes the
frames of a frame source, and another program can pass the frames of its own acquisition loop. The plan, the
disk space and the memory are checked before anything is written.

Life cycle: created -> ``check(plan)`` -> ``open(plan)`` -> ``expect(plan)`` -> ``put`` for each frame ->
``finish`` -> ``report`` -> ``close``.
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from exengine.acquisition.earlier import RUNS, Earlier, find_earlier
from exengine.acquisition.observers import Observers
from exengine.acquisition.plan_checks import check_plan
from exengine.acquisition.process_functions import PROCESS_FUNCTIONS
from exengine.acquisition.schedule import Schedule, plan_to_store, remaining_plan, skipped_frames
from exengine.acquisition.space import bytes_on_disk, refuse_missing_space
from exengine.config.layers import Config, resolve
from exengine.datasets.creation import StoragePlan
from exengine.kernel.data_handler import DataHandler
from exengine.kernel.data_storage_base import CoordinatesLike, DatasetStatus, DataStorage, JsonValue
from exengine.kernel.errors import (
    AcquisitionError,
    ConfigError,
    HandlerError,
    MetadataError,
    UnsupportedOperationError,
    describe,
    message_of,
)
from exengine.kernel.frames.ledger import Ledger
from exengine.kernel.frames.metadata import clean_metadata
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.description import PLAN, plan_to_json
from exengine.kernel.storage.ending import end_early

if TYPE_CHECKING:
    from os import PathLike

    import numpy.typing as npt
    import useq

    from exengine.kernel.flow.processing import ProcessFunction


class Recorder:
    """Stores the frames of one acquisition as described by a config, and accounts for each frame.

    Parameters
    ----------
    config : path, mapping or Config
        A config file or its content. Only the sections ``storage`` and ``handler`` are used.
    settings : mapping, optional
        Settings with flat keys, such as ``{"handler.max_pending": 1}``. They take precedence over the config.
    check_space : bool
        Whether :meth:`check` rejects an acquisition that would not fit on disk or in memory. The setting
        ``storage.check_space`` can also switch this check off.
    resume : bool
        Whether to continue the dataset at ``storage.path``, if it exists; ``storage.if_exists`` is ignored.

    Attributes
    ----------
    config : Config
    earlier : container of DataCoordinates, or None
        The frames of the dataset that is continued. The caller must not put them again.
    path : str or None
        The requested path of the dataset; after :meth:`open`, the actual path.
    storage : DataStorage or None
        The storage, created by :meth:`open`. It can be read until :meth:`close` is called.
    ledger : Ledger
        Counts of all frames.
    observer_errors : list of str
        Errors raised by hooks, one line each. They do not affect the acquisition.

    Raises
    ------
    ExEngineError
        If the config, the backend or its options cannot be used. In this case, nothing was written.

    Examples
    --------
    >>> import numpy as np
    >>> from exengine import SourcePlan
    >>> recorder = Recorder({"storage": {"backend": "ndram"}})
    >>> recorder.open(SourcePlan())
    >>> recorder.put({"time": 0}, np.zeros((4, 4)), {"exposure_ms": 10})
    >>> recorder.finish()
    >>> recorder.ledger
    Ledger(offered=1, stored=1, dropped=0, discarded=0, failed=0)
    >>> recorder.close()
    """

    def __init__(
        self,
        config: "str | PathLike[str] | Mapping[str, Any] | Config",
        *,
        settings: Mapping[str, Any] | None = None,
        check_space: bool = True,
        resume: bool = False,
    ) -> None:
        self.config = resolve(config, arguments=settings)
        self._storage_plan = StoragePlan.from_config(self.config)
        self._process = _process_function(self.config)
        self._checks_space = check_space and bool(self.config["storage.check_space"])
        self.path = self._storage_plan.path
        self.storage: DataStorage | None = None
        self.ledger = Ledger()
        self.earlier: Earlier | None = None
        self._schedule: Schedule | None = None
        if resume:
            self.earlier = find_earlier(self.config, self._storage_plan)
            # A dataset without frames is replaced by a new one.
            self._storage_plan.if_exists = "error" if self.earlier is None else "overwrite"
            self.ledger.stored_before = len(self.earlier or ())
        self.observer_errors: list[str] = []
        self._observers: Observers | None = None
        self._handler: DataHandler | None = None
        self._ended_early: bool | None = None  # True if it failed, False if it was aborted, else None

    @classmethod
    def for_path(
        cls,
        backend: str,
        path: "str | PathLike[str] | None" = None,
        *,
        settings: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return a recorder for a backend and a path. No config file or environment variable is read.

        Parameters
        ----------
        backend : str
            Name of the backend.
        path : path, optional
            Exact path of the new dataset. Backends that write to disk require it.
        settings : mapping, optional
            Further settings with flat keys, such as ``{"storage.if_exists": "number"}``.
        options : mapping, optional
            Options of the backend.
        """
        flat = {"storage.backend": backend, "storage.path": path, **(settings or {})}
        flat.update({f"storage.options.{name}": value for name, value in (options or {}).items()})
        return cls(resolve(arguments=flat, environment={}, user=False))

    # -- before the first frame ------------------------------------------------------------------

    def check(self, plan: SourcePlan) -> None:
        """Reject planned frames that the backend does not accept, or that need too much space.

        Parameters
        ----------
        plan : SourcePlan

        Raises
        ------
        ExEngineError
            If the plan is rejected. In this case, nothing was written.
        """
        storage, stored = self._storage_plan, self._stored(plan)
        check_plan(storage.cls, storage.name, storage.options, stored, storage.capabilities)
        if self.config["handler.sync_every_s"] is not None and not storage.capabilities.durable_flush:
            raise ConfigError(
                f"handler.sync_every_s is set, but the backend {storage.name!r} has no durable flush; remove "
                "this setting or choose another backend"
            )
        if self.earlier is not None:
            self.earlier.refuse_other_frames(plan)
            stored = remaining_plan(stored, len(self.earlier))
        if self._checks_space:
            refuse_missing_space(self.path, stored, storage.cls)

    def _stored(self, plan: SourcePlan) -> SourcePlan:
        """Return the plan of the frames that the storage receives."""
        return plan_to_store(plan, is_processed=self._process is not None)

    def open(
        self,
        plan: SourcePlan,
        *,
        on_error: Callable[[BaseException], None] | None = None,
        sequence: "useq.MDASequence | None" = None,
    ) -> None:
        """Create the storage and start the threads of the handler and the observers.

        The plan's summary becomes the dataset's summary metadata. The config and the plan's pixel size,
        channels and positions are stored with the dataset. Call ``expect`` before the first frame.

        Parameters
        ----------
        plan : SourcePlan
        on_error : callable, optional
            Called once, with the first error of the handler or the storage, on the thread on which it
            occurred. Use it to stop the producer.
        sequence : useq.MDASequence, optional
            The sequence that is acquired. If it is given, the ledger lists the time points that are later
            than planned.

        Raises
        ------
        ExEngineError
            If the storage cannot be created.
        """
        if self.storage is not None:
            raise AcquisitionError("a recorder stores only one dataset; create a new recorder")
        options = self._storage_plan.options
        summary = self.earlier.summary if self.earlier else plan.summary
        if summary is not None and "summary_metadata" not in options:
            if self._storage_plan.takes("summary_metadata"):
                options["summary_metadata"] = summary
        config = _as_json(self.config.to_dict())
        self._observers = observers = Observers()
        self.storage = self._storage_plan.resume() if self._continues else self._storage_plan.create()
        if self.earlier is not None and len(self.storage) != len(self.earlier):
            self.storage.close()
            raise AcquisitionError(f"{self.path} was changed by another program; run the same command again")
        self.path = self.storage.path or self.path
        notes = {"config": config, PLAN: plan_to_json(self._stored(plan))}
        try:
            self._start(self.storage, observers, notes, on_error)
            if sequence is not None:
                self._schedule = Schedule(sequence, self.ledger)
        except BaseException as error:
            with contextlib.suppress(Exception):  # raise only the original error
                end_early(self.storage, describe(error), failed=True)
            raise
        self.ledger.skipped_by_plan = skipped_frames(plan)
        observers.opened(self.storage, self._storage_plan.name, self.path)

    def _start(
        self,
        storage: DataStorage,
        observers: Observers,
        notes: Mapping[str, JsonValue],
        on_error: Callable[[BaseException], None] | None,
    ) -> None:
        with contextlib.suppress(UnsupportedOperationError):  # this backend does not store annotations
            for name, note in notes.items():
                if note:
                    storage.annotate(name, note)
        self._handler = DataHandler(
            storage,
            self._process,
            on_stored=observers.frames_stored if observers.watch_frames else None,
            on_error=on_error,
            max_pending=self.config["handler.max_pending"],
            max_frames=self.config["handler.max_frames"],
            when_full=self.config["handler.when_full"],
            block_timeout_s=self.config["handler.block_timeout_s"],
            workers=self.config["handler.workers"],
            on_process_error=self.config["handler.on_process_error"],
            sync_every_s=self.config["handler.sync_every_s"],
        )
        self.ledger = self._handler.ledger
        if self.earlier is not None:
            self.ledger.stored_before = len(self.earlier)
            with contextlib.suppress(UnsupportedOperationError):
                storage.annotate(RUNS, self.earlier.runs_with_next())
                for name in self.earlier.outdated:
                    storage.annotate(name, None)

    @property
    def _continues(self) -> bool:
        """Whether frames are added to an existing dataset."""
        return self.earlier is not None and len(self.earlier) > 0

    def expect(self, plan: SourcePlan) -> None:
        """Pass the plan to the storage; see :meth:`exengine.DataStorage.expect`.

        A storage that continues a dataset already has a layout, so it does not receive the plan.
        """
        assert self.storage is not None, "call open(plan) first"
        if self._continues:
            return
        self.storage.expect(self._stored(plan))

    # -- frames ----------------------------------------------------------------------------------

    def put(
        self,
        coordinates: CoordinatesLike,
        data: "npt.NDArray[Any]",
        metadata: JsonValue,
        *,
        copy: bool = True,
        time_point: int | None = None,
    ) -> None:
        """Pass on one frame; see :meth:`exengine.DataHandler.put`.

        Parameters
        ----------
        coordinates, data, metadata, copy
            As for a data handler.
        time_point : int, optional
            The number of the frame's time point in the sequence; by default, its position on the axis
            ``time``.
        """
        assert self._handler is not None, "call open(plan) first"
        if self._schedule is not None:
            self._schedule.see(coordinates, time_point)
        self._handler.put(coordinates, data, metadata, None, copy=copy)

    @property
    def pending_bytes(self) -> int:
        """The amount of pixel data in the queue of the handler, in bytes."""
        return 0 if self._handler is None else self._handler.pending_bytes

    @property
    def error(self) -> BaseException | None:
        """The first error of the handler or the storage, or None."""
        return None if self._handler is None else self._handler.error

    # -- the end ---------------------------------------------------------------------------------

    def finish(
        self,
        reason: str | BaseException | None = None,
        *,
        failed: bool = False,
        timeout: float | None = None,
    ) -> None:
        """End the dataset, after all accepted frames have been passed to the storage.

        Errors are not raised. The first one is stored in ``error``, and the ledger counts the lost frames.

        Parameters
        ----------
        reason : str or exception, optional
            The reason why the acquisition ended early. The dataset is then marked as aborted, or as failed if
            ``failed`` is set. Only the first reason is recorded.
        failed : bool
        timeout : float, optional
            The maximum time to wait, in seconds.

        Raises
        ------
        TimeoutError
            If the wait timed out. Frames are still being stored.
        """
        handler = self._handler
        if handler is None:
            return
        if reason is None:
            handler.finish()
        else:
            self._ended_early = failed if self._ended_early is None else self._ended_early
            handler.abort(describe(reason) if isinstance(reason, BaseException) else reason, failed=failed)
        with contextlib.suppress(HandlerError):  # the error is available as `error`
            handler.await_completion(timeout)

    def report(self) -> None:
        """Notify the observers that the acquisition has ended. Call this once, after :meth:`finish`."""
        if self._observers is not None:
            self.observer_errors = self._observers.finished(self.ledger, self.status, self.path)

    def failure(self, cause: BaseException) -> AcquisitionError:
        """Return the error to raise for an acquisition that ended early. Its ``__cause__`` is set.

        Parameters
        ----------
        cause : BaseException
            The first error. If it is a :class:`~exengine.errors.HandlerError`, its own cause is used.
        """
        if isinstance(cause, HandlerError) and cause.__cause__ is not None:
            cause = cause.__cause__
        kept = "1 frame was stored" if self.ledger.stored == 1 else f"{self.ledger.stored} frames were stored"
        where = f" in {self.path}" if self.path else ""
        notes = "".join(f"\n{note}" for note in getattr(cause, "__notes__", ()))
        error = AcquisitionError(
            f"{message_of(cause)}{notes}\n{kept}{where}, status {self.status}", self.ledger
        )
        error.__cause__ = cause
        return error

    @property
    def status(self) -> str:
        """Status of the dataset. It is derived from the ledger if the backend does not record a status."""
        if self.storage is None:
            is_complete = self.earlier is not None and self.earlier.is_complete
            return (DatasetStatus.COMPLETE if is_complete else DatasetStatus.INCOMPLETE).value
        try:
            return self.storage.status.value
        except UnsupportedOperationError:
            if self._ended_early or self.error is not None or self.ledger.failed or self.ledger.dropped:
                return DatasetStatus.FAILED.value
            return (DatasetStatus.COMPLETE if self._ended_early is None else DatasetStatus.ABORTED).value

    def bytes_on_disk(self, plan: SourcePlan) -> int | None:
        """Return the estimated size of the dataset in bytes, or None if the plan does not determine it."""
        return bytes_on_disk(self._stored(plan), self._storage_plan.cls)

    def close(self) -> None:
        """Close the storage. Idempotent."""
        if self.storage is not None:
            self.storage.close()


def _as_json(config: dict[str, Any]) -> Any:
    """Return a config as JSON. Python objects are replaced by their fields or their string form."""

    def plain(value: Any) -> Any:
        dump = getattr(value, "model_dump", None)  # for useq and other pydantic objects
        return dump(mode="json") if callable(dump) else getattr(value, "__qualname__", str(value))

    try:
        return clean_metadata(config)
    except MetadataError:
        return json.loads(json.dumps(config, default=plain, skipkeys=True), parse_constant=str)


def _process_function(config: Config) -> "ProcessFunction | None":
    """Return the process function that a config names or contains, or None."""
    process = config["handler.process"]
    function: ProcessFunction | None = (
        PROCESS_FUNCTIONS.load(process) if isinstance(process, str) else process
    )
    return function
