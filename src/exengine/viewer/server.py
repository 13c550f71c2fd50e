"""Serves the frames of a dataset, and the page that shows them, to a browser on this computer.

Every address contains a random token, and the server only answers requests from its own page: requests with
the host name or the origin of another website are refused. No part of an address becomes part of a file path:
the page's files are in memory, and frames are identified by their numbers.
"""

import contextlib
import hmac
import json
import math
import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import ExEngineError, UnsupportedOperationError, message_of
from exengine.kernel.system.loopback import ADDRESS, LoopbackHandler, LoopbackServer
from exengine.viewer.frame_list import FrameList
from exengine.viewer.pixels import THUMBNAIL, Picture, picture_of

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-store",  # the browser must not write the pixels to the disk
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address contains the token
    "X-Content-Type-Options": "nosniff",
}
_NUMBERED = re.compile(r"(frame|thumbnail|metadata)/(0|[1-9][0-9]{0,11})", re.ASCII)
_LONGEST_ADDRESS = 1024  # characters
_LARGEST_INTEGER = 2**53 - 1  # JavaScript rounds larger integers


class ViewServer(LoopbackServer):
    r"""A server for the page that shows one dataset.

    Parameters
    ----------
    dataset : DataStorage
        A dataset that lists its coordinates. The caller closes it after closing the server.
    describe : callable
        Returns the facts that the page lists about the dataset, as a JSON-serializable dict. It is called
        again while the dataset is being written.
    port : int
        The port; 0 selects a free port.

    Raises
    ------
    DatasetAccessError
        If the port is in use.
    UnsupportedOperationError
        If the dataset does not list its coordinates.

    Examples
    --------
    >>> import urllib.request
    >>> import numpy as np
    >>> import exengine
    >>> from exengine.viewer.server import ViewServer
    >>> dataset = exengine.open_storage("ndram")
    >>> dataset.put({"time": 0}, np.full((2, 2), 7, np.uint8), {})
    >>> with ViewServer(dataset, dict) as server:
    ...     urllib.request.urlopen(f"{server.url}frame/0").read()
    b'\x07\x07\x07\x07'
    """

    def __init__(self, dataset: DataStorage, describe: Callable[[], dict[str, Any]], port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        """The random part of every address."""
        answers = _Answers(dataset, describe)
        super().__init__(partial(_Handler, self.token.encode(), answers), port, "exengine-view")

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.port}/{self.token}/"


class _Answers:
    """The contents of all responses: the page's files, and the dataset's facts, pixels and metadata."""

    def __init__(self, dataset: DataStorage, describe: Callable[[], dict[str, Any]]) -> None:
        self._dataset = dataset
        self._describe = describe
        self._frames = FrameList(dataset)
        self._coarse: DataStorage | None = None
        self._coarse_lock = threading.Lock()
        self.page = {
            "" if each.name == "index.html" else each.name: (_TYPES[suffix], each.read_bytes())
            for each in files("exengine.viewer").joinpath("page").iterdir()
            if (suffix := os.path.splitext(each.name)[1]) in _TYPES
        }

    def frames(self, start: int) -> bytes:
        """Return the frames from a given number on, with the dataset's status."""
        # Ask for the status first, so that the frames of a finished dataset are complete.
        status = _or_none(lambda: self._dataset.status.value)
        finished = _or_none(self._dataset.is_finished)
        problem = ""
        try:
            self._frames.refresh()
        except ExEngineError as error:
            problem = message_of(error)
        reason = self._dataset.status_reason
        facts = {"status": status, "reason": reason, "finished": finished is not False, "problem": problem}
        return self._frames.message(start, facts)

    def facts(self) -> dict[str, Any]:
        """Return the facts about the dataset."""
        return self._describe()

    def metadata(self, coordinates: dict[str, int | str]) -> Any:
        """Return the metadata of a frame."""
        return self._dataset.get_metadata(coordinates)

    def frame(self, coordinates: dict[str, int | str]) -> Picture:
        """Return the pixels of a frame."""
        return picture_of(self._dataset.get_data(coordinates))

    def thumbnail(self, coordinates: dict[str, int | str]) -> Picture:
        """Return a small version of a frame."""
        for source in (self._coarsest(), self._dataset):
            try:
                return picture_of(source.get_data(coordinates), largest_side=THUMBNAIL)
            except ExEngineError:
                if source is self._dataset:
                    raise
        raise AssertionError("unreachable")

    def _coarsest(self) -> DataStorage:
        """Return the dataset at its lowest resolution."""
        with self._coarse_lock:
            if self._coarse is None:
                self._coarse = self._dataset
                with contextlib.suppress(ExEngineError):
                    self._coarse = self._dataset.level(max(self._dataset.resolution_levels))
            return self._coarse

    def coordinates(self, number: int) -> dict[str, int | str] | None:
        """Return the coordinates of a frame; None if the frame does not exist."""
        return self._frames.coordinates(number)


