"""Ends forgotten handlers and storages when the process exits, and disowns copies made by a fork.

At interpreter exit, handlers are drained first. Storages that are still open are then aborted, each with a
warning (promise N5). In a forked child process, the copies are disowned immediately: they close their copy of
the parent's lock and reject writes.
"""

import atexit
import os
import sys
import weakref
from typing import Protocol


class _Owner(Protocol):
    def conclude_at_exit(self) -> None: ...
    def disown(self) -> None: ...


_handlers: "weakref.WeakSet[_Owner]" = weakref.WeakSet()
_storages: "weakref.WeakSet[_Owner]" = weakref.WeakSet()


def watch_handler(handler: _Owner) -> None:
    """Arrange for this handler to be ended at exit, unless it is released first."""
    _handlers.add(handler)


def watch_storage(storage: _Owner) -> None:
    """Arrange for this storage to be ended at exit, after all handlers."""
    _storages.add(storage)


def release(owner: _Owner) -> None:
    """Stop watching a handler or a storage that has ended."""
    _handlers.discard(owner)
    _storages.discard(owner)


def _members(group: "weakref.WeakSet[_Owner]") -> list[_Owner]:
    """Return the members of a set that other threads may change at the same time."""
    while True:
        try:
            return list(group)
        except RuntimeError:
            continue


def _conclude_all() -> None:
    for group in (_handlers, _storages):
        for owner in _members(group):
            try:
                owner.conclude_at_exit()
            except BaseException:  # a failure in one must not affect the others
                sys.excepthook(*sys.exc_info())


def _disown_all() -> None:
    for group in (_handlers, _storages):
        for owner in _members(group):
            owner.disown()
        group.clear()


atexit.register(_conclude_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
