"""A task that measures resource leaks.

Resource usage is measured at several points over many cycles. The first cycles are not measured, because they
import modules and fill pools. The result is the growth per cycle: the slope of a line fitted to the points.
"""

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exengine.testing.children import say
from exengine.testing.frames import frame_of
from exengine.testing.subject import Subject, refusal_of
from exengine.testing.tasks.damages import damages_of
from exengine.testing.tasks.dataset_files import copy_to

WARM_UP = 8
CYCLES = 24
_POINTS = 8
_FRAMES = 3
_REFUSED_EACH, _REFUSED = 2, 8
_PATIENCE_S = 5.0
_SIDE = 300  # frames have at least 180,000 bytes, so that one leaked frame per cycle is detected


def run_cycles(subject: Subject, spec: dict[str, Any]) -> None:
    """Run each cycle repeatedly and report how memory, descriptors and threads grow per cycle."""
    for name, cycle in _cycles_of(subject, Path(spec["path"])).items():
        say(cycle=name, **_slopes(cycle))


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
        "get and a refused put": read,
    }
    if subject.can.persistent and subject.can.reopen:
        cycles["open, read and close"] = open_and_close
        if refused := _refused_copies(subject):

            def fail_to_open() -> None:
                for copy in refused:
                    with contextlib.suppress(BaseException):
                        subject.open(copy).close()
                subject.forget()

            cycles["fail to open"] = fail_to_open
    return cycles


def _refused_copies(subject: Subject) -> list[Path]:
    """Return damaged datasets that cannot be opened, at most two for each damaged file."""
    original = subject.new_path()
    storage = subject.create(original)
    subject.fill(storage, _FRAMES)
    storage.finish()
    storage.close()
    found: dict[Path, list[Path]] = {}
    for damage in damages_of(original, 0):
        known = found.setdefault(damage.place(original), [])
        if len(known) == _REFUSED_EACH:
            continue
        path = subject.new_path()
        copy_to(original, path)
        target = damage.place(path)
        changed = damage.change(target.read_bytes())
        target.unlink() if changed is None else target.write_bytes(changed)
        say(opening=damage.text, within_s=_PATIENCE_S)
        try:
            subject.open(path).close()
        except BaseException:
            known.append(path)
    return [path for paths in found.values() for path in paths][:_REFUSED]


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