def _or_none(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except UnsupportedOperationError:
        return None


def _for_browser(value: Any) -> Any:
    """Return a JSON value in which text replaces each number that JavaScript cannot parse exactly."""
    if isinstance(value, dict):
        return {str(key): _for_browser(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_for_browser(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        return str(value)
    return value


class _Handler(LoopbackHandler):
    """Answers GET and HEAD requests from the server's own page."""

    server_version = "exengine-view"

    def __init__(self, token: bytes, answers: _Answers, *arguments: Any) -> None:
        self._token = token
        self._answers = answers
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        name = self._requested()
        if name is None or not self._is_allowed(is_page=name == ""):
            self._refuse(HTTPStatus.NOT_FOUND if name is None else HTTPStatus.FORBIDDEN)
            return
        if name in self._answers.page:
            self._send(*self._answers.page[name])
            return
        try:
            self._answer_about_dataset(name)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # a damaged frame, or a faulty backend
            self._send_json({"error": message_of(error)})

    def _requested(self) -> str | None:
        """Return the address without the token; None if the token is wrong or missing."""
        if len(self.path) > _LONGEST_ADDRESS:
            return None
        parts = urlsplit(self.path)
        token, slash, name = parts.path.removeprefix("/").partition("/")
        if parts.scheme or parts.netloc or not self.path.startswith("/") or not slash:
            return None
        is_right = hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)
        return name if is_right else None

    def _is_allowed(self, *, is_page: bool) -> bool:
        """Return whether the request comes from the page of this server, or opens this page."""
        if not self.is_local():
            return False
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{self.headers['Host']}":
            return False
        site = self.headers.get("Sec-Fetch-Site", "none")
        if site in ("same-origin", "none"):
            return True
        # Another page may link to the page of the viewer, but cannot embed or read it.
        return is_page and self.headers.get("Sec-Fetch-Dest") == "document"

    def _answer_about_dataset(self, name: str) -> None:
        answers = self._answers
        if name == "frames":
            start = parse_qs(urlsplit(self.path).query).get("from", ["0"])[0]
            number = int(start) if start.isascii() and start.isdigit() and len(start) < 13 else 0
            self._send("application/octet-stream", answers.frames(number))
            return
        if name == "facts":
            self._send_json({"value": answers.facts()})
            return
        match = _NUMBERED.fullmatch(name)
        coordinates = answers.coordinates(int(match[2])) if match else None
        if match is None or coordinates is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        elif match[1] == "metadata":
            self._send_json({"value": answers.metadata(coordinates)})
        else:
            read = answers.frame if match[1] == "frame" else answers.thumbnail
            picture = read(coordinates)
            pixels: Any = picture.pixels
            body = memoryview(pixels).cast("B")
            self._send("application/octet-stream", body, {"X-Picture": json.dumps(picture.head())})

    def _send_json(self, value: Any) -> None:
        self._send("application/json", json.dumps(_for_browser(value), default=str).encode())

    def _send(
        self,
        kind: str,
        body: bytes | memoryview,
        headers: Mapping[str, str] | None = None,
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        self.send_response(status)
        fixed = {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in {**_HEADERS, **fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: HTTPStatus) -> None:
        self._send("text/plain; charset=utf-8", b"", status=status)
