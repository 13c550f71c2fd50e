"""Single-file datasets, such as ``scan.h5``: the file, and the files next to it."""
