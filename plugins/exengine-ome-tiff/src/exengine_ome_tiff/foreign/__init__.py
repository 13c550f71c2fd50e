"""Reads TIFF files that other programs wrote: OME-TIFF, ImageJ's hyperstacks, and stacks of pages."""
