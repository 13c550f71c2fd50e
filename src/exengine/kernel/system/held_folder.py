"""An open folder, which remains the same folder even if its path changes.

The files that are deleted must be the same files that were checked. Because a path may change in between, a
folder is opened once, without following links, and everything in it is accessed through its descriptor.
"""

import os
import stat
from typing import Self

from exengine.kernel.system import files

_BY_DESCRIPTOR = os.open in os.supports_dir_fd and os.scandir in os.supports_fd


class HeldFolder:
    """An open folder. Used as a context manager, it is released at the end.

    On a system that cannot open folders (Windows), the folder is accessed by its path.

    Parameters
    ----------
    path : str
        The path of the folder, used to open the folder and to name it in messages.
    name : str, optional
        The name of the folder in ``inside``; required if ``inside`` is given.
    inside : HeldFolder, optional
        The folder that contains this one.

    Raises
    ------
    OSError
        If the path is not a folder; a symbolic link to a folder is also rejected.
    """

    def __init__(self, path: str, name: str = "", inside: "HeldFolder | None" = None) -> None:
        self.path = path
        self.descriptor: int | None = None
        if _BY_DESCRIPTOR:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            if inside is None:
                self.descriptor = os.open(path, flags)
            else:
                self.descriptor = os.open(name, flags, dir_fd=inside.descriptor)
            status = os.fstat(self.descriptor)
        else:  # pragma: no cover - Windows only
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(f"{path} is not a folder")
        self.identity = (status.st_dev, status.st_ino)
        self.mode = status.st_mode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder. Idempotent."""
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _at(self, name: str) -> str:
        return name if _BY_DESCRIPTOR else os.path.join(self.path, name)

    def names(self) -> list[str]:
        """Return the names of the folder's entries, sorted."""
        return sorted(os.listdir(self.path if self.descriptor is None else self.descriptor))

    def status(self, name: str) -> os.stat_result:
        """Return the ``lstat`` result of an entry of the folder."""
        return os.stat(self._at(name), dir_fd=self.descriptor, follow_symlinks=False)

    def identity_of(self, name: str) -> tuple[int, int] | None:
        """Return the device and inode of an entry of the folder; None if it does not exist."""
        try:
            status = self.status(name)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def enter(self, name: str) -> "HeldFolder":
        """Open a subfolder of this folder."""
        return HeldFolder(os.path.join(self.path, name), name, self)

    def is_writable(self) -> bool:
        """Return whether this user may remove entries; False if the folder is write-protected."""
        if not self.mode & stat.S_IWUSR:
            return False
        if self.descriptor is None or os.access not in os.supports_effective_ids:  # pragma: no cover
            return os.access(self.path, os.W_OK)
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self.descriptor, effective_ids=True)

    def rename(self, old: str, new: str) -> None:
        """Rename an entry of the folder to an unused name.

        Raises
        ------
        FileExistsError
            If the new name exists.
        """
        files.rename_to_free_name(self._at(old), self._at(new), dir_fd=self.descriptor)

    def remove_file(self, name: str) -> None:
        """Remove an entry that is not a folder."""
        os.unlink(self._at(name), dir_fd=self.descriptor)

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""
        os.rmdir(self._at(name), dir_fd=self.descriptor)

    def remove_tree(self, name: str) -> None:
        """Remove a temporary file, or a temporary folder and its contents, that this process created.

        Links are not followed, and file systems mounted inside the folder are not entered.

        Raises
        ------
        OSError
            If part of the file or folder remains.
        """
        if not stat.S_ISDIR(self.status(name).st_mode):
            self.remove_file(name)
            return
        with self.enter(name) as folder:
            if folder.is_on_mount_of(self):
                for entry in folder.names():
                    folder.remove_tree(entry)
        self.remove_folder(name)

    def is_on_mount_of(self, other: "HeldFolder") -> bool:
        """Return whether no file system is mounted between this folder and the given ancestor."""
        return self.identity[0] == other.identity[0] and self._mount() == other._mount()

    def _mount(self) -> str:
        """Return the mount ID, which distinguishes bind mounts of the same file system; "" if unknown."""
        try:
            with open(f"/proc/self/fdinfo/{self.descriptor}", encoding="ascii") as file:
                return next((line for line in file if line.startswith("mnt_id:")), "")
        except OSError:  # only Linux has this file
            return ""
