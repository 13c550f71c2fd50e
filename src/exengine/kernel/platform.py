"""The few things that differ between operating systems: locks, syncing, where settings lie."""

import os
import sys

WINDOWS = sys.platform == "win32"


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take an advisory lock on an open file, without waiting.

    Parameters
    ----------
    descriptor : int
        Of a file that stays open as long as the lock is held. The system frees the lock when the
        last descriptor of this opening is closed, also when the process is killed.
    shared : bool
        A lock that other shared locks do not hinder: to see whether a writer is at work.

    Returns
    -------
    bool
        Whether the lock was free.
    """
    if WINDOWS:  # pragma: no cover - another system
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync_folder(path: "str | os.PathLike[str]") -> None:
    """Make the names in a folder survive power loss. Does nothing where folders cannot be synced."""
    if WINDOWS:  # pragma: no cover - another system
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(path: "str | os.PathLike[str]") -> None:
    """Bring all that was written to the file system that holds this folder to the disk.

    The durable flush of backends that know no better: 3 to 10 ms, with ``syncfs(2)``.

    Raises
    ------
    OSError
        When the disk could not take it.
    """
    if not sys.platform.startswith("linux"):  # pragma: no cover - another system
        os.sync()
        return
    import ctypes

    descriptor = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fspath(path))
    finally:
        os.close(descriptor)


def config_folder() -> str:
    """Return the folder of the user's own settings for ExEngine; it need not exist."""
    if WINDOWS:  # pragma: no cover - another system
        return os.path.join(os.environ.get("APPDATA", os.path.expanduser("~")), "exengine")
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "exengine")
