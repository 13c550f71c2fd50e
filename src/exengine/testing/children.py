"""Tasks that the kit runs in child processes, such as writing until killed, reading, or opening damaged data.

A child is either started with ``python -m exengine.testing.children VERB SPEC``, where ``SPEC`` is JSON, or
forked by a server that was started with the verb ``serve``. The child prints JSON objects, one per line. The
last object is the result.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from exengine.kernel.errors import describe
from exengine.kernel.registry import plugins
from exengine.kernel.system.fork_server import Forked, Task, fork, serve
from exengine.testing.promises import NotRun, PromiseBrokenError
from exengine.testing.subject import Model, Subject, coordinates_of, status_of

_NOT_IMPORTABLE = 77
_TASKS = {
    "cycles": "leaks",
    "failed_sync": "errors",
    "limit": "errors",
    "synced": "errors",
    "broken_calls": "errors",
    "fork": "forks",
    "damage": "damage",
    "probe": "probe",
    "unpickle": "pickles",
    "foreign": "readers",
    "watch": "readers",
}
"""Maps each task that is defined elsewhere to its module in ``exengine.testing.tasks``."""
_OWN_START = ("unpickle",)  # the tasks that must do something before the backend is imported
_ORDINARY = ("simplest", "read", "look_at")  # the server imports the modules that these tasks needed
_NEEDED = ("exengine.datasets.creation", "exengine.datasets.opening")  # most tasks import them
_VARIES = "PYTEST_CURRENT_TEST"  # the environment variable that changes with each test
_CHILD_S = 8.0
_AGAIN_S = 3.0  # the timeout for a backend that has already hung
_hung: set[type] = set()
_LOADING_S, _FORKING_S = 1.0, 0.25  # usual start times of a new process and of a fork
_START_S = 60.0
_slowness = [1.0]  # how many times longer than usual a child takes to start; timeouts are multiplied by it


# -- in the test process -----------------------------------------------------------------------------


class Child:
    """A child process that uses a backend. At the end of a ``with`` block, the process is killed.

    Parameters
    ----------
    subject : Subject
        The backend under test.
    verb : str
        The task: the name of a function in this module or in ``tasks``, without the prefix ``run_``.
    hash_seed : str
        The value of ``PYTHONHASHSEED`` in the child process.
    **spec : JSON values
        The arguments of the task.
    """

    def __init__(self, subject: Subject, verb: str, *, hash_seed: str = "random", **spec: Any) -> None:
        self._cls = subject.cls
        self._started = time.monotonic()
        target = f"{subject.cls.__module__}:{subject.cls.__qualname__}"
        # The kit creates and removes the folder, because a killed process cannot clean up after itself.
        folder = subject.new_path().parent
        content = {"name": subject.name, "target": target, "options": subject.options, "folder": str(folder)}
        content |= spec
        path = os.pathsep.join(entry for entry in sys.path if entry)
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed}
        self._errors = folder / "stderr.txt"
        with self._errors.open("wb") as errors:
            self.process = _started(subject, verb, json.dumps(content), errors, environment)
        if isinstance(self.process, Forked):
            self._started = time.monotonic()  # the first fork waits for its server

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
        """Yield the output of the process until it ends, or kill the process after a timeout.

        The timeout limits the total time or, with ``each_line``, the time for each line. A line with the key
        ``within_s`` sets a different timeout for the next line.
        """
        late: list[float] = []

        def stop_after(seconds: float) -> threading.Timer:
            if self._cls in _hung and (each_line or seconds < timeout_s):
                seconds = min(seconds, _AGAIN_S)
            seconds *= _slowness[0]

            def stop() -> None:
                late.append(seconds)
                self.process.kill()

            timer = threading.Timer(seconds, stop)
            timer.start()
            return timer

        timer = stop_after(max(timeout_s, _START_S) if each_line else timeout_s)
        try:
            assert self.process.stdout is not None
            for line in self.process.stdout:
                content = json.loads(line)
                if each_line:
                    timer.cancel()
                if content.get("loaded"):
                    self._notice_slowness(time.monotonic() - self._started)
                elif "imported" in content:
                    if isinstance(self.process, Forked):
                        self.process.load(content["imported"])
                else:
                    yield content
                if each_line:
                    timer = stop_after(content.get("within_s", timeout_s))
            code = self.process.wait(60)
        finally:
            timer.cancel()
        if code == _NOT_IMPORTABLE:
            raise NotRun(
                "a child process cannot import the class; this test needs the name of an installed backend"
            )
        if late:
            _hung.add(self._cls)
            raise PromiseBrokenError("", f"a child process that used the backend hung for {late[0]:.0f} s")
        if code:
            raise PromiseBrokenError(
                "", f"a child process that used the backend exited with code {code}: {self.errors()}"
            )

    def _notice_slowness(self, seconds: float) -> None:
        """Extend the timeouts if the process took a long time to start."""
        usual = _FORKING_S if isinstance(self.process, Forked) else _LOADING_S
        _slowness[0] = max(1.0, seconds / usual)

    def result(self, timeout_s: float = 120) -> dict[str, Any]:
        """Wait until the process ends, and return the last object that it printed."""
        last: dict[str, Any] = {}
        for last in self.lines(timeout_s):
            if "fault" in last:
                raise PromiseBrokenError("", f"the child process failed: {last['fault']}")
        return last

    def wait_for(self, number: int, timeout_s: float = 60, key: str = "put") -> None:
        """Wait until the process prints an object that contains ``number`` under ``key``."""
        for line in self.lines(timeout_s):
            if "fault" in line:
                raise PromiseBrokenError("", f"the child process failed: {line['fault']}")
            if line.get(key, -1) == number:
                return
        raise PromiseBrokenError("", f"a child process ended too early: {self.errors()}")

    def say_stop(self) -> None:
        """Ask the process to end."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def errors(self) -> str:
        """Return the last part of the process's stderr."""
        return self._errors.read_text(errors="replace")[-1500:]


