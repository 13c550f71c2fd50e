"""Import location of ``Version2Reader`` in pickles that version 1.0 created."""

from exengine_ndstorage.ndtiff.version2 import Version2Reader

__all__ = ["Version2Reader"]
