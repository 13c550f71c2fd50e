"""Import location of ``PyramidReader`` and of mosaic tiles in pickles that version 1.0 created."""

from exengine_ndstorage.ndtiff.pyramid import PyramidReader, _ReadTile

__all__ = ["PyramidReader", "_ReadTile"]
