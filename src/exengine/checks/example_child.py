"""The child's side of running an example: runs it as doctest does, and tells its first fault.

Runs in a process that :mod:`exengine.kernel.registry.probing` starts, and nowhere else.
"""

import doctest
import importlib
import io
from collections.abc import Mapping
from typing import Any

from exengine.kernel.registry.probe_child import show_where_it_stands
from exengine.kernel.registry.probing import answer


def main(request: Mapping[str, Any]) -> None:
    """Run the example of the request, answer, and end the process."""
    show_where_it_stands(request)
    answer(request, {"fault": _run(request["target"], request["text"], request["flags"])})


def _run(target: str, text: str, flags: int) -> str:
    module = importlib.import_module(target.partition(":")[0])
    examples = doctest.DocTestParser().get_examples(text, target)
    test = doctest.DocTest(examples, dict(vars(module)), "example", None, 0, text)
    said = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False, optionflags=flags | doctest.FAIL_FAST)
    runner.run(test, out=said.write)
    return _without_frame(said.getvalue())


def _without_frame(report: str) -> str:
    """Return the report of a failure without its ruler and its place, which the reader knows."""
    lines = [line for line in report.splitlines() if not line.startswith(("*" * 20, "File ", "Line "))]
    return "\n".join(lines).strip()[:2000]
