"""The location of a single-file dataset that is being written: the file, its lock and its manifest.

For ``scan.h5``, the manifest is ``scan.h5.exengine.json`` and the lock is ``scan.h5.exengine.lock``, which
exists only while a writer is active, or after a writer was killed. Other files of the backend, such as a
journal, also have names that begin with ``scan.h5.exengine.``.

A claim takes the lock, writes the manifest, and then makes the file visible by renaming it. If two writers
race for a path, exactly one wins. A manifest without a file either was left by a claim that was killed, or
belongs to a file that was moved away. Only a manifest of the first kind is replaced.
"""

import errno
import hashlib
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, ClassVar

from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import DatasetExistsError, DatasetLockedError
from exengine.kernel.storage import manifest
from exengine.kernel.storage.building import cannot_create, make_parents
from exengine.kernel.storage.file_patterns import FILE, parts_beside
from exengine.kernel.storage.place import CREATED, DatasetPlace
from exengine.kernel.system import files

NEW = "exengine.new"
"""The suffix of the path at which a new version of a dataset's file is written."""
OWN_PARTS = (manifest.MANIFEST_NAME, f"{manifest.MANIFEST_NAME}.new", manifest.LOCK_NAME, NEW)
"""The suffixes of ExEngine's own files next to a single-file dataset."""
_BLOCKS, _BLOCK_BYTES = 64, 4096


class FilePlace(DatasetPlace):
    """A claimed file, created by :meth:`claim` or :meth:`reclaim`. See :class:`DatasetPlace`."""

    one_file: ClassVar[bool] = True

    def __init__(self, path: str, lock: int, content: dict[str, Any], made: tuple[str, ...] = ()) -> None:
        super().__init__(path, lock, content, made)
        self._owner = os.getpid()

    @classmethod
    def claim(
        cls,
        path: str,
        backend: str,
        patterns: Sequence[str] = (),
        initial: Mapping[str, bytes] = MappingProxyType({}),
    ) -> "FilePlace":
        """Create the file of a new dataset, with its lock and its first manifest next to it.

        Parameters
        ----------
        path : str
            An unused path. A leading ``~`` is expanded. Missing parent folders are created.
        backend, patterns
            See :meth:`DatasetPlace.claim`.
        initial : mapping of str to bytes
            The initial content of the file, under the key ``{file}``.

        Raises
        ------
        DatasetExistsError, DatasetLockedError, DatasetAccessError
        TypeError
            If the content of the file is missing, or if content is given for another file.
        """
        if [*initial] != [FILE]:
            raise TypeError(f"initial_files of a single-file dataset must have only the key {FILE!r}")
        if not path or "\0" in path or files.UNUSUAL.search(path):
            path = cls._usable(path)
        path = os.path.realpath(path)
        lock = None
        written: list[str] = []
        new = f"{path}.{NEW}"
        try:
            made = make_parents(os.path.dirname(path))
            cls._refuse_what_is_there(path)
            lock = cls._take_lock(path)
            if lock is None:
                raise DatasetLockedError(f"{path} is being created by another storage; choose another path")
            cls._refuse_what_is_there(path)
            cls._refuse_what_is_beside(path, parts_beside(patterns) or ())
            with os.fdopen(files.open_new(new), "wb") as file:
                written.append(new)
                file.write(initial[FILE])
                file.flush()
                os.fsync(file.fileno())
            content = {
                "backend": backend,
                "status": DatasetStatus.INCOMPLETE.value,
                "created": time.strftime(CREATED, time.gmtime()),
                "annotations": {},
                "files": list(patterns),
                "id": uuid.uuid4().hex,
                "samples": [sample_of(new)],
            }
            written.append(manifest.own_path(path, manifest.MANIFEST_NAME, one_file=True))
            manifest.write_manifest(path, content, durable=True, one_file=True)
            files.rename_to_free_name(new, path)
        except BaseException as error:
            for name in written:
                with suppress(OSError):
                    os.unlink(name)
            if lock is not None:
                _remove_lock(path, lock)
                os.close(lock)
            if not isinstance(error, OSError) or isinstance(error, DatasetExistsError | DatasetLockedError):
                raise
            if os.path.lexists(path):
                cls._refuse_what_is_there(path)
            raise cannot_create(path, error) from error
        return cls(path, lock, content, made)

    @staticmethod
    def _refuse_what_is_there(path: str) -> None:
        if not os.path.lexists(path):
            return
        if os.path.isfile(path) and manifest.has_writer(path):
            raise DatasetLockedError(
                f"{path} is being written by another storage; choose another path, or wait until that "
                "storage is closed"
            )
        raise DatasetExistsError(
            f"{path} already exists; choose another path, or set if_exists='number' to add a number"
        )

    @classmethod
    def _refuse_what_is_beside(cls, path: str, parts: Sequence[str]) -> None:
        """Reject an unused path if files next to it belong to a dataset whose own file is missing."""
        kept = (
            f"{os.path.basename(path)} is missing; move the files to the same folder, or choose another path"
        )
        for part in parts:
            if os.path.lexists(f"{path}.{part}"):
                raise DatasetExistsError(f"{path}.{part} is part of a dataset, but {kept}")
        left = manifest.own_path(path, manifest.MANIFEST_NAME, one_file=True)
        found = manifest.read_manifest_file(left)
        if found is not None and (found.status is not DatasetStatus.INCOMPLETE or found.annotations):
            raise DatasetExistsError(f"{left} belongs to a dataset, but {kept}")

    @property
    def id(self) -> str:
        """The identifier that the manifest and the file share."""
        return str(self._content.get("id", ""))

    def publish(self) -> None:
        """Replace the file with its new version, which must be finished and synced, and sync the folder.

        Raises
        ------
        OSError
            If the file cannot be replaced, or if another program has replaced it. The old file then remains.
        """
        new = f"{self.path}.{NEW}"
        known = self._content.get("samples", [])
        there = sample_of(self.path) if os.path.lexists(self.path) else None
        if there is not None and there not in known:
            raise OSError(
                errno.EEXIST, "another program has changed the file; it was not replaced", self.path
            )
        # The manifest lists the samples of the old and the new file before the file is replaced, so that the
        # dataset can be overwritten even if the process is killed between the two steps.
        self._content["samples"] = [sample for sample in (there, sample_of(new)) if sample]
        self._write(durable=True)
        if there is None:
            files.rename_to_free_name(new, self.path)
        else:
            os.replace(new, self.path)
        files.sync_folder(os.path.dirname(self.path))

    def manifest_for_file(self, status: DatasetStatus, reason: str, frames: int) -> bytes:
        """Return the manifest to be stored in the file itself, for use if the manifest next to it is lost."""
        content = {**self._content, "status": status.value, "frames": frames}
        if reason:
            content["reason"] = self.cut(reason)
        del content["samples"]
        return manifest.encode_manifest(content)

    def conclude(
        self, status: DatasetStatus, reason: str, frames: int, facts: dict[str, Any] | None = None
    ) -> None:
        with suppress(OSError):  # if the file is missing, the previous samples remain
            self._content["samples"] = [sample_of(self.path)]
        super().conclude(status, reason, frames, facts)

    def unlock(self) -> None:
        """Remove the lock file and release the lock. Idempotent."""
        if self._lock is not None and self._owner == os.getpid():  # not in a forked process
            _remove_lock(self.path, self._lock)
        super().unlock()


