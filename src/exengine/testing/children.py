"""Tasks that the kit runs in child processes, such as writing until killed, reading, or opening damaged data.

A child is started with ``python -m exengine.testing.children VERB SPEC``, where the specification is JSON. It
prints JSON objects, one per line. The last object is its result.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exengine.kernel.errors import ExEngineError, describe
from exengine.kernel.registry import plugins
from exengine.testing.frames import check_frame
from exengine.testing.promises import NotRun, PromiseBrokenError
from exengine.testing.subject import Model, Subject, coordinates_of, status_of, tree_of
from exengine.testing.watch import Watch

_NOT_IMPORTABLE = 77
_IN_CYCLES = ("cycles", "failed_sync")
_LARGE = (300, 300)
_CHILD_S = 8.0


# -- in the test process -----------------------------------------------------------------------------


class Child:
    """A child process that uses a backend. Used as a context manager, it kills the process on exit.

    Parameters
    ----------
    subject : Subject
        The backend under test.
    verb : str
        The task: the name of a function in this module or in ``cycles``, without the prefix ``run_``.
    hash_seed : str
        The value of ``PYTHONHASHSEED`` in the child process.
    **spec : JSON values
        The arguments of the task.
    """

    def __init__(self, subject: Subject, verb: str, *, hash_seed: str = "random", **spec: Any) -> None:
        target = f"{subject.cls.__module__}:{subject.cls.__qualname__}"
        # The kit creates and removes the folder, because a killed process cannot clean up after itself.
        folder = subject.new_path().parent
        content = {"name": subject.name, "target": target, "options": subject.options, "folder": str(folder)}
        content |= spec
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._errors = folder / "stderr.txt"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "default",
                    "-m",
                    "exengine.testing.children",
                    verb,
                    json.dumps(content),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed},
            )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill the process and wait for it to end."""
        self.process.kill()
        self.process.wait(60)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()

    def lines(self, timeout_s: float = 120, *, each_line: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the process's output until it ends. Kill it after a timeout, either in total or per line."""
        timer = threading.Timer(timeout_s, self.process.kill)
        timer.start()
        try:
            assert self.process.stdout is not None
            for line in self.process.stdout:
                if each_line:
                    timer.cancel()
                yield json.loads(line)
                if each_line:
                    timer = threading.Timer(timeout_s, self.process.kill)
                    timer.start()
            code = self.process.wait(60)
        finally:
            timer.cancel()
        if code == _NOT_IMPORTABLE:
            raise NotRun(
                "a child process cannot import the class; this test needs the name of an installed backend"
            )
        if code:
            raise PromiseBrokenError(
                "", f"a child process that used the backend exited with code {code}: {self.errors()}"
            )

    def result(self, timeout_s: float = 120) -> dict[str, Any]:
        """Wait until the process ends, and return the last object that it printed."""
        last: dict[str, Any] = {}
        for last in self.lines(timeout_s):
            if "fault" in last:
                raise PromiseBrokenError("", f"the child process failed: {last['fault']}")
        return last

    def wait_for(self, number: int, timeout_s: float = 60, key: str = "put") -> None:
        """Wait until the process acknowledges frame ``number``, or prints ``number`` under another key."""
        for line in self.lines(timeout_s):
            if "fault" in line:
                raise PromiseBrokenError("", f"the child process failed: {line['fault']}")
            if line.get(key, -1) == number:
                return
        raise PromiseBrokenError("", f"a writer in a child process ended too early: {self.errors()}")

    def say_stop(self) -> None:
        """Ask the process to end."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def errors(self) -> str:
        """Return the last part of the process's stderr."""
        return self._errors.read_text(errors="replace")[-1500:]


# -- in the child process ----------------------------------------------------------------------------


def run_write(subject: Subject, spec: dict[str, Any]) -> None:
    """Put frames and acknowledge each. Then wait to be killed, finish, or exit with an open storage."""
    storage = subject.create(Path(spec["path"]))
    model = Model(subject)
    for number in range(spec["count"]):
        axes = subject.axes(number)
        model.put(storage, axes, subject.numbered(number))
        if spec["level"] != "put":
            storage.flush(spec["level"] == "durable")
        _say(put=number)
    if spec.get("fork"):
        _leave_a_child_behind()
    if spec["end"] == "wait":
        sys.stdin.read()
    elif spec["end"] == "finish":
        storage.finish()
        storage.close()
    else:
        subject.forget()


def _leave_a_child_behind() -> None:
    """Fork a process that outlives this process for a while, and report that it exists."""
    if os.fork() == 0:
        for stream in (0, 1):
            os.close(stream)  # a reader of an open stream would wait for this fork
        time.sleep(_CHILD_S)
        os._exit(0)
    _say(forked=True)


def run_read(subject: Subject, spec: dict[str, Any]) -> None:
    """Open a dataset and report which frames are present and intact."""
    storage = subject.open(Path(spec["path"]))
    present, faults = look(subject, storage, spec["count"])
    order = coordinates_of(storage) if subject.can.iterable else []
    storage.close()
    _say(present=present, faults=faults, order=order)


def run_foreign(subject: Subject, spec: dict[str, Any]) -> None:
    """Read frames with the class's foreign reader, and report those that the reader does not see."""
    module, _, name = subject.cls.foreign_reader.partition(":")
    read = getattr(importlib.import_module(module), name)
    faults = []
    for number in range(spec["count"]):
        axes = subject.axes(number)
        try:
            check_frame(np.asarray(read(spec["path"], dict(axes))), subject.frame(axes), axes, "C6")
        except Exception as error:
            faults.append(describe(error, 300))
    _say(faults=faults)


def run_watch(subject: Subject, spec: dict[str, Any]) -> None:
    """Open a dataset repeatedly while it is being written, and report how many frames are intact."""
    stopped = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stopped.set()

    threading.Thread(target=wait, name="exengine-kit-stop", daemon=True).start()
    counts: list[int] = []
    faults: list[str] = []
    last_round = False
    while not faults and not last_round:
        last_round = stopped.is_set()  # check once more after the last frame was put
        storage = subject.open(Path(spec["path"]))
        present, faults = look(subject, storage, spec["count"])
        if present != list(range(len(present))):
            faults.append(f"the frames {present} are present, but earlier frames are missing")
        if subject.can.iterable and len(storage) < len(present):
            faults.append(f"len(storage) is {len(storage)}, but {len(present)} frames are present")
        storage.close()
        counts.append(len(present))
        if len(counts) == 1:
            _say(put=0)
    _say(counts=counts, faults=faults)


def run_second(subject: Subject, spec: dict[str, Any]) -> None:
    """Try to create datasets, and report the result of each attempt."""
    for path, if_exists in spec["attempts"]:
        _say(path=path, if_exists=if_exists, **try_to_create(subject, path, if_exists))


def run_probe(subject: Subject, spec: dict[str, Any]) -> None:
    """Open damaged or hostile datasets, read those that open, and report errors and forbidden actions."""
    watch = _watch_after(subject, spec) if spec.get("good") else None
    _limit_memory()
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
        _say(path=path, outcome=outcome, foreign=foreign, wrong=wrong, seconds=seconds, reached=reached)
    _say(memory_mib=_peak_mib())


def _limit_memory() -> None:
    """Limit the memory, so that an endless read raises an error instead of exhausting the machine."""
    if sys.platform.startswith("linux"):
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (now + 2 * 2**30, hard))


