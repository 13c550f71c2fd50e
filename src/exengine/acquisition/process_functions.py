"""The registry of process functions, so that a config can name one without an import path.

A distribution registers a function in the entry-point group ``exengine.process_functions``. The data handler
calls it as ``function(coordinates, data, metadata)``. A function is imported and checked when a config
selects it. It must accept these three arguments and have a docstring.
"""

import inspect
import sys
from typing import Any

from exengine.kernel.errors import describe
from exengine.kernel.registry.loading import import_target, user_interrupt
from exengine.kernel.registry.names import PROCESS_FUNCTIONS_GROUP
from exengine.kernel.registry.plugins import PluginRegistry
from exengine.kernel.registry.records import Outcome, PluginRecord, broken


class ProcessFunctionRegistry(PluginRegistry):
    """A registry of installed process functions."""

    def _load(self, record: PluginRecord) -> Outcome:
        with user_interrupt() as interrupted:
            value, fault, output = import_target(record.target, interrupted)
        if interrupted():
            raise KeyboardInterrupt
        if fault is not None:
            return fault
        refusal = _refusal_of(value)
        if refusal:
            return broken("contract", f"{record.target} {refusal}", output=output)
        return Outcome("valid", output=output, loaded=value)


def _refusal_of(value: Any) -> str:
    """Return the reason why an object is not a valid process function, or ``""`` if it is valid."""
    if isinstance(value, type):
        return "is a class, not a function"
    if not callable(value):
        return f"must be a function, got {type(value).__name__}"
    try:
        inspect.signature(value).bind(None, None, None)
    except (TypeError, ValueError) as error:
        return f"does not accept (coordinates, data, metadata): {describe(error)}"
    if not (inspect.getdoc(value) or "").strip() and sys.flags.optimize < 2:
        return "has no docstring; add one that describes in one sentence how frames are changed"
    return ""


PROCESS_FUNCTIONS = ProcessFunctionRegistry(PROCESS_FUNCTIONS_GROUP, "process function")
"""The installed process functions."""
