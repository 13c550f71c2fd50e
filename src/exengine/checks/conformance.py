"""Results of the conformance kit for one plugin, from a new run or from the results file of an earlier run.

This module finds the results file of a plugin and defines the values that reports contain. The format of the
file and the meanings of the promises are defined in :mod:`exengine.testing`.
"""

import importlib.resources
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from exengine.kernel.errors import describe
from exengine.kernel.registry.codes import CONFORMANCE, Finding
from exengine.kernel.registry.names import SOURCES_GROUP, same_name
from exengine.kernel.registry.records import PluginRecord
from exengine.testing.results import Outcome, read_results

THOROUGH_TIMEOUT_S = 3600.0
OUTCOMES: tuple[str, ...] = get_args(Outcome)
"""The possible outcomes of a promise."""


@dataclass(frozen=True)
class Promise:
    """The result of testing one promise.

    Attributes
    ----------
    outcome : {'kept', 'broken', 'not promised', 'not run'}
        The outcome for the promise.
    tests, failed : int
        The number of tests for the promise, and the number of those tests that failed.
    codes : tuple of str
        Codes of the capabilities that failed.
    because : tuple of str
        The failures, the capability that excludes the promise, or the reason why the promise was not tested.
    campaigns : tuple of str
        One sentence for each fault campaign that tested the promise, with the figures of that campaign.
    """

    outcome: str
    tests: int = 0
    failed: int = 0
    codes: tuple[str, ...] = ()
    because: tuple[str, ...] = ()
    campaigns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cause:
    """The probable cause of one or more failed tests of the kit.

    Attributes
    ----------
    labels, codes : tuple of str
        The broken promises and the codes of capabilities. Those of the simplest test come first.
    code : str
        The code of the simplest test; empty if it has none.
    message : str
        The failure of the simplest test.
    """

    labels: tuple[str, ...]
    codes: tuple[str, ...]
    code: str
    message: str

    @property
    def text(self) -> str:
        """The message, followed by the other promises and codes that the cause concerns."""
        message = self.message.removeprefix(f"{self.labels[0]}: ") if self.labels else self.message
        others = [*self.labels[1:], *(code for code in self.codes if code != self.code)]
        return f"{message} (also concerns {', '.join(others)})" if others else message


@dataclass(frozen=True)
class Results:
    """The results of the conformance kit for one plugin.

    Attributes
    ----------
    distribution, version, kernel : str
        The name and version of the tested distribution, and the version of ExEngine.
    promises : mapping of str to Promise
        Maps the label of each promise, such as ``P1``, to its result.
    findings : tuple of Finding
        Capabilities that are declared but not kept, or kept but not declared.
    reason : str
        The reason why no tests were run; empty if tests were run.
    variants : mapping of str to Results
        Maps the name of each variant of the backend to the results with its options.
    shipped : bool
        Whether the results come from the plugin's package, which means that its authors measured them.
    causes : tuple of Cause, or None
        The failures by their probable cause; None in results of an earlier release.
    """

    distribution: str
    version: str
    kernel: str
    promises: Mapping[str, Promise] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    variants: Mapping[str, "Results"] = field(default_factory=dict)
    shipped: bool = False
    causes: "tuple[Cause, ...] | None" = None

    @property
    def kept(self) -> int:
        """The number of promises that were kept."""
        return sum(promise.outcome == "kept" for promise in self.promises.values())

    @property
    def tested(self) -> int:
        """The number of promises that were tested and are therefore known to be kept or broken."""
        return sum(promise.outcome in ("kept", "broken") for promise in self.promises.values())

    @property
    def broken_promises(self) -> dict[str, str]:
        """Maps the label of each broken promise, followed by its variant if any, to its failures.

        Promises that are broken for the same probable cause count once, and those whose cause is among the
        ``findings`` are not repeated.
        """
        broken = {
            f"{label} {variant}": why
            for variant, found in self.variants.items()
            for label, why in found.broken_promises.items()
        }
        if self.causes is not None:
            return broken | {
                cause.labels[0]: cause.text
                for cause in reversed(self.causes)
                if not cause.code and cause.labels
            }
        return broken | {
            label: "; ".join(text.removeprefix(f"{label}: ") for text in promise.because)
            or "run the kit with pytest to see why"
            for label, promise in self.promises.items()
            if promise.outcome == "broken"
        }

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping from promise to result, in a form that can be written as JSON."""
        return {label: asdict(promise) for label, promise in self.promises.items()}


Conformance = tuple[Results | None, str]
"""The results, and the reason why they are missing or incomplete (empty if they are complete)."""


def run_kit(record: PluginRecord, *, thorough: bool = False) -> Conformance:
    """Run the conformance kit on an installed backend.

    Sources are not tested here, because the kit needs a source's devices.
    """
    if record.group == SOURCES_GROUP:
        return None, f"the kit needs the source's devices; run pytest --exengine-source {record.name}"
    import exengine.testing as kit

    try:
        run_conformance: Any = kit.run_conformance
        with tempfile.TemporaryDirectory(prefix="exengine-check-") as folder:
            more = {"thorough": True, "timeout_s": THOROUGH_TIMEOUT_S} if thorough else {}
            content = run_conformance(record.qualified_name, Path(folder, "results.json"), **more)
    except ImportError as error:
        return None, f"the kit's dependencies are missing; run pip install 'exengine[test]' ({error})"
    except Exception as error:  # the kit or the plugin under test can raise any exception
        return None, f"the kit failed with {describe(error)}"
    results = _results(content)
    not_run = (
        results.reason or "the kit did not state a reason" if content.get("outcome") == "not run" else ""
    )
    return results, not_run


SHIPPED = "docs/results"
"""The results folder inside a plugin's package. It contains the same files as ``exengine_results``."""


