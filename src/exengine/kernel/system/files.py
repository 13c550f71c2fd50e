"""File operations that differ between operating systems, and the folder for the user's settings."""

import errno
import functools
import os
import re
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Any

WINDOWS = sys.platform == "win32"

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(
    path: "str | os.PathLike[str]",
    flags: int = os.O_RDONLY,
    *,
    follow_links: bool = False,
    dir_fd: int | None = None,
) -> int:
    """Open a regular file; reject any other kind of file without blocking.

    Datasets are untrusted: opening a pipe would block forever, opening a device may have side effects, and a
    symbolic link may lead to a file that is not part of the dataset.

    Parameters
    ----------
    path : path
    flags : int
        The flags for ``os.open``.
    follow_links : bool
        Whether the last component of the path may be a symbolic link to a regular file.
    dir_fd : int, optional
        A descriptor of the folder that the path is relative to.

    Returns
    -------
    int
        A file descriptor.

    Raises
    ------
    FileNotFoundError
    OSError
        With ``errno.EINVAL`` if the path is not a regular file; ``strerror`` states the kind of file.
    """
    if not flags & os.O_EXCL:  # O_EXCL creates a new file or fails
        try:
            if dir_fd is None:
                _refuse_other_kinds((os.stat if follow_links else os.lstat)(path), path)
            else:
                _refuse_other_kinds(os.stat(path, dir_fd=dir_fd, follow_symlinks=follow_links), path)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
    # The file may be replaced between the check above and ``os.open``.
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    flags |= 0 if follow_links else getattr(os, "O_NOFOLLOW", 0)
    relative = {} if dir_fd is None else {"dir_fd": dir_fd}
    descriptor = os.open(path, flags, 0o666, **relative)
    try:
        _refuse_other_kinds(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_other_kinds(status: os.stat_result, path: "str | os.PathLike[str]") -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"the path is {kind_of(status)}, not a regular file", os.fspath(path))


def kind_of(status: os.stat_result) -> str:
    """Return the kind of a file in words, such as "a pipe"."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def open_new(path: "str | os.PathLike[str]", flags: int = os.O_WRONLY) -> int:
    """Open a new file, replacing any regular file that a killed process left behind.

    The old file is unlinked rather than truncated, because another hard link may share its content.

    Raises
    ------
    OSError
        With ``errno.EINVAL`` if the path is not a regular file; ``strerror`` states the kind of file.
    """
    try:
        return open_regular(path, flags | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        _refuse_other_kinds(os.lstat(path), path)
    os.unlink(path)
    return open_regular(path, flags | os.O_CREAT | os.O_EXCL)


def rename_to_free_name(source: str, target: str, *, dir_fd: int | None = None) -> None:
    """Rename a file or a folder without ever replacing an existing one.

    Parameters
    ----------
    source, target : str
        Paths on the same file system.
    dir_fd : int, optional
        A descriptor of the folder that both paths are relative to.

    Raises
    ------
    FileExistsError
        If the target exists.
    OSError
    """
    if sys.platform.startswith("linux") and _renameat2(source, target, dir_fd):
        return
    # On other operating systems and file systems, a file or an empty folder that is created between the next
    # two calls is replaced.
    try:
        os.stat(target, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)


def _renameat2(source: str, target: str, dir_fd: int | None) -> bool:
    """Rename with ``renameat2(2)``, which Python does not expose; return False if the system lacks it."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    folder = -100 if dir_fd is None else dir_fd  # AT_FDCWD
    if call(folder, os.fsencode(source), folder, os.fsencode(target), 1) == 0:  # RENAME_NOREPLACE
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), source, None, target)


def cut_name(name: str, most: int = 60) -> str:
    """Truncate a file name to at most ``most`` bytes, for use as part of another name."""
    return os.fsencode(name)[:most].decode(errors="ignore")


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Acquire an advisory lock on an open file, without waiting.

    Parameters
    ----------
    descriptor : int
        The descriptor of a file that stays open while the lock is held. The system releases the lock when the
        last descriptor of this open file is closed, even if the process is killed.
    shared : bool
        Whether to acquire a shared lock, which other shared locks do not block. Shared locks are used to
        detect a writer.

    Returns
    -------
    bool
        Whether the lock was acquired.
    """
    if WINDOWS:  # pragma: no cover - Windows only
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
    """Sync a folder, so that its entries survive power loss. Does nothing if folders cannot be synced."""
    if WINDOWS:  # pragma: no cover - Windows only
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(path: "str | os.PathLike[str]") -> None:
    """Sync the whole file system that contains a folder to the disk.

    Backends without a more specific method use this for a durable flush. It takes 3 to 10 ms with
    ``syncfs(2)``.

    Raises
    ------
    OSError
        If the disk could not store the data.
    """
    if not sys.platform.startswith("linux"):  # pragma: no cover - other systems
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


def begin_writing(descriptor: int, offset: int, size: int) -> None:
    """Start writing part of a file to the disk; do nothing if the system lacks such a call.

    This call neither guarantees that the data reach the disk nor reports errors. A later ``fsync`` does both,
    and has less data to write.
    """
    call = _sync_file_range()
    if call is not None:
        call(descriptor, offset, size, 2)  # SYNC_FILE_RANGE_WRITE


@functools.cache
def _sync_file_range() -> "Callable[[int, int, int, int], int] | None":
    """Return ``sync_file_range(2)``, which Python does not expose; None if the system lacks it."""
    if not sys.platform.startswith("linux"):  # pragma: no cover - other systems
        return None
    import ctypes

    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call


def config_folder() -> str:
    """Return the folder for the user's own ExEngine settings; it need not exist."""
    if WINDOWS:  # pragma: no cover - Windows only
        return os.path.join(os.environ.get("APPDATA", os.path.expanduser("~")), "exengine")
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "exengine")


