"""The directive ``fault-campaigns``, which shows results of tests/campaigns and commands that repeat them."""

import json
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

FOLDER = "_results/faults"
_FILES = "fault-campaigns"  # the names of the files that a page shows, in its metadata

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
        self.env.metadata[self.env.docname][_FILES] = _names(folder)
        found: dict[str, dict[str, Any]] = {}
        for file in sorted(folder.glob("*.json")):
            name, _, variant = file.stem.partition(".")
            self.env.note_dependency(str(file))
            found.setdefault(name, {})[variant] = json.loads(file.read_text(encoding="utf-8"))
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
                made += self.parse_text_to_nodes(_table(title, list(found[name].values())))
        return made


def _names(folder: Path) -> str:
    return " ".join(sorted(file.name for file in folder.glob("*.json")))


def find_outdated(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Return the pages that show campaigns, if a file of results was added or removed since."""
    names = _names(Path(app.srcdir, FOLDER))
    return [page for page, facts in env.metadata.items() if facts.get(_FILES, names) != names]


def _table(title: str, runs: list[dict[str, Any]]) -> str:
    """Return a table with a column for each backend and its options."""
    first = 70 - 15 * (len(runs) - 1)
    lines = [
        f".. list-table:: {title}",
        f"   :widths: {first} {' '.join([str((100 - first) // len(runs))] * len(runs))}",
        "   :class: campaign",
    ]
    if len(runs) > 1:
        lines += ["   :header-rows: 1", "", "   * -"]
        lines += [f"     - {_heading(run)}" for run in runs]
    else:
        lines.append("")
    for what in dict.fromkeys(what for run in runs for what in run["figures"]):
        lines.append(f"   * - {what}")
        lines += [f"     - {_text(run['figures'].get(what))}" for run in runs]
    lines.append("")
    for run in runs:
        seed = "" if run["seed"] is None else f", seed {run['seed']}"
        where = f"{run['date']}, {run['system']}, Python {run['python']}{seed}"
        lines += [f"{where}: ``{run['command']}``", ""]
    return "\n".join(lines)


def _heading(run: dict[str, Any]) -> str:
    options = "".join(f", {value}" for value in run.get("options", {}).values())
    return f"``{run.get('backend', 'ndtiff')}``{options}"


def _text(figure: object) -> str:
    if figure is None:
        return "\\-"
    return f"{figure:,}" if isinstance(figure, int) else str(figure)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive with Sphinx, which calls this function."""
    app.add_directive("fault-campaigns", FaultCampaigns)
    app.connect("env-get-outdated", find_outdated)
    return {"version": "1", "parallel_read_safe": True}
