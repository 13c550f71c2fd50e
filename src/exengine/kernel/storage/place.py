"""The location of a dataset that is being written: its folder, its lock and its manifest.

A dataset folder appears in a single step: it is created alongside its final path, with the lock and the
manifest inside, and is then renamed. If two writers race for a path, exactly one wins. Any dataset that is
visible can be opened. :mod:`exengine.kernel.storage.one_file.place` does the same for a single-file dataset.
"""

import copy
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, ClassVar, Self

from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import (
    DatasetAccessError,
    DatasetExistsError,
    DatasetLockedError,
    DatasetNotFoundError,
    from_os,
)
from exengine.kernel.storage import manifest
from exengine.kernel.storage.building import (
    cannot_create,
    check_names,
    discard_building,
    make_parents,
    rename_into_place,
    write_files,
)
from exengine.kernel.system import files

CREATED = "%Y-%m-%dT%H:%M:%SZ"
"""The format of the creation time in a manifest. The time is in UTC."""
_LOOKS = 10  # number of failed attempts after which a writer is assumed to hold the lock
_MOST_OF_A_REASON = 8000  # maximum number of characters; the manifest reserves space for them


class DatasetPlace:
    """A claimed folder, created by :meth:`claim` or :meth:`reclaim`.

    Attributes
    ----------
    path : str
        The absolute path of the folder, with symbolic links resolved.
    """

    one_file: ClassVar[bool] = False
    """Whether the dataset is one file, with the lock and the manifest next to it."""

    def __init__(self, path: str, lock: int, content: dict[str, Any], made: tuple[str, ...] = ()) -> None:
        self.path = path
        self._lock: int | None = lock
        self._content = content
        self._made = made  # folders with new entries that may not have reached the disk
        self._synced = False  # whether the entries in these folders are on the disk
        self._late: list[str] = []  # annotations that are not yet in the manifest on the disk

    @classmethod
    def claim(
        cls,
        path: str,
        backend: str,
        patterns: Sequence[str] = (),
        initial: Mapping[str, bytes] = MappingProxyType({}),
    ) -> "DatasetPlace":
        """Create the folder of a new dataset, with its lock, its first manifest and its initial files.

        Parameters
        ----------
        path : str
            An unused path, or the path of an empty folder. A leading ``~`` is expanded. Missing parent
            folders are created.
        backend : str
            The name of the backend that writes the dataset, to be recorded in the manifest.
        patterns : sequence of str
            Patterns for the names of the dataset's files, to be recorded in the manifest; see
            ``DataStorage.dataset_files``.
        initial : mapping of str to bytes
            The files that the folder contains from the start: maps their relative paths, with ``/`` between
            the parts, to their contents.

        Raises
        ------
        DatasetExistsError, DatasetLockedError, DatasetAccessError
        TypeError
            If the name of an initial file matches none of the patterns.
        """
        if initial:
            check_names(initial, patterns)
        if not path or "\0" in path or files.UNUSUAL.search(path):
            path = cls._usable(path)
        path = os.path.realpath(path)
        parent, name = os.path.split(path)
        content: dict[str, Any] = {
            "backend": backend,
            "status": DatasetStatus.INCOMPLETE.value,
            "created": time.strftime(CREATED, time.gmtime()),
            "annotations": {},
        }
        if patterns:
            content["files"] = list(patterns)
        building = os.path.join(
            parent, f".{files.cut_name(name)}.creating-{os.getpid()}-{time.monotonic_ns()}"
        )
        lock = None
        made: tuple[str, ...] = ()
        is_made = False
        try:
            made = make_parents(parent)
            os.mkdir(building)
            is_made = True
            lock = manifest.take_lock(building)
            # Sync before the dataset becomes visible; otherwise, power loss may leave it with an empty
            # manifest. Write the manifest before the other files, because it identifies the files that a
            # killed process leaves behind.
            manifest.write_manifest(building, content, durable=True)
            if initial:
                write_files(building, initial)
            cls._refuse_what_is_there(path)
            rename_into_place(building, path)
        except BaseException as error:
            if lock is not None:
                os.close(lock)
            if is_made:  # otherwise the folder belongs to another writer
                discard_building(building, initial)
            if not isinstance(error, OSError) or isinstance(error, DatasetExistsError | DatasetLockedError):
                raise
            if os.path.isdir(path) and os.listdir(path):
                cls._refuse_what_is_there(path)
            raise cannot_create(path, error) from error
        assert lock is not None  # the folder was new, so its lock was free
        return cls(path, lock, content, made)

    @staticmethod
    def _usable(path: str) -> str:
        """Return the path of a new dataset with ``~`` expanded, or raise ``DatasetAccessError``."""
        if not path or "\0" in path:
            raise DatasetAccessError(f"{path!r} cannot be the path of a dataset")
        path = files.expanded(path)
        if refusal := files.refusal_of_new(path):
            raise DatasetAccessError(f"{path!r:.80} cannot be the path of a dataset: {refusal}")
        return path

    @classmethod
    def reclaim(cls, path: str) -> Self:
        """Take over a dataset that no longer has a writer, in order to finish or continue it.

        Raises
        ------
        DatasetNotFoundError
            If the dataset has no manifest.
        DatasetLockedError
            If a writer is active.
        DatasetAccessError
            If the lock file cannot be created, or is not a regular file.
        """
        path = os.path.realpath(path)
        if manifest.read_manifest(path) is None:
            raise DatasetNotFoundError(f"there is no dataset with a manifest at {path}")
        try:
            lock = cls._take_lock(path)
        except OSError as error:
            message = f"{path} cannot be locked: {error.strerror or error}"
            raise from_os(DatasetAccessError, message, error) from error
        if lock is None:
            raise DatasetLockedError(f"{path} is being written; wait until its writer has ended")
        left = manifest.read_manifest(path)  # the last manifest of the previous writer
        assert left is not None
        return cls(path, lock, {"annotations": {}, **left})

    @classmethod
    def _take_lock(cls, path: str) -> int | None:
        lock, looks = manifest.take_lock(path, one_file=cls.one_file), 1
        while lock is None and looks < _LOOKS:
            time.sleep(0.01)  # a process that checks for a writer also holds the lock, but only briefly
            lock, looks = manifest.take_lock(path, one_file=cls.one_file), looks + 1
        return lock

    def _write(self, *, durable: bool) -> None:
        manifest.write_manifest(self.path, self._content, durable=durable, one_file=self.one_file)

    @staticmethod
    def _refuse_what_is_there(path: str) -> None:
        if not os.path.lexists(path):
            return
        if not os.path.isdir(path):
            raise DatasetExistsError(f"{path} already exists and is not a folder; choose another path")
        if manifest.has_writer(path):
            raise DatasetLockedError(
                f"{path} is being written; choose another path, or wait until its writer has ended"
            )
        if os.listdir(path):
            raise DatasetExistsError(
                f"{path} already exists and is not empty; choose another path, or set if_exists='number' to "
                "add a number"
            )

    @property
    def status(self) -> DatasetStatus:
        """The status in the manifest."""
        return DatasetStatus(self._content["status"])

    @property
    def annotations(self) -> dict[str, Any]:
        """A copy of the JSON values that have been stored so far."""
        return copy.deepcopy(self._content["annotations"])

    def annotate(self, name: str, value: Any) -> None:
        """Store a JSON value in the manifest.

        Raises
        ------
        MetadataError
            If the manifest would be too large to be read; nothing is changed in this case.
        """
        self._annotate(name, value)
        # A durable write, because power loss could otherwise leave neither the old nor the new manifest.
        self._write(durable=True)

    def annotate_later(self, name: str, value: Any) -> None:
        """After a failure, store a JSON value in the final manifest, if the disk accepts it.

        Raises
        ------
        MetadataError
            As in :meth:`annotate`.
        """
        self._annotate(name, value)
        self._late.append(name)

    def _annotate(self, name: str, value: Any) -> None:
        content = {**self._content, "annotations": {**self._content["annotations"], name: value}}
        manifest.refuse_if_too_large(content, f"with the annotation {name!r:.60}")
        self._content = content

    def sync(self) -> None:
        """Sync the folders that gained an entry, so that the dataset can be found after power loss."""
        if not self._synced:
            for folder in (os.path.dirname(self.path), *self._made):
                files.sync_folder(folder)
            self._synced = True

    def reopen(self, **annotations: Any) -> None:
        """Durably mark the dataset as incomplete again, and durably store JSON values.

        Parameters
        ----------
        **annotations
            The names and values to store.

        Raises
        ------
        MetadataError
            As in :meth:`annotate`.
        """
        for name, value in annotations.items():
            self._annotate(name, value)
        content = {**self._content, "status": DatasetStatus.INCOMPLETE.value}
        for outdated in ("facts", "frames", "reason"):
            content.pop(outdated, None)
        if annotations or content != self._content:
            manifest.write_manifest(self.path, content, durable=True, one_file=self.one_file)
            self._content = content

    def conclude(
        self, status: DatasetStatus, reason: str, frames: int, facts: dict[str, Any] | None = None
    ) -> None:
        """Sync the folders with new entries, then durably write the final manifest.

        Parameters
        ----------
        status : DatasetStatus
        reason : str
            The human-readable reason for the status.
        frames : int
            The number of frames in the dataset.
        facts : dict, optional
            Facts that readers of the format verify, as JSON values.

        Raises
        ------
        OSError
            If the disk could not store the manifest; the dataset is then marked as failed, if possible.
        """
        self._content.update(status=status.value, frames=frames)
        for outdated in ("facts", "reason"):
            self._content.pop(outdated, None)
        if facts:
            self._content["facts"] = facts
        if reason:
            self._content["reason"] = self.cut(reason)
        try:
            # The manifest is written last: the names must be on the disk before the status is "complete".
            for folder in (os.path.dirname(self.path), *self._made):
                files.sync_folder(folder)
            self._write(durable=True)
        except OSError as error:
            self._mark_as_failed(error)
            raise

    @staticmethod
    def cut(reason: str) -> str:
        """Return a reason, truncated to the space that the manifest reserves for it."""
        return reason[:_MOST_OF_A_REASON]

    def _mark_as_failed(self, error: OSError) -> None:
        """Revoke a status that may not have reached the disk, if the disk allows this."""
        self._content.update(status=DatasetStatus.FAILED.value)
        self._content.setdefault("reason", self.cut(str(error)))
        try:
            self._write(durable=False)
        except OSError:
            for name in self._late:  # there may be space for a shorter manifest
                del self._content["annotations"][name]
            self._late.clear()
            with suppress(OSError):
                self._write(durable=False)

    def unlock(self) -> None:
        """Release the writer's lock. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):  # an error is harmless: the system releases the lock in any case
                os.close(lock)
