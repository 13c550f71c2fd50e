"""Micro-Manager hardware as a frame source for ExEngine.

Importing this module does not import pymmcore-plus or load any device adapters. The source does both in
``prepare``.
"""

from exengine_micromanager.source import MicroManagerSource

__all__ = ["MicroManagerSource"]
__version__ = "1.0.0"
