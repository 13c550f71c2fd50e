"""Probes plugins in processes of their own, for what no ``try`` can hold back.

A plugin that is imported may end the process (``os._exit``, a segmentation fault) or never come to an
end. Where plugins are looked at on purpose, each is loaded in a child process first, with a limit on
its time and on its output. What kills the child becomes part of the record. The child's side is
:mod:`exengine.kernel.registry.probe_child`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from exengine.kernel.registry.records import PluginRecord

TIME_LIMIT_S = 10.0
"""How long one plugin may take."""

OUTPUT_LIMIT = 10_000
"""How many characters of what a child prints are kept."""

AT_ONCE = 2
"""How many children run at the same time."""

# -P: what lies in the current folder is not imported. Standard input is the request.
_PROGRAM = """\
import json, sys
request = json.load(sys.stdin)
sys.path[:] = request["path"]
from {module} import main
main(request)
"""


class ChildResult:
    """How a child process ended.

    Attributes
    ----------
    answer : dict or None
        What it answered; None where it did not come to that.
    output : str
        What it and its libraries printed, to stdout and to stderr, shortened.
    ending : str
        Without an answer: how it ended, such as ``ended the process with signal SIGSEGV``.
    """

    __slots__ = ("answer", "ending", "output")

    def __init__(self, answer: dict[str, Any] | None, output: str, ending: str) -> None:
        self.answer, self.output, self.ending = answer, output, ending


def probe_records(
    records: Sequence[PluginRecord], group: str, kind: str, *, time_limit_s: float = TIME_LIMIT_S
) -> None:
    """Load each plugin in a process of its own, and write what was found into its record.

    Parameters
    ----------
    records : sequence of PluginRecord
        With a target to import. A record that turns out valid has no ``loaded``.
    group, kind : str
        Of their registry.
    time_limit_s : float
        For one plugin.
    """
    from concurrent.futures import ThreadPoolExecutor

    stop = threading.Event()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="exengine-probe") as pool:
        futures = [pool.submit(_probe, record, group, kind, time_limit_s, stop) for record in records]
        try:
            for future in futures:
                future.result()
        except BaseException:  # Ctrl-C: no child outlives us
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def probe_record(
    record: PluginRecord, group: str, kind: str, *, time_limit_s: float = TIME_LIMIT_S
) -> PluginRecord:
    """Probe one plugin, as :func:`probe_records`, and return its record."""
    probe_records([record], group, kind, time_limit_s=time_limit_s)
    return record


def _probe(record: PluginRecord, group: str, kind: str, time_limit_s: float, stop: threading.Event) -> None:
    request = {
        "group": group,
        "kind": kind,
        "record": [
            record.name,
            record.group,
            record.target,
            record.distribution,
            record.version,
            record.summary,
            record.location,
        ],
    }
    result = run_child("exengine.kernel.registry.probe_child", request, time_limit_s=time_limit_s, stop=stop)
    record.output = result.output
    if result.answer is None:
        record.mark("broken", "import", f"importing {record.target} {result.ending}", result.output)
    else:
        _fill(record, result.answer)


def _fill(record: PluginRecord, answer: Mapping[str, Any]) -> None:
    from exengine.kernel.registry.class_checks import Finding

    record.mark(answer["state"], answer["stage"], answer["error"], answer["traceback"])
    record.findings = tuple(Finding(found["code"], found["message"]) for found in answer["findings"])
    file, line = answer["source"]
    record.source = (file, line)


# -- a child -------------------------------------------------------------------------------------


def run_child(
    module: str,
    request: Mapping[str, Any],
    *,
    time_limit_s: float,
    folder: str | None = None,
    stop: threading.Event | None = None,
) -> ChildResult:
    """Run ``main(request)`` of a module in a child process, and wait for what it answers.

    The child has our ``sys.path``; with ``request["answer"]`` it gets the file for its answer.

    Parameters
    ----------
    module : str
        Its ``main`` calls :func:`answer`.
    request : mapping
        JSON.
    time_limit_s : float
        Then the child, and whatever it started, is killed.
    folder : str, optional
        The current folder of the child.
    stop : threading.Event, optional
        When it is set, the child is killed.
    """
    with tempfile.TemporaryDirectory(prefix="exengine-probe-") as private:
        file = os.path.join(private, "answer.json")
        path = [os.path.abspath(entry) for entry in sys.path]  # the child may stand elsewhere
        text = json.dumps({**request, "path": path, "answer": file, "time_limit_s": time_limit_s})
        flags = ["-P", *(["-" + "O" * sys.flags.optimize] if sys.flags.optimize else [])]
        child = subprocess.Popen(
            [sys.executable, *flags, "-c", _PROGRAM.format(module=module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=os.name == "posix",
            env={**os.environ, "PYTHONIOENCODING": "utf-8:replace"},
        )
        kept: list[bytes] = []
        assert child.stdin is not None and child.stdout is not None
        reader = threading.Thread(
            target=_keep_some, args=(child.stdout, kept), name="exengine-probe-output", daemon=True
        )
        reader.start()
        try:
            with contextlib.suppress(OSError):  # a child that died at once
                child.stdin.write(text.encode())
                child.stdin.close()
            in_time = _wait(child, time_limit_s, stop)
        finally:
            _kill(child)
            child.wait()
        reader.join(1.0)  # a process that left the child's group may hold the pipe open
        if not reader.is_alive():
            child.stdout.close()
        output = b"".join(kept).decode("utf-8", "replace").replace("\r\n", "\n")[:OUTPUT_LIMIT]
        return ChildResult(_read(file), output, _ending(child.returncode, in_time, time_limit_s))


def answer(request: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write the answer of a child, whole or not at all, and end the child: nobody's threads go on."""
    text = json.dumps(result)
    with open(f"{request['answer']}.part", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{request['answer']}.part", request["answer"])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or replaced, by the plugin
            stream.flush()
    os._exit(0)


def _keep_some(stream: IO[bytes], kept: list[bytes]) -> None:
    """Read to the end, so that the child never waits; keep the beginning."""
    room = 4 * OUTPUT_LIMIT
    with contextlib.suppress(OSError, ValueError):
        while chunk := stream.read1(65536):  # type: ignore[attr-defined]
            if room > 0:
                kept.append(chunk[:room])
                room -= len(chunk)


def _wait(child: "subprocess.Popen[bytes]", time_limit_s: float, stop: threading.Event | None) -> bool:
    import time

    end = time.monotonic() + time_limit_s
    while time.monotonic() < end and not (stop is not None and stop.is_set()):
        try:
            child.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        return True
    return False


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """Kill the child and what it started in its group; also after it has ended by itself."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    elif child.poll() is None:
        child.kill()


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
