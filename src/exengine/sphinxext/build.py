"""The pages of the plugins during a Sphinx build: what is written, when, and what stops a build.

Pages are written into the source folder before Sphinx looks for documents, and only where their
content changed, so that an incremental build reads only what it must. A fault of a foreign plugin
becomes text on its page; a fault of one that the project names in ``exengine_strict`` ends the build.
"""

import contextlib
import logging as standard_logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

from exengine.checks.examples import run_examples
from exengine.checks.findings import note_findings
from exengine.kernel.errors import PluginError, describe
from exengine.kernel.registry import plugins
from exengine.kernel.registry.probing import probe_records
from exengine.kernel.registry.records import PluginRecord
from exengine.kernel.system.files import open_regular
from exengine.sphinxext import rst
from exengine.sphinxext.index_pages import MATRIX, comparable, index_page, matrix_page
from exengine.sphinxext.kinds import BACKENDS, KINDS, MARK, Kind, Setup, normalized
from exengine.sphinxext.pages import plugin_page
from exengine.sphinxext.results import results_of

logger = logging.getLogger(__name__)

FOLDER = "usage"
"""Where the pages are, below the source folder of the project."""


class PluginPages:
    """The generated pages of one Sphinx application; its methods are event handlers."""

    def __init__(self) -> None:
        self._records: dict[str, PluginRecord] = {}  # document name -> what it shows
        self._foreign: dict[str, PluginRecord] = {}

    # -- before reading --------------------------------------------------------------------------

    def write(self, app: Sphinx) -> None:
        """Write every page and index, and take away those of plugins that are gone."""
        found = {kind: self._collect(app, kind) for kind in KINDS}
        setup = _with_findings(app, _setup_of(app), found)
        _refuse_faults(app, [record for records in found.values() for record in records])
        limited = app.config.exengine_plugins is not None
        for kind, records in found.items():
            folder = Path(app.srcdir, FOLDER, kind.folder)
            written: dict[str, str] = {}
            pages: dict[str, PluginRecord] = {}
            for record in records:
                page = _page_name(record, pages)
                pages[page] = record
                written[page] = _isolated_page(record, kind, setup)
                self._records[f"{FOLDER}/{kind.folder}/{page}"] = record
                if not setup.owns(record):
                    self._foreign[f"{FOLDER}/{kind.folder}/{page}"] = record
            compared = comparable(pages) if kind is BACKENDS else {}
            if pages or not limited:
                written["index"] = index_page(pages, kind, setup, compared=bool(compared))
            if compared:
                written[MATRIX] = matrix_page(compared, setup)
            _write_folder(folder, written)
        _guard_log(self._foreign)

    def _collect(self, app: Sphinx, kind: Kind) -> list[PluginRecord]:
        registry = _registry(app, kind)
        limit = app.config.exengine_plugins
        wanted = None if limit is None else {normalized(name) for name in limit}
        records = []
        for record in registry.records().values():
            claims = record.candidates or (record,)
            if wanted is not None and not wanted & {normalized(claim.distribution) for claim in claims}:
                continue
            if not record.group and kind is not BACKENDS:
                continue  # metadata that cannot be read: shown once
            records.append(record)
        _load(registry, [claim for record in records for claim in record.candidates or (record,)])
        return records

    # -- while reading ---------------------------------------------------------------------------

    def process_docstring(
        self, app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
    ) -> None:
        """Shorten the class's own docstring, which the page shows already; make foreign ones safe."""
        document = app.env.docname
        record = self._records.get(document)
        if record is None:
            return
        if what == "class" and name == record.target.replace(":", "."):
            lines[:] = ["Its options, their defaults and an example are above.", ""]
        elif document in self._foreign and rst.problems("\n".join(lines), sections=False):
            lines[:] = [*rst.literal_block("\n".join(lines)).splitlines(), ""]

    # -- references ------------------------------------------------------------------------------

    def resolve_quietly(
        self, app: Sphinx, env: object, node: nodes.Element, content: nodes.Element
    ) -> nodes.Element | None:
        """Show a code as plain text where the project has no page of the codes."""
        return content if node.get("reftype") == "exengine-code" else None

    def keep_quiet(self, app: Sphinx, domain: object, node: nodes.Element) -> bool | None:
        """Return True where a reference that leads nowhere stands on a foreign plugin's page."""
        return True if node.get("refdoc") in self._foreign else None


# -- configuration -------------------------------------------------------------------------------


def _registry(app: Sphinx, kind: Kind) -> plugins.PluginRegistry:
    path = app.config.exengine_path
    if path is None:
        return plugins.BACKENDS if kind is BACKENDS else plugins.SOURCES
    return plugins.PluginRegistry(kind.group, kind.folder.removesuffix("s"), path)


def _setup_of(app: Sphinx) -> Setup:
    local = {normalized(name): folder for name, folder in app.config.exengine_local_plugins.items()}
    named = [*app.config.exengine_strict, *(app.config.exengine_plugins or ())]
    return Setup(local, frozenset((*local, *map(normalized, named))))


