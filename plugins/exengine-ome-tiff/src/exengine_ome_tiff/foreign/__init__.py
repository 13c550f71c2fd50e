"""Reads TIFF files written by other programs: OME-TIFF files, ImageJ hyperstacks and multi-page files."""
