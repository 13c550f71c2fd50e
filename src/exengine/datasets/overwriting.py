"""Moves an old dataset aside so that a new dataset can take its path (``if_exists: overwrite``).

Only ExEngine datasets are moved, and only their own files are deleted; :mod:`exengine.datasets.content`
defines these files. No backend's ``can_open`` is called. After the move, the folder is compared with the
folder that was checked. If another process replaced the folder in between, the new folder is moved back.

If several processes overwrite the same dataset, they take turns. All but the first find an active writer and
are rejected. The old dataset is deleted once the new dataset exists, and is restored if the new dataset
cannot be created. If the process is killed, the old dataset remains next to its original path, where
:func:`left_beside` finds it.
"""

import os
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from exengine.datasets.content import (
    DatasetContent,
    FilesOf,
    refuse_link_to_no_dataset,
    refuse_mount_point,
    refuse_other_kind,
)
from exengine.datasets.old_file import OldFile
from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import (
    DatasetAccessError,
    DatasetExistsError,
    DatasetLockedError,
    ExEngineError,
    from_os,
)
from exengine.kernel.storage import manifest
from exengine.kernel.system import files
from exengine.kernel.system.held_folder import HeldFolder

_MAX_WAIT_S = 10.0


@contextmanager
def moved_aside(path: str, files_of: FilesOf) -> Iterator[str]:
    """Move the dataset at a path aside while a new dataset is created there.

    Parameters
    ----------
    path : str
        A dataset, a symbolic link to one, an empty folder, or nothing.
    files_of : callable
        Returns the names of the files that a backend writes. See ``exengine.datasets.content.FilesOf``.

    Yields
    ------
    str
        The path of the new dataset, with symbolic links resolved.

    Raises
    ------
    DatasetLockedError
        If another writer is using the dataset.
    DatasetExistsError
        If the path is not a dataset, or if its folder contains anything else. Nothing has been changed.
    """
    if "\0" in path:
        yield path  # creating the dataset raises the appropriate error
        return
    real = os.path.realpath(path)
    is_link = os.path.islink(path.rstrip("/") or path)
    parent = _open_parent(real)
    if parent is None:
        if is_link:
            refuse_link_to_no_dataset(path, real)
        yield real
        return
    with parent:
        with _alone_in(parent):
            old = _OldDataset.find(real, parent, files_of)
            if old is None:
                if is_link:
                    refuse_link_to_no_dataset(path, real)
                yield real
                return
            try:
                old.move_aside()
                yield real
            except BaseException as error:
                old.bring_back(error)
                raise
        old.delete()


def refuse_if_not_deletable(path: str, files_of: FilesOf) -> None:
    """Raise the error that :func:`moved_aside` would raise for a path, without changing anything."""
    real = os.path.realpath(path)
    parent = _open_parent(real)
    if parent is not None:
        with parent:
            old = _OldDataset.find(real, parent, files_of)
            if old is not None:
                old.leave()