def _remove_lock(path: str, lock: int) -> None:
    """Remove a lock file that this process has locked."""
    name = manifest.own_path(path, manifest.LOCK_NAME, one_file=True)
    with suppress(OSError):
        if os.path.samestat(os.fstat(lock), os.lstat(name)):
            os.unlink(name)


def sample_of(path: "str | os.PathLike[str]", *, dir_fd: int | None = None) -> str:
    """Return a sample of a regular file, used to detect whether another file has replaced it.

    A sample is not a checksum. It covers 64 blocks of 4 KiB, so it is fast to compute for a file of any size.

    Parameters
    ----------
    path : path
        The file; a symbolic link is rejected.
    dir_fd : int, optional
        A descriptor of the folder that the path is relative to.

    Returns
    -------
    str
        The size in bytes, and a digest of evenly spaced blocks, including the first and the last block.

    Raises
    ------
    OSError
        If the file cannot be read, or is not a regular file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "a")
    >>> _ = file.write_bytes(b"abc")
    >>> sample_of(file)[:10]
    '3-ba7816bf'
    """
    descriptor = files.open_regular(path, dir_fd=dir_fd)
    try:
        size = os.fstat(descriptor).st_size
        last = max(size - _BLOCK_BYTES, 0)
        digest = hashlib.sha256()
        for offset in sorted({last * number // (_BLOCKS - 1) for number in range(_BLOCKS)}):
            digest.update(files.read_at(descriptor, _BLOCK_BYTES, offset))
    finally:
        os.close(descriptor)
    return f"{size}-{digest.hexdigest()}"


KINDS: dict[bool, type[DatasetPlace]] = {False: DatasetPlace, True: FilePlace}
"""The class for the location of a dataset that is a folder (False) or a single file (True)."""


def reclaim(path: str) -> DatasetPlace:
    """Take over a dataset that no longer has a writer; see :meth:`DatasetPlace.reclaim`."""
    return (FilePlace if os.path.isfile(path) else DatasetPlace).reclaim(path)
