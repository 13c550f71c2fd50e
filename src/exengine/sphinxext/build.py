"""Writes the pages for plugins during a Sphinx build, and stops the build if certain plugins have faults.

Pages are written into the source folder before Sphinx looks for documents. A page is written only if its
content has changed, so that an incremental build reads no more pages than necessary. A fault in a foreign
plugin is described on the plugin's page. A fault in a plugin that the project lists in ``exengine_strict``
stops the build.
"""

import logging as standard_logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

from exengine.checks.campaigns import with_campaigns
from exengine.checks.conformance import Conformance, Results, saved_results, shipped_folder
from exengine.checks.report import PluginReport, make_reports
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import describe
from exengine.kernel.registry import plugins
from exengine.kernel.registry.names import fold
from exengine.kernel.registry.records import PluginRecord, broken
from exengine.kernel.system.files import open_regular
from exengine.sphinxext import cache, rst
from exengine.sphinxext.cache import Made
from exengine.sphinxext.choosing import choices
from exengine.sphinxext.index_pages import MATRIX, comparable, index_page, matrix_page
from exengine.sphinxext.kinds import BACKENDS, KINDS, MARK, Kind, Setup
from exengine.sphinxext.option_sets import declared_variants
from exengine.sphinxext.pages import plugin_page

logger = logging.getLogger(__name__)

FOLDER = "usage"
"""Folder of the pages, relative to the project's source folder."""

_NO_RESULTS = "the documentation has no results of the conformance kit"


class PluginPages:
    """The generated pages of one Sphinx application, with methods that handle its events."""

    def __init__(self) -> None:
        self._made = Made()
        self._warned = False

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The data for choosing a backend, used by the script on the page that compares backends."""
        return self._made.choices

    # -- before reading --------------------------------------------------------------------------

    def write(self, app: Sphinx) -> None:
        """Write all pages and indexes, and delete the pages of plugins that no longer exist.

        If nothing has changed since the last build, the existing pages are kept, and no plugin is loaded.
        """
        fingerprint = cache.fingerprint_of(app)
        restored = cache.restore(app, fingerprint)
        if restored is None:
            self._make(app)
            if fingerprint and not self._warned:
                cache.save(app, fingerprint, self._made)
        else:
            self._made = restored
        _guard_log({document: self._made.records[document] for document in self._made.foreign})

    def _make(self, app: Sphinx) -> None:
        setup = _setup_of(app)
        registries = {kind: _registry(app, kind) for kind in KINDS}
        shown = {kind: _shown(app, kind, registry) for kind, registry in registries.items()}
        reports: dict[PluginRecord, PluginReport] = {}
        for kind, registry in registries.items():
            claims = [claim for record in shown[kind] for claim in record.claims]
            made = make_reports(claims, registry, partial(self._conformance, app))
            reports |= dict(zip(claims, made, strict=True))
        _reject_faults(app, [record for records in shown.values() for record in records], reports)
        for kind, records in shown.items():
            one_each = [reports.get(record, PluginReport(record)) for record in records]
            try:
                self._write_kind(app, kind, setup, one_each)
            except OSError as error:
                raise ExtensionError(
                    f"the pages of plugins cannot be written into {app.srcdir}: {error.strerror}; copy the "
                    "sources of the documentation to a folder that you can write to, and build them there"
                ) from error

    def _conformance(self, app: Sphinx, record: PluginRecord) -> Conformance:
        """Return the saved results for a plugin; warn if a results file cannot be used."""
        results, problem = _conformance(app, record)
        self._warned = self._warned or (results is None and bool(problem) and problem != _NO_RESULTS)
        return results, problem

    def _write_kind(self, app: Sphinx, kind: Kind, setup: Setup, reports: Iterable[PluginReport]) -> None:
        written: dict[str, str] = {}
        pages: dict[str, PluginReport] = {}
        for report in reports:
            page = _page_name(report.record, pages)
            written[page], pages[page] = _isolated_page(report, kind, setup)
            document = f"{FOLDER}/{kind.folder}/{page}"
            self._made.records[document] = report.record
            if not setup.owns(report.record):
                self._made.foreign.add(document)
        compared = comparable(pages) if kind is BACKENDS else {}
        if pages or app.config.exengine_plugins is None:
            written["index"] = index_page(pages, kind, setup, compared=bool(compared))
        if compared:
            written[MATRIX] = matrix_page(compared)
            self._made.choices = choices(compared)
        contents = {name: f"{MARK}\n{text}" for name, text in written.items()}
        _write_folder(Path(app.srcdir, FOLDER, kind.folder), contents)
        for name, content in contents.items():
            self._made.pages[f"{FOLDER}/{kind.folder}/{name}.rst"] = content

    # -- while reading ---------------------------------------------------------------------------

    def process_docstring(
        self, app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
    ) -> None:
        """Shorten the class docstring, which the page already shows, and make foreign docstrings safe."""
        document = app.env.docname
        record = self._made.records.get(document)
        if record is None:
            return
        if what == "class" and name == record.target.replace(":", "."):
            lines[:] = ["The options, their defaults and an example are shown above.", ""]
        elif document in self._made.foreign and rst.problems("\n".join(lines), sections=False):
            lines[:] = [*rst.literal_block("\n".join(lines)).splitlines(), ""]

    def keep_colons(
        self, app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
    ) -> None:
        """Prevent napoleon from interpreting words before a colon in an attribute's docstring as a type.

        Napoleon looks for ``type: description`` only in the first line, so an empty comment is inserted.
        """
        documented_here = app.env.docname in self._made.records or name.partition(".")[0] == "exengine"
        if what in ("attribute", "data", "property") and documented_here and lines and lines[0].strip():
            lines[:0] = ["..", ""]

    # -- references ------------------------------------------------------------------------------

    def resolve_quietly(
        self, app: Sphinx, env: object, node: nodes.Element, content: nodes.Element
    ) -> nodes.Element | None:
        """Show a code as plain text if the project has no codes page to link to."""
        return content if node.get("reftype") == "exengine-code" else None

    def keep_quiet(self, app: Sphinx, domain: object, node: nodes.Element) -> bool | None:
        """Return True to suppress a warning about an unresolved reference on a third-party plugin's page."""
        return True if node.get("refdoc") in self._made.foreign else None


