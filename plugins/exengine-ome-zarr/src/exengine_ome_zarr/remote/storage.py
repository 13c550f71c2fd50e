"""Writes OME-Zarr to object storage, through a spool on the local disk.

A frame is acknowledged when it is in the spool, where it survives the death of the process. Shards are uploaded
when they are full, verified, and then removed from the spool. A durable flush and ``finish`` upload everything
else. The dataset in the spool is an ordinary one of this backend, apart from the shards that are in the bucket only.

Threads: the files in the spool are changed with the storage's lock held. The upload thread only reads them.
"""

import os
from typing import Any

import numpy.typing as npt

from exengine.base_classes import DataCoordinates, DataStorage, check_options
from exengine.errors import DatasetAccessError, DatasetDamagedError, StorageFailedError
from exengine_ome_zarr import files
from exengine_ome_zarr.capabilities import remote_capabilities
from exengine_ome_zarr.remote import spool
from exengine_ome_zarr.remote.bucket import Bucket
from exengine_ome_zarr.remote.claims import Claim
from exengine_ome_zarr.remote.frames import RemoteFrames
from exengine_ome_zarr.remote.objects import SpooledObjects
from exengine_ome_zarr.remote.reader import open_remote
from exengine_ome_zarr.writer import OmeZarrStorage


