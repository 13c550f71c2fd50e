"""The code that loads one plugin in a child process and reports the outcome to the parent process.

This module's functions run only in processes started by :mod:`exengine.kernel.registry.probing`.
"""

import faulthandler
import importlib
import inspect
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from exengine.kernel.registry.loading import load_class
from exengine.kernel.registry.probing import answer
from exengine.kernel.registry.records import PluginRecord
from exengine.kernel.system.fork_server import serve

_NEEDED = (
    "docstring_parser",
    "exengine.kernel.frame_source_base",
    "exengine.kernel.registry.class_checks",
    "exengine.kernel.storage.managed",
    "exengine.kernel.storage.one_file.recorded_file",
    "exengine.kernel.storage.one_file.spooled",
    "numpy",
)
"""The modules that most plugins and the checks of their classes import."""

_STDERR = 2  # the file descriptor, which works even if the plugin replaces sys.stderr


def serve_requests(descriptor: int) -> None:
    """Import what every plugin needs, then fork for each request. A fork runs ``main`` of a module."""
    for module in _NEEDED:
        importlib.import_module(module)
    name, text = serve(descriptor)
    request = json.loads(text)
    del sys.argv[1:]
    sys.path[:] = request["path"]
    importlib.invalidate_caches()  # plugins may have been installed since the server was started
    importlib.import_module(name).main(request)


def main(request: Mapping[str, Any]) -> None:
    """Load the requested plugin, send the answer, and end the process."""
    report_position(request)
    record = PluginRecord(*request["record"])
    record.settle(load_class(record.target, record.group))
    answer(request, {**record.to_dict(), "source": _source_of(record)})


def report_position(request: Mapping[str, Any]) -> None:
    """Arrange for the stack to be printed after a crash, and shortly before the time limit.

    The limit includes the time in which this process was started.
    """
    faulthandler.enable(_STDERR)
    started_s = time.monotonic() - request["begin_s"]
    faulthandler.dump_traceback_later(max(0.9 * request["time_limit_s"] - started_s, 0.1), file=_STDERR)


def _source_of(record: PluginRecord) -> tuple[str, int]:
    """Return the file and line of the class; if these are unknown, the file of the module and line 0."""
    module = sys.modules.get(record.module)
    thing: Any = module
    try:
        for part in record.target.partition(":")[2].split("."):
            thing = getattr(thing, part)
        return inspect.getsourcefile(thing) or "", inspect.getsourcelines(thing)[1]
    except BaseException:  # raised by the plugin; the outcome already describes the fault
        return str(getattr(module, "__file__", None) or ""), 0
