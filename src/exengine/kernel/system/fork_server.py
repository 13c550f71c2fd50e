"""A process that has imported what tasks need and forks for each task, so that few need a new Python process.

The owner starts the server and asks it over a socket to fork. A fork becomes a main program with the standard
streams, the environment and the working folder of a process that was started on its own. It inherits nothing
that could hide a fault: the server has a single thread, never opens a dataset, and so holds no lock; a fork
closes the server's descriptors. Like any process, a fork can be killed by a signal; otherwise, it exits
normally and runs the functions registered with :mod:`atexit`.

The conformance kit uses a server that has loaded the backend under test, and probes of plugins use one that
has imported only ExEngine. Servers are used only on Linux: on macOS, system libraries may crash in a process
that was forked.
"""

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any, NoReturn

_START_S = 60.0
_MOST_PACKAGES = 3  # maximum number of packages to leave out; if that is not enough, a server imports nothing
_POLL_S = 0.005
_HEADER = 4  # the number of bytes that state the size of a message
_STREAMS = 3
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""Keeps NumPy from starting a thread for each core in the server. Forks do not inherit this variable."""


# -- in the owner's process -----------------------------------------------------------------------------


class ThreadStartedError(Exception):
    """Raised when a package that the server imported has started a thread; the argument names the package."""


@dataclass(frozen=True)
class Task:
    """What a fork does, and in which surroundings.

    Parameters
    ----------
    verb, text : str
        The task and its specification.
    environment : dict
        The environment of the process.
    errors : int or None
        The descriptor to which the process writes its errors; None for that of its output.
    folder : str, optional
        The working folder of the process. The default is that of this process.
    own_session : bool, optional
        Whether the process starts a session, and so a process group, of its own.
    """

    verb: str
    text: str
    environment: dict[str, str]
    errors: int | None = None
    folder: str | None = None
    own_session: bool = False


class Forked:
    """A process that a server has forked, with those members of ``subprocess.Popen`` that its owners use.

    Attributes
    ----------
    stdin, stdout : text streams
        The standard streams of the process.
    pid : int
        The process ID.

    Raises
    ------
    ThreadStartedError
        If the server has several threads and therefore must not fork.
    OSError
        If the server has ended.
    """

    def __init__(self, server: "Server", task: Task) -> None:
        self._server = server
        self._code: int | None = None
        own_in, stdin = os.pipe()
        stdout, own_out = os.pipe()
        self._status, own_status = os.pipe()
        self.stdin = open(stdin, "w", encoding="utf-8")  # noqa: SIM115 - closed by the owner
        self.stdout = open(stdout, encoding="utf-8")  # noqa: SIM115 - closed by the owner
        request = {**vars(task), "folder": task.folder or os.getcwd()}
        streams = [own_in, own_out, own_out if task.errors is None else task.errors]
        try:
            server.ask(request, [*streams, own_status])
        except OSError:
            self._close()
            raise
        finally:
            for descriptor in (own_in, own_out, own_status):
                os.close(descriptor)
        pid, _, package = self._line(_START_S).decode().strip().partition(" ")
        self.pid = int(pid or 0)
        if not self.pid:
            self._close()
            raise ThreadStartedError(package) if pid else OSError("the server has ended")

    def load(self, names: list[str]) -> None:
        """Let the server import modules, so that the next forks need not import them."""
        with contextlib.suppress(OSError):
            self._server.load(names)

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
            self._code = int(line) if line else -signal.SIGKILL  # empty if the server has ended
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
    """A server process. It ends with the process that started it.

    Parameters
    ----------
    command : list of str
        The command that calls :func:`serve`; the file descriptor of its socket is appended as an argument.
    environment : dict
        The environment of the server.
    without : frozenset of str, optional
        Packages that the server must not import.

    Attributes
    ----------
    usable : bool
        Whether the server can fork.
    """

    def __init__(
        self, command: list[str], environment: dict[str, str], without: frozenset[str] = frozenset()
    ) -> None:
        self._lock = threading.Lock()
        self._command, self._environment, self._without = command, environment, without
        self._loaded: list[str] = []
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
        atexit.register(self.stop)
        if not self.usable:
            self.stop()

    def ask(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Send a request to the server."""
        with self._lock:
            _send(self._control, request, descriptors)

    def load(self, names: list[str]) -> None:
        """Let the server import modules."""
        new = [name for name in names if name not in self._loaded]
        if new and len(self._without) <= _MOST_PACKAGES:
            self._loaded += new
            self.ask({"load": [name for name in new if name.partition(".")[0] not in self._without]}, [])

    def again(self, package: str) -> "Server":
        """Stop this server. Return one that has imported the same modules, except those of ``package``."""
        self.stop()
        other = Server(self._command, self._environment, self._without | {package})
        other.load(self._loaded)
        return other

    def stop(self) -> None:
        """End the server, and with it the processes that it has forked."""
        atexit.unregister(self.stop)
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_servers: dict[str, tuple[object, Server]] = {}
_starting = threading.Lock()


