"""Tasks that the kit runs in a child process: measuring resource leaks, and making a sync fail.

Resource usage is measured at several points over many cycles. The first cycles are not measured, because they
import modules and fill pools. The result is the growth per cycle: the slope of a line fitted to the points.
"""

import errno
import gc
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exengine.testing.frames import frame_of
from exengine.testing.subject import Model, Subject, refusal_of

WARM_UP = 8
CYCLES = 24
_POINTS = 8
_FRAMES = 3
_SIDE = 300  # frames have at least 180,000 bytes, so that one leaked frame per cycle is detected


def run_cycles(subject: Subject, spec: dict[str, Any]) -> None:
    """Run each cycle repeatedly and report how memory, descriptors and threads grow per cycle."""
    for name, cycle in _cycles_of(subject, Path(spec["path"])).items():
        _say(cycle=name, **_slopes(cycle))


def _cycles_of(subject: Subject, path: Path) -> dict[str, Callable[[], None]]:
    axes = [subject.axes(number) for number in range(_FRAMES)]
    shape = (*subject.shape[:-2], _SIDE, _SIDE) if subject.shape == (24, 40) else subject.shape
    frames = [frame_of(at, shape, subject.dtype) for at in axes]

    def write(place: Path) -> Any:
        storage = subject.create(place)
        for at, frame in zip(axes, frames, strict=True):
            storage.put(at, frame, subject.metadata_value)
        return storage

    def make() -> None:
        storage = write(subject.new_path())
        storage.finish()
        storage.close()
        subject.forget()

    def read() -> None:
        for at in axes:
            kept.get_data(at)
            if subject.can.metadata:
                kept.get_metadata(at)
            refusal_of(lambda: kept.get_data({"time": 10**6}))
            refusal_of(lambda taken=at: kept.put(taken, frames[0], {}))  # type: ignore[misc]

    def open_and_close() -> None:
        storage = subject.open(path)
        for at in axes:
            storage.get_data(at)
        storage.close()
        subject.forget()

    kept = write(path)
    cycles: dict[str, Callable[[], None]] = {
        "create, put, finish and close": make,
        "get, and a refused put": read,
    }
    if subject.can.persistent and subject.can.reopen:
        cycles["open, read and close"] = open_and_close
    return cycles


def _slopes(cycle: Callable[[], None]) -> dict[str, float]:
    points: list[dict[str, float]] = []
    for number in range(-WARM_UP, CYCLES + 1):
        cycle()
        if number >= 0 and number % (CYCLES // _POINTS) == 0:
            gc.collect()
            points.append(_resources())
    distance = CYCLES // _POINTS
    return {name: _slope([point[name] for point in points]) / distance for name in points[0]}


def _slope(values: list[float]) -> float:
    """Return the slope of the least-squares line through values at positions 0, 1, 2, ..."""
    middle = (len(values) - 1) / 2
    mean = sum(values) / len(values)
    above = sum((at - middle) * (value - mean) for at, value in enumerate(values))
    return above / sum((at - middle) ** 2 for at in range(len(values)))


def _resources() -> dict[str, float]:
    """Return the resources in use by the process; on systems other than Linux, only its Python threads."""
    found: dict[str, float] = {"threads": threading.active_count()}
    if sys.platform.startswith("linux"):
        found["threads"] = len(os.listdir("/proc/self/task"))
        found["descriptors"] = len(os.listdir("/proc/self/fd"))
        with open("/proc/self/statm", encoding="ascii") as file:
            found["kib"] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024
    return found


# -- a failing sync ----------------------------------------------------------------------------------


def run_failed_sync(subject: Subject, spec: dict[str, Any]) -> None:
    """Make the first sync fail and all later syncs succeed; report the errors that later calls raise."""
    storage = subject.create(Path(spec["path"]))
    model = Model(subject)
    model.put(storage, subject.axes(0), subject.numbered(0))
    storage.flush(True)
    model.put(storage, subject.axes(1), subject.numbered(1))
    calls: list[str] = []
    _fail_once(calls)
    first = _name_of(lambda: storage.flush(True))
    again = _name_of(lambda: storage.flush(True))
    put = _name_of(lambda: storage.put(subject.axes(2), subject.frame(subject.axes(2)), {}))
    finish = _name_of(storage.finish)
    status = _name_of(storage.close) or _status(storage)
    _say(calls=len(calls), first=first, again=again, put=put, finish=finish, status=status)


def _fail_once(calls: list[str]) -> None:
    """Wrap every function that syncs data to disk, so that the first call to any of them fails."""
    from exengine.kernel.system import files

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(getattr(real, "__name__", ""))
            if len(calls) == 1:
                raise OSError(errno.EIO, "a failing sync, injected by the conformance kit")
            return real(*arguments)

        return call

    for module, name in ((os, "fsync"), (os, "fdatasync"), (os, "sync"), (files, "sync_filesystem")):
        if hasattr(module, name):
            setattr(module, name, failing(getattr(module, name)))


def _name_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return ""


def _status(storage: Any) -> str:
    try:
        return str(storage.status)
    except NotImplementedError:
        return ""


def _say(**content: Any) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()
