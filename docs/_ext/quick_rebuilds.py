"""Saves a build in which little has changed from work that takes more than a second.

- ``sphinx.ext.viewcode`` imports each module that the documentation names, with all its libraries, to learn
  whether its page is up to date. Here, a module whose page is newer than its source is not imported.
- Jinja compiles the templates of the theme again in every build. Here, it keeps the result.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from jinja2 import FileSystemBytecodeCache
from sphinx.application import Sphinx

_BEFORE, _AFTER = 400, 600  # viewcode has the priority 500


def setup(app: Sphinx) -> dict[str, bool]:
    """Surround the function of ``viewcode`` that writes the pages, and give Jinja a cache."""
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

    app.connect("builder-inited", _keep_templates)
    app.connect("html-collect-pages", hide, priority=_BEFORE)
    app.connect("html-collect-pages", show_again, priority=_AFTER)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _keep_templates(app: Sphinx) -> None:
    environment = getattr(getattr(app.builder, "templates", None), "environment", None)
    if environment is not None:
        folder = Path(app.doctreedir, "templates")
        folder.mkdir(parents=True, exist_ok=True)
        environment.bytecode_cache = FileSystemBytecodeCache(str(folder))


def _is_current(app: Sphinx, module: str) -> bool:
    page = Path(app.outdir, "_modules", *module.split(".")).with_suffix(".html")
    try:
        spec = importlib.util.find_spec(module)  # imports the packages around the module, but not the module
        return spec is not None and Path(str(spec.origin)).stat().st_mtime_ns <= page.stat().st_mtime_ns
    except (ImportError, OSError, ValueError):
        return False