class RemoteOmeZarrStorage(OmeZarrStorage):
    """A dataset of the backend ``ome-zarr`` that is written to object storage.

    Parameters
    ----------
    url : str
        The URL of the dataset, such as ``s3://bucket/demo.ome.zarr``.
    overwrite : bool
        Whether to delete a dataset that exists at the URL.
    **options
        The options of the backend.
    """

    def __init__(self, url: str, *, overwrite: bool = False, **options: Any) -> None:
        check_options(OmeZarrStorage, **options)
        self._process = os.getpid()
        self._claim: Claim | None = None
        self._is_concluded = False
        self._ends = self._is_closing = False
        self._url = url
        bucket = Bucket(url)
        self._url = bucket.url
        named_spool = options.get("spool")
        named_spool = None if named_spool is None else os.fspath(named_spool)
        claim = Claim(bucket, named_spool)
        if not overwrite:
            claim.refuse_what_is_there()
        folder = spool.new_folder(named_spool, self._url, claim.token)
        self._objects = SpooledObjects(bucket, folder, options.get("spool_bytes") or spool.DEFAULT_BYTES)
        self._remote_frames: RemoteFrames | None = None
        self._placed: list[tuple[int, int, int, int]] = []
        super().__init__(folder, **options)
        self.capabilities = remote_capabilities(self.capabilities)
        try:
            if overwrite:
                claim.take_over(self._folder)
            else:
                claim.take(self._folder)
            self._claim = claim
        except BaseException as error:
            self.cannot_begin(error)
            spool.remove_folder(folder)
            raise

    @property
    def path(self) -> str | None:
        """The URL of the dataset."""
        return self._url

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        """Open a dataset in object storage for reading."""
        return open_remote(os.fspath(path))

    # -- writing ---------------------------------------------------------------------------------

    def write_frames(self, number: int, batch: list[tuple[DataCoordinates, npt.NDArray[Any], Any]]) -> int:
        """Write frames to the spool. If it is full, wait until there is space."""
        self._objects.remove_uploaded()
        self._objects.make_room(sum(data.nbytes + len(line) for _, data, line in batch[:1]))
        self._placed.clear()
        written = super().write_frames(number, batch)
        layout = self._layout
        assert layout is not None
        for step, (image, t, c, z) in enumerate(self._placed[:written]):
            shard = layout.shard_at(t, c, z)
            name = self._shard_name(image, *shard)
            if self._parts is None:
                size, part = layout.frame_bytes, 0
            else:
                record = self._record(number + step)
                size, part = record[7], record[5]
            full = self._frames_in_shard(image, *shard)
            self._objects.added(name, layout, layout.chunk_number(t, c, z), size, part)
            self._objects.upload_if_full(name, full, self._parts)
        return written

    def _place(self, positions: dict[str, Any], data: npt.NDArray[Any]) -> tuple[int, int, int, int]:
        place = super()._place(positions, data)
        image, t, c, z = place
        assert self._layout is not None
        name = self._shard_name(image, *self._layout.shard_at(t, c, z))
        if name in self._objects.removed:
            # The frame arrives after the shard was thought to be full, because the array has become longer.
            self._objects.bring_back(name, self._layout, self._slots)
        self._placed.append(place)
        return place

    # -- syncing and finishing -------------------------------------------------------------------

    def sync_frames(self) -> None:
        """Sync the spool, and upload everything that is not in the bucket."""
        self._forget_removed()
        super().sync_frames()
        if not self._ends and self._claim is not None:
            self._upload(final=False)
            self._claim.update(self._folder)

    def finish_frames(self) -> None:
        """Finish the files in the spool, and upload them."""
        self._ends = True
        self._forget_removed()
        self._elsewhere = self._objects.removed.keys()
        super().finish_frames()
        if self._claim is not None:
            self._upload(final=True)

    def _upload(self, *, final: bool) -> None:
        ends = {
            files.FRAMES: self._lines.end,
            files.LAYOUT: self._layout_lines.end,
            files.JOURNAL: self._journal.end,
        }
        try:
            self._objects.upload_all(self._parts, ends, final=final)
        except DatasetAccessError as error:
            raise DatasetAccessError(
                f"{error}. The frames are in the spool, {self._folder}; when the store is available again, run "
                f"exengine recover {self._url}"
            ) from error
        self._forget_removed()

    def _forget_removed(self) -> None:
        """Exclude shards that are no longer in the spool from the next sync."""
        self._objects.remove_uploaded()
        for source in (self._slots, self._parts):
            if source is not None:
                for name in self._objects.removed.keys() & source.unsynced.keys():
                    del source.unsynced[name]
        if self._slots is not None:
            for name in self._objects.removed:
                self._slots.forget(name)

    def finish(self) -> None:
        super().finish()
        self._conclude()

    def abort(self, reason: str = "", *, failed: bool = False) -> None:
        super().abort(reason, failed=failed)
        self._conclude()

    def _conclude(self) -> None:
        """Replace the manifest in the bucket by the final one."""
        if self._claim is None or self._is_concluded or not self._is_uploaded:
            return
        try:
            self._claim.update(self._folder, final=True)
        except OSError as error:
            raise StorageFailedError(
                f"{self._url} is uploaded, but could not be marked as finished: {error}; "
                f"run exengine recover {self._url}"
            ) from error
        self._is_concluded = True

    @property
    def _is_uploaded(self) -> bool:
        """Whether the dataset has ended, and all of its files are in the bucket."""
        return self.is_finished() and self._objects.is_complete

    def close(self) -> None:
        """Upload what is in the spool, and close the storage."""
        if self._process != os.getpid() or self._claim is None:
            super().close()
            return
        failure: StorageFailedError | None = None
        if not (self.is_finished() or self._is_closing):
            self._is_closing = True
            try:
                self.flush(durable=True)
            except StorageFailedError as error:
                failure = error
        try:
            super().close()
        finally:
            self._conclude()
            if self._is_concluded:
                spool.remove_folder(self._folder)
        if failure is not None:
            raise failure

    def release(self) -> None:
        """Stop the uploads, and close the files."""
        if self._process == os.getpid():
            self._objects.end()
        super().release()

    # -- reading written frames ------------------------------------------------------------------

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        record = self._record(number)
        _, image, t, c, z, *_ = record
        name = self._files.shard(image, t, c, z)
        if name not in self._objects.removed:
            try:
                return super().read_frame(number)
            except DatasetDamagedError:
                if name not in self._objects.removed:
                    raise
        frames = self._remote_frames
        if frames is None:
            assert self._layout is not None
            frames = self._remote_frames = RemoteFrames(
                self._objects.bucket, self._layout, self._images.array_path
            )
        return frames.read(record, self._name(number))

