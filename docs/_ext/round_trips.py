"""The directive ``round-trips``, which converts between all backends and compares the results."""

import tempfile
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class RoundTrips(SphinxDirective):
    """Shows a table of the comparison, and a table of the frames that a conversion refuses."""

    def run(self) -> list[nodes.Node]:
        from exengine.checks.round_trip import ASPECTS, all_round_trips

        with tempfile.TemporaryDirectory() as folder:
            found = all_round_trips(folder)
        names = list(dict.fromkeys(each.source for each in found))
        pairs = {(each.source, each.target): each for each in found}
        made: list[nodes.Node] = []
        title = "Results of a conversion to each backend and back, compared with the original"
        head = ["", *[f"``{name}``" for name in names]]
        rows = [
            [aspect, *[_survives(aspect, [pairs[source, target] for source in names]) for target in names]]
            for aspect in ASPECTS
        ]
        made += self.parse_text_to_nodes(_table(title, head, rows))
        title = "Frames that are refused, or left out with ``--allow-loss``"
        head = ["from", *[f"to ``{name}``" for name in names]]
        rows = [
            [f"``{source}``", *["; ".join(pairs[source, target].lost) or "none" for target in names]]
            for source in names
        ]
        return made + self.parse_text_to_nodes(_table(title, head, rows))


def _survives(aspect: str, trips: list[Any]) -> str:
    """Return whether an aspect survives a conversion from every backend; otherwise, the differences."""
    differing = [
        f"from ``{trip.source}``: {what}"
        for trip in trips
        if (what := trip.there.get(aspect) or trip.back.get(aspect))
    ]
    return "; ".join(differing) or "equal"


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [f".. list-table:: {title}", "   :header-rows: 1", "   :stub-columns: 1", ""]
    for row in (head, *rows):
        lines.append(f"   * - {row[0]}".rstrip())
        lines += [f"     - {cell}" for cell in row[1:]]
    return "\n".join(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive with Sphinx, which calls this function."""
    app.add_directive("round-trips", RoundTrips)
    return {"version": "1", "parallel_read_safe": True}
