"""Writes a page for each code into ``reference/codes``, and shows the list of codes.

The text comes from ``exengine.checks.explanations``, which ``exengine explain`` prints too.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from exengine.checks.explanations import Explanation, explanations
from exengine.sphinxext import rst

FOLDER = "reference/codes"

_GROUPS = {
    "EX10": "Interface",
    "EX20": "Documentation of the options",
    "EX21": "Documentation for the reader",
    "EX3": "Capabilities that are not as declared",
    "EX4": "Packaging",
}
_NOTE = {
    "python": "The examples import from ``my_package``: ``DictStorage``, the backend of the README, and "
    "``FolderStorage``, which writes each frame into a file.",
    "toml": "The examples are parts of ``pyproject.toml``.",
    "text": "The examples list the files of a project.",
}


class CodeList(SphinxDirective):
    """Shows a table of the codes for each group, with links to their pages."""

    def run(self) -> list[nodes.Node]:
        parts = []
        for start, title in _GROUPS.items():
            found = [one for code, one in explanations().items() if code.startswith(start)]
            rows = [(f":doc:`{one.code} <codes/{one.code}>`", rst.escape(one.meaning)) for one in found]
            parts += [rst.heading(title, "="), rst.table(("Code", "Fault"), rows, "exengine-codes", "16 84")]
        return self.parse_text_to_nodes("\n".join(parts), allow_section_headings=True)


def write_pages(app: Sphinx) -> None:
    """Write the page of each code, if it has changed, and remove the page of a code that is gone."""
    folder = Path(app.srcdir, FOLDER)
    folder.mkdir(exist_ok=True)
    pages = {folder / f"{one.code}.rst": _page(one) for one in explanations().values()}
    for path, text in pages.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in set(folder.glob("EX*.rst")) - set(pages):
        path.unlink()


def _page(one: Explanation) -> str:
    description = f"{one.code}: {one.meaning}. Why, a wrong and a right example, and how to fix it."
    parts = [
        f".. meta::\n   :description: {description}\n",
        rst.heading(one.code, "#"),
        f".. exengine-code:: {one.code}\n",
        rst.indent(f"{one.why}\n"),
        rst.indent(f"**Fix**: {one.fix}\n"),
        rst.heading("Wrong", "="),
        rst.literal_block(one.wrong, one.language),
        rst.heading("Right", "="),
        rst.literal_block(one.right, one.language),
        f"{_NOTE[one.language]} The same text without the documentation: ``exengine explain {one.code}``.\n",
        ":doc:`All codes </reference/codes>`\n",
    ]
    return "\n".join(parts)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and the pages with Sphinx, which calls this function."""
    app.add_directive("code-list", CodeList)
    app.connect("builder-inited", write_pages)
    return {"version": "1", "parallel_read_safe": True}
