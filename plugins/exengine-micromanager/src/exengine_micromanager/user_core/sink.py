"""The output for ``core.mda.run``: stores a run of pymmcore-plus in an ExEngine dataset.

This module is responsible for the options and the result of one recorded run. The run itself is recorded in
recorded_run.py, and runner.py connects both to pymmcore-plus. The connection is made when this module is
imported, because in ``core.mda.run(sequence, output=ExEngineSink(...))``, Python looks up ``run`` before it
creates the sink.
"""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from exengine import DataStorage, Ledger, Recorder
from exengine.errors import AcquisitionError, ConfigError
from exengine_micromanager.user_core.frame_coordinates import ToCoordinates
from exengine_micromanager.user_core.recorded_run import RecordedRun
from exengine_micromanager.user_core.runner import RunSink, connect_runner

if TYPE_CHECKING:
    from os import PathLike

    from pymmcore_plus.mda import MDARunner

connect_runner()

_ONE_FRAME = {"handler.max_pending": 1, "handler.when_full": "block"}


class ExEngineSink(RunSink):
    """Stores one run of ``core.mda.run`` or ``core.run_mda`` in a dataset.

    The sink is called on the engine's thread. Frames wait in a bounded queue for the storage. While the queue
    is full, the engine requests no further image, so a slow disk slows the camera. No frame is dropped
    silently: ``core.mda.run`` raises the first error, including errors in storing the last frame and in
    finishing the dataset. To make this possible, importing this class wraps two functions of pymmcore-plus;
    see the module ``exengine_micromanager.user_core.runner``.

    Parameters
    ----------
    target : path, mapping or None
        A config file or its content, of which only the sections ``storage`` and ``handler`` are used. With
        ``backend``, the exact path of the new dataset, or None for a backend that keeps frames in memory.
    backend : str, optional
        Name of the backend. No config file or environment variable is then read.
    if_exists : {'error', 'number', 'overwrite'}, optional
        Only with ``backend``: the action to take if the path exists. By default, the run raises an error.
    synchronous : bool
        Whether the engine waits until a frame has been stored before it delivers the next one. At most one
        frame then waits in memory. With False, up to ``handler.max_pending`` bytes can wait.
    coordinates : callable, optional
        Called with the ``useq.MDAEvent`` of each frame. Returns the frame's coordinates. By default, they are
        derived from ``event.index``.
    copy : bool
        Whether to copy the pixels of each frame. Pass False only if no other code changes them.
    **options
        Only with ``backend``: options of the backend.

    Attributes
    ----------
    path : str or None
        The path of the dataset, or None if the backend keeps frames in memory.

    Raises
    ------
    ExEngineError
        If the config, the backend or its options cannot be used. In this case, nothing was written.

    Examples
    --------
    >>> import useq
    >>> from pymmcore_plus import CMMCorePlus
    >>> core = CMMCorePlus()
    >>> core.loadSystemConfiguration()
    >>> sink = ExEngineSink(backend="ndram")
    >>> core.mda.run(useq.MDASequence(channels=["DAPI", "FITC"]), output=sink)
    >>> sink.result().stored
    2
    >>> sink.storage.get_metadata({"channel": "FITC"})["exposure_ms"]
    10.0
    """

    def __init__(
        self,
        target: "str | PathLike[str] | Mapping[str, Any] | None" = None,
        /,
        *,
        backend: str | None = None,
        if_exists: str | None = None,
        synchronous: bool = False,
        coordinates: ToCoordinates | None = None,
        copy: bool = True,
        **options: Any,
    ) -> None:
        settings = dict(_ONE_FRAME) if synchronous else {}
        if backend is not None:
            if isinstance(target, Mapping):
                raise ConfigError("with backend, pass the path of the dataset instead of a config")
            if if_exists is not None:
                settings["storage.if_exists"] = if_exists
            self._recorder = Recorder.for_path(backend, target, settings=settings, options=options)
        else:
            if target is None:
                raise ConfigError("pass a config, or a backend and the path of the dataset")
            if if_exists is not None or options:
                named = ", ".join([*(["if_exists"] if if_exists is not None else []), *options])
                raise ConfigError(f"{named}: valid only with backend; pass a backend, or edit the config")
            self._recorder = Recorder(target, settings=settings)
            self._set_aside_source()
        self._convert = coordinates
        self._copy = copy
        self._run: RecordedRun | None = None
        self._outcome: Future[Ledger] = Future()

    def _set_aside_source(self) -> None:
        config = self._recorder.config
        for key in [key for key in config.values if key.startswith(("source.", "sequence."))]:
            config.set_aside_value(key, "core.mda.run provides the sequence and the frames")

    # -- the result ------------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> Ledger:
        """Wait until the run has ended and its dataset is finished.

        Parameters
        ----------
        timeout : float, optional
            The maximum time to wait, in seconds. By default, the call waits until the run has ended, even if
            the run has not started yet.

        Returns
        -------
        Ledger
            Counts of all frames. If the run was cancelled, ``status`` is ``'aborted'``.

        Raises
        ------
        Exception
            The exception that ``core.mda.run`` raised.
        TimeoutError
            If the wait timed out.
        """
        return self._outcome.result(timeout)

    @property
    def path(self) -> str | None:
        """The path of the dataset, or None if the backend keeps frames in memory."""
        return self._recorder.path

    @property
    def status(self) -> str:
        """Status of the dataset: incomplete, complete, aborted or failed."""
        return self._recorder.status

    @property
    def ledger(self) -> Ledger:
        """Counts of all frames, updated during the run."""
        return self._recorder.ledger

    @property
    def storage(self) -> DataStorage | None:
        """The storage. It exists from the start of the run, and is readable until :meth:`close` is called."""
        return self._recorder.storage

    def close(self) -> None:
        """Close the storage after the run. Further calls have no effect."""
        if self._run is None or self._outcome.done():
            self._recorder.close()

    # -- for the runner --------------------------------------------------------------------------------

    def _start(self, runner: "MDARunner", events: Any) -> RecordedRun:
        """Check the events, and create the dataset, before any device moves."""
        if self._run is not None or self._outcome.done():
            raise AcquisitionError("an ExEngineSink records only one run; create a new sink for each run")
        try:
            self._run = RecordedRun(
                self._recorder, runner, events, self._outcome, convert=self._convert, copy=self._copy
            )
        except BaseException as error:
            self._outcome.set_exception(error)
            raise
        return self._run

    def _refuse(self, error: BaseException | None) -> None:
        """Store the error that prevented the run."""
        if error is not None and self._run is None and not self._outcome.done():
            self._outcome.set_exception(error)
