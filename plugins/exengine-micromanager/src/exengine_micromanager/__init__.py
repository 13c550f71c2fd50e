"""Micro-Manager hardware as a frame source for ExEngine, and ExEngine for a user's own pymmcore-plus core.

Importing this module does not import pymmcore-plus or load any device adapters. ``MicroManagerEngine`` is
imported on first use, because it is a class of pymmcore-plus.
"""

from typing import TYPE_CHECKING

from exengine_micromanager.source import MicroManagerSource
from exengine_micromanager.user_core.recording import recording
from exengine_micromanager.user_core.sink import ExEngineSink

if TYPE_CHECKING:
    from exengine_micromanager.user_core.safe_engine import MicroManagerEngine

__all__ = ["ExEngineSink", "MicroManagerEngine", "MicroManagerSource", "recording"]
__version__ = "1.0.0"


def __getattr__(name: str) -> object:
    if name != "MicroManagerEngine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from exengine_micromanager.user_core.safe_engine import MicroManagerEngine

    return MicroManagerEngine
