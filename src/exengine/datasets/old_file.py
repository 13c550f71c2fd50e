"""An old single-file dataset: decides whether it may be deleted, moves it aside, and deletes it.

Such a dataset is a regular file with a well-formed manifest next to it. The manifest names an installed
backend that writes single-file datasets, and records a sample of the file. A file that does not
match this sample has been changed or replaced, and is not deleted. If the name of another file begins with
the name of the dataset and ``.exengine.``, that file must be a regular file that the backend writes. No other
file is touched.
"""

import os
import stat
import time
import warnings

from exengine.datasets.content import FilesOf, refusal
from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import (
    DatasetAccessError,
    DatasetExistsError,
    DatasetLockedError,
    ExEngineError,
    from_os,
)
from exengine.kernel.storage import manifest
from exengine.kernel.storage.file_patterns import parts_beside
from exengine.kernel.storage.one_file.place import OWN_PARTS, sample_of
from exengine.kernel.system import files
from exengine.kernel.system.held_folder import HeldFolder


class OldFile:
    """A single-file dataset that is to be overwritten.

    Parameters
    ----------
    path : str
        The path of an existing file, with symbolic links resolved.
    parent : HeldFolder
        The folder that contains the file.
    files_of : callable
        See :data:`~exengine.datasets.content.FilesOf`.

    Raises
    ------
    DatasetExistsError
        If the file is not an ExEngine dataset that may be deleted; the message states the reason.
    DatasetLockedError
        If a writer is active.
    """

    def __init__(self, path: str, parent: HeldFolder, files_of: FilesOf) -> None:
        self._path = path
        self._parent = parent
        self._name = os.path.basename(path)
        self._files_of = files_of
        self._aside_name = f".{files.cut_name(self._name)}.replaced-{os.getpid()}-{time.monotonic_ns()}"
        self._aside = os.path.join(parent.path, self._aside_name)
        self._moved: list[str] = []
        self._entries = self._check(parent)

    def leave(self) -> None:
        """Release the dataset without changing it. A single-file dataset is not held open."""

    def _check(self, folder: HeldFolder) -> dict[str, tuple[int, int]]:
        """Return the identity of each file of the dataset in a folder, beginning with the dataset itself."""
        if self._is_locked(folder):
            raise DatasetLockedError(f"{self._path} was not deleted, because another storage is writing it")
        if not folder.is_writable():
            raise refusal(self._path, "its folder is write-protected")
        parts = self._parts(folder)
        found = {self._name: self._deletable(folder, self._name)}
        begin = f"{self._name}.exengine."
        for entry in folder.names():
            if entry.startswith(begin):
                if entry.removeprefix(f"{self._name}.") not in parts:
                    raise refusal(self._path, f"{entry!r:.200} in its folder is not part of the dataset")
                found[entry] = self._deletable(folder, entry)
        return found

    def _is_locked(self, folder: HeldFolder) -> bool:
        name = f"{self._name}.{manifest.LOCK_NAME}"
        if folder.descriptor is None:  # pragma: no cover - Windows cannot open folders
            return manifest.is_locked(os.path.join(folder.path, name))
        return manifest.is_locked(name, folder.descriptor)

    def _deletable(self, folder: HeldFolder, entry: str) -> tuple[int, int]:
        status = folder.status(entry)
        if not stat.S_ISREG(status.st_mode):
            raise refusal(self._path, f"{entry!r:.200} is {files.kind_of(status)}")
        if not status.st_mode & stat.S_IWUSR:
            raise refusal(self._path, f"the file {entry!r:.200} is write-protected")
        if status.st_dev != folder.identity[0]:
            raise refusal(self._path, f"{entry!r:.200} is a mount point")
        return status.st_dev, status.st_ino

    def _parts(self, folder: HeldFolder) -> set[str]:
        """Return the name endings that the manifest allows for files next to the dataset."""
        name = f"{self._name}.{manifest.MANIFEST_NAME}"
        path = os.path.join(folder.path, name)
        try:
            content = manifest.read_manifest_file(path, name, folder.descriptor)
        except ExEngineError as error:
            raise refusal(self._path, f"the manifest cannot be read ({error})") from error
        if content is None:
            raise refusal(
                self._path, f"the path is a file without a manifest {name}, so it is not an ExEngine dataset"
            )
        backend = content.backend
        try:
            declared, recorded = parts_beside(self._files_of(backend)), parts_beside(content.files or ())
        except (ExEngineError, TypeError, ValueError) as error:
            raise refusal(
                self._path, f"the files that the backend {backend!r:.80} writes are unknown ({error})"
            ) from error
        if declared is None or recorded is None:
            raise refusal(self._path, f"the datasets of the backend {backend!r:.80} are folders")
        at = self._name if folder.descriptor is not None else os.path.join(folder.path, self._name)
        try:
            sample = sample_of(at, dir_fd=folder.descriptor)
        except OSError as error:
            raise refusal(self._path, f"the file cannot be read: {error.strerror}") from error
        if sample not in (content.get("samples") or ()):
            raise refusal(self._path, "the file has been changed or replaced since ExEngine wrote it")
        return {*OWN_PARTS, *(set(declared) & set(recorded))}

    # -- aside, and back -------------------------------------------------------------------------

    def move_aside(self) -> None:
        """Move the dataset's files into a hidden folder, then check that they are still the same files."""
        try:
            os.mkdir(self._aside)
            for entry in self._entries:
                self._parent.rename(entry, os.path.join(self._aside_name, entry))
                self._moved.append(entry)
        except OSError as error:
            raise from_os(
                DatasetAccessError, f"{self._path} cannot be moved aside: {error.strerror}", error
            ) from error
        with self._parent.enter(self._aside_name) as aside:
            if self._check(aside) != self._entries:
                raise DatasetExistsError(
                    f"{self._path} was replaced by another process and was therefore not overwritten; check "
                    "its content, and try again"
                )

    def bring_back(self, error: BaseException) -> None:
        """Move the old files back, unless a new dataset with frames exists."""
        try:
            self._remove_failed_attempt(error)
            for entry in list(self._moved):
                self._parent.rename(os.path.join(self._aside_name, entry), entry)
                self._moved.remove(entry)
            if self._parent.identity_of(self._aside_name) is not None:
                self._parent.remove_folder(self._aside_name)
        except (OSError, ExEngineError):
            error.add_note(f"the old dataset is now in {self._aside}")

    def _remove_failed_attempt(self, error: BaseException) -> None:
        """Remove a new dataset that was created but contains no frames."""
        if isinstance(error, DatasetExistsError | DatasetLockedError):
            return  # another process has created this dataset
        name = f"{self._name}.{manifest.MANIFEST_NAME}"
        begun = manifest.read_manifest_file(
            os.path.join(self._parent.path, name), name, self._parent.descriptor
        )
        if begun is None or begun.status is not DatasetStatus.FAILED or begun.frames != 0:
            return
        for entry in OldFile(self._path, self._parent, self._files_of)._entries:
            self._parent.remove_file(entry)

    def delete(self) -> None:
        """Delete the old files, and warn if any of them remain."""
        try:
            with self._parent.enter(self._aside_name) as aside:
                for entry, identity in self._entries.items():
                    if aside.identity_of(entry) == identity:
                        aside.remove_file(entry)
            self._parent.remove_folder(self._aside_name)
        except OSError as error:  # only a warning, because the new dataset exists
            warnings.warn(
                f"the overwritten dataset could not be deleted and is now in {self._aside}: {error}",
                stacklevel=4,
            )