def _started(
    subject: Subject, verb: str, text: str, errors: BinaryIO, environment: dict[str, str]
) -> "subprocess.Popen[str] | Forked":
    """Start a process for a task: a fork or, if the task must not be forked, a new Python process."""
    command = [sys.executable, "-W", "default", "-m", "exengine.testing.children"]
    if environment["PYTHONHASHSEED"] == "random" and verb not in _OWN_START:
        module = sys.modules.get(subject.cls.__module__)
        constant = {name: value for name, value in environment.items() if name != _VARIES}
        key = (module, os.getcwd(), constant)
        task = Task(verb, text, environment, errors.fileno())
        forked = fork("kit", key, [*command, "serve", text], task)
        if forked is not None:
            return forked
    return subprocess.Popen(
        [*command, verb, text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
    )


# -- in the child process ----------------------------------------------------------------------------


def run_simplest(subject: Subject, spec: dict[str, Any]) -> None:
    """Put one frame, read it, finish and close. Report the fault with the lines that led to it."""
    try:
        storage = subject.create(Path(spec["path"]))
        model = Model(subject)
        model.put(storage, subject.axes(0), subject.numbered(0))
        model.check(storage)
        storage.finish()
        storage.close()
    except Exception as error:
        steps = traceback.extract_tb(error.__traceback__)[-4:]
        trace = " > ".join(f"{os.path.basename(step.filename)}:{step.lineno} {step.name}" for step in steps)
        say(fault=f"{describe(error, 300)} [{trace}]")
    else:
        say(done=True)


def run_write(subject: Subject, spec: dict[str, Any]) -> None:
    """Put frames and acknowledge each. Then wait to be killed, finish, or exit with an open storage.

    Before that, write the datasets in ``before`` with the given numbers of frames, and leave them open.
    """
    for path, count in spec.get("before", ()):
        _write_some(subject, Path(path), count, spec["level"])
    storage = _write_some(subject, Path(spec["path"]), spec["count"], spec["level"])
    if spec.get("fork"):
        _leave_a_child_behind()
    if spec["end"] == "wait":
        sys.stdin.read()
    elif spec["end"] == "finish":
        storage.finish()
        storage.close()
    else:
        subject.forget()


def _write_some(subject: Subject, path: Path, count: int, level: str) -> Any:
    storage = subject.create(path)
    model = Model(subject)
    for number in range(count):
        axes = subject.axes(number)
        model.put(storage, axes, subject.numbered(number))
        if level != "put":
            storage.flush(level == "durable")
        say(put=number)
    return storage


def _leave_a_child_behind() -> None:
    """Fork a process that runs for a while after this process has ended; report when it has started."""
    if os.fork() == 0:
        for stream in (0, 1):
            os.close(stream)  # otherwise, readers of the streams would wait for this fork
        time.sleep(_CHILD_S)
        os._exit(0)
    say(forked=True)


def run_read(subject: Subject, spec: dict[str, Any]) -> None:
    """Open a dataset and report which frames are present and intact."""
    storage = subject.open(Path(spec["path"]))
    present, faults = look(subject, storage, spec["count"])
    order = coordinates_of(storage) if subject.can.iterable else []
    storage.close()
    say(present=present, faults=faults, order=order)


def run_look_at(subject: Subject, spec: dict[str, Any]) -> None:
    """Open datasets and report the frames that are present and intact, the faults, and the status."""
    for path, count in spec["datasets"]:
        try:
            storage = subject.open(Path(path))
            present, faults = look(subject, storage, count)
            say(path=path, present=present, faults=faults, status=str(status_of(storage)))
            storage.close()
        except Exception as error:
            say(path=path, present=[], faults=[f"opening raised {describe(error, 200)}"], status="")


def run_second(subject: Subject, spec: dict[str, Any]) -> None:
    """Try to create datasets, and report the result of each attempt."""
    for path, if_exists in spec["attempts"]:
        say(path=path, if_exists=if_exists, **try_to_create(subject, path, if_exists))


def try_to_create(subject: Subject, path: str, if_exists: str) -> dict[str, Any]:
    """Create a dataset as the kernel does. In the result, ``refused`` describes the error, if any."""
    from exengine.datasets.creation import open_storage

    def create() -> None:
        if subject.name:
            storage = open_storage(subject.name, path, if_exists=if_exists, **subject.options)  # type: ignore[arg-type]  # an allowed value
        else:
            storage = subject.create(Path(path))
        storage.close()

    return {"refused": kind_of(create)}


def kind_of(call: Any) -> dict[str, Any] | None:
    """Call a function. Return a description of the exception that it raises, or None."""
    try:
        call()
    except BaseException as error:
        return describe_kind(error)
    return None


def describe_kind(error: BaseException) -> dict[str, Any]:
    """Return the message of an exception, and the names of its class and of all base classes."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return {"kinds": kinds, "message": describe(error, 300)}


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


def say(**content: Any) -> None:
    """Print an object for the process that started this one."""
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


def main(verb: str, text: str, socket: str = "") -> None:
    """Run the task named ``verb``, with its specification as JSON; ``serve`` runs tasks in forks."""
    known: set[str] = set()
    if verb == "serve":
        with contextlib.suppress(BaseException):  # if this fails, the task reports the error
            _load(json.loads(text))
        for module in (*(f"exengine.testing.tasks.{home}" for home in _TASKS.values()), *_NEEDED):
            importlib.import_module(module)
        verb, text = serve(int(socket))
        known = set(sys.modules)
    spec = json.loads(text)
    if verb == "unpickle":
        importlib.import_module("exengine.testing.tasks.pickles").watch()
    cls, options, folder = _load(spec), spec["options"], Path(spec["folder"])
    say(loaded=True)
    subject = Subject(lambda *at: cls.create(*at, **options), cls, folder, spec["name"], options)
    try:
        home = f"exengine.testing.tasks.{_TASKS[verb]}" if verb in _TASKS else __name__
        getattr(sys.modules.get(home) or importlib.import_module(home), f"run_{verb}")(subject, spec)
    except Exception as error:
        say(fault=describe(error))
    subject.close_all()
    if known and verb in _ORDINARY:
        say(imported=[name for name in sys.modules if name not in known])


if __name__ == "__main__":
    main(*sys.argv[1:])