def shipped_folder(record: PluginRecord) -> Path | None:
    """Return the results folder in a plugin's package, or None if the package has no such folder."""
    try:
        folder = importlib.resources.files(record.package) / SHIPPED
        return Path(str(folder)) if folder.is_dir() else None
    except (OSError, ImportError, TypeError, ValueError):
        return None


def saved_results(record: PluginRecord, folder: Path) -> Results | None:
    """Return the results that an earlier run of the kit saved for a plugin, or None if there are none.

    Parameters
    ----------
    record : PluginRecord
        Record of the plugin. Its results file is ``<name>.json``. A file from a different distribution with a
        plugin of the same name is ignored.
    folder : Path
        Folder of the results files, which does not need to exist.

    Raises
    ------
    ValueError
        If the file is not a results file that this release can read; the message states the reason.
    """
    path = folder / f"{record.name}.json"
    if not re.fullmatch(r"[\w.-]+", record.name) or not path.is_file():
        return None
    try:
        results = _results(read_results(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {describe(error)}") from None
    if results.distribution and not same_name(results.distribution, record.distribution):
        return None
    return results


def _results(content: Mapping[str, Any]) -> Results:
    variants = {str(name): _results(found) for name, found in content.get("variants", {}).items()}
    of_variants = (
        Finding(found.code, f"variant {name!r}: {found.message}")
        for name, results in variants.items()
        for found in results.findings
    )
    causes = _causes(content["causes"]) if "causes" in content else None
    own: tuple[Finding, ...] = tuple(
        Finding(str(found["code"]), str(found["message"])) for found in content.get("findings", ())
    )
    if causes is not None:
        own = tuple(
            Finding(cause.code, f"{CONFORMANCE.get(cause.code, '')}: {cause.text}")
            for cause in causes
            if cause.code
        )
    return Results(
        str(content["distribution"]),
        str(content["version"]),
        str(content["kernel"]),
        {str(label): _promise(found) for label, found in content["promises"].items()},
        (*own, *of_variants),
        str(content.get("reason", "")),
        variants,
        causes=causes,
    )


def _causes(found: Any) -> tuple[Cause, ...]:
    return tuple(
        Cause(
            tuple(map(str, one["labels"])),
            tuple(map(str, one["codes"])),
            str(one["code"]),
            str(one["message"]),
        )
        for one in found
    )


def _promise(found: Mapping[str, Any]) -> Promise:
    outcome = found["outcome"]
    if outcome not in OUTCOMES:
        raise ValueError(f"the outcome of a promise is {outcome!r}, not one of {', '.join(OUTCOMES)}")
    codes, because = (tuple(map(str, found.get(key, ()))) for key in ("codes", "because"))
    return Promise(outcome, int(found.get("tests", 0)), int(found.get("failed", 0)), codes, because)
