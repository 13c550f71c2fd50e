"""Writes the frames of a dataset to its spool, and uploads its shards.

The files in the spool are those of an ordinary dataset, apart from shards that exist only in the bucket.
"""

import os
from collections.abc import Collection
from typing import Any

import numpy.typing as npt

from exengine.errors import DatasetAccessError, DatasetDamagedError
from exengine_ome_zarr.format import files
from exengine_ome_zarr.format.frame_reading import FrameName
from exengine_ome_zarr.frame_writer import Batch, FrameWriter
from exengine_ome_zarr.planning import Planning
from exengine_ome_zarr.remote.contents import RemoteFrames
from exengine_ome_zarr.remote.objects import SpooledObjects


class SpoolWriter(FrameWriter):
    """Writes the frames of a new dataset to the spool.

    Parameters
    ----------
    folder : str
        The folder of the dataset in the spool.
    plan : Planning
    layout_bytes : int
        As for :class:`FrameWriter`.
    objects : SpooledObjects
    """

    def __init__(self, folder: str, plan: Planning, layout_bytes: int, objects: SpooledObjects) -> None:
        super().__init__(folder, plan, layout_bytes)
        self._objects = objects
        self._placed: list[tuple[int, int, int, int]] = []  # the frames of the batch that is being written
        self._is_ending = False
        self._process = os.getpid()
        self._remote_frames: RemoteFrames | None = None

    # -- writing ---------------------------------------------------------------------------------

    def write(self, number: int, batch: Batch) -> int:
        """Write frames to the spool. If it is full, wait until there is space."""
        self._forget_removed()
        self._objects.make_room(batch[0][1].nbytes)
        self._forget_removed()
        self._placed.clear()
        written = super().write(number, batch)
        layout = self.layout
        assert layout is not None
        for step, (image, t, c, z) in enumerate(self._placed[:written]):
            shard = layout.shard_at(t, c, z)
            name = self.shard_name((image, *shard))
            size, part = layout.frame_bytes, 0
            if self._parts is not None:
                _, _, _, _, _, part, _, size, *_ = self._record(number + step)
            self._objects.added(name, layout, layout.chunk_number(t, c, z), size, part)
            self._objects.upload_if_full(name, self._frames_in_shard(image, t, c, z), self._parts)
        return written

    def _place(self, positions: dict[str, Any], data: npt.NDArray[Any]) -> tuple[int, int, int, int]:
        image, t, c, z = place = super()._place(positions, data)
        if self._objects.removed:
            assert self.layout is not None
            name = self.shard_name((image, *self.layout.shard_at(t, c, z)))
            if name in self._objects.removed:
                # The shard was full when it was uploaded, but the array has since become longer.
                self._objects.bring_back(name, self.layout, self._slots)
        self._placed.append(place)
        return place

    def _forget_removed(self) -> None:
        """Remove uploaded shards from the spool, and from the list of files to sync."""
        for name in self._objects.remove_uploaded():
            if self._slots is not None:
                self._slots.forget(name)
            if self._parts is not None:
                self._parts.unsynced.pop(name, None)

    # -- syncing and finishing -------------------------------------------------------------------

    def sync(self) -> None:
        """Sync the spool, and upload everything that is not in the bucket.

        While the dataset is being finished, nothing is uploaded.
        """
        self._forget_removed()
        super().sync()
        if not self._is_ending:
            self._upload(final=False)

    def finish(self, frames: int) -> None:
        """Finish the files in the spool, and upload them."""
        self._is_ending = True
        super().finish(frames)
        self._upload(final=True)

    def _shards_elsewhere(self) -> Collection[str]:
        return self._objects.removed.keys()

    def _upload(self, *, final: bool) -> None:
        ends = {
            files.FRAMES: self._lines.end,
            files.LAYOUT: self._layout_lines.end,
            files.JOURNAL: self._journal.end,
        }
        try:
            self._objects.upload_all(self._parts, ends, final=final)
        except DatasetAccessError as error:
            url = self._objects.bucket.url
            raise DatasetAccessError(
                f"{error}. The frames are in the spool, {self._folder}; when the store is available again, "
                f"run exengine recover {url}"
            ) from error
        self._forget_removed()

    def release(self) -> None:
        """Stop the uploads, and close the files."""
        if self._process == os.getpid():  # after a fork, the threads belong to the parent
            self._objects.end()
        super().release()

    # -- reading written frames ------------------------------------------------------------------

    def read(self, number: int) -> npt.NDArray[Any]:
        """Return the pixels of a frame, from the spool or from the bucket."""
        record = self._record(number)
        _, image, t, c, z, *_ = record
        name, removed = self._files.shard(image, t, c, z), self._objects.removed
        if name not in removed:
            try:
                return super().read(number)
            except DatasetDamagedError:
                if name not in removed:  # otherwise, the shard has just been uploaded and removed
                    raise
        frames = self._remote_frames
        if frames is None:
            assert self.layout is not None
            frames = RemoteFrames(self._objects.bucket, self.layout, self._images.array_path)
            self._remote_frames = frames
        return frames.read(record, FrameName(self._name, number))

    def _name(self, number: int) -> str:
        return f"frame {number} of {self._objects.bucket.url}"