def _watch_after(subject: Subject, spec: dict[str, Any]) -> Watch:
    """Read an undamaged dataset so that all modules are imported, then return a watch on this process."""
    storage = subject.open(Path(spec["good"]))
    _read_all(subject, storage, spec["count"])
    storage.close()
    return Watch()


def run_limit(subject: Subject, spec: dict[str, Any]) -> None:
    """Put frames until a file reaches the size limit, and report how the storage reacts."""
    import resource

    storage = subject.create(Path(spec["path"]))
    sys.dont_write_bytecode = True  # under the limit, bytecode caches would be truncated
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (spec["limit"], hard))
    model = Model(subject)
    met: BaseException | None = None
    for number in range(spec["count"]):
        axes = subject.axes(number)
        large = number == spec["count"] - 1
        frame = _large_frame(subject, axes) if large else subject.frame(axes)
        try:
            storage.put(axes, frame, subject.numbered(number))
            storage.flush() if spec["flush"] else None
        except BaseException as error:
            met = error
            break
        model.add(axes, frame, subject.numbered(number))
    else:
        try:
            storage.finish()
        except BaseException as error:
            met = error
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    # The limit has been lifted. A storage that has failed must nevertheless remain failed.
    before = tree_of(Path(spec["path"]).parent)
    after = _kind_of(lambda: storage.put(subject.axes(9000), subject.frame(subject.axes(9000)), {}))
    changed = tree_of(Path(spec["path"]).parent) != before
    stored = len(model.frames)
    faults = [fault for put in model.frames.values() if (fault := _fault_of(model, storage, put))]
    ends = [_kind_of(storage.finish), _kind_of(storage.close)]
    kind = _describe(met) if met is not None else None
    cause = met is not None and isinstance(_last_cause(met), OSError)
    _say(stored=stored, met=kind, has_cause=cause, after=after, changed=changed, ends=ends, faults=faults)


