"""One acquisition, from its config to its ledger: source -> handler -> storage.

Names, options, the sequence, devices, planned frames, disk space and memory are checked before anything is
written. The source then runs on its own thread, while the caller's thread reports progress. An interrupt on
the caller's thread ends the run cleanly.
"""

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from exengine.acquisition.recorder import Recorder
from exengine.config.layers import Config, Origin, resolve
from exengine.frame_sources.sequence import parse_sequence
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import (
    AcquisitionError,
    ConfigError,
    ExEngineError,
    HandlerError,
    SourceError,
    describe,
)
from exengine.kernel.frame_source_base import FrameSource, SourcePlan
from exengine.kernel.frames.ledger import Ledger
from exengine.kernel.registry import plugins
from exengine.kernel.registry.options import validate_options
from exengine.kernel.storage.remote import is_url
from exengine.kernel.wording import listed

if TYPE_CHECKING:
    from os import PathLike

    import numpy.typing as npt

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
    resume : path, optional
        The dataset of an earlier run that did not end normally. Only the planned frames that are missing from
        it are acquired, in the order of the plan. If nothing exists at the path, all frames are acquired.
        This path takes precedence over ``storage.path``, and ``storage.if_exists`` is ignored.

    Attributes
    ----------
    config : Config
    plan : SourcePlan
        The frames of the whole acquisition. If the dataset is already complete, only their number is known.
    duration_s : float
        Time from the request for the first frame until the dataset is finished, in seconds.
    path : str or None
        The path of the dataset; None if the backend keeps frames in memory.
    newest : tuple of (DataCoordinates, numpy.ndarray) or None
        The coordinates and pixels of the last frame that the source delivered. The handler owns the array, so
        do not change it. A process function may change it at any time.

    Raises
    ------
    ExEngineError
        If the config, a plugin, a device or the path cannot be used, or if the dataset cannot be continued,
        for example because it was acquired with a different config.

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
        self,
        config: "str | PathLike[str] | Mapping[str, Any] | Config",
        *,
        check_space: bool = True,
        resume: "str | PathLike[str] | None" = None,
    ) -> None:
        if resume is not None:
            config = _with_path(config, resume)
        self._recorder = Recorder(config, check_space=check_space, resume=resume is not None)
        self._earlier = self._recorder.earlier
        self.config = self._recorder.config
        self.source: FrameSource = _make_source(self.config)
        self.duration_s = 0.0
        self.newest: "tuple[DataCoordinates, npt.NDArray[Any]] | None" = None
        self._source_ended = threading.Event()
        self._cancelled: str | None = None
        self._source_error: BaseException | None = None
        self._plan_error: Exception | None = None
        if self._is_done:  # no frames are missing, so do not start the devices
            self.plan = SourcePlan(frames=len(self._earlier or ()))
            return
        try:
            self.plan = self._prepare()
        except BaseException:
            self.source.close()
            raise

    def _prepare(self) -> SourcePlan:
        if not self.source.needs_sequence:
            _set_sequence_aside(self.config)
        elif not self.config.section("sequence"):
            raise ConfigError(
                "the config has no sequence; add one, such as sequence: {time_plan: {interval: 0, loops: 10}}"
            )
        self._refuse_to_overwrite_frames()
        try:
            plan = self.source.prepare(parse_sequence(self.config.section("sequence")))
            self._recorder.check(plan)
            if self._earlier:
                self.source.skip(self._earlier)
            return plan
        except ExEngineError:
            raise
        except Exception as error:
            name = self.config["source.name"]
            raise SourceError(
                f"the source {name!r} could not prepare the acquisition: {describe(error)}"
            ) from error

    def _refuse_to_overwrite_frames(self) -> None:
        """Refuse to overwrite a dataset that the source reads."""
        if self.config["storage.if_exists"] != "overwrite" or not self.path or is_url(self.path):
            return
        target = os.path.realpath(self.path)
        for path in self.source.paths_read:
            if not is_url(path) and os.path.realpath(path) == target:
                raise ConfigError(
                    f"if_exists is overwrite, which would delete {self.path}, but the source "
                    f"{self.config['source.name']!r} reads this dataset; set another storage.path"
                )

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
        if self._is_done:
            return self.ledger
        recorder = self._recorder
        recorder.open(
            self.plan,
            on_error=lambda _: self.cancel("storing a frame failed"),
            sequence=parse_sequence(self.config.section("sequence")),
        )
        begin = time.perf_counter()
        interrupt: BaseException | None = None
        thread = threading.Thread(target=self._run_source, name="exengine-source", daemon=True)
        try:
            if self._accepts_plan() and self.remaining != 0:
                thread.start()
                ended = False
                while not ended:
                    # Up to Python 3.12, a thread counts as ended if its join is interrupted.
                    ended = self._source_ended.wait(interval_s)
                    if on_progress is not None:
                        on_progress(recorder.ledger)
                thread.join()
        except BaseException as error:  # an interrupt, or an exception from on_progress
            interrupt = error
            # A second interrupt ends the wait. The source still restores its devices when it is closed.
            with contextlib.suppress(KeyboardInterrupt):
                with contextlib.suppress(Exception):  # the source may not support cancelling
                    self.cancel("interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
                if thread.ident is not None:
                    self._source_ended.wait(_CANCEL_TIMEOUT_S)
        try:
            self._end(interrupt)
        except BaseException:  # finish the dataset despite a second interrupt
            with contextlib.suppress(TimeoutError):
                recorder.finish(self._cancelled or "interrupted", timeout=_CANCEL_TIMEOUT_S)
            raise
        finally:
            self.duration_s = time.perf_counter() - begin
            recorder.report()
        if interrupt is not None:
            raise interrupt
        cause = self._plan_error or recorder.error or self._source_error
        if cause is not None:
            raise recorder.failure(cause)
        return self.ledger

    def _accepts_plan(self) -> bool:
        try:
            self._recorder.expect(self.plan)
        except Exception as error:
            self._plan_error = error
        return self._plan_error is None

    def _run_source(self) -> None:
        earlier = self._earlier or ()

        def sink(coordinates: Any, data: Any, metadata: Any) -> None:
            if self._cancelled is None and coordinates not in earlier:
                self.newest = coordinates, data
                self._recorder.put(coordinates, data, metadata, copy=False)

        try:
            self.source.run(sink)
        except BaseException as error:
            self._source_error = error
        finally:
            self._source_ended.set()

    def _end(self, interrupt: BaseException | None) -> None:
        recorder = self._recorder
        expected, offered = self.remaining, recorder.ledger.offered
        own_error = self._plan_error or self._source_error
        if interrupt is None and self._cancelled is None and own_error is None:
            if expected is not None and offered != expected:
                self._source_error = SourceError(
                    f"the number of delivered frames is {offered} instead of {expected}"
                )
        own_error = self._plan_error or self._source_error
        if isinstance(own_error, HandlerError):
            own_error = None  # the handler has recorded this error
        if own_error is not None:
            failed = recorder.error is not None or self._plan_error is not None
            recorder.finish(own_error, failed=failed)
        elif self._cancelled is not None or interrupt is not None:
            recorder.finish(self._cancelled or "interrupted")
        else:
            recorder.finish()
        try:
            self.source.close()
        except Exception as error:  # report the error even though all frames are stored
            self._source_error = self._source_error or error
        if self.source.unrestored:
            left = f"after the run, {'; '.join(self.source.unrestored)}"
            for raised in (interrupt, self._source_error, recorder.error):
                if raised is not None:
                    raised.add_note(left)
            self._source_error = self._source_error or SourceError(left)

    @property
    def _is_done(self) -> bool:
        """Whether the acquisition continues a dataset that is already complete."""
        return self._earlier is not None and self._earlier.is_complete

    @property
    def remaining(self) -> int | None:
        """The number of frames that the run acquires, if it is known."""
        return None if self.plan.frames is None else self.plan.frames - len(self._earlier or ())

    @property
    def bytes_on_disk(self) -> int | None:
        """Estimated size of the dataset in bytes, or None if the plan does not determine it."""
        return self._recorder.bytes_on_disk(self.plan)

    @property
    def storage(self) -> DataStorage | None:
        """The storage, created by :meth:`run`. It can be read until :meth:`close` is called."""
        return self._recorder.storage

    @property
    def path(self) -> str | None:
        """The path of the dataset; None if the backend keeps frames in memory."""
        return self._recorder.path

    @property
    def ledger(self) -> Ledger:
        """Counts of all frames."""
        return self._recorder.ledger

    @property
    def pending_bytes(self) -> int:
        """The amount of pixel data that is waiting to be stored, in bytes."""
        return self._recorder.pending_bytes

    @property
    def observer_errors(self) -> list[str]:
        """Errors raised by hooks, one line each. They do not affect the acquisition."""
        return self._recorder.observer_errors

    def cancel(self, reason: str = "cancelled") -> None:
        """End the run soon, and finish the dataset as aborted. Can be called from any thread."""
        if self._cancelled is None:
            self._cancelled = reason
        self.source.cancel()

    @property
    def status(self) -> str:
        """Status of the dataset. It is derived from the ledger if the backend does not record a status."""
        return self._recorder.status

    def close(self) -> None:
        """Close the source and the storage. Idempotent."""
        try:
            self.source.close()
        finally:
            self._recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def acquire(
    config: "str | PathLike[str] | Mapping[str, Any] | Config",
    *,
    resume: "str | PathLike[str] | None" = None,
) -> Ledger:
    """Run the acquisition described by a config to its end.

    Parameters
    ----------
    config : path, mapping or Config
        A config file or its content.
    resume : path, optional
        The dataset of an earlier run that did not end normally. The missing frames are acquired. See
        :class:`exengine.Acquisition`.

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
    with Acquisition(config, resume=resume) as acquisition:
        return acquisition.run()


def _with_path(
    config: "str | PathLike[str] | Mapping[str, Any] | Config", path: "str | PathLike[str]"
) -> Config:
    """Return the config with a different path for the dataset."""
    settings = {"storage.path": os.fspath(path)}
    if not isinstance(config, Config):
        return resolve(config, arguments=settings)
    origins = dict.fromkeys(settings, Origin("argument", "resume"))
    return dataclasses.replace(
        config, values={**config.values, **settings}, origins={**config.origins, **origins}
    )


def _set_sequence_aside(config: Config) -> None:
    """Set aside a sequence that a lower layer of the config defines for another source."""
    reason = f"{config.origin('source.name')} selects {config['source.name']!r}, which needs no sequence"
    for key in [key for key in config.values if key.startswith("sequence.")]:
        if config.is_above("source.name", key):
            config.set_aside_value(key, reason)


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
