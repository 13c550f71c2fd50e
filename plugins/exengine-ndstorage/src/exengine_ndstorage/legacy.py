"""The address of ``Version2Reader`` in pickles of version 1.0."""

from exengine_ndstorage.ndtiff.version2 import Version2Reader

__all__ = ["Version2Reader"]
