"""The few things that differ between operating systems: locks, syncing, where settings lie."""

import errno
import functools
import os
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
    """Open a regular file, and refuse whatever else stands in its place, without waiting for it.

    Datasets come from strangers: a pipe would wait for ever, a device may do something when it is
    opened, and a symbolic link leads to files that are no part of the dataset.

    Parameters
    ----------
    path : path
    flags : int
        Of ``os.open``.
    follow_links : bool
        Whether the last part of the path may be a link, to a regular file.
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
        With ``errno.EINVAL`` when it is something else; ``strerror`` says what.
    """
    if not flags & os.O_EXCL:  # which makes a new file or fails
        try:
            _refuse_other_kinds(os.stat(path, dir_fd=dir_fd, follow_symlinks=follow_links), path)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
    # Between the look and the opening another may come into its place.
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    flags |= 0 if follow_links else getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o666, dir_fd=dir_fd)
    try:
        _refuse_other_kinds(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_other_kinds(status: os.stat_result, path: "str | os.PathLike[str]") -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"it is {kind_of(status)}, and no regular file", os.fspath(path))


def kind_of(status: os.stat_result) -> str:
    """Return in words what has this status, such as "a pipe"."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def open_new(path: "str | os.PathLike[str]", flags: int = os.O_WRONLY) -> int:
    """Open a new file, in place of a regular one that a killed process has left.

    The old one is not truncated: it may have another name elsewhere, where its content would be gone, too.

    Raises
    ------
    OSError
        With ``errno.EINVAL`` if something other than a regular file is there; ``strerror`` says what.
    """
    try:
        return open_regular(path, flags | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        _refuse_other_kinds(os.lstat(path), path)
    os.unlink(path)
    return open_regular(path, flags | os.O_CREAT | os.O_EXCL)


def rename_to_free_name(source: str, target: str, *, dir_fd: int | None = None) -> None:
    """Rename what is at a path, unless something is at the new one: then nothing is replaced.

    Parameters
    ----------
    source, target : str
        On one file system.
    dir_fd : int, optional
        A descriptor of the folder that both are relative to.

    Raises
    ------
    FileExistsError
        If something is at the target.
    OSError
    """
    if sys.platform.startswith("linux") and _renameat2(source, target, dir_fd):
        return
    # Another system, or a file system that cannot: what comes between these two lines is replaced, if it is a
    # file or an empty folder.
    try:
        os.stat(target, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)


def _renameat2(source: str, target: str, dir_fd: int | None) -> bool:
    """Rename with ``renameat2(2)``, which Python does not have; return False where the system has it not."""
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
    """Return the beginning of a file name, of at most so many bytes, to build another name from."""
    return os.fsencode(name)[:most].decode(errors="ignore")


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


def begin_writing(descriptor: int, offset: int, size: int) -> None:
    """Let the system begin to bring a part of a file to the disk; does nothing where that cannot be said.

    It makes nothing safe, and tells of no error: a later ``fsync`` has less to do, and does that.
    """
    call = _sync_file_range()
    if call is not None:
        call(descriptor, offset, size, 2)  # SYNC_FILE_RANGE_WRITE


@functools.cache
def _sync_file_range() -> "Callable[[int, int, int, int], int] | None":
    """Return ``sync_file_range(2)``, which Python does not have; None where the system has it not."""
    if not sys.platform.startswith("linux"):  # pragma: no cover - another system
        return None
    import ctypes

    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call


def config_folder() -> str:
    """Return the folder of the user's own settings for ExEngine; it need not exist."""
    if WINDOWS:  # pragma: no cover - another system
        return os.path.join(os.environ.get("APPDATA", os.path.expanduser("~")), "exengine")
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "exengine")


def write_at(descriptor: int, parts: "Sequence[Any]", offset: int, size: int | None = None) -> int:
    """Write buffers one after another at a place of a file, all of them.

    Parameters
    ----------
    descriptor : int
    parts : sequence of buffers
        Contiguous: bytes, or arrays.
    offset : int
        In bytes.
    size : int, optional
        Of all parts together, in bytes, where the caller knows it.

    Returns
    -------
    int
        The offset behind what was written.

    Raises
    ------
    OSError
        When less than all could be written; what was written is there.
    """
    if WINDOWS:  # pragma: no cover - another system
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
        # A short write: go on behind it; a full disk raises at the next one.
        rest = memoryview(b"".join(bytes(part) for part in parts))
        while done < whole:
            more = os.pwrite(descriptor, rest[done:], offset + done)
            if not more:  # no system should do that, and asking again for ever would hang
                raise OSError(errno.EIO, "the file system took no more bytes and gave no reason")
            done += more
    return offset + whole


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Return up to ``size`` bytes from a place of a file; fewer only at its end."""
    if WINDOWS:  # pragma: no cover - another system
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
    """Read from a place of a file into a buffer; return how many bytes, 0 at the end of the file."""
    if WINDOWS:  # pragma: no cover - another system
        data = read_at(descriptor, view.nbytes, offset)
        view[: len(data)] = data
        return len(data)
    return os.preadv(descriptor, [view], offset)
