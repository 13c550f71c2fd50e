"""Micro-Manager hardware as a frame source for ExEngine, and tools for a user's own pymmcore-plus core.

Importing this module neither imports pymmcore-plus nor loads device adapters. pymmcore-plus is imported when
one of the names for a user's own core is imported.
"""

from typing import TYPE_CHECKING

from exengine_micromanager.source import MicroManagerSource

if TYPE_CHECKING:
    from exengine_micromanager.user_core.recording import recording
    from exengine_micromanager.user_core.safe_engine import MicroManagerEngine
    from exengine_micromanager.user_core.sink import ExEngineSink

__all__ = ["ExEngineSink", "MicroManagerEngine", "MicroManagerSource", "recording"]
__version__ = "1.0.0"

_HOMES = {"ExEngineSink": "sink", "MicroManagerEngine": "safe_engine", "recording": "recording"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.user_core.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