def fork(use: str, key: object, command: list[str], task: Task) -> Forked | None:
    """Fork a process for a task. Return None if the task needs a separate process.

    Parameters
    ----------
    use : str
        What the server is used for. There is at most one server for each use.
    key : object
        A value to compare. A different value requires a new server.
    command : list of str
        The command of the server, as for :class:`Server`, which starts in the environment of the task.
    task : Task
        The task.
    """
    if not sys.platform.startswith("linux"):
        return None
    key = (key, os.getpid())
    with _starting:
        if use not in _servers or _servers[use][0] != key:
            if use in _servers:
                _servers.pop(use)[1].stop()
            _servers[use] = key, Server(command, task.environment)
        while (server := _servers[use][1]).usable:
            try:
                return Forked(server, task)
            except ThreadStartedError as started:
                _servers[use] = key, server.again(str(started))
            except OSError:
                server.stop()
                server.usable = False
    return None


def stop_servers() -> None:
    """Stop all servers of this process."""
    with _starting:
        while _servers:
            _servers.popitem()[1][1].stop()


# -- in the server -----------------------------------------------------------------------------------


def serve(descriptor: int) -> tuple[str, str]:
    """Fork for each request. Only the forks return, with the verb and the specification of their task.

    Parameters
    ----------
    descriptor : int
        The descriptor of the socket to the owner's process.
    """
    control = socket.socket(fileno=descriptor)
    _send(control, {"ready": _may_fork()}, [])
    children: dict[int, int] = {}  # maps each process to the descriptor for its exit code
    starter = ""  # the package that has started a thread
    while True:
        if select.select([control], [], [], _POLL_S if children else None)[0]:
            request, descriptors = _receive(control)
            if request is None:
                _end(children)
            elif "kill" in request:
                if request["kill"] in children:  # a process keeps its ID until it has been waited for
                    os.kill(request["kill"], signal.SIGKILL)
            elif "load" in request:
                starter = starter or _load(request["load"])
            else:
                status = descriptors.pop()
                child = 0
                if _may_fork() and not (child := os.fork()):
                    for own in (control.detach(), *children.values(), status):
                        os.close(own)
                    return _become(request, descriptors)
                _report(status, f"{child} {starter}")
                if child:
                    children[child] = status
                else:
                    os.close(status)
                for stream in descriptors:
                    os.close(stream)
        for child in list(children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                _report(children[child], str(os.waitstatus_to_exitcode(status)))
                os.close(children.pop(child))


def _may_fork() -> bool:
    return len(os.listdir("/proc/self/task")) == 1


def _load(names: list[str]) -> str:
    """Import modules until one starts a thread; return the package of that module, or an empty string."""
    for name in names:
        with contextlib.suppress(Exception):  # a module that a library created in memory cannot be imported
            importlib.import_module(name)
        if not _may_fork():
            return name.partition(".")[0]
    return ""


def _end(children: dict[int, int]) -> NoReturn:
    for child in children:
        os.kill(child, signal.SIGKILL)
    os._exit(0)


def _report(descriptor: int, line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the owner no longer reads from this pipe
        os.write(descriptor, f"{line}\n".encode())


def _become(request: dict[str, Any], streams: list[int]) -> tuple[str, str]:
    """Prepare a fork to run a task like a process that was started on its own."""
    if request["own_session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if "numpy.random" in sys.modules:  # Python's own generator is seeded again in each fork
        sys.modules["numpy.random"].seed()
    os.environ.clear()
    os.environ.update(request["environment"])
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
