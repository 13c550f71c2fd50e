"""Writes OME-Zarr to object storage, through a spool on the local disk.

A frame is acknowledged when it is in the spool, where it survives the death of the process. When a shard is
full, it is uploaded and verified, and then removed from the spool. A durable flush and ``finish`` upload
everything else.

Threads: the files in the spool are changed with the storage's lock held. The upload thread only reads them.
"""

import os
from typing import Any

from exengine.base_classes import DataStorage, ManagedStorage
from exengine.errors import StorageFailedError
from exengine_ome_zarr import planning
from exengine_ome_zarr.capabilities import remote_capabilities
from exengine_ome_zarr.frame_writer import FrameWriter
from exengine_ome_zarr.remote import spool
from exengine_ome_zarr.remote.bucket import Bucket
from exengine_ome_zarr.remote.claims import Claim
from exengine_ome_zarr.remote.objects import SpooledObjects
from exengine_ome_zarr.remote.reader import open_remote
from exengine_ome_zarr.remote.spool_writer import SpoolWriter


class RemoteStorage(ManagedStorage):
    """Mixin that claims a URL for a dataset, and uploads and finishes the dataset.

    Among the base classes of a storage, this class precedes the one that writes the dataset to a folder.

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
        planning.refuse_remote(options)
        bucket = Bucket(url)
        self._url = bucket.url
        self._process = os.getpid()
        self._claim: Claim | None = None
        self._is_concluded = self._is_closing = self._is_reported = False
        named = options.get("spool")
        named = None if named is None else os.fspath(named)
        claim = Claim(bucket, named)
        if not overwrite:
            claim.refuse_what_is_there()
        folder = spool.new_folder(named, self._url, claim.token)
        self._objects = SpooledObjects(bucket, folder, options.get("spool_bytes", spool.DEFAULT_BYTES))
        super().__init__(folder, **options)
        self.capabilities = remote_capabilities(self.capabilities)
        try:
            if overwrite:
                claim.take_over(folder)
            else:
                claim.take(folder)
        except BaseException as error:
            self.cannot_begin(error)
            spool.remove_folder(folder)
            raise
        self._claim, self._folder = claim, folder

    def _make_writer(self, folder: str, plan: planning.Planning, layout_bytes: int) -> FrameWriter:
        return SpoolWriter(folder, plan, layout_bytes, self._objects)

    @property
    def path(self) -> str | None:
        """The URL of the dataset."""
        return self._url

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DataStorage:
        """Open a dataset in object storage for reading."""
        return open_remote(os.fspath(path))

    def sync_frames(self) -> None:
        """Upload everything that is not in the bucket."""
        if self._claim is not None:
            self._claim.refuse_if_lost(self._folder)
        super().sync_frames()
        if self._claim is not None:
            self._claim.update(self._folder)

    def finish_frames(self) -> None:
        """Finish the files, and upload them."""
        if self._claim is not None:
            self._claim.refuse_if_lost(self._folder)
        super().finish_frames()

    # -- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        super().finish()
        self._conclude()

    def abort(self, reason: str = "", *, failed: bool = False) -> None:
        super().abort(reason, failed=failed)
        self._conclude()

    def _conclude(self) -> None:
        """Replace the manifest in the bucket with the final one, if everything else has been uploaded."""
        if self._claim is None or self._is_concluded:
            return
        if not (self.is_finished() and self._objects.is_complete):
            return
        try:
            self._claim.update(self._folder, final=True)
        except OSError as error:
            self._is_reported = True
            raise StorageFailedError(
                f"{self._url} was uploaded, but could not be marked as finished: {error}; run "
                f"exengine recover {self._url}"
            ) from error
        self._is_concluded = True

    def close(self) -> None:
        """Upload the spool, and close the storage."""
        if self._claim is None or self._process != os.getpid():
            super().close()
            return
        failure: StorageFailedError | None = None
        if not (self.is_finished() or self._is_closing):
            try:
                self.flush(durable=True)
            except StorageFailedError as error:
                failure = error
        self._is_closing = True
        try:
            super().close()
        finally:
            if not self._is_reported:
                self._conclude()
            if self._is_concluded:
                spool.remove_folder(self._folder)
        if failure is not None:
            raise failure
