"""Micro-Manager hardware as a frame source of ExEngine.

Importing this module imports neither pymmcore-plus nor the device adapters; the source does, when it
is prepared.
"""

from exengine_micromanager.source import MicroManagerSource

__all__ = ["MicroManagerSource"]
__version__ = "1.0.0"
