"""Connects sinks to the runner of pymmcore-plus. Only this module changes pymmcore-plus.

In pymmcore-plus 0.18, ``core.mda.run`` raises only some errors:

- An object that is passed as ``output`` is called on a second thread, behind an unbounded queue. Its first
  exception ends that thread. Later frames and the end of the run are lost, and the run is reported as
  completed.
- An exception raised by a function connected to ``frameReady`` is only logged. Functions connected after it
  do not receive the frame.
- At the end of a run, the runner only logs errors from its data sink, from the engine's teardown, and from
  functions connected to ``sequenceFinished``.
- A ``KeyboardInterrupt`` skips the end of the run: nothing is torn down, and the runner continues to report
  that it is running.

However, the runner does raise errors from its data sink's ``setup`` and ``append``, which it calls on the
engine's thread. :func:`connect_runner` therefore wraps two functions of the class ``MDARunner``:

- ``_coerce_outputs`` passes :class:`~exengine_micromanager.ExEngineSink` objects to the runner as its data
  sink, in addition to any other output.
- ``run`` starts these sinks before the runner does anything. When the run has ended, ``run`` waits until
  their datasets are finished, and then raises the first error, if any.

A run without such a sink is unaffected. The tests in ``test_runner.py`` show each of these properties for
the installed version of pymmcore-plus.
"""

import contextlib
import functools
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from exengine.errors import AcquisitionError, SourceError
from exengine_micromanager.user_core.recorded_run import RecordedRun

if TYPE_CHECKING:
    from pymmcore_plus.mda import MDARunner

_WRAPPED = "_exengine_wrapped"
_RUN = "_exengine_run"  # a run with a sink sets this attribute to reserve the runner
_lock = threading.Lock()


class RunSink(ABC):
    """An output for ``core.mda.run`` that records one run."""

    def frameReady(self, image: Any, event: Any, meta: Any, /) -> None:
        """Raise an error, because ``core.mda.run`` does not pass frames to the sink through this method.

        pymmcore-plus requires every output to have this method.

        Raises
        ------
        SourceError
            Always.
        """
        raise SourceError("a sink must not be connected to signals; pass it as the output of core.mda.run")

    @abstractmethod
    def _start(self, runner: "MDARunner", events: Any) -> RecordedRun:
        """Check the events, and create the dataset, before the runner does anything."""

    @abstractmethod
    def _refuse(self, error: BaseException | None) -> None:
        """Store the error that prevented the run. The sink itself was not started."""


MakeSink = Callable[[Sequence[RunSink]], RunSink | None]
"""Called with the sinks of a run. Returns an additional sink for the run, or None if none is needed."""

_extra: "weakref.WeakKeyDictionary[MDARunner, list[MakeSink]]" = weakref.WeakKeyDictionary()


def add_to_runs(runner: "MDARunner", make: MakeSink) -> None:
    """Add a sink to every run that the runner starts from now on."""
    with _lock:
        _extra.setdefault(runner, []).append(make)


def remove_from_runs(runner: "MDARunner", make: MakeSink) -> None:
    """Undo :func:`add_to_runs`. A run in progress keeps its sink."""
    with _lock, contextlib.suppress(KeyError, ValueError):
        _extra[runner].remove(make)


def connect_runner() -> None:
    """Wrap ``run`` and ``_coerce_outputs`` of the class ``MDARunner``, once per process.

    Raises
    ------
    SourceError
        If the installed pymmcore-plus does not have these functions.
    """
    from pymmcore_plus.mda import MDARunner

    with _lock:
        if hasattr(MDARunner.run, _WRAPPED):
            return
        missing = [name for name in ("_coerce_outputs", "_finish_run") if not hasattr(MDARunner, name)]
        if missing:
            raise SourceError(
                f"MDARunner lacks {' and '.join(missing)} in this version of pymmcore-plus; install "
                "'pymmcore-plus>=0.18.1,<0.19'"
            )
        MDARunner.run = _wrapped_run(MDARunner.run)  # type: ignore[method-assign]
        MDARunner._coerce_outputs = staticmethod(_wrapped_outputs(MDARunner._coerce_outputs))  # type: ignore[method-assign]


