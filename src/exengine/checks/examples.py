"""Runs each plugin's example once, in its own process and temporary folder.

The result contains the output of each statement, or describes how the process ended if it crashed or did not
end in time. As with doctest, the example can use the names defined in its module.
:mod:`exengine.checks.example_child` contains the code that runs in the child process.
"""

import doctest
import os
import tempfile
import textwrap
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from exengine.kernel.registry import docstrings
from exengine.kernel.registry.probing import run_child
from exengine.kernel.registry.records import PluginRecord

TIME_LIMIT_S = 60.0
"""Time limit for the example of one class, in seconds."""

_MOST_OUTPUT = 20_000  # maximum length of the output of one statement
_MOST_MESSAGE = 2_000


@dataclass(frozen=True)
class Step:
    """The result of one statement.

    Attributes
    ----------
    output : str
        The text that the statement printed.
    failed : bool
        Whether the output differs from the output in the docstring.
    ran : bool
        Whether the statement was run. False for any statement that follows a failure, and for a statement
        marked ``+SKIP``.
    """

    output: str = ""
    failed: bool = False
    ran: bool = False


@dataclass(frozen=True)
class ExampleRun:
    """The result of running an example.

    Attributes
    ----------
    steps : tuple of Step
        One step for each statement, in order; empty if the process ended without a report.
    error : str
        How the process ended, if it ended without a report; otherwise empty.
    output : str
        The text that the process printed, if it ended without a report; otherwise empty.
    """

    steps: tuple[Step, ...] = ()
    error: str = ""
    output: str = ""

    @property
    def failed(self) -> bool:
        """Whether any output differs from the docstring, or the process ended without a report."""
        return bool(self.error) or any(step.failed for step in self.steps)


def statements_of(text: str) -> list[doctest.Example]:
    """Return the statements in an example.

    Raises
    ------
    ValueError
        If the prompts or the indentation are inconsistent.
    """
    return doctest.DocTestParser().get_examples(text)


def run_examples(records: Iterable[PluginRecord]) -> dict[PluginRecord, ExampleRun]:
    """Run the examples of all valid plugins, several at a time.

    Parameters
    ----------
    records : iterable of PluginRecord
        Records of plugins.

    Returns
    -------
    dict
        Maps each record to the result of its example. Records without a loaded class or a runnable example
        are omitted.
    """
    texts = {record: text for record in records if (text := _runnable_text(record))}
    if not texts:
        return {}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="exengine-example") as pool:
        runs = pool.map(run_example, [record.target for record in texts], texts.values())
        return dict(zip(texts, runs, strict=True))


def _runnable_text(record: PluginRecord) -> str:
    if record.loaded is None:
        return ""
    try:
        text = docstrings.documentation_of(record.loaded).examples
        runs = any(not statement.options.get(doctest.SKIP) for statement in statements_of(text))
    except Exception:  # objects from the plugin can raise any exception; the documentation check reports it
        return ""
    return text if runs else ""


def run_example(target: str, text: str, time_limit_s: float = TIME_LIMIT_S) -> ExampleRun:
    """Run one example.

    Parameters
    ----------
    target : str
        The target of the plugin's entry point, in the form ``module:Class``.
    text : str
        The ``Examples`` section of the docstring.
    time_limit_s : float
        Time in seconds after which the process and every process in its group are killed.
    """
    with tempfile.TemporaryDirectory(prefix="exengine-example-", ignore_cleanup_errors=True) as folder:
        work = os.path.realpath(folder)
        request = {"target": target, "text": text}
        child = run_child("exengine.checks.example_child", request, time_limit_s=time_limit_s, folder=work)
    if child.answer is None:
        return ExampleRun(error=f"it {child.ending}", output=child.output)
    return ExampleRun(tuple(_step(found, work) for found in child.answer["steps"]))


def _step(found: dict[str, object], work: str) -> Step:
    if not found:
        return Step()
    output = str(found["output"]).replace(work, "/tmp")  # noqa: S108 - shown to readers, never opened
    return Step(output[:_MOST_OUTPUT], bool(found["failed"]), ran=True)


def fault_of(text: str, run: ExampleRun) -> str:
    r"""Return a description of the first fault in a failed example.

    Examples
    --------
    >>> print(fault_of(">>> 6 * 7\n41\n", ExampleRun((Step("42\n", failed=True, ran=True),))))
    statement 1, 6 * 7
    Expected:
        41
    Got:
        42
    """
    if run.error:
        said = run.output.strip()
        return (run.error + (f"\n{said}" if said else ""))[:_MOST_MESSAGE]
    number, step = next((number, step) for number, step in enumerate(run.steps) if step.failed)
    statement = statements_of(text)[number]
    fault = [f"statement {number + 1}, {statement.source.strip()}"]
    fault += _shown("Expected", statement.want)
    fault += _shown("Got", step.output)
    return "\n".join(fault)[:_MOST_MESSAGE]


def _shown(label: str, text: str) -> list[str]:
    return [f"{label}:", textwrap.indent(text.rstrip("\n"), "    ")] if text.strip() else [f"{label} nothing"]
