"""Results of fault campaigns, which test promises that the conformance kit cannot test, such as N3.

A campaign causes faults that a test kit must not cause: it kills writers, fills disks and cuts the power. Its
results file contains the name and options of the backend, and the outcome for each promise that the campaign
tests. This module adds these outcomes to the results of the conformance kit.
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
"""The subfolder for the results of fault campaigns, in the folder with the kit's results."""

MAX_BYTES = 2**20


def with_campaigns(
    results: Results, backend: str, folder: Path, variants: Mapping[str, Mapping[str, Any]] | None = None
) -> Results:
    """Return the kit's results, combined with the results of fault campaigns on the same backend.

    If a campaign found that a promise is broken, the outcome is ``broken``. If the kit did not test a
    promise, and a campaign found that it is kept, the outcome is ``kept``. Otherwise, the outcome does not
    change. The sentence of each campaign is added in every case.

    Parameters
    ----------
    results : Results
        The results of the conformance kit.
    backend : str
        The name of the backend.
    folder : Path
        The folder of the kit's results. The campaigns' files are in its subfolder ``faults``, if there is
        one.
    variants : mapping of str to mapping, optional
        Maps the name of each variant of the backend to the options that differ from the defaults.

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
        raise ValueError(
            f"the promise {label!r:.20} or the outcome {found['outcome']!r:.20} is unknown, or the promise "
            "has no text"
        )
    return {"outcome": found["outcome"], "text": found["text"]}
