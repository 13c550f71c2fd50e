"""The figures of a campaign, as a file that the docs read: ``docs/_results/faults/NAME.json``."""

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "_results" / "faults"
NIGHTLY = bool(os.environ.get("EXENGINE_NIGHTLY"))
"""In the nightly environment what cannot run for lack of rights is a failure."""


def save(
    name: str, command: str, seed: int | None, figures: dict[str, Any], *, folder: Path = FOLDER
) -> None:
    """Write the figures of one campaign, with what is needed to run it again.

    Parameters
    ----------
    name : str
        Of the campaign.
    command : str
        That runs it.
    seed : int, optional
    figures : dict
        Text -> number or text, in the order in which the page shows them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "campaign": name,
        "command": command,
        "seed": seed,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "figures": figures,
    }
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
