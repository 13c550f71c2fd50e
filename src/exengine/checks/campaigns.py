"""Results of fault campaigns, which test promises that the conformance kit cannot test, such as N3.

A campaign breaks things that a test kit must not break: it kills writers, fills disks and cuts the power. Its
results file names the backend with its options, and the outcome for each promise that it tests. This module
adds these outcomes to the results of the conformance kit.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exengine.checks.conformance import OUTCOMES, Promise, Results
from exengine.kernel.system.files import open_regular
from exengine.testing.promises import PROMISES

FOLDER = "faults"
"""The folder of the campaigns' results, inside the folder of the kit's results."""

MAX_BYTES = 2**20


def with_campaigns(
    results: Results, backend: str, folder: Path, variants: Mapping[str, Mapping[str, Any]] | None = None
) -> Results:
    """Return the results of the kit with the outcomes of the fault campaigns on the same backend.

    A promise that a campaign found broken is broken. A promise that was not run, and that a campaign found
    kept, is kept. Any other outcome stays as it is, with the sentence of the campaign.

    Parameters
    ----------
    results : Results
        The results of the conformance kit.
    backend : str
        The name of the backend.
    folder : Path
        The folder of the kit's results. The campaigns' files are in its folder ``faults``, if that exists.
    variants : mapping of str to mapping, optional
        The name of each variant of the backend -> the options that differ from the defaults.

    Raises
    ------
    ValueError
        If a file is not a results file of a campaign; the message states the reason.
    """
    runs = [
        run for run in map(_read, sorted(Path(folder, FOLDER).glob("*.json"))) if run["backend"] == backend
    ]
    options = variants or {}
    return replace(
        _merged(results, [run for run in runs if not run["options"]]),
        variants={
            name: _merged(found, [run for run in runs if run["options"] == dict(options.get(name, {}))])
            for name, found in results.variants.items()
        },
    )


def _merged(results: Results, runs: list[dict[str, Any]]) -> Results:
    promises = dict(results.promises)
    for run in runs:
        for label, found in run["promises"].items():
            old = promises.get(label, Promise("not run"))
            if found["outcome"] == "broken":
                outcome = "broken"
            else:
                outcome = "kept" if old.outcome == "not run" else old.outcome
            promises[label] = replace(
                old,
                outcome=outcome,
                because=() if old.outcome == "not run" else old.because,
                campaigns=(*old.campaigns, found["text"]),
            )
    return replace(results, promises=promises)


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(open_regular(path), "rb") as file:
            content = json.loads(file.read(MAX_BYTES + 1))
        promises = {str(label): _promise(label, found) for label, found in content["promises"].items()}
        return {"backend": content["backend"], "options": dict(content["options"]), "promises": promises}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not a results file of a fault campaign: {error!r:.200}") from None


def _promise(label: str, found: Mapping[str, Any]) -> dict[str, str]:
    if label not in PROMISES or found["outcome"] not in OUTCOMES or not isinstance(found["text"], str):
        raise ValueError(f"the promise {label!r:.20} with the outcome {found['outcome']!r:.20} is unknown")
    return {"outcome": found["outcome"], "text": found["text"]}