def _wrapped_run(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def run(self: "MDARunner", events: Any, *, output: Any = None, **options: Any) -> None:
        sinks, others = split_outputs(output)
        makers = tuple(_extra.get(self, ()))  # without the lock: an interrupt might leave it locked
        if not sinks and not makers:
            original(self, events, output=output, **options)
            return
        runs: list[RecordedRun] = []
        raised: BaseException | None = None
        mine = object()  # the token with which this run reserves the runner
        try:
            sinks += [sink for make in makers if (sink := make(sinks)) is not None]
            try:
                try:
                    _occupy(self, mine)
                    for sink in sinks:
                        runs.append(sink._start(self, events))  # noqa: PERF401 - the others are ended on an error
                    original(self, events, output=[*others, *runs], **options)
                except BaseException as error:
                    if _is_occupied_by(self, mine):
                        _end_interrupted(self, error)
                    raise
                finally:
                    _release(self, mine)
            finally:  # the first call may have been interrupted before it released the runner
                _release(self, mine)
        except BaseException as error:
            raised = error
        for one in runs:
            try:
                raised = one.end(raised) or raised
            except BaseException as error:  # an interrupt; the other datasets must still be finished
                raised = raised or error
        for sink in sinks[len(runs) :]:
            sink._refuse(raised)
        if raised is not None:
            raise raised

    setattr(run, _WRAPPED, original)
    return run


def _wrapped_outputs(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def coerce_outputs(output: Any, *arguments: Any, **options: Any) -> Any:
        several = isinstance(output, Sequence) and not isinstance(output, str)
        outputs = list(output) if several else [output]
        if any(isinstance(one, RunSink) for one in outputs):
            raise SourceError(
                "core.mda.run was looked up before ExEngineSink was imported, so this call cannot raise the "
                "sink's errors; import the class first, with 'from exengine_micromanager import "
                "ExEngineSink', or create the sink before the call"
            )
        runs = [one for one in outputs if isinstance(one, RecordedRun)]
        if not runs:
            return original(output, *arguments, **options)
        others = [one for one in outputs if not isinstance(one, RecordedRun)]
        handlers, sink = original(others or None, *arguments, **options)
        return handlers, _DataSink(runs, sink)

    return coerce_outputs


def _occupy(runner: "MDARunner", run: object) -> None:
    """Reject a run while a run with a sink is in progress, because the runner would mix up their events.

    An interrupt can arrive at any moment. The check and the reservation are therefore a single call in C, and
    the caller always releases the runner.
    """
    if vars(runner).setdefault(_RUN, run) is not run:
        raise AcquisitionError("the core is busy with another run; cancel that run, or wait until it ends")


def _is_occupied_by(runner: "MDARunner", run: object) -> bool:
    return vars(runner).get(_RUN) is run


def _release(runner: "MDARunner", run: object) -> None:
    """Allow other runs again if this run has reserved the runner."""
    if _is_occupied_by(runner, run):
        vars(runner).pop(_RUN, None)


def split_outputs(output: Any) -> tuple[list[RunSink], list[Any]]:
    """Split an ``output`` argument into the sinks of this package and all other outputs."""
    several = isinstance(output, Sequence) and not isinstance(output, str)
    outputs = list(output) if several else [] if output is None else [output]
    sinks = [one for one in outputs if isinstance(one, RunSink)]
    return sinks, [one for one in outputs if not isinstance(one, RunSink)]


def _end_interrupted(runner: "MDARunner", error: BaseException) -> None:
    """End a run that the runner abandoned after an error that is not an ``Exception``."""
    from pymmcore_plus.mda._runner import FinishReason

    sequence = runner._sequence
    if not isinstance(error, Exception) and runner.is_running() and sequence is not None:
        runner._finish_reason = FinishReason.CANCELED
        with contextlib.suppress(Exception):  # the caller raises the interrupt
            runner._finish_run(sequence)


class _DataSink:
    """The runner's data sink, which passes calls to the recorded runs and to another data sink, if any."""

    def __init__(self, runs: "Sequence[RecordedRun]", other: Any) -> None:
        self._other = other
        self._sinks = [*runs] if other is None else [*runs, other]

    def setup(self, sequence: Any, meta: Any) -> None:
        for sink in self._sinks:
            sink.setup(sequence, meta)

    def append(self, image: Any, event: Any, meta: Any) -> None:
        for sink in self._sinks:
            sink.append(image, event, meta)

    def skip(self, *, frames: int = 1) -> None:
        for sink in self._sinks:
            sink.skip(frames=frames)

    def close(self) -> None:
        # Recorded runs are ended by the wrapped `run`, after the engine's teardown.
        if self._other is not None:
            self._other.close()

    def get_view(self) -> Any:
        return None if self._other is None else self._other.get_view()