def _open_parent(path: str) -> HeldFolder | None:
    """Return the parent folder of a path, or None if this folder does not exist."""
    try:
        return HeldFolder(os.path.dirname(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise from_os(
            DatasetAccessError,
            f"cannot access {os.path.dirname(path)}: {error.strerror or error}; choose another folder",
            error,
        ) from error


class _OldDataset:
    """A dataset to be overwritten. Created by :meth:`find`."""

    def __init__(self, path: str, parent: HeldFolder, folder: HeldFolder, content: DatasetContent) -> None:
        self._path = path
        self._parent = parent
        self._folder = folder
        self._content = content
        self._name = os.path.basename(path)
        self._aside_name = f".{files.cut_name(self._name)}.replaced-{os.getpid()}-{time.monotonic_ns()}"
        self._aside = os.path.join(parent.path, self._aside_name)

    @classmethod
    def find(cls, path: str, parent: HeldFolder, files_of: FilesOf) -> "_OldDataset | OldFile | None":
        """Return the dataset at a path, or None if the path is free or is an empty folder.

        Raises
        ------
        DatasetExistsError, DatasetLockedError
            If the path is not a dataset, or if a writer is using the dataset.
        """
        name = os.path.basename(path)
        try:
            status = parent.status(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_os(
                DatasetAccessError, f"cannot access {path}: {error.strerror}; choose another path", error
            ) from error
        if stat.S_ISREG(status.st_mode):
            return OldFile(path, parent, files_of)
        refuse_other_kind(path, status)
        try:
            folder = parent.enter(name)
            if not folder.names():
                folder.close()
                return None
        except OSError as error:
            raise from_os(
                DatasetAccessError, f"cannot read {path}: {error.strerror}; it was not deleted", error
            ) from error
        try:
            refuse_mount_point(folder, parent)
            return cls(path, parent, folder, DatasetContent(folder, files_of))
        except OSError as error:
            folder.close()
            if isinstance(error, ExEngineError):
                raise
            raise DatasetAccessError(f"cannot read {path}: {error}; it was not deleted") from error
        except BaseException:
            folder.close()
            raise

    def leave(self) -> None:
        """Close the dataset's folder without changing the dataset."""
        self._folder.close()

    def move_aside(self) -> None:
        """Rename the dataset, then check that it is still the same folder and contains nothing else."""
        try:
            self._parent.rename(self._name, self._aside_name)
        except OSError as error:
            raise from_os(
                DatasetAccessError, f"{self._path} cannot be moved aside: {error.strerror}", error
            ) from error
        if self._parent.identity_of(self._aside_name) != self._folder.identity:
            raise DatasetExistsError(
                f"{self._path} was replaced by another process and was therefore not overwritten; check its "
                "content, and try again"
            )
        self._content.check()

    def bring_back(self, error: BaseException) -> None:
        """Move the old dataset back, unless a new dataset with frames exists."""
        try:
            if self._parent.identity_of(self._aside_name) is None:
                return
            try:
                self._remove_failed_attempt(error)
                self._parent.rename(self._aside_name, self._name)
            except (OSError, ExEngineError):
                error.add_note(f"the old dataset is now at {self._aside}")
        finally:
            self._folder.close()

    def _remove_failed_attempt(self, error: BaseException) -> None:
        """Remove a new dataset that was created but contains no frames."""
        if isinstance(error, DatasetExistsError | DatasetLockedError):
            return  # another process has created this dataset
        if self._parent.identity_of(self._name) is None:
            return
        with self._parent.enter(self._name) as folder:
            begun = manifest.read_manifest(folder.path, dir_fd=folder.descriptor)
            if begun is None or begun.status is not DatasetStatus.FAILED or begun.frames != 0:
                return
            DatasetContent(folder, self._content.files_of).delete()
            if self._parent.identity_of(self._name) == folder.identity:
                self._parent.remove_folder(self._name)

    def delete(self) -> None:
        """Delete the old dataset, and warn if any part of it remains."""
        try:
            self._content.delete()
            if self._parent.identity_of(self._aside_name) == self._folder.identity:
                self._parent.remove_folder(self._aside_name)
        except OSError as error:  # only a warning, because the new dataset exists
            warnings.warn(
                f"the overwritten dataset could not be deleted and is now at {self._aside}: {error}",
                stacklevel=4,
            )
        finally:
            self._folder.close()


@contextmanager
def _alone_in(folder: HeldFolder) -> Iterator[None]:
    """Lock a folder, if the system can lock folders, so that overwrites in it take turns."""
    if folder.descriptor is None:  # Windows cannot open folders
        yield
        return
    # Use a separate descriptor, so that other threads of this process wait too.
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder.descriptor)
    try:
        deadline = time.monotonic() + _MAX_WAIT_S
        while not _is_locked(descriptor):
            if time.monotonic() > deadline:
                raise DatasetLockedError(f"another dataset is being created in {folder.path}; try again")
            time.sleep(0.005)  # poll, because a blocking lock call has no timeout
        yield
    finally:
        os.close(descriptor)


def _is_locked(folder: int) -> bool:
    try:
        return files.try_lock(folder)
    except OSError:  # some network file systems cannot lock folders
        return True


def left_beside(path: str) -> str | None:
    """Return the path of the old dataset that an interrupted overwrite left behind, or None."""
    parent, name = os.path.split(os.path.abspath(path))
    begin = f".{files.cut_name(name)}.replaced-"
    with suppress(OSError):
        left = [os.path.join(parent, entry) for entry in os.listdir(parent) if entry.startswith(begin)]
        return max(left, key=os.path.getmtime, default=None)
    return None