# -- configuration -------------------------------------------------------------------------------


def _registry(app: Sphinx, kind: Kind) -> plugins.PluginRegistry:
    path = app.config.exengine_path
    if path is None:
        return plugins.BACKENDS if kind is BACKENDS else plugins.SOURCES
    return plugins.PluginRegistry(kind.group, kind.folder.removesuffix("s"), path)


def _setup_of(app: Sphinx) -> Setup:
    local = {fold(name): folder for name, folder in app.config.exengine_local_plugins.items()}
    named = [*app.config.exengine_strict, *(app.config.exengine_plugins or ())]
    return Setup(local, frozenset((*local, *map(fold, named))))


def _shown(app: Sphinx, kind: Kind, registry: plugins.PluginRegistry) -> list[PluginRecord]:
    """Return the records of plugins that get pages."""
    limit = app.config.exengine_plugins
    wanted = None if limit is None else set(map(fold, limit))
    return [
        record
        for record in registry.records().values()
        if (wanted is None or wanted & {fold(claim.distribution) for claim in record.claims})
        and (record.group or kind is BACKENDS)  # list a plugin without a group only among the backends
    ]


def _conformance(app: Sphinx, record: PluginRecord) -> Conformance:
    """Return the saved results of the conformance kit; warn if the results file cannot be used.

    Results in the documentation take precedence over results in the plugin's package.
    """
    try:
        results = _results_in(Path(app.srcdir, app.config.exengine_results), record)
    except ValueError as error:
        logger.warning("%s", error)
        return None, str(error)
    shipped = shipped_folder(record) if results is None else None
    if shipped is not None:
        try:
            results = _results_in(shipped, record)
        except ValueError as error:  # a fault in a foreign package must not end the build
            return None, str(error)
        results = replace(results, shipped=True) if results is not None else None
    return results, "" if results else _NO_RESULTS


def _results_in(folder: Path, record: PluginRecord) -> Results | None:
    results = saved_results(record, folder)
    if results is None:
        return None
    cls = record.loaded
    variants = declared_variants(cls) if cls is not None and issubclass(cls, DataStorage) else []
    return with_campaigns(results, record.name, folder, {one.name: one.options for one in variants})


