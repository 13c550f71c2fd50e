"""Notifies the observers of an acquisition without delaying the thread that stores frames.

Threads: each observer (one plugin in the group ``exengine.hooks``) has its own daemon thread, named
``exengine-observer-<name>``, which runs from :meth:`Observers.opened` to :meth:`Observers.finished`. This
thread makes all calls to the observer, in the order opened, frames, finished. The thread that stores frames
only appends coordinates to each observer's deque, without a lock or a signal. The observer's thread empties
the deque at intervals, so a slow observer receives larger batches.

If an observer raises an exception, it is still called for the next event. Its errors are logged, counted and
returned by :meth:`Observers.finished`.
"""

import copy
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.frames.ledger import Ledger
from exengine.kernel.registry.hooks import HookManager, Implementation, failure, hooks

INTERVAL_S = 0.25
"""Minimum time between two notifications about stored frames."""

TIMEOUT_S = 10.0
"""Total time to wait for all observers at the end of an acquisition."""

MAX_WAITING = 1_000_000
"""Maximum number of frames queued for one observer. Further frames are skipped, and their number is reported.
"""

_log = logging.getLogger("exengine")


class Observers:
    """The observers of one acquisition. Does nothing if none are installed.

    Parameters
    ----------
    manager : HookManager, optional
        The hook manager. By default, the manager for the installed plugins is used.
    """

    def __init__(self, manager: HookManager | None = None) -> None:
        manager = manager or hooks
        by_plugin: dict[int, list[Implementation]] = {}
        for one in manager.implementations():
            if one.hook != "exengine_docs_sections":
                by_plugin.setdefault(id(one.record), []).append(one)
        self._observers = [_Observer(implementations) for implementations in by_plugin.values()]
        self._watching = [observer.waiting for observer in self._observers if observer.watches_frames]
        self._refused = manager.refused()
        for text in self._refused:
            _log.error("%s", text)

    @property
    def watch_frames(self) -> bool:
        """Whether any observer wants to be notified of frames."""
        return bool(self._watching)

    def frames_stored(self, coordinates: list[DataCoordinates]) -> None:
        """Queue coordinates of stored frames for the observers. Called on the thread that stores frames."""
        for waiting in self._watching:
            waiting.add(coordinates)

    def opened(self, storage: Any, backend: str, path: str | None) -> None:
        """Start the threads, which notify the observers that the storage is open. Returns immediately."""
        for observer in self._observers:
            observer.start({"storage": storage, "backend": backend, "path": path})

    def finished(self, ledger: Ledger, status: str, path: str | None) -> list[str]:
        """Notify the observers that the acquisition has ended, and wait for them.

        Return their errors, one line each.

        Parameters
        ----------
        ledger : Ledger
            The ledger. Each observer receives a copy.
        status : str
        path : str or None
        """
        for observer in self._observers:
            observer.end({"ledger": copy.deepcopy(ledger), "status": status, "path": path})
        deadline = time.monotonic() + TIMEOUT_S
        problems = list(self._refused)
        for observer in self._observers:
            problems += observer.join(max(0.0, deadline - time.monotonic()))
        return problems


class _Waiting(deque[DataCoordinates]):
    """Coordinates queued for one observer. One thread adds them, and another thread removes them."""

    missed = 0

    def add(self, coordinates: list[DataCoordinates]) -> None:
        """Add as many coordinates as there is room for, and count the remaining frames as missed."""
        room = max(0, MAX_WAITING - len(self))
        self.extend(coordinates[:room])
        self.missed += max(0, len(coordinates) - room)

    def take(self) -> list[DataCoordinates]:
        """Remove and return all queued coordinates."""
        return [self.popleft() for _ in range(len(self))]


class _Observer:
    """One plugin with its thread and its errors."""

    def __init__(self, implementations: list[Implementation]) -> None:
        self.name = implementations[0].record.qualified_name
        self.waiting = _Waiting()
        self._implementations = implementations
        self._errors: dict[tuple[str, str], int] = {}  # (hook, error line) -> count
        self._ended = threading.Event()
        self._begin: Mapping[str, Any] = {}
        self._end: Mapping[str, Any] = {}
        self._thread = threading.Thread(target=self._run, name=f"exengine-observer-{self.name}", daemon=True)

    @property
    def watches_frames(self) -> bool:
        return any(one.hook == "exengine_frames_stored" for one in self._implementations)

    def start(self, arguments: Mapping[str, Any]) -> None:
        self._begin = arguments
        self._thread.start()

    def end(self, arguments: Mapping[str, Any]) -> None:
        self._end = arguments
        self._ended.set()

    def join(self, timeout_s: float) -> list[str]:
        """Wait for the thread, then return the errors, one line each."""
        self._thread.join(timeout_s)
        texts = [
            text if count == 1 else f"{text} ({count} times)"
            for (_, text), count in list(self._errors.items())
        ]
        if self.waiting.missed:
            texts.append(
                f"{self.name} was too slow; frames of which it was not notified: {self.waiting.missed}"
            )
        if self._thread.is_alive():
            texts.append(f"{self.name} did not return within {TIMEOUT_S:g} s and was abandoned")
            _log.error("%s", texts[-1])
        return texts

    def _run(self) -> None:
        self._call("exengine_storage_opened", self._begin)
        while not self._ended.wait(INTERVAL_S if self.watches_frames else None):
            self._notify_of_frames()
        self._notify_of_frames()
        self._call("exengine_acquisition_finished", self._end)

    def _notify_of_frames(self) -> None:
        batch = self.waiting.take()
        if batch:
            self._call("exengine_frames_stored", {"coordinates": batch})

    def _call(self, hook: str, arguments: Mapping[str, Any]) -> None:
        for implementation in self._implementations:
            if implementation.hook != hook:
                continue
            try:
                implementation(arguments)
            except BaseException as error:  # even SystemExit, because an observer must not end the program
                self._note(implementation, error)

    def _note(self, implementation: Implementation, error: BaseException) -> None:
        text = failure(implementation, error)
        key = (implementation.hook, text)
        if len(self._errors) >= 20 and key not in self._errors:
            key = (implementation.hook, f"{self.name} raised further errors in {implementation.hook}")
        self._errors[key] = self._errors.get(key, 0) + 1
        if self._errors[key] == 1:
            _log.error("%s", text)
            _log.debug("%s", text, exc_info=error)
