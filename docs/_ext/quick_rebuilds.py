"""Saves the page of a source file from a check that imports its module, if the page is newer than the file.

``sphinx.ext.viewcode`` imports each module that the documentation names, in every build, to learn whether its
page is up to date. For the modules of the plugins and their libraries, this takes a second.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx

_BEFORE, _AFTER = 400, 600  # viewcode has the priority 500


def setup(app: Sphinx) -> dict[str, bool]:
    """Surround the function of ``viewcode`` that writes the pages."""
    held: dict[str, object] = {}

    def hide(app: Sphinx) -> Iterator[tuple[str, dict[str, object], str]]:
        modules = getattr(app.env, "_viewcode_modules", {})
        held.update({name: entry for name, entry in modules.items() if _is_current(app, name)})
        modules.update(dict.fromkeys(held, False))  # viewcode passes over such modules
        yield from ()

    def show_again(app: Sphinx) -> Iterator[tuple[str, dict[str, object], str]]:
        getattr(app.env, "_viewcode_modules", {}).update(held)
        held.clear()
        yield from ()

    app.connect("html-collect-pages", hide, priority=_BEFORE)
    app.connect("html-collect-pages", show_again, priority=_AFTER)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _is_current(app: Sphinx, module: str) -> bool:
    page = Path(app.outdir, "_modules", *module.split(".")).with_suffix(".html")
    try:
        spec = importlib.util.find_spec(module)  # imports the packages around the module, but not the module
        return spec is not None and Path(str(spec.origin)).stat().st_mtime_ns <= page.stat().st_mtime_ns
    except (ImportError, OSError, ValueError):
        return False
