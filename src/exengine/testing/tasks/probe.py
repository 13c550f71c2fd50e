"""A task that opens damaged or hostile datasets, and limits for the processes that do so."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from exengine.kernel.errors import ExEngineError, describe
from exengine.testing.children import say
from exengine.testing.frames import same
from exengine.testing.subject import Subject, status_of
from exengine.testing.tasks.memory import peak_mib
from exengine.testing.watch import Watch


def run_probe(subject: Subject, spec: dict[str, Any]) -> None:
    """Open damaged or hostile datasets and, if possible, read them. Report errors and forbidden actions."""
    watch = watch_after(subject, spec) if spec.get("good") else None
    limit_memory()
    for path in spec["paths"]:
        started = time.monotonic()
        outcome, foreign, wrong = "", "", ""
        if watch:
            watch.look_at(path)
        try:
            storage = subject.open(Path(path))
            outcome = str(status_of(storage))
            foreign, wrong = _read_all(subject, storage, spec["count"])
            storage.close()
        except ExEngineError as error:
            outcome = type(error).__name__
        except BaseException as error:
            foreign = describe(error)
        if watch:
            watch.rest()
        seconds, reached = time.monotonic() - started, watch.reached[:5] if watch else []
        say(path=path, outcome=outcome, foreign=foreign, wrong=wrong, seconds=seconds, reached=reached)
    say(memory_mib=peak_mib())


def limit_memory() -> None:
    """Limit the memory, so that an endless read raises an error instead of exhausting the machine."""
    if sys.platform.startswith("linux"):
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (now + 2 * 2**30, hard))


def watch_after(subject: Subject, spec: dict[str, Any]) -> Watch:
    """Read an undamaged dataset so that all modules are imported, then return a watch on this process."""
    storage = subject.open(Path(spec["good"]))
    _read_all(subject, storage, spec["count"])
    storage.close()
    return Watch()


def _read_all(subject: Subject, storage: Any, count: int) -> tuple[str, str]:
    """Read every frame. Return any exception that is not an ExEngineError, and any fault in the data."""
    wrong = ""
    missing = 0
    for number in range(count):
        axes = subject.axes(number)
        try:
            if axes not in storage:
                missing += 1
            elif not same(storage.get_data(axes), subject.frame(axes)):
                wrong = wrong or f"the frame at {axes} has wrong pixels"
            storage.get_metadata(axes)
        except ExEngineError:
            continue
        except Exception as error:
            return describe(error), wrong
    status = status_of(storage)
    if missing and status == "complete":
        wrong = wrong or f"the status is complete, but the number of missing frames is {missing}"
    return "", wrong
