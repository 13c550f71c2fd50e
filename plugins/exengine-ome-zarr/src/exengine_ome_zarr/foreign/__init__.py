"""Reads OME-Zarr datasets that other programs wrote.

This package opens OME-Zarr 0.4, 0.5 and 0.6: images, plates, wells and series of images, in folders and in
zip archives. It writes nothing, and imports zarr-python only when the first frame is read.
"""

import os

from exengine.base_classes import DataStorage

__all__ = ["is_ome_zarr", "open_foreign"]


def is_ome_zarr(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder or a zip archive is an OME-Zarr dataset, without raising an exception.

    Parameters
    ----------
    path : path
    """
    from exengine_ome_zarr.foreign.images import is_foreign_dataset

    try:
        return is_foreign_dataset(os.path.abspath(path))
    except Exception:  # the content is untrusted, and any error means that the path cannot be read
        return False


def open_foreign(path: str | os.PathLike[str]) -> DataStorage:
    """Open an OME-Zarr dataset that another program wrote.

    Parameters
    ----------
    path : path
        A folder or a zip archive.

    Returns
    -------
    DataStorage
        A reader that can be pickled.

    Raises
    ------
    DatasetNotFoundError
        If there is no OME-Zarr dataset at the path.
    DatasetDamagedError
        If its metadata cannot be read.
    UnsupportedOperationError
        If it has a data type, a codec or an extension that is not supported.
    """
    from exengine_ome_zarr.foreign.reader import ForeignReader

    return ForeignReader.open(path)
