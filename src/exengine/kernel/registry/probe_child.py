"""The child's side of probing: loads one plugin and tells its parent what was found.

Runs in a process that :mod:`exengine.kernel.registry.probing` starts, and nowhere else.
"""

import faulthandler
import inspect
import sys
from collections.abc import Mapping
from typing import Any

from exengine.kernel.registry.plugins import PluginRegistry
from exengine.kernel.registry.probing import answer
from exengine.kernel.registry.records import PluginRecord

_STDERR = 2  # whatever the plugin does with sys.stderr


def main(request: Mapping[str, Any]) -> None:
    """Load the plugin that the request describes, answer, and end the process."""
    show_where_it_stands(request)
    record = PluginRecord(*request["record"])
    PluginRegistry(request["group"], request["kind"]).examine(record)
    answer(request, {**record.to_dict(), "source": _source_of(record)})


def show_where_it_stands(request: Mapping[str, Any]) -> None:
    """Make a crash, and a time limit that is nearly over, print where the code stands."""
    faulthandler.enable(_STDERR)
    faulthandler.dump_traceback_later(0.9 * request["time_limit_s"], file=_STDERR)


def _source_of(record: PluginRecord) -> tuple[str, int]:
    """Return file and line of the class, or of its module, or nothing where neither is known."""
    module = sys.modules.get(record.target.partition(":")[0])
    thing: Any = module
    try:
        for part in record.target.partition(":")[2].split("."):
            thing = getattr(thing, part)
        return inspect.getsourcefile(thing) or "", inspect.getsourcelines(thing)[1]
    except BaseException:  # of the plugin: the record says what is wrong with it
        return str(getattr(module, "__file__", None) or ""), 0
