"""Temporary file systems: small ones that fill up, and one that can simulate a power loss.

Each is a context manager that leaves no mount and no loop device behind; with :func:`live_apart`, not even if
the process is killed. Without permission to mount, it raises :class:`CannotRunError`, which gives the reason.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_EXT4_IOC_SHUTDOWN = 0x8004587D
_CLONE_NEWNS = 0x20000
_NOLOGFLUSH = 2  # not even the journal is written to the disk


class CannotRunError(Exception):
    """A permission or a program is missing."""


def live_apart() -> None:
    """Give this process its own mounts, which end with it; do nothing without permission."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) == 0:
        with contextlib.suppress(CannotRunError):
            _call("mount", "--make-rprivate", "/")


def _call(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise CannotRunError(f"there is no program {command[0]}")
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if ended.returncode:
        why = (ended.stderr.strip() or f"exit code {ended.returncode}").splitlines()[0]
        raise CannotRunError(f"{' '.join(command)}: {why}")


def _unmount(folder: str) -> None:
    for _ in range(100):
        if not subprocess.run(["umount", folder], check=False, capture_output=True).returncode:
            return
        time.sleep(0.05)  # a process that was killed may still be ending
    subprocess.run(["umount", "-l", folder], check=True, capture_output=True)


@contextlib.contextmanager
def tmpfs(folder: str, options: str) -> Iterator[str]:
    """Mount a file system in memory.

    Parameters
    ----------
    folder : str
        The mount point, which is created if it does not exist.
    options : str
        Such as ``size=3m`` or ``nr_inodes=20``.
    """
    os.makedirs(folder, exist_ok=True)
    _call("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder)
    try:
        yield folder
    finally:
        _unmount(folder)


class PowerCut:
    """A context manager for a file system on a loop device with unsynced data that can be discarded.

    Parameters
    ----------
    image : str
        The image file, which is created.
    folder : str
        The mount point.
    """

    def __init__(self, image: str, folder: str) -> None:
        self._image = image
        self.folder = folder
        self._mounted = False

    def __enter__(self) -> "PowerCut":
        os.makedirs(self.folder, exist_ok=True)
        Path(self._image).unlink(missing_ok=True)
        with open(self._image, "wb") as file:
            file.truncate(64 * 2**20)
        _call("mkfs.ext4", "-q", "-F", "-J", "size=4", self._image)
        self._mount()
        return self

    def _mount(self) -> None:
        _call("mount", "-o", "loop", self._image, self.folder)
        self._mounted = True

    def cut(self) -> None:
        """Discard the data that have not reached the disk. From now on, nothing can be read or written."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(descriptor)

    def restart(self) -> None:
        """Mount the content of the disk again, once no process uses the folder."""
        _unmount(self.folder)
        self._mounted = False
        self._mount()

    def __exit__(self, *_: object) -> None:
        if self._mounted:
            _unmount(self.folder)
        Path(self._image).unlink(missing_ok=True)
