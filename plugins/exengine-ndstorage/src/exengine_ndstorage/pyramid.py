"""The address of ``PyramidReader``, and of the tiles of a mosaic, in pickles of version 1.0."""

from exengine_ndstorage.ndtiff.pyramid import PyramidReader, _ReadTile

__all__ = ["PyramidReader", "_ReadTile"]
