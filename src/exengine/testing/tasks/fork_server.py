"""A process that has loaded a backend and forks for each task, which saves most starts of Python.

The test process starts the server and asks it over a socket to fork. A fork becomes a main program with the
standard streams, the environment and the working folder of a process that was started on its own. It inherits
nothing that could hide a fault: the server has a single thread, never opens a dataset, and so holds no lock;
a fork closes the server's descriptors. It is killed by a signal and exits through the interpreter's normal
end, with the functions that are registered for exit.

The server is used only on Linux. On macOS, system libraries may crash in a process that was forked.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, NoReturn

_START_S = 60.0
_POLL_S = 0.005
_HEADER = 4  # the number of bytes that state the size of a message
_STREAMS = 3
_VARIES = "PYTEST_CURRENT_TEST"
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""Numpy would start a thread for each core; the forks get the environment without this variable."""


# -- in the test process -----------------------------------------------------------------------------


class Forked:
    """A process that a server has forked, with the part of ``subprocess.Popen`` that the kit uses.

    Attributes
    ----------
    stdin, stdout : text streams
        The standard streams of the process.
    pid : int
        The number of the process.

    Raises
    ------
    OSError
        If the server has ended.
    """

    def __init__(
        self, server: "Server", verb: str, text: str, errors: int, environment: dict[str, str]
    ) -> None:
        self._server = server
        self._code: int | None = None
        own_in, stdin = os.pipe()
        stdout, own_out = os.pipe()
        self._status, own_status = os.pipe()
        self.stdin = open(stdin, "w", encoding="utf-8")  # noqa: SIM115 - closed by the owner
        self.stdout = open(stdout, encoding="utf-8")  # noqa: SIM115 - closed by the owner
        request = {"verb": verb, "text": text, "environment": environment, "folder": os.getcwd()}
        try:
            server.ask(request, [own_in, own_out, errors, own_status])
        except OSError:
            self._close()
            raise
        finally:
            for descriptor in (own_in, own_out, own_status):
                os.close(descriptor)
        line = self._line(_START_S)
        if not line:
            self._close()
            raise OSError("the server has ended")
        self.pid = int(line)

    def _close(self) -> None:
        self.stdin.close()
        self.stdout.close()
        os.close(self._status)

    def kill(self) -> None:
        """Kill the process, if it is still running."""
        if self._code is not None:
            return
        try:
            self._server.ask({"kill": self.pid}, [])
        except OSError:  # the server has ended
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """Wait until the process has ended, and return its exit code; it is negative after a signal.

        Raises
        ------
        subprocess.TimeoutExpired
            If the process has not ended after ``timeout`` seconds.
        """
        if self._code is None:
            line = self._line(timeout)
            self._code = int(line) if line else -signal.SIGKILL  # no line if the server has ended
            os.close(self._status)
        return self._code

    def _line(self, timeout: float) -> bytes:
        """Return the next line from the server; empty if the server has ended."""
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            byte = os.read(self._status, 1)
            if not byte:
                return b""
            line += byte
        return line


class Server:
    """A server process. It ends with the test process.

    Parameters
    ----------
    command : list of str
        The command that ends in a call to :func:`serve`; the number of its socket's descriptor is appended.
    environment : dict
        The environment of the server.

    Attributes
    ----------
    usable : bool
        Whether the server can fork.
    seconds : float
        How long the server took to start.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._lock = threading.Lock()
        started = time.monotonic()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment | _ONE_THREAD,
                pass_fds=[theirs.fileno()],
            )
        self._control.settimeout(_START_S)
        try:
            self.usable = bool((_receive(self._control)[0] or {}).get("ready"))
        except TimeoutError:
            self.usable = False
        self._control.settimeout(None)
        self.seconds = time.monotonic() - started
        atexit.register(self.stop)
        if not self.usable:
            self.stop()

    def ask(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Send a request to the server."""
        with self._lock:
            _send(self._control, request, descriptors)

    def stop(self) -> None:
        """End the server, and with it the processes that it has forked."""
        atexit.unregister(self.stop)
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_servers: dict[Any, Server] = {}
_starting = threading.Lock()


def server_for(about: Any, command: list[str], environment: dict[str, str]) -> Server | None:
    """Return a server that can fork, or None if a process of its own must be started for each task.

    Parameters
    ----------
    about : hashable
        What the server loads. A server is replaced if this, the environment or the working folder changes.
    command : list of str
        The command of the server, as for :class:`Server`.
    environment : dict
        The environment of the tasks.
    """
    if not sys.platform.startswith("linux"):
        return None
    constant = tuple(sorted(item for item in environment.items() if item[0] != _VARIES))
    key = (about, os.getcwd(), constant, os.getpid())
    with _starting:
        if key not in _servers:
            while _servers:
                _servers.popitem()[1].stop()
            _servers[key] = Server(command, environment)
        found = _servers[key]
    return found if found.usable else None


# -- in the server -----------------------------------------------------------------------------------


def serve(descriptor: int) -> tuple[str, str]:
    """Fork for each request. Only the forks return: the verb and the specification of their task.

    Parameters
    ----------
    descriptor : int
        The descriptor of the socket to the test process.
    """
    control = socket.socket(fileno=descriptor)
    ready = len(os.listdir("/proc/self/task")) == 1
    _send(control, {"ready": ready}, [])
    children: dict[int, int] = {}  # each process, and the descriptor on which its end is reported
    while True:
        if select.select([control], [], [], _POLL_S if children else None)[0]:
            request, descriptors = _receive(control)
            if request is None or not ready:
                _end(children)
            if "kill" in request:
                if request["kill"] in children:  # a process that has not been waited for keeps its number
                    os.kill(request["kill"], signal.SIGKILL)
                continue
            child = os.fork()
            if not child:
                control.close()
                for status in (*children.values(), descriptors.pop()):
                    os.close(status)
                return _become(request, descriptors)
            children[child] = descriptors.pop()
            _report(children[child], child)
            for stream in descriptors:
                os.close(stream)
        for child in list(children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                _report(children[child], os.waitstatus_to_exitcode(status))
                os.close(children.pop(child))


def _end(children: dict[int, int]) -> NoReturn:
    for child in children:
        os.kill(child, signal.SIGKILL)
    os._exit(0)


def _report(descriptor: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the test process no longer wants to know
        os.write(descriptor, b"%d\n" % number)


def _become(request: dict[str, Any], streams: list[int]) -> tuple[str, str]:
    """Turn a fork into the process of a task."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    wanted = request["environment"]
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)
    os.chdir(request["folder"])
    return request["verb"], request["text"]


# -- messages ----------------------------------------------------------------------------------------


def _send(to: socket.socket, content: dict[str, Any], descriptors: list[int]) -> None:
    text = json.dumps(content).encode()
    socket.send_fds(to, [len(text).to_bytes(_HEADER, "big")], descriptors)
    to.sendall(text)


def _receive(source: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Return a message and the descriptors that came with it; None if the other end was closed."""
    try:
        header, descriptors, _, _ = socket.recv_fds(source, _HEADER, _STREAMS + 1)
    except ConnectionResetError:
        return None, []
    while header and len(header) < _HEADER:
        header += source.recv(_HEADER - len(header))
    left = int.from_bytes(header, "big")
    text = b""
    while len(text) < left:
        part = source.recv(min(left - len(text), 2**20))
        if not part:
            return None, descriptors
        text += part
    return (json.loads(text) if text else None), descriptors
