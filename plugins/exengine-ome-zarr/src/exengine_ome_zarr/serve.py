"""Serves a dataset over HTTP on this computer, for viewers that run in a browser.

Run ``python -m exengine_ome_zarr.serve data/demo.ome.zarr``. The server supports range requests, including
requests for the end of a file, so that viewers can read single chunks of a shard. It serves only the files of
a dataset, only to programs on this computer, and changes nothing. If neuroglancer is installed, the command
also prints the URL of a viewer.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from exengine.base_classes import LoopbackHandler, LoopbackServer
from exengine.errors import DatasetAccessError

PORT = 8750
"""The default port."""
_LOCAL = "127.0.0.1"
_UNITS = {"second": (1, "s"), "micrometer": (1e-6, "m")}
"""Maps each unit of an axis to its scale and its name in neuroglancer."""
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class DatasetServer(LoopbackServer):
    """A server for one dataset on the loopback interface.

    Parameters
    ----------
    path : path
        The folder of the dataset.
    port : int
        The port; 0 selects a free port.
    origins : iterable of str
        The websites that may read the dataset, such as ``https://ome.github.io``.

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

    def __init__(self, path: str | os.PathLike[str], port: int = 0, origins: Iterable[str] = ()) -> None:
        self.folder = Path(os.path.realpath(path))
        """The folder of the dataset."""
        self.origins = set(origins)
        """The websites that may read the dataset."""
        if not self.folder.is_dir():
            raise DatasetAccessError(f"{os.fspath(path)} is not a folder; pass the folder of a dataset")
        super().__init__(partial(_Handler, self.folder, self.origins), port, "ome-zarr-server")

    @property
    def url(self) -> str:
        """The URL of the dataset."""
        return f"http://{_LOCAL}:{self.port}/{quote(self.folder.name)}"


