"""The pages that show all plugins of a kind: the index, and the matrix that compares the backends."""

from collections.abc import Iterable, Mapping

from exengine.kernel.capabilities import StorageCapabilities
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.registry import docstrings
from exengine.kernel.registry.records import PluginRecord
from exengine.sphinxext.attribute_docs import attribute_docs
from exengine.sphinxext.capabilities import capability_mark
from exengine.sphinxext.kinds import Kind, Setup
from exengine.sphinxext.promises import promise_mark, promise_name
from exengine.sphinxext.results import Results
from exengine.sphinxext.rst import escape, heading, indent, safe_line, table

MATRIX = "matrix"
"""File name of the page that compares the backends, without its ending."""


def index_page(pages: Mapping[str, PluginRecord], kind: Kind, setup: Setup, *, compared: bool = False) -> str:
    """Return the page that lists all plugins of a kind.

    Parameters
    ----------
    pages : mapping of str to PluginRecord
        File name without its ending -> the record shown there.
    compared : bool
        Whether there is a page that compares them, beside this one.
    """
    rows = [
        (f":doc:`{title_of(record)} <{page}>`", _what(record, setup), _from(record), _state(record))
        for page, record in pages.items()
    ]
    documents = [*pages, MATRIX] if compared else [*pages]
    toctree = ".. toctree::\n   :hidden:\n\n" + indent("\n".join(documents)) + "\n" if documents else ""
    parts = [
        f".. _exengine-{kind.folder}:\n",
        heading(kind.plural, "#"),
        f"Every {kind.name} that was installed when this documentation was built.\n",
        f":doc:`Compare them <{MATRIX}>`: what each can do, and what it promises.\n" if compared else "",
        toctree,
        table(("Name", "What it is for", "Provided by", "State"), rows, "exengine-index", "18 44 24 14")
        if rows
        else "None was installed.\n",
    ]
    return ":orphan:\n\n" + "\n".join(part for part in parts if part.strip())


def title_of(record: PluginRecord) -> str:
    """Return the name of a plugin as the title of a reference."""
    return escape(record.name or record.distribution or "unnamed")


def _what(record: PluginRecord, setup: Setup) -> str:
    if record.loaded is not None:
        return safe_line(docstrings.documentation_of(record.loaded).summary, trusted=setup.owns(record))
    return escape(record.summary)


def _from(record: PluginRecord) -> str:
    claims = record.candidates or (record,)
    return ", ".join(f"{escape(claim.distribution)} {escape(claim.version)}".strip() for claim in claims)


def _state(record: PluginRecord) -> str:
    return "valid" if record.state == "valid" else f"**{escape(record.state)}**"


# -- the matrix ----------------------------------------------------------------------------------


def comparable(pages: Mapping[str, PluginRecord]) -> dict[str, PluginRecord]:
    """Return the pages of those backends whose class could be loaded."""
    return {
        page: record
        for page, record in pages.items()
        if record.loaded is not None and issubclass(record.loaded, DataStorage)
    }


def matrix_page(pages: Mapping[str, PluginRecord], setup: Setup) -> str:
    """Return the page that compares backends: their capabilities, and the promises that they keep.

    A script of the extension lets the reader sort and filter the tables; they are whole without it.

    Parameters
    ----------
    pages : mapping of str to PluginRecord
        As :func:`comparable` gives them.
    """
    header = [f":doc:`{title_of(record)} <{page}>`" for page, record in pages.items()]
    results = [setup.results.get(record.qualified_name) for record in pages.values()]
    parts = [
        ".. _exengine-matrix:\n",
        heading("Backends compared", "#"),
        "What each installed backend declares that it can do, and what it promises.\n",
        heading("Capabilities", "="),
        _capabilities(list(pages.values()), header),
        heading("Promises", "="),
        _promises(results, header),
    ]
    return ":orphan:\n\n" + "\n".join(part for part in parts if part.strip())


def _capabilities(records: Iterable[PluginRecord], header: list[str]) -> str:
    columns = [dict(getattr(record.loaded, "capabilities").items()) for record in records]  # noqa: B009
    meanings = attribute_docs(StorageCapabilities)
    rows = [
        (f"``{name}``\n\n{meanings.get(name, '')}", *(capability_mark(column[name]) for column in columns))
        for name, _ in StorageCapabilities().items()
    ]
    return table(("Capability", *header), rows, "exengine-matrix")


def _promises(results: list[Results | None], header: list[str]) -> str:
    labels = dict.fromkeys(label for found in results if found for label in found.promises)
    if not labels:
        return "The conformance kit was not run on any of them.\n"
    rows = [(promise_name(label), *(promise_mark(found, label) for found in results)) for label in labels]
    return (
        "As the conformance kit found when it was last run on each. *Not promised* is what a backend says "
        "itself, in its capabilities.\n\n"
        + table(("Promise", *header), rows, "exengine-matrix exengine-promised")
    )
