"""Probes plugins in separate processes, because a ``try`` statement cannot contain every effect of an import.

Importing a plugin can end the process (``os._exit``, a segmentation fault) or never return. Commands that
examine plugins therefore first load each plugin in a child process, with limits on its run time and output.
If a child ends without an answer, the outcome describes how it ended.
:mod:`exengine.kernel.registry.probe_child` contains the code that runs in the child.

On Linux, a server that has imported ExEngine and NumPy, but no plugin, forks the children, which is four to
five times faster than starting new Python processes.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple

from exengine.kernel.registry.codes import Finding
from exengine.kernel.registry.records import Outcome, PluginRecord, broken
from exengine.kernel.system.fork_server import Forked, Task, fork

TIME_LIMIT_S = 10.0
"""Time limit for loading one plugin, in seconds."""

OUTPUT_LIMIT = 10_000
"""Maximum number of characters kept from a child's output."""

AT_ONCE = 2
"""Maximum number of child processes that run at the same time."""

_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ")  # variables that a process reads only when it starts
_ENDING_S = 60.0  # time for a process to end after it was killed

# The flag -P prevents imports from the current folder. The request arrives on standard input.
_PROGRAM = """\
import json, sys
request = json.load(sys.stdin)
sys.path[:] = request["path"]
from {module} import main
main(request)
"""
_SERVER = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from exengine.kernel.registry.probe_child import serve_requests
serve_requests(int(sys.argv[2]))
"""


class ChildResult(NamedTuple):
    """The result of a child process that has ended.

    Attributes
    ----------
    answer : dict or None
        The answer of the child; None if the child ended without an answer.
    output : str
        The beginning of the text that the child printed to stdout and stderr.
    ending : str
        How a child without an answer ended, such as ``ended the process with signal SIGSEGV``.
    """

    answer: dict[str, Any] | None
    output: str
    ending: str


def probe(records: Sequence[PluginRecord]) -> list[Outcome]:
    """Load each plugin in its own process, and return the outcomes without changing any record.

    Parameters
    ----------
    records : sequence of PluginRecord
        Records of backends or frame sources.

    Returns
    -------
    list of Outcome
        One outcome for each record. Even if a plugin is valid, the ``loaded`` field of its outcome is None.
    """
    from concurrent.futures import ThreadPoolExecutor

    stop = threading.Event()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="exengine-probe") as pool:
        futures = [pool.submit(_probe, record, stop) for record in records]
        try:
            return [future.result() for future in futures]
        except BaseException:  # even after Ctrl-C, no child may outlive this process
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _probe(record: PluginRecord, stop: threading.Event) -> Outcome:
    request = {"record": record.identity}
    child = run_child("exengine.kernel.registry.probe_child", request, time_limit_s=TIME_LIMIT_S, stop=stop)
    if child.answer is None:
        return broken("import", f"importing {record.target} {child.ending}", child.output, child.output)
    answer = child.answer
    stages = (answer["state"], answer["stage"], answer["error"], answer["traceback"])
    findings = tuple(Finding(found["code"], found["message"]) for found in answer["findings"])
    file, line = answer["source"]
    return Outcome(*stages, findings, child.output, (file, line))


# -- a child -------------------------------------------------------------------------------------


def run_child(
    module: str,
    request: Mapping[str, Any],
    *,
    time_limit_s: float,
    folder: str | None = None,
    stop: threading.Event | None = None,
) -> ChildResult:
    """Run a module's ``main(request)`` in a child process, and wait for its answer.

    The child uses the same ``sys.path`` as this process, and writes its answer to the file
    ``request["answer"]``.

    Parameters
    ----------
    module : str
        Name of the module, in which ``main`` must call :func:`answer`.
    request : mapping
        The request, which must be JSON-serializable.
    time_limit_s : float
        Time after which the child and every process in its group are killed.
    folder : str, optional
        The child's current folder.
    stop : threading.Event, optional
        An event that can be set to kill the child.
    """
    with tempfile.TemporaryDirectory(prefix="exengine-probe-") as private:
        file = os.path.join(private, "answer.json")
        path = [os.path.abspath(entry) for entry in sys.path]  # the child may run in a different folder
        limit = {"time_limit_s": time_limit_s, "begin_s": time.monotonic()}  # all processes use this clock
        text = json.dumps({**request, **limit, "path": path, "answer": file})
        child = _start(module, text, path, folder)
        kept: list[bytes] = []
        assert child.stdout is not None
        reader = threading.Thread(
            target=_keep_some, args=(child.stdout, kept), name="exengine-probe-output", daemon=True
        )
        reader.start()
        try:
            in_time = _wait(child, time_limit_s, stop)
        finally:
            _kill(child)
            code = child.wait(_ENDING_S)
        reader.join(1.0)  # a process outside the child's process group may keep the pipe open
        if not reader.is_alive():
            child.stdout.close()
        output = b"".join(kept).decode("utf-8", "replace").replace("\r\n", "\n")[:OUTPUT_LIMIT]
        return ChildResult(_read(file), output, _ending(code, in_time, time_limit_s))


def _start(module: str, text: str, path: list[str], folder: str | None) -> "subprocess.Popen[str] | Forked":
    """Start a child: a fork or, where processes must not be forked, a new Python process."""
    flags = ["-P", *(["-" + "O" * sys.flags.optimize] if sys.flags.optimize else [])]
    # NumPy would start a thread for each core while it is imported.
    environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONIOENCODING": "utf-8:replace"}
    server = [sys.executable, *flags, "-c", _SERVER, json.dumps(path)]
    starting = {name: value for name, value in environment.items() if name.startswith(_AT_START)}
    starting["PYTHONPATH"] = ""  # the request contains the path
    key = (flags, starting)
    forked = fork("probes", key, server, Task(module, text, environment, folder=folder, own_session=True))
    if forked is not None:
        forked.stdin.close()
        forked.load([module])
        return forked
    child = subprocess.Popen(
        [sys.executable, *flags, "-c", _PROGRAM.format(module=module)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        cwd=folder,
        start_new_session=os.name == "posix",
        env=environment,
    )
    assert child.stdin is not None
    with contextlib.suppress(OSError):  # the child may have ended already
        child.stdin.write(text)
        child.stdin.close()
    return child


def answer(request: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write a child's answer atomically, then end the process and all its threads."""
    text = json.dumps(result)
    with open(f"{request['answer']}.part", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{request['answer']}.part", request["answer"])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the plugin may have closed or replaced the stream
            stream.flush()
    os._exit(0)


def _keep_some(stream: IO[str], kept: list[bytes]) -> None:
    """Read the stream to its end so that the child never blocks, but keep only the beginning."""
    room = 4 * OUTPUT_LIMIT
    with contextlib.suppress(OSError, ValueError):
        while chunk := stream.buffer.read1(65536):  # type: ignore[attr-defined]
            if room > 0:
                kept.append(chunk[:room])
                room -= len(chunk)


def _wait(child: "subprocess.Popen[str] | Forked", time_limit_s: float, stop: threading.Event | None) -> bool:
    end = time.monotonic() + time_limit_s
    while time.monotonic() < end and not (stop is not None and stop.is_set()):
        try:
            child.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        return True
    return False


def _kill(child: "subprocess.Popen[str] | Forked") -> None:
    """Kill all processes in the child's process group, even if the child itself has already ended."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()  # in case a fork has no group of its own yet; without effect on a child that has ended


def _read(file: str) -> dict[str, Any] | None:
    try:
        with open(file, encoding="utf-8") as stream:
            result: dict[str, Any] = json.load(stream)
    except (OSError, ValueError):
        return None
    return result


def _ending(code: int, in_time: bool, time_limit_s: float) -> str:
    if not in_time:
        return f"did not end within {time_limit_s:g} s"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return f"ended the process with signal {name}"
    return f"ended the process with exit code {code}"
