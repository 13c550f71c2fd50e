"""The child's side of probing: loads one plugin and reports the outcome to the parent.

Runs in a process that :mod:`exengine.kernel.registry.probing` starts, and nowhere else.
"""

import faulthandler
import inspect
import sys
from collections.abc import Mapping
from typing import Any

from exengine.kernel.registry.loading import load_class
from exengine.kernel.registry.probing import answer
from exengine.kernel.registry.records import PluginRecord

_STDERR = 2  # even if the plugin replaces sys.stderr


def main(request: Mapping[str, Any]) -> None:
    """Load the plugin of the request, answer, and end the process."""
    report_position(request)
    record = PluginRecord(*request["record"])
    record.settle(load_class(record.target, record.group))
    answer(request, {**record.to_dict(), "source": _source_of(record)})


def report_position(request: Mapping[str, Any]) -> None:
    """Print the stack after a crash, and shortly before the time limit."""
    faulthandler.enable(_STDERR)
    faulthandler.dump_traceback_later(0.9 * request["time_limit_s"], file=_STDERR)


def _source_of(record: PluginRecord) -> tuple[str, int]:
    """Return file and line of the class, or the file of its module, or nothing if neither is known."""
    module = sys.modules.get(record.module)
    thing: Any = module
    try:
        for part in record.target.partition(":")[2].split("."):
            thing = getattr(thing, part)
        return inspect.getsourcefile(thing) or "", inspect.getsourcelines(thing)[1]
    except BaseException:  # raised by the plugin: the outcome has its fault
        return str(getattr(module, "__file__", None) or ""), 0
