"""The code that runs an example in a child process and reports the output of each statement.

This module runs only in a process started by :mod:`exengine.kernel.registry.probing`.
"""

import doctest
import importlib
import os
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from exengine.kernel.registry.probe_child import report_position
from exengine.kernel.registry.probing import answer

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST


def main(request: Mapping[str, Any]) -> None:
    """Run the requested example, send the answer, and end the process."""
    report_position(request)
    os.environ["TMPDIR"] = os.getcwd()  # temporary files will be deleted together with this folder
    answer(request, {"steps": run(request["target"], request["text"])})


def run(target: str, text: str) -> list[dict[str, Any]]:
    """Run an example with access to the names defined in its module, as doctest does.

    Parameters
    ----------
    target : str
        The target of the plugin's entry point, in the form ``module:Class``.
    text : str
        The ``Examples`` section of the docstring.

    Returns
    -------
    list of dict
        A dict with the keys ``output`` and ``failed`` for each statement, or an empty dict for a statement
        that was not run.
    """
    module = importlib.import_module(target.partition(":")[0])
    examples = doctest.DocTestParser().get_examples(text, target)
    runner = _Runner()
    runner.run(doctest.DocTest(examples, dict(vars(module)), target, None, 0, text), clear_globs=False)
    return [runner.steps.get(id(example), {}) for example in examples]


class _Runner(doctest.DocTestRunner):
    """Records the output of each statement without printing anything."""

    def __init__(self) -> None:
        super().__init__(verbose=False, optionflags=FLAGS)
        self.steps: dict[int, dict[str, Any]] = {}

    def _note(self, example: doctest.Example, output: str, *, failed: bool) -> None:
        self.steps[id(example)] = {"output": output, "failed": failed}

    def report_start(self, out: Any, test: doctest.DocTest, example: doctest.Example) -> None:
        pass

    def report_success(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        self._note(example, got, failed=False)

    def report_failure(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        self._note(example, got, failed=True)

    def report_unexpected_exception(
        self,
        out: Any,
        test: doctest.DocTest,
        example: doctest.Example,
        exc_info: tuple[type[BaseException], BaseException, TracebackType],
    ) -> None:
        last = "".join(traceback.format_exception_only(exc_info[1]))
        self._note(example, f"Traceback (most recent call last):\n  ...\n{last}", failed=True)
