"""Reads a frame using only zarr-python and the OME metadata, as any other program would.

While a dataset is being written, and after its writer was killed, the conformance kit compares such reads
with the frames that were stored (promise C6). The journal of this backend is not used.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_AXES = {"t": "time", "c": "channel", "z": "z"}


def read_frame(path: str, coordinates: Mapping[str, int | str]) -> npt.NDArray[Any]:
    """Return the pixels of a frame as an array ``(Y, X)``, with zeros if the frame is not stored.

    Parameters
    ----------
    path : str
        The folder of the dataset.
    coordinates : mapping of str to int or str
        Integer positions must be indices; string positions must be channel labels or image names.

    Raises
    ------
    KeyError, IndexError
        If the metadata does not contain a position.
    """
    import zarr

    image = zarr.open_group(path, mode="r", use_consolidated=False)
    if "position" in coordinates:
        image = _image_of(image, str(coordinates["position"]))
    ome: Any = image.attrs["ome"]
    index: list[int] = []
    for axis in ome["multiscales"][0]["axes"][:-2]:
        position = coordinates[_AXES.get(axis["name"], axis["name"])]
        if isinstance(position, str):
            position = [channel["label"] for channel in ome["omero"]["channels"]].index(position)
        index.append(position)
    array: Any = image["0"]
    return np.asarray(array[tuple(index)])


def _image_of(root: Any, name: str) -> Any:
    """Look up the image of a position in the OME series, by the name of the position."""
    for path in root["OME"].attrs["ome"]["series"]:
        if root[path].attrs["ome"]["multiscales"][0]["name"] == name:
            return root[path]
    raise KeyError(name)
