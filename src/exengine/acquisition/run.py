"""One acquisition, from its config to its ledger: source -> handler -> storage.

Names, options, the sequence, devices, planned frames, disk space and memory are checked before anything is
written. The source then runs on its own thread, while the caller's thread reports progress. An interrupt on
the caller's thread ends the run cleanly.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from exengine.acquisition.observers import Observers
from exengine.acquisition.plan_checks import check_plan
from exengine.acquisition.schedule import Schedule, plan_to_store, skipped_frames
from exengine.acquisition.space import bytes_on_disk, refuse_missing_space
from exengine.config.layers import Config, resolve
from exengine.datasets.creation import StoragePlan
from exengine.frame_sources.sequence import parse_sequence
from exengine.kernel.data_handler import DataHandler
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage
from exengine.kernel.errors import (
    AcquisitionError,
    ConfigError,
    ExEngineError,
    HandlerError,
    MetadataError,
    SourceError,
    UnsupportedOperationError,
    describe,
    message_of,
)
from exengine.kernel.frame_source_base import FrameSource, SourcePlan
from exengine.kernel.frames.ledger import Ledger
from exengine.kernel.frames.metadata import clean_metadata
from exengine.kernel.registry import plugins
from exengine.kernel.registry.options import validate_options
from exengine.kernel.registry.process_functions import PROCESS_FUNCTIONS
from exengine.kernel.wording import listed

if TYPE_CHECKING:
    from os import PathLike

    from exengine.kernel.flow.processing import ProcessFunction

_CANCEL_TIMEOUT_S = 30.0


class Acquisition:
    """A prepared acquisition: everything has been checked, but nothing has been written yet.

    Parameters
    ----------
    config : path, mapping or Config
        A config file or its content.
    check_space : bool
        Whether to reject an acquisition that would not fit on disk or in memory. The setting
        ``storage.check_space`` can also switch this check off.

    Attributes
    ----------
    config : Config
    plan : SourcePlan
        The frames that the source will deliver.
    storage : DataStorage or None
        The storage, created by :meth:`run`. After the run it is finished, and it can be read until
        :meth:`close` is called.
    ledger : Ledger
        Counts of all frames.
    duration_s : float
        Time from the request for the first frame until the dataset is finished, in seconds.
    observer_errors : list of str
        Errors raised by hooks, one line each. They do not affect the acquisition.

    Raises
    ------
    ExEngineError
        If the config, a plugin, a device or the path cannot be used.

    Examples
    --------
    >>> run = Acquisition({"storage": {"backend": "ndram"}, "source": {"name": "simulated"},
    ...                    "sequence": {"time_plan": {"interval": 0, "loops": 3}}})
    >>> run.run().stored
    3
    >>> len(run.storage)
    3
    >>> run.close()
    """

    def __init__(
        self, config: "str | PathLike[str] | Mapping[str, Any] | Config", *, check_space: bool = True
    ) -> None:
        self.config = resolve(config)
        self._storage_plan = StoragePlan.from_config(self.config)
        self._process = _process_function(self.config)
        self.source: FrameSource = _make_source(self.config)
        self.storage: DataStorage | None = None
        self.ledger = Ledger()
        self.duration_s = 0.0
        self.observer_errors: list[str] = []
        self._cancelled: str | None = None
        self._source_error: BaseException | None = None
        self._plan_error: Exception | None = None
        try:
            self.plan = self._prepare()
            self.path = self._storage_plan.path
            if check_space and self.config["storage.check_space"]:
                refuse_missing_space(self.path, self._plan_to_store, self._storage_plan.cls)
        except BaseException:
            self.source.close()
            raise

    def _prepare(self) -> SourcePlan:
        settings = self.config.section("sequence")
        if not settings:
            raise ConfigError(
                "the config has no sequence; add one, such as sequence: {time_plan: {interval: 0, loops: 10}}"
            )
        try:
            plan = self.source.prepare(parse_sequence(settings))
            storage = self._storage_plan
            self._plan_to_store = plan_to_store(plan, is_processed=self._process is not None)
            check_plan(storage.cls, storage.name, storage.options, self._plan_to_store, storage.capabilities)
            return plan
        except ExEngineError:
            raise
        except Exception as error:
            name = self.config["source.name"]
            raise SourceError(
                f"the source {name!r} could not prepare the acquisition: {describe(error)}"
            ) from error

    def run(self, on_progress: Callable[[Ledger], None] | None = None, *, interval_s: float = 0.2) -> Ledger:
        """Run the acquisition to its end.

        Parameters
        ----------
        on_progress : callable, optional
            Called on the calling thread with the current ledger.
        interval_s : float
            Time between two calls of ``on_progress``, in seconds.

        Returns
        -------
        Ledger
            The final, balanced ledger.

        Raises
        ------
        AcquisitionError
            If the source or the storage failed. The dataset is finished with the status failed or aborted.
        KeyboardInterrupt
            Re-raised after the dataset has been finished with the status aborted.
        """
        if self.storage is not None:
            raise AcquisitionError("an acquisition can be run only once; create a new one")
        options = self._storage_plan.options
        if self.plan.summary is not None and "summary_metadata" not in options:
            if self._storage_plan.takes("summary_metadata"):
                options["summary_metadata"] = self.plan.summary
        config = _as_json(self.config.to_dict())
        observers = Observers()
        self.storage = self._storage_plan.create()
        self.path = self.storage.path or self.path
        with contextlib.suppress(UnsupportedOperationError):  # this backend does not store annotations
            self.storage.annotate("config", config)
        handler = DataHandler(
            self.storage,
            self._process,
            on_stored=observers.frames_stored if observers.watch_frames else None,
            on_error=lambda _: self.cancel("storing a frame failed"),
            max_pending=self.config["handler.max_pending"],
            max_frames=self.config["handler.max_frames"],
            when_full=self.config["handler.when_full"],
            block_timeout_s=self.config["handler.block_timeout_s"],
            workers=self.config["handler.workers"],
            on_process_error=self.config["handler.on_process_error"],
        )
        self.ledger = handler.ledger
        self.ledger.skipped_by_plan = skipped_frames(self.plan)
        begin = time.perf_counter()
        interrupt: BaseException | None = None
        observers.opened(self.storage, self._storage_plan.name, self.path)
        thread = threading.Thread(
            target=self._run_source, args=(handler,), name="exengine-source", daemon=True
        )
        try:
            if self._accepts_plan(self.storage):
                thread.start()
            while thread.is_alive():
                thread.join(interval_s)
                if on_progress is not None:
                    on_progress(handler.ledger)
        except BaseException as error:  # an interrupt, or an exception from on_progress
            interrupt = error
            # A second interrupt ends the wait. The source still restores its devices when it is closed.
            with contextlib.suppress(KeyboardInterrupt, RuntimeError):  # the thread may not have started
                self.cancel("interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
                thread.join(_CANCEL_TIMEOUT_S)
        try:
            self._end(handler, interrupt)
        except BaseException:  # a second interrupt: the dataset is finished nevertheless
            handler.abort(self._cancelled or "interrupted")
            with contextlib.suppress(HandlerError, TimeoutError):
                handler.await_completion(_CANCEL_TIMEOUT_S)
            raise
        finally:
            self.duration_s = time.perf_counter() - begin
            self.observer_errors = observers.finished(self.ledger, self.status, self.path)
        if interrupt is not None:
            raise interrupt
        self._raise_errors(handler)
        return self.ledger

    def _accepts_plan(self, storage: DataStorage) -> bool:
        try:
            storage.expect(self._plan_to_store)
        except Exception as error:
            self._plan_error = error
        return self._plan_error is None

    def _run_source(self, handler: DataHandler) -> None:
        def sink(coordinates: Any, data: Any, metadata: Any) -> None:
            if self._cancelled is None:
                schedule.see(coordinates)
                handler.put(coordinates, data, metadata, None, copy=False)

        try:
            schedule = Schedule(parse_sequence(self.config.section("sequence")), handler.ledger)
            self.source.run(sink)
        except BaseException as error:
            self._source_error = error

    def _end(self, handler: DataHandler, interrupt: BaseException | None) -> None:
        expected, offered = self.plan.frames, handler.ledger.offered
        own_error = self._plan_error or self._source_error
        if interrupt is None and self._cancelled is None and own_error is None:
            if expected is not None and offered != expected:
                self._source_error = SourceError(
                    f"the source delivered {offered} frames instead of {expected}"
                )
        own_error = self._plan_error or self._source_error
        if isinstance(own_error, HandlerError):
            own_error = None  # the handler has recorded this error
        if own_error is not None:
            failed = handler.error is not None or self._plan_error is not None
            handler.abort(describe(own_error), failed=failed)
        elif self._cancelled is not None or interrupt is not None:
            handler.abort(self._cancelled or "interrupted")
        handler.finish()
        with contextlib.suppress(HandlerError):  # this error is raised later, with the ledger
            handler.await_completion()
        try:
            self.source.close()
        except Exception as error:  # report the error even though all frames are stored
            self._source_error = self._source_error or error
        if self.source.unrestored:
            left = f"after the run, {'; '.join(self.source.unrestored)}"
            for raised in (interrupt, self._source_error, handler.error):
                if raised is not None:
                    raised.add_note(left)
            self._source_error = self._source_error or SourceError(left)

    def _raise_errors(self, handler: DataHandler) -> None:
        cause = self._plan_error or handler.error or self._source_error
        if cause is None:
            return
        kept = f"{self.ledger.stored} frames were stored"
        where = f" in {self.path}" if self.path else ""
        if isinstance(cause, HandlerError) and cause.__cause__ is not None:
            cause = cause.__cause__
        notes = "".join(f"\n{note}" for note in getattr(cause, "__notes__", ()))
        raise AcquisitionError(
            f"{message_of(cause)}{notes}\n{kept}{where}, status {self.status}", self.ledger
        ) from cause

    @property
    def bytes_on_disk(self) -> int | None:
        """Estimated size of the dataset in bytes, or None if the plan does not determine it."""
        return bytes_on_disk(self._plan_to_store, self._storage_plan.cls)

    def cancel(self, reason: str = "cancelled") -> None:
        """End the run soon; the dataset is finished with the status aborted. Callable from any thread."""
        if self._cancelled is None:
            self._cancelled = reason
        self.source.cancel()

    @property
    def status(self) -> str:
        """Status of the dataset. It is derived from the ledger if the backend does not record a status."""
        if self.storage is None:
            return DatasetStatus.INCOMPLETE.value
        try:
            return self.storage.status.value
        except UnsupportedOperationError:
            if self._source_error is not None or self.ledger.failed or self.ledger.dropped:
                return DatasetStatus.FAILED.value
            return (DatasetStatus.ABORTED if self._cancelled else DatasetStatus.COMPLETE).value

    def close(self) -> None:
        """Close the source and the storage. Idempotent."""
        try:
            self.source.close()
        finally:
            if self.storage is not None:
                self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_json(config: dict[str, Any]) -> Any:
    """Return a config as JSON. Python objects are replaced by their fields or their string form."""

    def plain(value: Any) -> Any:
        dump = getattr(value, "model_dump", None)  # for useq and other pydantic objects
        return dump(mode="json") if callable(dump) else getattr(value, "__qualname__", str(value))

    try:
        return clean_metadata(config)
    except MetadataError:
        return json.loads(json.dumps(config, default=plain, skipkeys=True), parse_constant=str)


def acquire(config: "str | PathLike[str] | Mapping[str, Any] | Config") -> Ledger:
    """Run the acquisition described by a config to its end.

    Parameters
    ----------
    config : path, mapping or Config
        A config file or its content.

    Returns
    -------
    Ledger
        Counts of all frames.

    Raises
    ------
    AcquisitionError
        If the acquisition ended early. The error's ``ledger`` counts the stored frames.
    ExEngineError
        If the config is wrong. In this case, nothing was written.

    Examples
    --------
    >>> acquire({"storage": {"backend": "ndram"}, "source": {"name": "simulated"},
    ...          "sequence": {"channels": ["DAPI", "FITC"]}})
    Ledger(offered=2, stored=2, dropped=0, discarded=0, failed=0)
    """
    with Acquisition(config) as acquisition:
        return acquisition.run()


def _process_function(config: Config) -> "ProcessFunction | None":
    process = config["handler.process"]
    function: ProcessFunction | None = (
        PROCESS_FUNCTIONS.load(process) if isinstance(process, str) else process
    )
    return function


def _make_source(config: Config) -> FrameSource:
    name = config["source.name"]
    if not name:
        installed = listed(plugins.SOURCES.records())
        raise ConfigError(
            f"no frame source is selected; set source.name in the config. Installed: {installed}"
        )
    cls = plugins.SOURCES.load(name)
    options = validate_options(cls, config.section("source.options"), f"source {name!r}")
    try:
        source: FrameSource = cls(**options)
    except ExEngineError:
        raise
    except Exception as error:
        raise SourceError(f"the source {name!r} could not start: {describe(error)}") from error
    return source
