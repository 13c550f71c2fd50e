"""Serves a dataset over HTTP on this computer, for viewers that run in a browser.

Run ``python -m exengine_ome_zarr.serve data/demo.ome.zarr``. The server answers ranges of bytes, also those
at the end of a file, with which viewers read single chunks of a shard. It serves only the files of a dataset,
only to programs on this computer, and changes nothing. If ``neuroglancer`` is installed, its page is served.
"""

import argparse
import json
import os
import re
import sys
import threading
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from exengine.errors import DatasetAccessError

PORT = 8750
"""The default port."""
_LOCAL = "127.0.0.1"
_NAMES = (_LOCAL, "localhost")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_VIEWER = "neuroglancer"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm"}


class DatasetServer:
    """A server for one dataset on the loopback interface.

    Parameters
    ----------
    path : path
        The folder of the dataset.
    port : int
        The port; 0 for a free one.
    origin : str, optional
        The web site whose pages may read the dataset, such as ``https://ome.github.io``. The page of
        neuroglancer that this server delivers always may.

    Raises
    ------
    DatasetAccessError
        If the folder does not exist, or the port is in use.

    Examples
    --------
    >>> import tempfile, urllib.request
    >>> from exengine_ome_zarr.serve import DatasetServer
    >>> folder = tempfile.mkdtemp(suffix=".ome.zarr")
    >>> with open(f"{folder}/zarr.json", "w") as file:
    ...     _ = file.write("{}")
    >>> with DatasetServer(folder) as server:
    ...     urllib.request.urlopen(f"{server.url}/zarr.json").read()
    b'{}'
    """

    def __init__(self, path: str | os.PathLike[str], port: int = 0, origin: str | None = None) -> None:
        folder = Path(os.path.realpath(path))
        if not folder.is_dir():
            raise DatasetAccessError(f"{os.fspath(path)} is not a folder; name the folder of a dataset")
        roots = {folder.name: folder}
        client = _client()
        if client is not None and folder.name != _VIEWER:
            roots[_VIEWER] = client
        try:
            self._server = _Server((_LOCAL, port), partial(_Handler, roots, origin))
        except OSError as error:
            raise DatasetAccessError(
                f"cannot serve on port {port}: {error.strerror}; choose another with --port"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="ome-zarr-server", daemon=True
        )
        self._name = folder.name
        self._folder = folder
        self._has_viewer = _VIEWER in roots

    @property
    def url(self) -> str:
        """The address of the dataset."""
        return f"{self._root}/{quote(self._name)}"

    @property
    def _root(self) -> str:
        return f"http://{_LOCAL}:{self._server.server_address[1]}"

    def viewer_url(self, image: str = "") -> str | None:
        """Return the address at which neuroglancer shows an image; None if neuroglancer is not installed.

        Parameters
        ----------
        image : str
            The path of the image in the dataset, such as ``0`` or ``A/1/0``; empty if the dataset is one.
        """
        if not self._has_viewer:
            return None
        address = f"{self.url}/{quote(image)}".rstrip("/")
        return f"{self._root}/{_VIEWER}/index.html#!{quote(json.dumps(self._state(image, address)))}"

    def _state(self, image: str, address: str) -> dict[str, Any]:
        """Return the state of the viewer: a layer for each channel, with its name, colour and contrast."""
        source = f"{address}/|zarr3:"
        channels = _ome(self._folder / image).get("omero", {}).get("channels", ())
        layers = [_layer(source, number, each) for number, each in enumerate(channels)]
        return {"layout": "xy", "layers": layers or [{"type": "image", "source": source, "name": self._name}]}

    def start(self) -> None:
        """Serve on a thread of its own until :meth:`close`."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving. Idempotent."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> "DatasetServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> None:
        """Block until another thread closes the server."""
        self._thread.join()


def image_paths(path: str | os.PathLike[str]) -> list[str]:
    """Return the paths of the images in a dataset; ``[""]`` if the dataset is one image.

    Parameters
    ----------
    path : path
        The folder of the dataset.
    """
    folder = Path(path)
    ome = _ome(folder)
    wells = ome.get("plate", {}).get("wells", ())
    if wells:
        found = [(well["path"], _ome(folder / well["path"]).get("well", {})) for well in wells]
        return [
            f"{well}/{image['path']}" for well, described in found for image in described.get("images", ())
        ]
    series = _ome(folder / "OME").get("series")
    return list(series) if series else [""]


def _ome(folder: Path) -> dict[str, Any]:
    """Return the OME metadata of a group; empty if there are none."""
    try:
        found = json.loads((folder / "zarr.json").read_bytes())["attributes"]["ome"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _layer(source: str, number: int, channel: dict[str, Any]) -> dict[str, Any]:
    """Return the layer of neuroglancer that shows a channel."""
    color = [int(channel["color"][at : at + 2], 16) / 255 for at in (0, 2, 4)]
    window = channel["window"]
    shade = ", ".join(f"{part:.3f}" for part in color)
    return {
        "type": "image",
        "name": channel["label"],
        "source": source,
        "localDimensions": {"c'": [1, ""]},
        "localPosition": [number],
        "blend": "additive",
        "opacity": 1,
        "shader": f"#uicontrol invlerp contrast\nvoid main() {{ emitRGB(vec3({shade}) * contrast()); }}",
        "shaderControls": {"contrast": {"range": [window["start"], window["end"]]}},
    }


def _client() -> Path | None:
    """Return the folder with the page of neuroglancer; None if it is not installed."""
    found = find_spec("neuroglancer")
    if found is None or found.origin is None:
        return None
    folder = Path(os.path.realpath(Path(found.origin).parent / "static" / "client"))
    return folder if (folder / "index.html").is_file() else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Ignore a browser that closed its connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*_)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET, HEAD and OPTIONS."""

    protocol_version = "HTTP/1.1"
    server_version = "exengine-ome-zarr"
    sys_version = ""

    def __init__(self, roots: dict[str, Path], origin: str | None, *arguments: Any) -> None:
        self._roots = roots
        self._origin = origin
        super().__init__(*arguments)

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_OPTIONS(self) -> None:
        self._refuse(HTTPStatus.NO_CONTENT)

    def _answer(self, *, has_body: bool) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in _NAMES:
            self._refuse(HTTPStatus.FORBIDDEN)  # a foreign page that calls this computer by a name of its own
            return
        path = self._file()
        try:
            file = path.open("rb") if path is not None and path.is_file() else None
        except OSError:
            file = None
        if path is None or file is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with file:
            self._send(path, file, has_body=has_body)

    def _file(self) -> Path | None:
        """Return the file that is asked for; None if it is not one that the server delivers."""
        root, *parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        folder = self._roots.get(root)
        names = parts or ["index.html"]
        if folder is None or any(part in ("", "..") or part.startswith((".", "exengine.")) for part in names):
            return None
        found = os.path.realpath(folder.joinpath(*names))
        return Path(found) if "\0" not in found and Path(found).is_relative_to(folder) else None

    def _send(self, path: Path, file: BinaryIO, *, has_body: bool) -> None:
        size = os.fstat(file.fileno()).st_size
        asked = self.headers.get("Range")
        wanted = (0, size) if asked is None else _range(asked, size)
        if wanted is None:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"})
            return
        start, end = wanted
        self.send_response(HTTPStatus.OK if asked is None else HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", _TYPES.get(path.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-store")
        if asked is not None:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self._allow_origin()
        self.end_headers()
        if has_body:
            file.seek(start)
            self._copy(file, end - start)

    def _copy(self, file: BinaryIO, count: int) -> None:
        while count:
            piece = file.read(min(count, 1 << 20))
            if not piece:  # the file was shortened: end the answer early, as its length is stated
                self.close_connection = True
                return
            self.wfile.write(piece)
            count -= len(piece)

    def _refuse(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", "0")
        self._allow_origin()
        self.end_headers()

    def _allow_origin(self) -> None:
        if self._origin is not None and self.headers.get("Origin") == self._origin:
            self.send_header("Access-Control-Allow-Origin", self._origin)
            self.send_header("Access-Control-Allow-Headers", "Range")
            self.send_header("Access-Control-Allow-Private-Network", "true")
            self.send_header("Access-Control-Expose-Headers", "Content-Range, Content-Length")


def _range(text: str, size: int) -> tuple[int, int] | None:
    """Return start and end of a range of bytes; None if it cannot be answered."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    return (start, end) if start < end else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a dataset until Ctrl-C is pressed; return 0, or 1 if it cannot be served."""
    parser = argparse.ArgumentParser(
        prog="python -m exengine_ome_zarr.serve",
        description="Serve an OME-Zarr dataset to viewers in the browser, on this computer only.",
    )
    parser.add_argument("path", help="the folder of the dataset")
    parser.add_argument("--port", type=int, default=PORT, help="0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--origin", help="the web site whose pages may read it, such as https://ome.github.io"
    )
    given = parser.parse_args(arguments)
    try:
        server = DatasetServer(given.path, given.port, given.origin)
    except DatasetAccessError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    with server:
        lines = [f"dataset: {server.url}"]
        for image in image_paths(given.path):
            link = server.viewer_url(image)
            lines += [] if link is None else [f"{f'image {image}' if image else 'view'}: {link}"]
        if len(lines) == 1:
            lines.append("viewer: pip install neuroglancer")
        sys.stdout.write("\n".join([*lines, "Press Ctrl-C to stop.", ""]))
        sys.stdout.flush()
        try:
            server.wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