def write_at(descriptor: int, parts: "Sequence[Any]", offset: int, size: int | None = None) -> int:
    """Write all buffers to a file, one after another, starting at an offset.

    Parameters
    ----------
    descriptor : int
    parts : sequence of buffers
        Contiguous bytes or arrays.
    offset : int
        The offset, in bytes.
    size : int, optional
        The total size of all parts, in bytes, if the caller knows it.

    Returns
    -------
    int
        The offset after the last byte that was written.

    Raises
    ------
    OSError
        If not all bytes could be written. The bytes that were written remain in the file.
    """
    if WINDOWS:  # pragma: no cover - Windows only
        os.lseek(descriptor, offset, os.SEEK_SET)
        for part in parts:
            view = memoryview(part).cast("B")
            while view.nbytes:
                view = view[os.write(descriptor, view) :]
                offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        return offset
    whole = sum(memoryview(part).nbytes for part in parts) if size is None else size
    done = os.pwritev(descriptor, parts, offset)
    if done != whole:
        # After a short write, continue with the remaining bytes. On a full disk, the next write raises an
        # error.
        rest = memoryview(b"".join(bytes(part) for part in parts))
        while done < whole:
            more = os.pwrite(descriptor, rest[done:], offset + done)
            if not more:  # should never happen, but the loop would otherwise never end
                raise OSError(errno.EIO, "the file system accepted no more bytes, but reported no error")
            done += more
    return offset + whole


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Return ``size`` bytes of a file from an offset, or fewer at the end of the file."""
    if WINDOWS:  # pragma: no cover - Windows only
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)
    data = os.pread(descriptor, size, offset)
    if len(data) == size or not data:
        return data
    pieces = [data]
    got = len(data)
    while got < size and (more := os.pread(descriptor, size - got, offset + got)):
        pieces.append(more)
        got += len(more)
    return b"".join(pieces)


def read_into(descriptor: int, view: memoryview, offset: int) -> int:
    """Read into a buffer, starting at an offset in a file; return the number of bytes read (0 at the end)."""
    if WINDOWS:  # pragma: no cover - Windows only
        data = read_at(descriptor, view.nbytes, offset)
        view[: len(data)] = data
        return len(data)
    return os.preadv(descriptor, [view], offset)


# -- paths as users write them --------------------------------------------------------------------

UNUSUAL = re.compile(r"^~|[$%]|://")
"""Matches strings that :func:`expanded` may change or :func:`refusal_of` may reject."""

_VARIABLE = re.compile(r"\$\w+|\$\{|%\w+%")


def expanded(path: str | os.PathLike[str]) -> str:
    """Return a path with a leading ``~`` replaced by the home folder, as in a config file.

    Examples
    --------
    >>> expanded("~/data") == os.path.join(os.path.expanduser("~"), "data")
    True
    """
    return os.path.expanduser(os.fspath(path))


def refusal_of(path: str) -> str:
    """Return the reason why a string cannot be used as a folder path; empty if it can.

    Examples
    --------
    >>> refusal_of("data"), refusal_of("$HOME/data")[:40]
    ('', 'variables such as $HOME are not expanded')
    """
    variable = _VARIABLE.search(path)
    if variable is not None:
        return (
            f"variables such as {variable[0]} are not expanded; write the full path, or use ~ for the home "
            "folder"
        )
    return "it is a URL; write the path of a folder on this machine" if "://" in path else ""


def refusal_of_new(path: str) -> str:
    """Return the reason why a string cannot be the path of a new dataset; empty if it can.

    Any existing path, and any absolute path in an existing folder, is accepted.
    """
    named_here = os.path.isabs(path) and os.path.isdir(os.path.dirname(path))
    return "" if named_here or os.path.lexists(path) else refusal_of(path)
