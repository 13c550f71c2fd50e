"""Datasets of one file, such as ``scan.h5``: the file, and what lies next to it while it is written."""