def _reject_faults(
    app: Sphinx, records: Iterable[PluginRecord], reports: Mapping[PluginRecord, PluginReport]
) -> None:
    strict = set(map(fold, app.config.exengine_strict))
    faults = []
    for record in records:
        for claim in record.claims:
            if fold(claim.distribution) in strict:
                texts = [str(finding) for finding in reports[claim].findings]
                if record.state == "conflict":
                    texts = [f"{record.state}: {record.error}"]
                faults += [f"{claim.distribution}, {claim.name!r}: {text}" for text in texts]
    if faults:
        faults = list(dict.fromkeys(faults))
        raise ExtensionError("faults in plugins named in exengine_strict:\n  " + "\n  ".join(faults))


# -- anchors ------------------------------------------------------------------------------------


def add_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Add an anchor to each Python name that a plugin's page documents but that is not in the index.

    If the project may also document a class elsewhere, the class has the option ``:no-index:``. Sphinx then
    adds no anchor, but links from source code back to the page need an anchor.

    Parameters
    ----------
    app : Sphinx
        The Sphinx application.
    doctree : nodes.document
        The document, which is changed in place.
    """
    if not app.env.docname.startswith(tuple(f"{FOLDER}/{kind.folder}/" for kind in KINDS)):
        return
    for signature in doctree.findall(addnodes.desc_signature):
        name = f"{signature.get('module')}.{signature.get('fullname')}"
        if signature.get("module") and not signature["ids"] and name not in doctree.ids:
            signature["ids"].append(name)
            doctree.ids[name] = signature


# -- files ---------------------------------------------------------------------------------------


def _page_name(record: PluginRecord, taken: Mapping[str, PluginReport]) -> str:
    """Return a file name for a page: the plugin's name, modified if it is not valid or is already taken."""
    name = re.sub(r"[^a-z0-9_-]", "-", (record.name or record.distribution).lower())[:64] or "unnamed"
    while name in taken or name in ("index", MATRIX):
        name += "-2"
    return name


def _isolated_page(report: PluginReport, kind: Kind, setup: Setup) -> tuple[str, PluginReport]:
    """Return a plugin's page and its report. An error raised by a third-party plugin is shown on the page."""
    try:
        return plugin_page(report, kind, setup), report
    except Exception as error:  # an object from the plugin can raise any exception
        record = report.record
        if setup.owns(record):
            message = f"the page for {record.qualified_name} cannot be created: {error}"
            raise ExtensionError(message, error) from error
        fault = broken("page", f"creating the page of the plugin raised {describe(error)}")
        failed = replace(report, record=record.with_outcome(fault))
        return plugin_page(failed, kind, setup), failed


def _write_folder(folder: Path, pages: Mapping[str, str]) -> None:
    if pages:
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in pages.items():
        path = folder / f"{name}.rst"
        old = _read_page(path)
        if old is not None and MARK not in old[:200]:
            logger.warning("%s was not written by exengine.sphinxext, so it was left unchanged", path)
        elif old != content:
            path.write_text(content, encoding="utf-8")
    for path in folder.glob("*.rst"):
        if path.stem not in pages and MARK in (_read_page(path) or "")[:200]:
            path.unlink()


def _read_page(path: Path) -> str | None:
    """Return the text of a page, None if the path does not exist, or "" if the file cannot be read."""
    try:
        with os.fdopen(open_regular(path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError:
        return ""


# -- the log -------------------------------------------------------------------------------------


class _ForeignPagesFilter(standard_logging.Filter):
    """Excludes warnings about third-party plugins' pages from the count that can make a build fail."""

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
            logger.info("on the page of a third-party plugin: %s", message)
        return not foreign


def _guard_log(foreign: Mapping[str, PluginRecord]) -> None:
    """Insert the filter before Sphinx's own filters, one of which counts warnings."""
    if not foreign:
        return
    for handler in standard_logging.getLogger(logging.NAMESPACE).handlers:
        if isinstance(handler, logging.WarningStreamHandler):
            handler.filters.insert(0, _ForeignPagesFilter(foreign))
