"""Stores every run of a core, including runs that a graphical program starts.

This module adds a sink to each run. See sink.py for the sinks. A recording replaces the core's ``run_mda``
with a function that creates the sink before it starts the thread of the run.
"""

import functools
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from exengine_micromanager.user_core.runner import RunSink, add_to_runs, remove_from_runs, split_outputs
from exengine_micromanager.user_core.sink import ExEngineSink

if TYPE_CHECKING:
    from os import PathLike

    from pymmcore_plus import CMMCorePlus

__all__ = ["Recording", "recording"]


class Recording:
    """Stores every run that a core starts; see :func:`exengine_micromanager.recording`.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    target : path, mapping or None
        As for :class:`ExEngineSink`.
    **options
        As for :class:`ExEngineSink`.

    Attributes
    ----------
    sinks : list of ExEngineSink
        The sinks of all runs that have been started so far, in order.
    """

    def __init__(
        self,
        core: "CMMCorePlus",
        target: "str | PathLike[str] | Mapping[str, Any] | None" = None,
        /,
        **options: Any,
    ) -> None:
        ExEngineSink(target, **options)  # an error in the config is raised here, not in the first run
        self._core = core
        self._runner = core.mda
        self._target = target
        self._options = options
        self._thread = threading.get_ident()
        self._on_this_thread: set[ExEngineSink] = set()
        self._is_active = False
        self._is_wrapped = False  # whether `core.run_mda` is wrapped, which stop() may not undo
        self.sinks: list[ExEngineSink] = []

    def start(self) -> Self:
        """Record the runs that are started from now on."""
        if not self._is_active:
            self._is_active = True
            self._thread = threading.get_ident()
            add_to_runs(self._runner, self._sink_for)
            self._wrap_run_mda()
        return self

    def stop(self, timeout: float | None = None) -> None:
        """Record no further runs, wait for the runs in progress, and raise their first error.

        Errors that ``core.mda.run`` has raised on the thread that called :meth:`start` are not raised again.

        Parameters
        ----------
        timeout : float, optional
            The maximum time to wait, in seconds.

        Raises
        ------
        Exception
            The error of a run on another thread.
        TimeoutError
            If the wait timed out. The runs continue, and their frames are still stored.
        """
        self._deactivate()
        deadline = None if timeout is None else time.monotonic() + timeout
        first: BaseException | None = None
        for sink in self.sinks:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            error = sink._outcome.exception(left)
            if sink not in self._on_this_thread:
                first = first or error
        if first is not None:
            raise first

    def _deactivate(self) -> None:
        self._is_active = False
        remove_from_runs(self._runner, self._sink_for)

    def _sink_for(self, sinks: Sequence[RunSink]) -> ExEngineSink | None:
        """Return a sink for a run, or None if the run already has a sink from this recording."""
        if any(sink in self.sinks for sink in sinks):
            return None
        sink = self._new_sink()
        if threading.get_ident() == self._thread:
            self._on_this_thread.add(sink)
        return sink

    def _new_sink(self) -> ExEngineSink:
        sink = ExEngineSink(self._target, **self._options)
        self.sinks.append(sink)
        return sink

    def _wrap_run_mda(self) -> None:
        """Replace ``run_mda`` so that each call immediately creates the sink of its run.

        The thread of the run starts later, possibly after the end of the recording.
        """
        if self._is_wrapped:
            return
        self._is_wrapped = True
        original = self._core.run_mda

        @functools.wraps(original)
        def run_mda(events: Any, *, output: Any = None, **options: Any) -> threading.Thread:
            if not self._is_active:
                return original(events, output=output, **options)
            sinks, others = split_outputs(output)
            sink = self._new_sink()
            try:
                return original(events, output=[*others, *sinks, sink], **options)
            except BaseException:  # the run did not start, so its sink is not used
                self.sinks.remove(sink)
                raise

        self._core.run_mda = run_mda  # type: ignore[method-assign]  # of this core only

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:  # runs in progress continue, and the sinks finish the datasets
            self._deactivate()


def recording(
    core: "CMMCorePlus",
    target: "str | PathLike[str] | Mapping[str, Any] | None" = None,
    /,
    **options: Any,
) -> Recording:
    """Return a context manager that stores every run that a core starts.

    Use it for programs that call ``core.mda.run`` or ``core.run_mda`` themselves, such as napari-micromanager
    or pymmcore-gui. Each run gets its own dataset, so set ``if_exists: number`` for several runs. If the
    dataset of a run cannot be created, the run does not start.

    In a notebook, call ``start()`` and later ``stop()`` instead of using a ``with`` block.

    Parameters
    ----------
    core : pymmcore_plus.CMMCorePlus
    target : path, mapping or None
        As for :class:`ExEngineSink`.
    **options
        As for :class:`ExEngineSink`.

    Returns
    -------
    Recording
        Its ``sinks`` attribute contains one sink per run. Leaving the ``with`` block waits for runs in
        progress, and raises the first error of a run on another thread.

    Examples
    --------
    >>> import useq
    >>> from pymmcore_plus import CMMCorePlus
    >>> core = CMMCorePlus()
    >>> core.loadSystemConfiguration()
    >>> with recording(core, backend="ndram") as record:
    ...     thread = core.run_mda(useq.MDASequence(channels=["DAPI"]))
    ...     thread.join()
    >>> [sink.result().stored for sink in record.sinks]
    [1]
    """
    return Recording(core, target, **options)
