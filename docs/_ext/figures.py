"""The directive ``benchmark-figures``: table and drawing of benchmarks/run.py, where they are there."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = "_benchmarks"

_NONE = """\
This documentation was built without measured figures. ``python benchmarks/run.py`` measures them on your own
machine, prints each beside its goal, and writes the table and the drawing.
"""

_DRAWING = """\

.. container:: drawing-frame

   .. image:: /{folder}/figures.svg
      :class: drawing figure-on-paper
      :alt: The ratios of the table as bars, each with a line at its goal.
"""


class BenchmarkFigures(SphinxDirective):
    """Shows figures.rst, and figures.svg below it; without them, how to get them."""

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.srcdir, FOLDER)
        table, drawing = folder / "figures.rst", folder / "figures.svg"
        for path in (table, drawing):
            self.env.note_dependency(str(path))
        if not table.is_file():
            return self.parse_text_to_nodes(_NONE)
        text = table.read_text(encoding="utf-8")
        if drawing.is_file():
            text += _DRAWING.format(folder=FOLDER)
        return self.parse_text_to_nodes(text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive; Sphinx calls it."""
    app.add_directive("benchmark-figures", BenchmarkFigures)
    return {"version": "1", "parallel_read_safe": True}
