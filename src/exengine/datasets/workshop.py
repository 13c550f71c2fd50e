"""The hidden folder next to the path of a dataset, in which the dataset is built under a lock.

The folder has a fixed name, so a second attempt finds the remains of an attempt that was killed. The dataset
is renamed once it is finished and synced, so it appears either complete or not at all.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Collection

from exengine.datasets.content import DatasetContent, FilesOf
from exengine.kernel.errors import DatasetExistsError, DatasetLockedError, ExEngineError
from exengine.kernel.storage import manifest
from exengine.kernel.storage.building import discard_building
from exengine.kernel.system import files
from exengine.kernel.system.held_folder import HeldFolder

CONVERTING = "converting"
"""The ending of a conversion folder's name."""


class Workshop:
    """A hidden folder that this process has locked.

    Parameters
    ----------
    path : str
        The final path of the dataset, with symbolic links resolved. Missing parent folders are created.
    ending : str
        The ending of the folder's name, such as ``recovering``.
    work : str
        A noun for the work, such as ``recovery``, used in messages.
    own_files : collection of str
        The names of the files that the work stores in the folder, next to the dataset.

    Attributes
    ----------
    folder : str
        The path of the folder.
    built : str
        The path of the dataset while it is being built.

    Raises
    ------
    DatasetLockedError
        If another process is working in the folder.
    DatasetExistsError
        If the folder was created for a different purpose.
    """

    def __init__(self, path: str, ending: str, work: str, own_files: Collection[str] = ()) -> None:
        self.path = path
        self._parent, self._name = os.path.split(path)
        self._work = work
        self._own_files = frozenset((manifest.LOCK_NAME, *own_files))
        self.folder = folder_beside(path, ending)
        self.built = os.path.join(self.folder, self._name)
        self._is_clear = False
        os.makedirs(self._parent, exist_ok=True)
        self._lock = self._enter()

    def _enter(self) -> int:
        """Create the folder if it does not exist, and acquire its lock."""
        folder = self.folder
        try:
            os.mkdir(folder)
        except FileExistsError:
            if os.path.islink(folder):  # otherwise, the target of the link would be cleared
                raise OSError(errno.EINVAL, f"{folder} is a symbolic link; remove the link") from None
            if manifest.LOCK_NAME not in os.listdir(folder) and os.listdir(folder):
                raise DatasetExistsError(
                    f"{folder} already exists and was not created by a {self._work}; move it away"
                ) from None
        busy = DatasetLockedError(f"another {self._work} is active in {folder}; wait until it has ended")
        try:
            lock = manifest.take_lock(folder)
        except FileNotFoundError:  # another process has just ended its work and removed the folder
            raise busy from None
        if lock is None:
            raise busy
        # After this process opened the lock file, another process may have removed the file and ended.
        try:
            same = os.path.samestat(os.fstat(lock), os.stat(os.path.join(folder, manifest.LOCK_NAME)))
        except FileNotFoundError:
            same = False
        if not same:
            os.close(lock)
            raise busy
        return lock

    def clear(self, files_of: FilesOf, *, keep: Collection[str] = ()) -> None:
        """Remove the unfinished dataset and the other files that a killed process left behind.

        Parameters
        ----------
        files_of : callable
            See :data:`~exengine.datasets.content.FilesOf`.
        keep : collection of str
            The names of files in ``own_files`` that are kept.

        Raises
        ------
        DatasetExistsError
            If the folder contains anything else. Nothing has been removed.
        """
        remedy = "move it away, or delete it yourself"
        with HeldFolder(self.folder) as folder:
            building = f".{files.cut_name(self._name)}.creating-"
            left = [entry for entry in folder.names() if entry != manifest.LOCK_NAME]
            self._withdraw_manifest(left)
            for entry in left:
                if stat.S_ISDIR(folder.status(entry).st_mode):
                    is_known = entry == self._name or entry.startswith(building)
                else:
                    is_known = self._is_own_file(entry) and stat.S_ISREG(folder.status(entry).st_mode)
                if not is_known:
                    raise DatasetExistsError(
                        f"{self.folder} contains {entry!r:.200}, which was not left by a {self._work}; "
                        f"{remedy}"
                    )
            for entry in left:
                path = os.path.join(self.folder, entry)
                if not stat.S_ISDIR(folder.status(entry).st_mode):
                    if entry not in keep:
                        folder.remove_file(entry)
                    continue
                if entry != self._name and not _names_its_files(path):
                    discard_building(path)
                    continue
                with folder.enter(entry) as unfinished:
                    if unfinished.names():
                        try:
                            DatasetContent(unfinished, files_of).delete()
                        except DatasetExistsError as error:
                            raise DatasetExistsError(
                                f"{path} was left by a {self._work} and cannot be deleted ({error}); {remedy}"
                            ) from error
                folder.remove_folder(entry)
        self._is_clear = True

    def _is_own_file(self, entry: str) -> bool:
        """Return whether a file in the folder is one of the work's own files or of a single-file dataset."""
        of_dataset = entry == self._name or entry.startswith(f"{self._name}.exengine.")
        return of_dataset or entry in self._own_files

    def _withdraw_manifest(self, left: Collection[str]) -> None:
        """If a killed process published the manifest but not the file of the dataset, remove the manifest."""
        name = f"{self._name}.{manifest.MANIFEST_NAME}"
        is_half = self._name in left and name not in left and os.path.isfile(self.built)
        if is_half and not os.path.lexists(self.path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._parent, name))

    def publish(self, path: str | None = None) -> None:
        """Rename the finished dataset to its final path, which must be free or an empty folder.

        Parameters
        ----------
        path : str, optional
            Another path in the same folder.

        Raises
        ------
        DatasetExistsError
            If the path is in use. The dataset then stays in the hidden folder.
        """
        path = path or self.path
        try:
            is_empty = os.path.isdir(path) and not os.listdir(path)
            if os.path.isfile(self.built):
                self._publish_file(path)
            elif os.path.isdir(self.built) and not os.path.islink(path) and is_empty:
                os.rename(self.built, path)  # a folder is only replaced if it is empty
            else:
                files.rename_to_free_name(self.built, path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            raise DatasetExistsError(
                f"{path} was created by another process during the {self._work} and was left unchanged; "
                "choose another path"
            ) from error
        files.sync_folder(self._parent)
        files.sync_folder(self.folder)
        self._is_clear = True

    def _publish_file(self, path: str) -> None:
        """Rename a single-file dataset. Rename the files next to it first, so that none is ever missing."""
        files.sync_folder(self.folder)
        begin = f"{self._name}."
        parts = [name.removeprefix(begin) for name in os.listdir(self.folder) if name.startswith(begin)]
        moved = []
        try:
            for part in ("", *(f".{part}" for part in parts if part != manifest.LOCK_NAME))[::-1]:
                files.rename_to_free_name(f"{self.built}{part}", f"{path}{part}")
                moved.append(part)
        except BaseException:
            for part in moved:
                with contextlib.suppress(OSError):
                    files.rename_to_free_name(f"{path}{part}", f"{self.built}{part}")
            raise

    def leave(self, *, keep: bool = False) -> None:
        """Release the lock, and remove the folder if it is no longer needed.

        The content of the folder is deleted only if this process has cleared the folder, so that it created
        everything that is there now. The lock file is deleted last.

        Parameters
        ----------
        keep : bool
            Whether to keep the folder for a second attempt.
        """
        lock = self._lock
        with contextlib.suppress(OSError), HeldFolder(self.folder) as folder:
            for name in folder.names():
                if name != manifest.LOCK_NAME and self._is_clear and not keep:
                    folder.remove_tree(name)
            if os.name == "nt":  # pragma: no cover - Windows cannot remove an open file
                os.close(lock)
                lock = -1
            if folder.names() == [manifest.LOCK_NAME]:
                folder.remove_file(manifest.LOCK_NAME)
                os.rmdir(self.folder)
        if lock >= 0:
            os.close(lock)


def folder_beside(path: str, ending: str) -> str:
    """Return the path of the hidden folder in which a dataset is built."""
    parent, name = os.path.split(path)
    return os.path.join(parent, f".{files.cut_name(name)}.{ending}")


def _names_its_files(building: str) -> bool:
    """Return whether the dataset that a killed process was building already has a manifest."""
    try:
        return manifest.read_manifest(building) is not None
    except ExEngineError:
        return False
