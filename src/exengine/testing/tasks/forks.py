"""A task that forks while a storage is open, and ends the child in several ways."""

import gc
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exengine.testing.children import say
from exengine.testing.frames import check_frame
from exengine.testing.subject import Subject, tree_of

_PATIENCE_S = 10.0


def run_fork(subject: Subject, spec: dict[str, Any]) -> None:
    """Fork a child in each way, and report how it ended and whether it changed a file."""
    path = Path(spec["path"])
    storage = subject.create(path)
    model = subject.fill(storage, 3)
    opened = subject.open(path) if subject.can.read_while_writing else None
    kill = getattr(signal, "SIGTERM", 15)

    def fail() -> None:
        sys.stderr.close()
        raise RuntimeError("an error that ends the forked child on purpose")

    def put() -> None:
        axes = subject.axes(500)
        try:
            storage.put(axes, subject.frame(axes), subject.numbered(500))
        except Exception:
            return
        raise SystemExit(3)

    def read() -> None:
        if opened is not None:
            for axes in (subject.axes(0), subject.axes(2)):
                check_frame(opened.get_data(axes), subject.frame(axes), axes, "C5")

    def forget() -> None:
        subject.forget()
        globals()["_kept"] = None
        gc.collect()

    ways: list[tuple[str, Callable[[], Any], int]] = [
        ("that exits", lambda: sys.exit(0), 0),
        ("that ends with os._exit", lambda: os._exit(0), 0),
        ("that closes the storage", storage.close, 0),
        ("that finishes the storage", lambda: _quietly(storage.finish), 0),
        ("that puts a frame", put, 0),
        ("that forgets the storage", forget, 0),
        ("that reads a dataset opened before the fork", read, 0),
        ("that fails", fail, 1),
        ("that is killed", lambda: os.kill(os.getpid(), kill), -kill),
    ]
    for number, (what, end, wanted) in enumerate(ways):
        before = tree_of(path.parent)
        status = _status_of_fork(end)
        changed = tree_of(path.parent) != before
        say(what=what, status=status, wanted=wanted, changed=changed)
        model.put(storage, subject.axes(3 + number), subject.numbered(3 + number))
        model.check(storage, "C5")
    if opened is not None:
        opened.close()
    storage.finish()
    storage.close()
    model.check(subject.open(path), "C5")


def _quietly(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception:  # the storage may refuse calls in a forked child
        return


def _status_of_fork(end: Callable[[], Any]) -> int | None:
    """Run a function in a forked child that then exits; return its exit status, or None if it hangs."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # issued when a process with threads is forked
        child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            end()
        except SystemExit:
            raise
        except BaseException:
            raise SystemExit(1) from None
        raise SystemExit(0)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
