"""The directive ``benchmark-figures``, which shows a table and a chart of benchmark results, if available."""

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

FOLDER = "_benchmarks"
_ABSENT = "benchmark-figures"  # the files that a page would show, in its metadata

_NONE = """\
This documentation was built without measured figures. ``python benchmarks/{script}`` measures them on your
own machine, and prints each beside its goal.
"""

_CHART = """\

.. container:: drawing-frame

   .. image:: /{folder}/{chart}.svg
      :class: drawing figure-on-paper
      :alt: {alt}
"""


_SCRIPTS = {"figures": "run.py", "handler": "run.py", "before": "bench_before.py"}
_CHARTS = {
    "figures": {
        "figures-speed": "Speeds as bars, relative to the reference, each with a line at its goal.",
        "figures-time": "Times as bars, relative to the reference, each with a line at its goal.",
    },
    "handler": {
        "handler-speed": "Speeds of the data handler as bars, each with a line at its goal.",
    },
    "before": {},
}
"""The names of the charts of each table, with their descriptions."""


class BenchmarkFigures(SphinxDirective):
    """Shows the tables of a run (by default ``figures``) and their charts.

    If the table does not exist, it shows the command that makes the measurements.
    """

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0] if self.arguments else "figures"
        folder = Path(self.env.srcdir, FOLDER)
        table = folder / f"{name}.rst"
        charts = {folder / f"{chart}.svg": alt for chart, alt in _CHARTS[name].items()}
        absent = []
        for path in (table, *charts):
            # Sphinx reads a page again in every build if a file that it depends on does not exist.
            if path.is_file():
                self.env.note_dependency(str(path))
            else:
                absent.append(str(path))
        self.env.metadata[self.env.docname].setdefault(_ABSENT, []).extend(absent)
        if not table.is_file():
            return self.parse_text_to_nodes(_NONE.format(script=_SCRIPTS[name]))
        text = table.read_text(encoding="utf-8")
        for chart, alt in charts.items():
            if chart.is_file():
                text += _CHART.format(folder=FOLDER, chart=chart.stem, alt=alt)
        return self.parse_text_to_nodes(text)


def find_outdated(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Return the pages for which a figure exists now that did not exist when they were read."""
    return [page for page, facts in env.metadata.items() if any(map(os.path.exists, facts.get(_ABSENT, ())))]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive with Sphinx, which calls this function."""
    app.add_directive("benchmark-figures", BenchmarkFigures)
    app.connect("env-get-outdated", find_outdated)
    return {"version": "1", "parallel_read_safe": True}