def try_to_create(subject: Subject, path: str, if_exists: str) -> dict[str, Any]:
    """Create a dataset as the kernel does. ``refused`` in the result describes the error, or is None."""
    from exengine.datasets.creation import open_storage

    def create() -> None:
        if subject.name:
            storage = open_storage(subject.name, path, if_exists=if_exists, **subject.options)  # type: ignore[arg-type]  # an allowed value
        else:
            storage = subject.create(Path(path))
        storage.close()

    return {"refused": _kind_of(create)}


def _kind_of(call: Any) -> dict[str, Any] | None:
    try:
        call()
    except BaseException as error:
        return _describe(error)
    return None


def _describe(error: BaseException) -> dict[str, Any]:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return {"kinds": kinds, "message": describe(error, 300)}


def _last_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _fault_of(model: Model, storage: Any, put: Any) -> str:
    try:
        model.check_one(storage, put, "P7")
    except Exception as error:
        return describe(error, 300)
    return ""


def _large_frame(subject: Subject, axes: Any) -> Any:
    from exengine.testing.frames import frame_of

    return frame_of(axes, (*subject.shape[:-2], *_LARGE)[-max(len(subject.shape), 1) :], subject.dtype)


def look(subject: Subject, storage: Any, count: int) -> tuple[list[int], list[str]]:
    """Return the numbers of the frames that are present, and a list of the faults found in them."""
    present: list[int] = []
    faults: list[str] = []
    model = Model(subject)
    # Check the frames from last to first. Frames arrive in order, so if a frame is present, all frames before
    # it must be present too.
    for number in reversed(range(count)):
        axes = subject.axes(number)
        if axes not in storage:
            continue
        present.insert(0, number)
        try:
            model.check_one(storage, model.entry(axes, subject.frame(axes), subject.numbered(number)))
        except Exception as error:
            faults.append(describe(error, 300))
    return present, faults


def _read_all(subject: Subject, storage: Any, count: int) -> tuple[str, str]:
    """Read every frame. Return any exception that is not an ExEngineError, and any fault in the data."""
    from exengine.testing.frames import same

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
        wrong = wrong or f"{missing} frames are missing, but the status is complete"
    return "", wrong


def _peak_mib() -> float:
    try:
        import resource
    except ImportError:  # this module does not exist on Windows
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _say(**content: Any) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def _load(spec: dict[str, Any]) -> Any:
    if spec["name"]:
        return plugins.BACKENDS.load(spec["name"])
    module, _, attribute = spec["target"].partition(":")
    try:
        loaded: Any = importlib.import_module(module)
        for part in attribute.split("."):
            loaded = getattr(loaded, part)
    except (ImportError, AttributeError):
        raise SystemExit(_NOT_IMPORTABLE) from None
    return loaded


def main(verb: str, text: str) -> None:
    """Run the task named ``verb``, with its specification as JSON."""
    spec = json.loads(text)
    cls, options, folder = _load(spec), spec["options"], Path(spec["folder"])
    subject = Subject(lambda *at: cls.create(*at, **options), cls, folder, spec["name"], options)
    try:
        home = "exengine.testing.cycles" if verb in _IN_CYCLES else __name__
        getattr(sys.modules.get(home) or importlib.import_module(home), f"run_{verb}")(subject, spec)
    except Exception as error:
        _say(fault=describe(error))
    subject.close_all()


if __name__ == "__main__":
    main(*sys.argv[1:])
