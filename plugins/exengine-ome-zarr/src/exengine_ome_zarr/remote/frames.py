"""Reads the frames of a dataset in object storage, with range requests."""

from collections.abc import Callable

from exengine_ome_zarr.format.frame_reading import FrameReading
from exengine_ome_zarr.format.layout import Layout
from exengine_ome_zarr.remote.bucket import Bucket


class RemoteFrames(FrameReading):
    """The shards and parts of a dataset in a bucket.

    Its methods raise ``DatasetAccessError`` if the store does not answer.

    Parameters
    ----------
    bucket : Bucket
    layout : Layout
    array_path : callable
        Returns the path of an image's array in the dataset.
    """

    def __init__(self, bucket: Bucket, layout: Layout, array_path: Callable[[int], str]) -> None:
        super().__init__(layout, array_path)
        self._bucket = bucket

    def read_bytes(self, path: str, offset: int, length: int) -> bytes | None:
        return self._bucket.read_range(path, offset, length)

    def read_end(self, path: str, length: int) -> bytes | None:
        return self._bucket.read_end(path, length)
