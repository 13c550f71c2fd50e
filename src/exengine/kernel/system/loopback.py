"""An HTTP server that runs on its own thread and that only programs on this computer can reach."""

import os
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from exengine.kernel.errors import DatasetAccessError

ADDRESS = "127.0.0.1"
"""The address of the loopback interface."""
HOST_NAMES = (ADDRESS, "localhost")
"""The host names by which a browser on this computer can address the server."""


class LoopbackServer:
    """A server on the loopback interface.

    Parameters
    ----------
    handler : callable
        Called for each connection to create its handler, as for ``ThreadingHTTPServer``.
    port : int
        The port; 0 selects a free port.
    name : str
        The name of the thread.

    Raises
    ------
    DatasetAccessError
        If the port is in use or not allowed.

    Examples
    --------
    >>> import urllib.request
    >>> from exengine.base_classes import LoopbackHandler, LoopbackServer
    >>> class Greeting(LoopbackHandler):
    ...     def do_GET(self):
    ...         self.send_response(200 if self.is_local() else 403)
    ...         self.send_header("Content-Length", "5")
    ...         self.end_headers()
    ...         self.wfile.write(b"hello")
    >>> with LoopbackServer(Greeting, 0, "greeting") as server:
    ...     urllib.request.urlopen(f"http://127.0.0.1:{server.port}/").read()
    b'hello'
    """

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler], port: int, name: str) -> None:
        try:
            self._server = _Server((ADDRESS, port), handler)
        except (OSError, OverflowError) as error:
            raise DatasetAccessError(f"cannot serve on port {port}: {error}; choose another port") from error
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    @property
    def port(self) -> int:
        """The port of the server."""
        return int(self._server.server_address[1])

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)  # the maximum time that close() waits, in seconds

    def start(self) -> None:
        """Serve on a separate thread until :meth:`close` is called."""
        self._thread.start()

    def wait(self) -> None:
        """Block until another thread closes the server."""
        self._thread.join()

    def close(self) -> None:
        """Stop serving. Idempotent."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = os.name == "posix"  # on Windows, reuse would let two servers share a port

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore an error caused by a browser that closed its connection or sent nothing for too long."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class LoopbackHandler(BaseHTTPRequestHandler):
    """The base class of a handler for :class:`LoopbackServer`. It keeps connections open and logs nothing.

    A subclass defines ``do_GET`` and other methods, as for ``http.server.BaseHTTPRequestHandler``. Each of
    them must refuse a request for which :meth:`is_local` returns False.
    """

    protocol_version = "HTTP/1.1"
    sys_version = ""
    timeout = 60  # in seconds; a connection that sends no request for this long is closed
    disable_nagle_algorithm = True  # otherwise, the body of a response can be delayed by 40 ms

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request, without quoting it in the response, and close the connection."""
        self.send_response(code, HTTPStatus(code).phrase)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def is_local(self) -> bool:
        """Return whether the request names this computer as its host.

        A website can reach this server through a host name of its own (DNS rebinding), so requests with any
        other host name must be refused.
        """
        hosts = self.headers.get_all("Host") or []
        name, colon, port = hosts[0].partition(":") if len(hosts) == 1 else ("", "", "")
        return name in HOST_NAMES and (not colon or (port.isascii() and port.isdigit()))
