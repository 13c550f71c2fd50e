"""Renders the pages that show all plugins of a kind: the index, and the matrix that compares backends."""

from collections.abc import Iterable, Mapping

from exengine.checks.conformance import Results
from exengine.checks.describe import capability_text
from exengine.checks.report import PluginReport
from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.registry import docstrings
from exengine.kernel.registry.records import PluginRecord
from exengine.sphinxext.capabilities import attribute_docs, capability_mark, with_differences
from exengine.sphinxext.choosing import choose_table
from exengine.sphinxext.kinds import Kind, Setup
from exengine.sphinxext.promises import promise_mark, promise_name
from exengine.sphinxext.rst import escape, heading, indent, safe_line, table

MATRIX = "matrix"
"""File name of the page that compares backends, without its extension."""

RESTRICTIONS = ("same_shape", "same_axes")
"""Capabilities that limit the accepted frames: a backend without such a limit accepts more frames."""

_DESCRIPTION = (
    "Compare all storage backends, and choose one by pixel type, program, safety, compression and size."
)
_PYTHON = (
    "You can load the data of every backend in Python, with numpy, dask or xarray, and watch every dataset "
    "on a disk with ``exengine view`` while it is written. *Opens in* lists the other programs."
)
_POWER = (
    "*Frames survive* is about stored frames, for which ``put`` has returned. Frames that were put before a "
    "durable flush or ``finish`` survive a power cut, too. ``exengine acquire`` "
    "calls ``finish`` at the end of the run; with ``handler: {sync_every_s: 10}`` in the config, it also "
    "makes a durable flush every 10 seconds. In Python, call ``storage.flush(durable=True)`` at any time."
)
_RESULTS = (
    "Results of the last run of the conformance kit and of each fault campaign, with the default options. "
    "The page of each backend states the other options that were tested, and their results. "
    "*Not promised* means that the backend's declared capabilities rule out the promise."
)
_SUMMARY = "Every fact comes from the declared capabilities, the conformance kit and the fault campaigns."


def index_page(pages: Mapping[str, PluginReport], kind: Kind, setup: Setup, *, compared: bool = False) -> str:
    """Return the page that lists all plugins of a kind.

    Parameters
    ----------
    pages : mapping of str to PluginReport
        Maps the name of each page's file, without its extension, to the report shown on that page.
    kind : Kind
        The kind of the plugins.
    setup : Setup
        The project's settings for plugins.
    compared : bool
        Whether the same folder has a page that compares the plugins.
    """
    rows = [
        (f":doc:`{title_of(record)} <{page}>`", _purpose(record, setup), _from(record), _state(record))
        for page, record in ((page, report.record) for page, report in pages.items())
    ]
    documents = [*pages, MATRIX] if compared else [*pages]
    toctree = ".. toctree::\n   :hidden:\n\n" + indent("\n".join(documents)) + "\n" if documents else ""
    parts = [
        f".. _exengine-{kind.folder}:\n",
        heading(kind.plural, "#"),
        f"Every {kind.name} that was installed when this documentation was built.\n",
        f":doc:`Which backend should I use? <{MATRIX}>` selects backends by your requirements.\n"
        if compared
        else "",
        toctree,
        table(("Name", "Purpose", "Provided by", "State"), rows, "exengine-index", "18 44 24 14")
        if rows
        else "None was installed.\n",
    ]
    return ":orphan:\n\n" + "\n".join(part for part in parts if part.strip())


def title_of(record: PluginRecord) -> str:
    """Return the name of a plugin as the title of a link."""
    return escape(record.name or record.distribution or "unnamed")


def _purpose(record: PluginRecord, setup: Setup) -> str:
    if record.loaded is not None:
        return safe_line(docstrings.documentation_of(record.loaded).summary, trusted=setup.owns(record))
    return escape(record.summary)


def _from(record: PluginRecord) -> str:
    names = (f"{escape(claim.distribution)} {escape(claim.version)}".strip() for claim in record.claims)
    return ", ".join(names)


def _state(record: PluginRecord) -> str:
    return "valid" if record.state == "valid" else f"**{escape(record.state)}**"


# -- the matrix ----------------------------------------------------------------------------------


def comparable(pages: Mapping[str, PluginReport]) -> dict[str, PluginReport]:
    """Return the subset of pages that show valid backends."""
    return {
        page: report
        for page, report in pages.items()
        if report.record.loaded is not None and issubclass(report.record.loaded, DataStorage)
    }


def matrix_page(pages: Mapping[str, PluginReport]) -> str:
    """Return the page that compares backends by their capabilities and the promises that they keep.

    A script in the extension lets readers sort and filter the tables, but the tables are complete without it.

    Parameters
    ----------
    pages : mapping of str to PluginReport
        The pages returned by :func:`comparable`.
    """
    header = [f":doc:`{title_of(report.record)} <{page}>`" for page, report in pages.items()]
    results = [report.results for report in pages.values()]
    parts = [
        f".. meta::\n   :description: {_DESCRIPTION}\n",
        ".. _exengine-choose:\n",
        ".. _exengine-matrix:\n",
        heading("Which backend should I use?", "#"),
        f"Select your requirements; the backends that meet all of them remain. {escape(_SUMMARY)}\n",
        f"{_PYTHON}\n",
        f"{_POWER}\n",
        heading("In short", "="),
        choose_table(pages),
        heading("Capabilities", "="),
        "The declared capabilities. *Required* marks a limit: frames that violate it are refused.\n",
        _capabilities([report.record for report in pages.values()], header),
        heading("Promises", "="),
        _promises(results, header),
    ]
    return ":orphan:\n\n" + "\n".join(part for part in parts if part.strip())


def _capabilities(records: Iterable[PluginRecord], header: list[str]) -> str:
    classes = [
        record.loaded for record in records if record.loaded and issubclass(record.loaded, DataStorage)
    ]
    meanings = attribute_docs(StorageCapabilities)
    rows = [
        (
            f"``{name}``\n\n{meanings.get(name, '')}",
            *(
                with_differences(cls, name, _mark(name, getattr(cls.capabilities, name)), capability_text)
                for cls in classes
            ),
        )
        for name, _ in StorageCapabilities().items()
    ]
    return table(("Capability", *header), rows, "exengine-matrix")


def _mark(name: str, value: object) -> str:
    if name in RESTRICTIONS and isinstance(value, bool):
        return "required" if value else "\N{CHECK MARK} not required"
    return capability_mark(value)


def _promises(results: list[Results | None], header: list[str]) -> str:
    labels = dict.fromkeys(label for found in results if found for label in found.promises)
    if not labels:
        return "The conformance kit was not run on any of these backends.\n"
    rows = [(promise_name(label), *(promise_mark(found, label) for found in results)) for label in labels]
    promised = table(("Promise", *header), rows, "exengine-matrix exengine-promised")
    return f"{_RESULTS}\n\n{promised}"
