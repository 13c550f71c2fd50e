"""Saves the figures of a campaign in ``docs/_results/faults/NAME.json``, which the documentation reads."""

import datetime
import json
import os
import platform
import re
import tomllib
from pathlib import Path
from typing import Any

from variants import Variant

FOLDER = Path(__file__).parents[2] / "docs" / "_results" / "faults"
NIGHTLY = bool(os.environ.get("EXENGINE_NIGHTLY"))
"""Whether this is the nightly environment, in which a lack of permissions is a failure."""

OME_ZARR = ("--backend", "ome-zarr")
VARIANTS = {"ome-zarr": OME_ZARR, "ome-zarr-blosc-lz4": (*OME_ZARR, "--option", "codec=blosc-lz4")}
"""The arguments that select a backend other than ndtiff."""

CAMPAIGNS = tomllib.loads(Path(__file__).with_name("campaigns.toml").read_text(encoding="utf-8"))
"""The table of the campaigns."""

_MOST_SHOWN = 100
BY_DEFAULT = Variant()


def save(
    name: str,
    command: str,
    seed: int | None,
    figures: dict[str, Any],
    *,
    variant: Variant = BY_DEFAULT,
    folder: Path = FOLDER,
) -> None:
    """Write the figures of one campaign, with the command to repeat it.

    Parameters
    ----------
    name : str
        The name of the campaign.
    command : str
        The command that runs the campaign.
    seed : int, optional
    figures : dict
        Name -> number or string, in the order in which the page shows them.
    variant : Variant
        The backend and its options; each variant has its own file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "campaign": name,
        "backend": variant.backend,
        "options": variant.options,
        "command": command + variant.arguments,
        "seed": seed,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "figures": figures,
        "promises": promises_of(name, figures),
    }
    ending = f".{variant.suffix}" if variant.suffix else ""
    (folder / f"{name}{ending}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def promises_of(name: str, figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what the figures of a campaign show about promises, as the table of the campaigns defines it.

    Parameters
    ----------
    name : str
        Of the campaign.
    figures : dict

    Returns
    -------
    dict
        Label of the promise -> ``outcome``, ``tests`` (the number of trials) and ``text``. A promise is left
        out if the run has not taken the figures for it.
    """
    found = {}
    for label, rule in CAMPAIGNS[name.replace("_", "-")].get("promises", {}).items():
        needed = {*rule["trials"], *rule["zero"], *re.findall(r"\{(.+?)\}", rule["text"])}
        if needed <= figures.keys():
            broken = any(figures[figure] for figure in rule["zero"])
            text = re.sub(r"\{(.+?)\}", lambda match: _number(figures[match[1]]), rule["text"])
            found[label] = {
                "outcome": "broken" if broken else "kept",
                "tests": sum(figures[figure] for figure in rule["trials"]),
                "text": text,
            }
    return found


def _number(figure: Any) -> str:
    """Return a figure as text: ``3000`` is 3,000, and ``100 of 100`` is 100."""
    return f"{figure:,}" if isinstance(figure, int | float) else str(figure).partition(" of ")[0]


def conclude(
    name: str,
    command: str,
    seed: int | None,
    figures: dict[str, Any],
    broken: list[str],
    *,
    keep: bool,
    details: list[str] | None = None,
    variant: Variant = BY_DEFAULT,
) -> int:
    """Print the results of a campaign, and optionally save its figures.

    Parameters
    ----------
    name, command, seed, figures
        As for :func:`save`; the number of broken promises is added to the figures.
    broken : list of str
        The broken promises, one line each.
    keep : bool
        Whether to save the figures.
    details : list of str, optional
        Additional lines with details.
    variant : Variant

    Returns
    -------
    int
        The exit status, which is 1 if a promise was broken.
    """
    figures = {**figures, "broken promises": len(broken)}
    for problem in broken[:_MOST_SHOWN]:
        print(problem)
    for what, value in figures.items():
        print(f"{what}: {value}")
    for line in details or ():
        print(line)
    if keep:
        save(name, command, seed, figures, variant=variant)
    return 1 if broken else 0
