"""``exengine view PATH``: shows a dataset in the browser, or in napari or ndv."""

import argparse
import html
import os
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from exengine.cli.info import OpenDataset, describe
from exengine.cli.ledger_text import ledger_lines
from exengine.cli.output import print_json, say
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import OptionError, UnsupportedOperationError
from exengine.kernel.storage.remote import is_url
from exengine.viewer.server import ViewServer

_VIEWERS = {"napari": '"napari[all]"', "ndv": '"ndv[vispy,pyqt]"'}
"""Maps the name of each viewer to the requirement that installs it."""


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C is pressed, or show the dataset in another viewer."""
    if not 0 <= options.port < 65536:
        raise OptionError(f"--port must be between 0 and 65535, got {options.port}; 0 selects a free port")
    with OpenDataset(options.path) as dataset:
        if options.viewer:
            _show_in(options.viewer, dataset)
        else:
            _serve(dataset, options)
    return 0


def _show_in(name: str, dataset: DataStorage) -> None:
    from exengine.viewer import napari_reader

    try:
        getattr(napari_reader, f"show_in_{name}")(dataset)
    except ModuleNotFoundError as error:
        raise UnsupportedOperationError(
            f"{name} cannot be started, because {error.name} is not installed; install it with: "
            f"pip install {_VIEWERS[name]}"
        ) from None


def _serve(dataset: DataStorage, options: argparse.Namespace) -> None:
    path = options.path if is_url(options.path) else os.path.abspath(options.path)
    with ViewServer(dataset, lambda: _facts(dataset, path), options.port) as server:
        if options.json:
            print_json({"url": server.url, "port": server.port, "path": path})
        else:
            print(f"view: {server.url}\nPress Ctrl-C to stop.")
        sys.stdout.flush()
        with _opened(server.url, wanted=not options.no_browser and _has_desktop()):
            try:
                server.wait()
            except KeyboardInterrupt:
                say("")


def _facts(dataset: DataStorage, path: str) -> dict[str, Any]:
    """Return the facts that ``exengine info`` shows, and the lines about the ledger."""
    facts = describe(dataset, path)
    ledger = facts["annotations"].get("ledger")
    return {**facts, "ledger_lines": ledger_lines(ledger) if isinstance(ledger, dict) else []}


def _has_desktop() -> bool:
    """Return whether a graphical browser can be started. A text browser would block the terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


@contextmanager
def _opened(url: str, *, wanted: bool) -> Iterator[None]:
    """Open an address in the browser.

    The arguments of a program are visible to other users of the computer, and the address contains the token.
    The browser therefore opens a file that only this user can read and that redirects to the address.
    """
    if not wanted:
        yield
        return
    with tempfile.NamedTemporaryFile("w", prefix="exengine-view-", suffix=".html", delete=False) as file:
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(url)}">\n')
    try:
        webbrowser.open(Path(file.name).as_uri())
        yield
    finally:
        with suppress(OSError):
            os.unlink(file.name)
