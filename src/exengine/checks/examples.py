"""Runs the examples of plugins while the documentation is built, each in a process and a folder of its own.

Responsible for what an example gave, whatever it did: printed, raised, crashed, hung. Not responsible
for how that is shown.
"""

import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from exengine.kernel.registry import docstrings
from exengine.kernel.registry.class_checks import Finding
from exengine.kernel.registry.probing import run_child
from exengine.kernel.registry.records import PluginRecord

TIME_LIMIT_S = 60.0
"""After this an example is stopped, and counts as failed."""

FAILS = "EX212"
"""The code of an example that fails."""

_MOST_OUTPUT = 20_000  # characters of one statement that are shown


@dataclass(frozen=True)
class Step:
    """What one statement of an example gave.

    Attributes
    ----------
    output : str
        What was printed, as it was.
    failed : bool
        Whether that is not what the docstring says.
    ran : bool
        False after a failure, and for what is marked ``+SKIP``.
    """

    output: str = ""
    failed: bool = False
    ran: bool = False


@dataclass(frozen=True)
class ExampleRun:
    """What an example gave.

    Attributes
    ----------
    steps : tuple of Step
        One for each statement, in order; empty where the process gave no report.
    error : str
        Why there is no report.
    output : str
        What the process printed, where there is no report.
    """

    steps: tuple[Step, ...] = ()
    error: str = ""
    output: str = ""

    @property
    def failed(self) -> bool:
        """Whether the docstring promises something else."""
        return bool(self.error) or any(step.failed for step in self.steps)


def run_examples(
    records: Iterable[PluginRecord], path: Iterable[str], time_limit_s: float = TIME_LIMIT_S
) -> dict[str, ExampleRun]:
    """Run the examples of all valid plugins, side by side; note a failure among a record's findings.

    Parameters
    ----------
    records : iterable of PluginRecord
        Those that are not loaded, or whose class has no example in Python, are left out.
    path : iterable of str
        Folders to put before ``sys.path`` in the processes.
    time_limit_s : float
        For each example.

    Returns
    -------
    dict
        Qualified name -> what its example gave.
    """
    texts = {record.qualified_name: (record, _text_of(record)) for record in records if record.loaded}
    jobs = {name: (record, text) for name, (record, text) in texts.items() if ">>>" in text}
    folders = list(path)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="examples") as pool:
        futures = {
            name: pool.submit(run_example, record.target, text, folders, time_limit_s)
            for name, (record, text) in jobs.items()
        }
        runs = {name: future.result() for name, future in futures.items()}
    for name, run in runs.items():
        record, _ = jobs[name]
        kept = tuple(finding for finding in record.findings if finding.code != FAILS)
        record.findings = (*kept, Finding(FAILS, _what_failed(run))) if run.failed else kept
    return runs


def _text_of(record: PluginRecord) -> str:
    try:
        return docstrings.documentation_of(record.loaded).examples if record.loaded else ""
    except Exception:  # of a plugin's own objects; its page says so
        return ""


def _what_failed(run: ExampleRun) -> str:
    if run.error:
        said = run.output.strip().splitlines()
        return f"running the example: {run.error}" + (f": {said[-1]}" if said else "")
    number, step = next((number, step) for number, step in enumerate(run.steps, 1) if step.failed)
    gave = step.output.strip().splitlines()[-1:] or ["nothing"]
    return f"statement {number} of the example gives something else than it says: {gave[0]}"


def run_example(
    target: str, text: str, path: Iterable[str] = (), time_limit_s: float = TIME_LIMIT_S
) -> ExampleRun:
    """Run one example in a temporary folder.

    Parameters
    ----------
    target : str
        ``module:Class``; the example sees the names of the module.
    text : str
        The section ``Examples`` of the docstring.
    path : iterable of str
        Folders to put before ``sys.path``.
    time_limit_s : float
        After this the process and what it started are killed.
    """
    with tempfile.TemporaryDirectory(prefix="exengine-example-", ignore_cleanup_errors=True) as folder:
        work = os.path.realpath(folder)
        request = {"target": target, "text": text, "folders": [os.path.abspath(entry) for entry in path]}
        child = run_child("exengine.checks.example_runner", request, time_limit_s=time_limit_s, folder=work)
        if child.answer is None:
            return ExampleRun(error=f"it {child.ending}", output=child.output)
        return ExampleRun(tuple(_step(found, work) for found in child.answer["steps"]))


def _step(found: dict[str, object], work: str) -> Step:
    if not found:
        return Step()
    output = str(found["output"]).replace(work, "/tmp")  # noqa: S108 - what a reader sees, not a place
    return Step(output[:_MOST_OUTPUT], bool(found["failed"]), ran=True)
