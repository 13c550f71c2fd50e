"""The manifest of a dataset in a bucket, by which a writer claims the dataset.

A claim is a conditional request that creates ``exengine.json``, so exactly one of several writers succeeds.
While the dataset is incomplete, the manifest identifies its writer. Every later change is conditional, too,
so a writer notices if a recovery has taken over its dataset.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from typing import Any

from exengine.base_classes import DatasetStatus, FilePatterns, Manifest, has_writer, read_manifest
from exengine.errors import DatasetAccessError, DatasetDamagedError, DatasetExistsError, DatasetLockedError
from exengine_ome_zarr.capabilities import BACKEND_NAME
from exengine_ome_zarr.format.files import DATASET_FILES
from exengine_ome_zarr.remote import spool
from exengine_ome_zarr.remote.bucket import Bucket, Tag

MANIFEST = "exengine.json"
MAX_BYTES = 16 * 2**20
_OWN = (MANIFEST, "exengine.lock")


@dataclass(frozen=True)
class Writer:
    """The writer that is recorded in a manifest.

    Attributes
    ----------
    host : str
    process : int
    started : str
        The time at which the writer created the dataset.
    token : str
        The token at the end of the folder's name in the spool.
    spool : str or None
        The spool, if an option specified it.
    """

    host: str
    process: int
    started: str
    token: str
    spool: str | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> "Writer | None":
        """Return the writer that is recorded in a manifest, or None."""
        value = manifest.get("writer")
        if not isinstance(value, dict):
            return None
        host, token, place = (value.get(key) for key in ("host", "token", "spool"))
        process = value.get("process")
        return cls(
            host if isinstance(host, str) else "an unknown machine",
            process if isinstance(process, int) else 0,
            str(manifest.get("created", "an unknown time"))[:40],
            token if isinstance(token, str) else "",
            place if isinstance(place, str) else None,
        )

    @property
    def is_here(self) -> bool:
        """Whether the writer runs, or ran, on this machine."""
        return self.host == socket.gethostname()

    @property
    def folder(self) -> str | None:
        """The folder of the dataset in the spool of this machine, or None if there is none."""
        return spool.find_folder(self.spool, self.token)

    @property
    def is_active(self) -> bool:
        """Whether the writer is active. If it runs on another machine, it is assumed to be active."""
        folder = self.folder
        return has_writer(folder) if folder is not None else not self.is_here

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.started}"


def read_remote_manifest(bucket: Bucket) -> tuple[Manifest, Tag] | None:
    """Return the manifest of a dataset and its version, or None if there is none.

    Raises
    ------
    DatasetDamagedError
        If the object is not a manifest.
    """
    found = bucket.get(MANIFEST, MAX_BYTES)
    if found is None:
        return None
    try:
        return Manifest.parse(found[0]), found[1]
    except (ValueError, RecursionError) as error:
        raise DatasetDamagedError(f"{bucket.url}/{MANIFEST} is not a valid manifest: {error}") from None


class Claim:
    """The right to write a dataset in a bucket.

    Parameters
    ----------
    bucket : Bucket
    named_spool : str or None
        The spool, if an option specifies it.
    token : str, optional
        The token of the claim to continue; by default, a new one.
    tag : dict, optional
        The manifest version of the claim to continue.
    """

    def __init__(
        self, bucket: Bucket, named_spool: str | None = None, token: str = "", tag: Tag | None = None
    ) -> None:
        self._bucket = bucket
        self.token = token or secrets.token_hex(8)
        self._tag = tag
        self._stored: bytes | None = None
        self._writer: dict[str, Any] = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "token": self.token,
        }
        if named_spool is not None:
            self._writer["spool"] = os.path.abspath(os.path.expanduser(named_spool))

    def refuse_what_is_there(self) -> None:
        """Raise an error if there is anything at the URL."""
        url = self._bucket.url
        if next(self._bucket.objects(), None) is None:
            return
        found = read_remote_manifest(self._bucket)
        if found is None:
            raise DatasetExistsError(f"{url} contains objects, but no dataset; choose another URL")
        refuse_writer(url, found[0])
        raise DatasetExistsError(
            f"{url} already exists; choose another URL, or set if_exists: number to add a number (overwrite "
            "deletes an old dataset)"
        )

    def take(self, folder: str) -> None:
        """Create the manifest from the one in the spool.

        Raises
        ------
        DatasetExistsError, DatasetLockedError
            If another writer was faster.
        """
        text = self._text(folder)
        tag = self._bucket.put_if(MANIFEST, text, None)
        if tag is None:
            self.refuse_what_is_there()
            raise DatasetLockedError(
                f"{self._bucket.url} was claimed and deleted by another writer; try again"
            )
        self._tag, self._stored = tag, text

    def take_over(self, folder: str) -> None:
        """Delete the dataset at the URL, and claim the URL. Raise an error if anything else is there.

        The manifest is replaced first. If two processes overwrite a dataset, one of them is therefore refused
        before it deletes anything.
        """
        bucket, url = self._bucket, self._bucket.url
        found = read_remote_manifest(bucket)
        if found is None:
            if next(bucket.objects(), None) is not None:
                raise _kept(url, f"it has no {MANIFEST}, so it is not an ExEngine dataset")
            self.take(folder)
            return
        manifest, tag = found
        names = list_own_objects(bucket, manifest)
        text = self._text(folder)
        new = bucket.put_if(MANIFEST, text, tag)
        if new is None:
            raise DatasetLockedError(f"{url} is being overwritten by another process; try again")
        self._tag, self._stored = new, text
        bucket.delete(names)

    def refuse_if_lost(self, folder: str) -> None:
        """Before anything is uploaded, raise an error if another process has taken over the dataset.

        Raises
        ------
        DatasetAccessError
        """
        found = self._bucket.head(MANIFEST)
        if found is None or self._tag is None or found[1] != self._tag.get("e_tag"):
            raise self._lost(folder)

    def _lost(self, folder: str) -> DatasetAccessError:
        return DatasetAccessError(
            f"{self._bucket.url} was taken over by another process, such as a recovery; the frames since the "
            f"last durable flush are in {folder}"
        )

    def update(self, folder: str, *, final: bool = False) -> None:
        """If the manifest in the spool has changed, replace the manifest in the bucket with it.

        Parameters
        ----------
        folder : str
            The folder of the dataset in the spool.
        final : bool
            Whether the dataset is finished and the manifest therefore no longer identifies a writer.

        Raises
        ------
        DatasetAccessError
            If another process has taken over the dataset.
        """
        text = self._text(folder, is_written=not final)
        if text == self._stored:
            return
        tag = self._bucket.put_if(MANIFEST, text, self._tag)
        if tag is None:
            raise self._lost(folder)
        self._tag, self._stored = tag, text

    def _text(self, folder: str, *, is_written: bool = True) -> bytes:
        manifest = read_manifest(folder)
        if manifest is None:
            raise DatasetAccessError(f"{folder} was removed while the dataset was being written")
        content = dict(manifest)
        if is_written:
            content.update(status=DatasetStatus.INCOMPLETE.value, writer=self._writer)
        return Manifest.encode(content)


def refuse_writer(url: str, manifest: Manifest) -> None:
    """Raise ``DatasetLockedError``, with a message about the writer, if a dataset is not finished."""
    if manifest.status is not DatasetStatus.INCOMPLETE:
        return
    writer = Writer.of(manifest)
    if writer is None or writer.is_active:
        raise DatasetLockedError(
            f"{url} is being written by {writer or 'another storage'}; choose another URL. If the "
            f"writing process has died, run exengine recover {url} on the machine where it ran"
        )
    raise DatasetLockedError(
        f"{url} was being written by {writer}, which has died; run exengine recover {url} first"
    )


def list_own_objects(bucket: Bucket, manifest: Manifest) -> list[str]:
    """Return the names of all objects of a finished dataset, except its manifest.

    Raises
    ------
    DatasetExistsError
        If anything at the URL is not part of a dataset that this backend wrote.
    DatasetLockedError
        If the dataset is not finished.
    """
    url = bucket.url
    if manifest.backend != BACKEND_NAME:
        raise _kept(url, f"it was written by the backend {manifest.backend!r:.80}")
    refuse_writer(url, manifest)
    try:
        patterns = [FilePatterns(DATASET_FILES)]
        if manifest.files is not None:
            patterns.append(FilePatterns(manifest.files))
    except (TypeError, ValueError) as error:
        raise _kept(url, f"the names of its objects are unknown ({error})") from None
    names = []
    for name, _ in bucket.objects():
        if name in _OWN:
            continue
        if not all(each.match_file(name) for each in patterns):
            raise _kept(url, f"it contains {name!r:.200}, which is not part of the dataset")
        names.append(name)
    return names


def _kept(url: str, why: str) -> DatasetExistsError:
    return DatasetExistsError(
        f"{url} was not deleted: {why}. if_exists: overwrite deletes an ExEngine dataset only if nothing "
        "else is at its URL; delete everything at the URL yourself, or choose another URL"
    )
