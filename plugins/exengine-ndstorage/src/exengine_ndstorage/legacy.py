"""The module from which pickles of version 1.0 import ``Version2Reader``."""

from exengine_ndstorage.ndtiff.version2 import Version2Reader

__all__ = ["Version2Reader"]