def _with_findings(app: Sphinx, setup: Setup, found: Mapping[Kind, Iterable[PluginRecord]]) -> Setup:
    """Return the setup with what the examples gave, and what the conformance kit found."""
    everything = [
        claim for records in found.values() for record in records for claim in record.candidates or (record,)
    ]
    examples = run_examples(everything, app.config.exengine_path or ())
    folder = Path(app.srcdir, app.config.exengine_results)
    results, faults = results_of([record for record in everything if record.group == BACKENDS.group], folder)
    for fault in faults:
        logger.warning("%s", fault)
    note_findings(everything)
    return replace(setup, examples=examples, results=results)


def _load(registry: plugins.PluginRegistry, records: Iterable[PluginRecord]) -> None:
    """Probe each plugin in a process of its own; import those that came through, for autodoc."""
    wanted = [record for record in records if record.state == "found"]
    probe_records(wanted, registry.group, registry.kind)
    for record in wanted:
        if record.state == "valid":
            with contextlib.suppress(PluginError):  # the record says it
                registry.load(record.qualified_name)


def _refuse_faults(app: Sphinx, records: Iterable[PluginRecord]) -> None:
    strict = {normalized(name) for name in app.config.exengine_strict}
    faults = []
    for record in records:
        claims = record.candidates or (record,)
        for claim in claims:
            if normalized(claim.distribution) not in strict:
                continue
            shown = record if record.state == "conflict" else claim
            if shown.state != "valid" or shown.findings:
                texts = [str(finding) for finding in shown.findings] or [f"{shown.state}: {shown.error}"]
                faults += [f"{claim.distribution}, {claim.name!r}: {text}" for text in texts]
    if faults:
        raise ExtensionError(
            "plugins named in exengine_strict are not in order:\n  " + "\n  ".join(dict.fromkeys(faults))
        )


# -- files ---------------------------------------------------------------------------------------


def _page_name(record: PluginRecord, taken: Mapping[str, PluginRecord]) -> str:
    """Return a file name: the plugin's own where it is one and is free."""
    name = re.sub(r"[^a-z0-9_-]", "-", (record.name or record.distribution).lower())[:64] or "unnamed"
    while name in taken or name in ("index", MATRIX):
        name += "-2"
    return name


def _isolated_page(record: PluginRecord, kind: Kind, setup: Setup) -> str:
    try:
        return plugin_page(record, kind, setup)
    except Exception as error:  # something of the plugin raised while it was looked at
        if setup.owns(record):
            message = f"the page of {record.qualified_name} cannot be made: {error}"
            raise ExtensionError(message, error) from error
        record.mark("broken", "page", f"making its page raised {describe(error)}")
        record.loaded = None
        return plugin_page(record, kind, setup)


def _write_folder(folder: Path, pages: Mapping[str, str]) -> None:
    if pages:
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        content = f"{MARK}\n{text}"
        old = _read_page(path)
        if old is not None and MARK not in old[:200]:
            logger.warning("%s was not written by exengine.sphinxext, and is left as it is", path)
        elif old != content:
            path.write_text(content, encoding="utf-8")
    for path in folder.glob("*.rst"):
        if path.stem not in pages and MARK in (_read_page(path) or "")[:200]:
            path.unlink()


def _read_page(path: Path) -> str | None:
    """Return the text of a page; None if nothing is there, and "" for anything but a regular file."""
    try:
        with os.fdopen(open_regular(path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError:
        return ""


# -- the log -------------------------------------------------------------------------------------


class _ForeignPagesFilter(standard_logging.Filter):
    """Takes warnings about the pages of foreign plugins out of the count that fails a build."""

    def __init__(self, foreign: Mapping[str, PluginRecord]) -> None:
        super().__init__()
        self._documents = frozenset(foreign)
        targets = [record.target for record in foreign.values() if record.target]
        self._modules = tuple(target.partition(":")[0] for target in targets)
        pages = [f"{document}.rst" for document in foreign]
        self._places = (*pages, *(f"docstring of {module}" for module in self._modules))

    def filter(self, record: standard_logging.LogRecord) -> bool:
        location: Any = getattr(record, "location", None)
        if isinstance(location, tuple):
            location = location[0]
        if isinstance(location, nodes.Node):
            location = logging.get_node_location(location)
        where = str(location or "").replace("\\", "/")
        message = record.getMessage()
        foreign = where in self._documents or any(place in where for place in self._places)
        if not location and getattr(record, "type", "") == "autodoc":
            foreign = any(module in message for module in self._modules)
        if foreign:
            logger.info("on the page of a foreign plugin: %s", message)
        return not foreign


def _guard_log(foreign: Mapping[str, PluginRecord]) -> None:
    """Put the filter before Sphinx's own, one of which counts the warnings."""
    if not foreign:
        return
    for handler in standard_logging.getLogger(logging.NAMESPACE).handlers:
        if isinstance(handler, logging.WarningStreamHandler):
            handler.filters.insert(0, _ForeignPagesFilter(foreign))
