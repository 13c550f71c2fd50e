"""``exengine view PATH``: shows a dataset in the browser, or in another viewer."""

import argparse
import os
import sys
import webbrowser
from typing import Any

from exengine.cli.info import OpenDataset, describe
from exengine.cli.ledger_text import ledger_lines
from exengine.cli.output import print_json, say
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import OptionError
from exengine.viewer.server import ViewServer


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C is pressed."""
    if not 0 <= options.port < 65536:
        raise OptionError(f"--port must be between 0 and 65535, got {options.port}; 0 selects a free port")
    with (
        OpenDataset(options.path) as dataset,
        ViewServer(dataset, lambda: _facts(dataset, options.path), options.port) as server,
    ):
        if options.json:
            print_json({"url": server.url, "port": server.port, "path": os.path.abspath(options.path)})
        else:
            print(f"view: {server.url}\nPress Ctrl-C to stop.")
        sys.stdout.flush()
        if not options.no_browser and _has_desktop():
            webbrowser.open(server.url)
        try:
            server.wait()
        except KeyboardInterrupt:
            say("")
    return 0


def _facts(dataset: DataStorage, path: str) -> dict[str, Any]:
    """Return the facts of ``exengine info``, and the lines about the ledger."""
    facts = describe(dataset, path)
    ledger = facts["annotations"].get("ledger")
    return {**facts, "ledger_lines": ledger_lines(ledger) if isinstance(ledger, dict) else []}


def _has_desktop() -> bool:
    """Return whether a browser with windows can be started. On a terminal, a text browser would start."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
