"""The directive ``fault-campaigns``, which shows results of tests/campaigns and commands that repeat them."""

import json
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = "_results/faults"

_NONE = """\
This documentation was built without figures of the campaigns. ``tox run -e nightly`` runs all of them, and
saves their results.
"""


class FaultCampaigns(SphinxDirective):
    """Shows a table of each campaign's results, in the order of ``campaigns.toml``.

    Without any results, it shows the command that runs the campaigns.
    """

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.srcdir, FOLDER)
        campaigns = Path(self.env.srcdir).parent / "tests" / "campaigns" / "campaigns.toml"
        self.env.note_dependency(str(campaigns))
        self.env.note_dependency(str(folder))
        found = {file.stem: file for file in sorted(folder.glob("*.json"))}
        if not found:
            return self.parse_text_to_nodes(_NONE)
        table = tomllib.loads(campaigns.read_text(encoding="utf-8"))
        titles = {name.replace("-", "_"): entry["title"] for name, entry in table.items()}
        unknown = sorted(found.keys() - titles.keys())
        if unknown:
            raise self.error(f"results of campaigns that are not in {campaigns.name}: {', '.join(unknown)}")
        made: list[nodes.Node] = []
        for name, title in titles.items():
            if name in found:
                self.env.note_dependency(str(found[name]))
                made += self.parse_text_to_nodes(_table(title, json.loads(found[name].read_text())))
        return made


def _table(title: str, campaign: dict[str, Any]) -> str:
    seed = "" if campaign["seed"] is None else f", seed {campaign['seed']}"
    lines = [
        f".. list-table:: {title}",
        "   :widths: 70 30",
        "   :class: campaign",
        "",
    ]
    for what, figure in campaign["figures"].items():
        lines += [f"   * - {what}", f"     - {figure:,}" if isinstance(figure, int) else f"     - {figure}"]
    where = f"{campaign['date']}, {campaign['system']}, Python {campaign['python']}{seed}"
    return "\n".join([*lines, "", f"{where}: ``{campaign['command']}``", ""])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive with Sphinx, which calls this function."""
    app.add_directive("fault-campaigns", FaultCampaigns)
    return {"version": "1", "parallel_read_safe": True}
