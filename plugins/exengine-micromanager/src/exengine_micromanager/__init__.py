"""Micro-Manager hardware as a frame source for ExEngine, and ExEngine as an output for pymmcore-plus.

Importing this module does not import pymmcore-plus or load any device adapters. The source does both in
``prepare``.
"""

from exengine_micromanager.source import MicroManagerSource
from exengine_micromanager.user_core.recording import recording
from exengine_micromanager.user_core.sink import ExEngineSink

__all__ = ["ExEngineSink", "MicroManagerSource", "recording"]
__version__ = "1.0.0"