class _Handler(LoopbackHandler):
    """Handles GET, HEAD and OPTIONS requests."""

    server_version = "exengine-ome-zarr"

    def __init__(self, folder: Path, origins: set[str], *arguments: Any) -> None:
        self._folder = folder
        self._origins = origins
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_OPTIONS(self) -> None:
        self._refuse(HTTPStatus.NO_CONTENT)

    def _answer(self, *, has_body: bool) -> None:
        if not self.is_local():
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        path = self._path()
        try:
            file = None if path is None else path.open("rb")
        except OSError:  # the file has not been written yet, or is a folder
            file = None
        if path is None or file is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with file:
            self._send(file, is_json=path.suffix == ".json", has_body=has_body)

    def _path(self) -> Path | None:
        """Return the path of the requested file, or None if viewers do not need this file."""
        name, *parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if name != self._folder.name or not parts or "\0" in "".join(parts):
            return None
        if any(part in ("", "..") or part.startswith((".", "exengine.")) for part in parts):
            return None
        found = Path(os.path.realpath(self._folder.joinpath(*parts)))
        return found if found.is_relative_to(self._folder) else None

    def _send(self, file: BinaryIO, *, is_json: bool, has_body: bool) -> None:
        size = os.fstat(file.fileno()).st_size
        asked = self.headers.get("Range")
        wanted = (0, size) if asked is None else _range(asked, size)
        if wanted is None:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, ("Content-Range", f"bytes */{size}"))
            return
        start, end = wanted
        self.send_response(HTTPStatus.OK if asked is None else HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", "application/json" if is_json else "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-store")  # the next frame may change the same file
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
            if not piece:  # the writer has shortened the file, so it ends before the announced length
                self.close_connection = True
                return
            self.wfile.write(piece)
            count -= len(piece)

    def _refuse(self, status: HTTPStatus, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", "0")
        self._allow_origin()
        self.end_headers()

    def _allow_origin(self) -> None:
        origin = self.headers.get("Origin")
        if origin is not None and origin in self._origins:
            self.send_header("Access-Control-Allow-Origin", origin)
            self.send_header("Access-Control-Allow-Headers", "Range")
            self.send_header("Access-Control-Allow-Private-Network", "true")
            self.send_header("Access-Control-Expose-Headers", "Content-Range, Content-Length")


def _range(text: str, size: int) -> tuple[int, int] | None:
    """Return the start and end of a byte range, or None if the range cannot be served."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    else:
        start, end = max(0, size - int(match[2])), size
    return (start, end) if start < end else None


def image_paths(path: str | os.PathLike[str]) -> list[str]:
    """Return the paths of the images in a dataset; ``[""]`` if the dataset is one image.

    Parameters
    ----------
    path : path
        The folder of the dataset.
    """
    folder = Path(path)
    wells = _ome(folder).get("plate", {}).get("wells", ())
    if wells:
        described = {well["path"]: _ome(folder / well["path"]).get("well", {}) for well in wells}
        return [
            f"{well}/{image['path']}"
            for well, found in described.items()
            for image in found.get("images", ())
        ]
    return list(_ome(folder / "OME").get("series", ())) or [""]


def open_neuroglancer(server: DatasetServer, image: str = "") -> Any:
    """Return a neuroglancer viewer that shows an image; ``viewer.get_viewer_url()`` returns its URL.

    Parameters
    ----------
    server : DatasetServer
        A running server. It adds the viewer to the websites that may read the dataset.
    image : str
        The path of the image in the dataset, such as ``0`` or ``A/1/0``; empty if the dataset is a single
        image.

    Raises
    ------
    ModuleNotFoundError
        If neuroglancer is not installed.
    """
    import neuroglancer

    neuroglancer.set_server_bind_address(_LOCAL)
    viewer = neuroglancer.Viewer()
    address = urlsplit(viewer.get_viewer_url())
    server.origins.add(f"{address.scheme}://{address.netloc}")
    source = f"{server.url}/{quote(image)}".rstrip("/") + "/|zarr3:"
    viewer.set_state(_state(server.folder / image, source))
    return viewer


def _state(folder: Path, source: str) -> dict[str, Any]:
    """Return a neuroglancer state that shows the first time point and the middle plane of an image."""
    plain = {"layout": "xy", "layers": [{"type": "image", "name": "image", "source": source}]}
    ome = _ome(folder)
    try:
        (multiscales,) = ome["multiscales"]
        first = multiscales["datasets"][0]
        lengths = json.loads((folder / first["path"] / "zarr.json").read_bytes())["shape"]
        stated = {each["type"]: each[each["type"]] for each in first["coordinateTransformations"]}
        dimensions, position = {}, []
        for number, axis in enumerate(multiscales["axes"]):
            scale = stated["scale"][number]
            first_center = stated.get("translation", [0.0] * len(lengths))[number] / scale
            if axis["type"] != "channel":
                factor, unit = _UNITS.get(axis.get("unit"), (1, ""))
                dimensions[axis["name"]] = [scale * factor, unit]
                position.append(first_center + (0 if axis["name"] == "t" else lengths[number] // 2))
        layers = [_layer(source, number, each) for number, each in enumerate(ome["omero"]["channels"])]
    except (OSError, ValueError, KeyError, TypeError, IndexError, ZeroDivisionError):
        return plain
    shown = [name for name in ("x", "y", "z") if name in dimensions]
    return {
        "dimensions": dimensions,
        "displayDimensions": shown,
        "position": position,
        "layers": layers,
        "layout": "xy",
    }


def _ome(folder: Path) -> dict[str, Any]:
    """Return the OME metadata of a group, or an empty dict if there are none."""
    try:
        found = json.loads((folder / "zarr.json").read_bytes())["attributes"]["ome"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _layer(source: str, number: int, channel: dict[str, Any]) -> dict[str, Any]:
    """Return the neuroglancer layer that shows a channel."""
    shade = ", ".join(f"{int(channel['color'][at : at + 2], 16) / 255:.3f}" for at in (0, 2, 4))
    window = channel["window"]
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a dataset until Ctrl-C is pressed; return 0, or 1 if it cannot be served."""
    parser = argparse.ArgumentParser(
        prog="python -m exengine_ome_zarr.serve",
        description="Serve an OME-Zarr dataset to viewers in the browser, on this computer only.",
    )
    parser.add_argument("path", help="the folder of the dataset")
    parser.add_argument(
        "--port", type=int, default=PORT, help="the port; 0 selects a free port (default: %(default)s)"
    )
    parser.add_argument("--image", help="the path of the image that neuroglancer shows (default: the first)")
    parser.add_argument("--origin", help="a website that may read the dataset, such as https://ome.github.io")
    given = parser.parse_args(arguments)
    try:
        server = DatasetServer(given.path, given.port, [given.origin] if given.origin else ())
    except DatasetAccessError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    try:
        with server:
            image = image_paths(given.path)[0] if given.image is None else given.image
            try:
                viewer = open_neuroglancer(server, image).get_viewer_url()
            except ModuleNotFoundError:
                viewer = "pip install neuroglancer"
            sys.stdout.write(f"dataset: {server.url}\nviewer:  {viewer}\nPress Ctrl-C to stop.\n")
            sys.stdout.flush()
            server.wait()
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
