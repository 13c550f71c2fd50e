"""One acquisition, from its config to its ledger: source -> handler -> storage.

Everything that can be checked is checked before anything is written: names, options, the sequence,
the devices, the space on the disk. Then the source runs on a thread of its own, and the caller's
thread watches: it reports progress, and an interrupt there ends the run cleanly.
"""

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from exengine.acquisition.observers import Observers
from exengine.config.layers import Config, resolve
from exengine.datasets.creation import StoragePlan
from exengine.frame_sources.sequence import parse_sequence
from exengine.kernel.data_handler import DataHandler
from exengine.kernel.data_storage_base import DatasetStatus, DataStorage
from exengine.kernel.errors import (
    AcquisitionError,
    ConfigError,
    DatasetAccessError,
    ExEngineError,
    HandlerError,
    MetadataError,
    SourceError,
    UnsupportedDataError,
    UnsupportedOperationError,
    describe,
    message_of,
)
from exengine.kernel.frame_source_base import FrameSource, SourcePlan
from exengine.kernel.frames.ledger import Ledger
from exengine.kernel.frames.metadata import clean_metadata
from exengine.kernel.registry import plugins
from exengine.kernel.registry.options import validate_options

if TYPE_CHECKING:
    from os import PathLike

OVERHEAD_BYTES = 8192
"""Metadata, index and TIFF headers, per frame, on top of the pixels; generous."""
_CANCEL_PATIENCE_S = 30.0


