"""The module from which pickles of version 1.0 import ``PyramidReader`` and mosaic tiles."""

from exengine_ndstorage.ndtiff.pyramid import PyramidReader, _ReadTile

__all__ = ["PyramidReader", "_ReadTile"]