class Acquisition:
    """A prepared acquisition: everything is checked, nothing is written.

    Parameters
    ----------
    config : path, mapping or Config
        A config file, or what one holds.
    check_space : bool
        Whether to refuse to start when the disk has not enough room.

    Attributes
    ----------
    config : Config
    plan : SourcePlan
        What the source will deliver.
    storage : DataStorage or None
        From :meth:`run` on; finished afterwards, and readable until :meth:`close`.
    ledger : Ledger
        What became of every frame.
    duration_s : float
        From the first frame asked for to the end of the dataset.
    observer_errors : list of str
        What went wrong in hooks, a line each; the acquisition itself is not touched by it.

    Raises
    ------
    ExEngineError
        For whatever is wrong with the config, the plugins, the devices or the place.

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
        self.source: FrameSource = _make_source(self.config)
        self.storage: DataStorage | None = None
        self.ledger = Ledger()
        self.duration_s = 0.0
        self.observer_errors: list[str] = []
        self._cancelled: str | None = None
        self._source_error: BaseException | None = None
        try:
            self.plan = self._prepare()
            self.path = self._storage_plan.path
            if check_space and self.path is not None:
                _check_space(self.path, self.plan)
        except BaseException:
            self.source.close()
            raise

    def _prepare(self) -> SourcePlan:
        settings = self.config.section("sequence")
        if not settings:
            raise ConfigError(
                "the config has no sequence: say what to acquire, such as sequence: "
                "{time_plan: {interval: 0, loops: 10}}"
            )
        try:
            plan = self.source.prepare(parse_sequence(settings))
            self._refuse_frames_of(plan)
            return plan
        except ExEngineError:
            raise
        except Exception as error:
            name = self.config["source.name"]
            raise SourceError(f"the source {name!r} could not prepare: {describe(error)}") from error

    def _refuse_frames_of(self, plan: SourcePlan) -> None:
        """Refuse frames that the backend is known not to take, before anything is written."""
        takes, name = self._storage_plan.cls.capabilities, self._storage_plan.name
        if plan.dtype is not None and takes.dtypes is not None and plan.dtype not in takes.dtypes:
            raise UnsupportedDataError(
                f"the source gives frames of {plan.dtype}, backend {name!r} takes {' or '.join(takes.dtypes)}"
            )
        if plan.shape is not None and takes.ndim is not None and len(plan.shape) not in takes.ndim:
            raise UnsupportedDataError(
                f"the source gives frames of {len(plan.shape)} dimensions, backend {name!r} takes "
                f"{' or '.join(map(str, takes.ndim))}"
            )

    def run(self, on_progress: Callable[[Ledger], None] | None = None, *, interval_s: float = 0.2) -> Ledger:
        """Run the acquisition to its end.

        Parameters
        ----------
        on_progress : callable, optional
            Called on this thread, with the growing ledger, about every ``interval_s`` seconds.
        interval_s : float
            In seconds.

        Returns
        -------
        Ledger
            Balanced.

        Raises
        ------
        AcquisitionError
            When the source or the storage failed. What was stored is finished as failed or aborted.
        KeyboardInterrupt
            After what was stored was finished as aborted.
        """
        if self.storage is not None:
            raise AcquisitionError("an acquisition runs once; prepare another one")
        options = self._storage_plan.options
        if self.plan.summary is not None and "summary_metadata" not in options:
            if self._storage_plan.takes("summary_metadata"):
                options["summary_metadata"] = self.plan.summary
        config = _as_json(self.config.to_dict())
        observers = Observers()
        self.storage = self._storage_plan.create()
        self.path = self.storage.path or self.path
        with contextlib.suppress(
            UnsupportedOperationError
        ):  # nothing outlives the process, or no place for it
            self.storage.annotate("config", config)
        handler = DataHandler(
            self.storage,
            on_stored=observers.frames_stored if observers.watch_frames else None,
            max_pending=self.config["handler.max_pending"],
            when_full=self.config["handler.when_full"],
        )
        self.ledger = handler.ledger
        begin = time.perf_counter()
        interrupt: BaseException | None = None
        observers.opened(self.storage, self._storage_plan.name, self.path)
        thread = threading.Thread(
            target=self._run_source, args=(handler,), name="exengine-source", daemon=True
        )
        thread.start()
        try:
            while thread.is_alive():
                thread.join(interval_s)
                if on_progress is not None:
                    on_progress(handler.ledger)
                if handler.error is not None and self._cancelled is None:
                    self.cancel("storing a frame failed")
        except BaseException as error:  # an interrupt, or an observer that raised
            interrupt = error
            self.cancel("interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
            thread.join(_CANCEL_PATIENCE_S)
        try:
            self._end(handler, interrupt)
        finally:  # also when a second interrupt comes meanwhile
            self.duration_s = time.perf_counter() - begin
            self.observer_errors = observers.finished(self.ledger, self.status, self.path)
        if interrupt is not None:
            raise interrupt
        self._raise_errors(handler)
        return self.ledger

    def _run_source(self, handler: DataHandler) -> None:
        def sink(coordinates: Any, data: Any, metadata: Any) -> None:
            if self._cancelled is None:
                handler.put(coordinates, data, metadata, None, copy=False)

        try:
            self.source.run(sink)
        except BaseException as error:
            self._source_error = error

    def _end(self, handler: DataHandler, interrupt: BaseException | None) -> None:
        expected, offered = self.plan.frames, handler.ledger.offered
        if interrupt is None and self._cancelled is None and self._source_error is None:
            if expected is not None and offered != expected:
                self._source_error = SourceError(f"the source gave {offered} of {expected} frames")
        own_error = self._source_error
        if isinstance(own_error, HandlerError):
            own_error = None  # the handler has it already
        if own_error is not None:
            handler.abort(describe(own_error), failed=handler.error is not None)
        elif self._cancelled is not None:
            handler.abort(self._cancelled)
        handler.finish()
        with contextlib.suppress(HandlerError):  # raised below, together with the ledger
            handler.await_completion()
        try:
            self.source.close()
        except Exception as error:  # the frames are stored; that the devices were not released is told
            self._source_error = self._source_error or error

    def _raise_errors(self, handler: DataHandler) -> None:
        cause = handler.error or self._source_error
        if cause is None:
            return
        kept = f"{self.ledger.stored} frames are stored"
        where = f" in {self.path}" if self.path else ""
        if isinstance(cause, HandlerError) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise AcquisitionError(
            f"{message_of(cause)}\n{kept}{where}, status {self.status}", self.ledger
        ) from cause

    def cancel(self, reason: str = "cancelled") -> None:
        """End the run soon, from any thread; what is stored is finished as aborted."""
        if self._cancelled is None:
            self._cancelled = reason
        self.source.cancel()

    @property
    def status(self) -> str:
        """Status of the dataset, as far as the backend tells."""
        if self.storage is None:
            return DatasetStatus.INCOMPLETE.value
        try:
            return self.storage.status.value
        except UnsupportedOperationError:
            if self._source_error is not None or self.ledger.failed or self.ledger.dropped:
                return DatasetStatus.FAILED.value
            return (DatasetStatus.ABORTED if self._cancelled else DatasetStatus.COMPLETE).value

    def close(self) -> None:
        """Release devices, and the storage with what it holds in memory. Idempotent."""
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
    """Return a config as JSON; what only Python can express as the text or the fields that it has."""

    def plain(value: Any) -> Any:
        dump = getattr(value, "model_dump", None)  # of useq and pydantic
        return dump(mode="json") if callable(dump) else str(value)

    try:
        return clean_metadata(config)
    except MetadataError:
        return json.loads(json.dumps(config, default=plain, skipkeys=True), parse_constant=str)


def acquire(config: "str | PathLike[str] | Mapping[str, Any] | Config") -> Ledger:
    """Run the acquisition that a config describes, to its end.

    Parameters
    ----------
    config : path, mapping or Config
        A config file, or what one holds.

    Returns
    -------
    Ledger
        What became of every frame.

    Raises
    ------
    AcquisitionError
        When it ended before its end; its ``ledger`` says what is safe.
    ExEngineError
        When the config is wrong; nothing was written.

    Examples
    --------
    >>> acquire({"storage": {"backend": "ndram"}, "source": {"name": "simulated"},
    ...          "sequence": {"channels": ["DAPI", "FITC"]}})
    Ledger(offered=2, stored=2, dropped=0, discarded=0, failed=0)
    """
    with Acquisition(config) as acquisition:
        return acquisition.run()


def _make_source(config: Config) -> FrameSource:
    name = config["source.name"]
    if not name:
        installed = ", ".join(plugins.SOURCES.records()) or "none"
        raise ConfigError(f"no frame source is named: set source.name in the config. Installed: {installed}")
    cls = plugins.SOURCES.load(name)
    options = validate_options(cls, config.section("source.options"), f"source {name!r}")
    try:
        source: FrameSource = cls(**options)
    except ExEngineError:
        raise
    except Exception as error:
        raise SourceError(f"the source {name!r} could not start: {describe(error)}") from error
    return source


def _check_space(path: str, plan: SourcePlan) -> None:
    if plan.total_bytes is None or plan.frames is None:
        return
    folder = os.path.abspath(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    need = plan.total_bytes + plan.frames * OVERHEAD_BYTES
    free = shutil.disk_usage(folder).free
    if free < need:
        raise DatasetAccessError(
            f"the acquisition needs {need / 1e6:,.0f} MB, and {folder} has {free / 1e6:,.0f} MB free; "
            "choose another disk with storage.path, or acquire fewer frames"
        )
