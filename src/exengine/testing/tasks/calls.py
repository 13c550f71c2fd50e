"""Wrappers of Python's functions that change the disk: one call fails, or all syncs are recorded.

Only calls that go through Python's modules are seen. Those that a C library makes by itself are not, so that
nothing may be concluded about files that no Python code has opened for writing.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exengine.kernel.storage.manifest import LOCK_NAME, MANIFEST_NAME
from exengine.kernel.system import files

WRITES = (
    "write", "pwrite", "writev", "pwritev", "ftruncate", "truncate", "rename", "replace", "link", "symlink",
    "unlink", "mkdir", "posix_fallocate", "sendfile", "copy_file_range",
)  # fmt: skip
SYNCS = ("fsync", "fdatasync")
_SYNC_ALL = ((os, "sync"), (files, "sync_filesystem"))
_TO_WRITE = os.O_WRONLY | os.O_RDWR
_SYNCED_OPEN = getattr(os, "O_SYNC", 0) | getattr(os, "O_DSYNC", 0)


class Calls:
    """Make one call of a kind fail. As a context manager, it replaces the functions and restores them.

    Parameters
    ----------
    root : path
        Only calls that concern this folder or something in it count.
    number : int
        The call that fails, counted from 0 over all functions; -1 for none.
    kind : {"error", "short"}
        Whether the call raises an error or, if it writes, writes only half of the bytes.
    """

    def __init__(self, root: Path, number: int, kind: str = "error") -> None:
        self.root, self.number, self.kind = os.path.realpath(root), number, kind
        self.seen: list[str] = []
        self._real: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> "Calls":
        everywhere = [(os, name) for name in (*WRITES, *SYNCS) if hasattr(os, name)]
        for module, name in (*everywhere, *_SYNC_ALL):
            if hasattr(module, name):
                real = getattr(module, name)
                self._real.append((module, name, real))
                setattr(module, name, self._wrapped(name, real))
        return self

    def __exit__(self, *_: object) -> None:
        for module, name, real in self._real:
            setattr(module, name, real)

    @property
    def failed(self) -> str:
        """The name of the function whose call failed; empty if there were fewer calls."""
        return self.seen[self.number] if 0 <= self.number < len(self.seen) else ""

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if name not in ("sync", "sync_filesystem") and not self._concerns(arguments):
                return real(*arguments, **named)
            if self.kind == "short" and name not in ("write", "pwrite", "writev", "pwritev"):
                return real(*arguments, **named)
            self.seen.append(name)
            if len(self.seen) - 1 != self.number:
                return real(*arguments, **named)
            if self.kind == "short":
                return real(arguments[0], _half(name, arguments[1]), *arguments[2:], **named)
            code = errno.EIO if "sync" in name else errno.ENOSPC
            raise OSError(code, f"{os.strerror(code)} (injected by the conformance kit)")

        return call

    def _concerns(self, arguments: tuple[Any, ...]) -> bool:
        what: Any = arguments[0] if arguments else None
        if isinstance(what, int):
            return os.fstat(what).st_ino in inodes_of(self.root)
        try:
            path = os.path.abspath(os.fsdecode(what))
        except TypeError:
            return False
        return path == self.root or path.startswith(self.root + os.sep)


def _half(name: str, content: Any) -> Any:
    if name in ("write", "pwrite"):
        view = memoryview(content).cast("B")
        return view[: (len(view) + 1) // 2]
    first = memoryview(content[0]).cast("B")
    return [first[: (len(first) + 1) // 2]]


def inodes_of(root: str) -> dict[int, str]:
    """Return the inode of a folder and of everything in it -> its path."""
    found = {os.lstat(root).st_ino: root} if os.path.lexists(root) else {}
    for base, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = os.path.join(base, name)
            try:
                found[os.lstat(path).st_ino] = path
            except FileNotFoundError:  # renamed or removed since
                continue
    return found


class Syncs:
    """A recorder of syncs and of the files that Python code opens for writing. It cannot be removed."""

    def __init__(self) -> None:
        self._synced: dict[int, tuple[int, int]] = {}
        self._all: float = 0
        self._opened: set[str] = set()
        sys.addaudithook(self._hear)
        for name in SYNCS:
            if hasattr(os, name):
                setattr(os, name, self._one(getattr(os, name)))
        for module, name in _SYNC_ALL:
            if hasattr(module, name):
                setattr(module, name, self._every(getattr(module, name)))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not isinstance(arguments[0], int):
            path, mode, flags = arguments
            writes = (flags or 0) & _TO_WRITE or (isinstance(mode, str) and set(mode) & set("wax+"))
            if writes and not (flags or 0) & _SYNCED_OPEN:
                self._opened.add(os.path.basename(os.fsdecode(path)))
        elif event == "os.rename" and os.path.basename(os.fsdecode(arguments[0])) in self._opened:
            self._opened.add(os.path.basename(os.fsdecode(arguments[1])))
        elif event == "os.mkdir":
            self._opened.add(os.path.basename(os.fsdecode(arguments[0])))

    def _one(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: Any, *more: Any) -> Any:
            result = real(fd, *more)
            about = os.fstat(fd if isinstance(fd, int) else fd.fileno())
            self._synced[about.st_ino] = (about.st_size, about.st_mtime_ns)
            return result

        return call

    def _every(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = real(*arguments)
            for path in arguments or ("/",):
                for name in _below(os.path.realpath(os.fspath(path))) if arguments else ():
                    self._note(name)
            return result

        return call

    def _note(self, path: str) -> None:
        about = os.lstat(path)
        self._synced[about.st_ino] = (about.st_size, about.st_mtime_ns)

    def missing(self, root: str) -> list[str]:
        """Return the files and folders of a dataset that have changed since they were last synced."""
        found = []
        for path in _below(os.path.realpath(root)):
            name, about = os.path.basename(path), os.lstat(path)
            if name == LOCK_NAME or name.startswith(MANIFEST_NAME):
                continue
            if path != os.path.realpath(root) and name not in self._opened:
                continue
            known = self._synced.get(about.st_ino)
            is_folder = os.path.isdir(path)
            if known is None or (known[1] if is_folder else known) != (
                about.st_mtime_ns if is_folder else (about.st_size, about.st_mtime_ns)
            ):
                found.append(os.path.relpath(path, root))
        return found


def _below(root: str) -> Iterator[str]:
    yield root
    for base, folders, names in os.walk(root) if os.path.isdir(root) else ():
        for name in (*folders, *names):
            yield os.path.join(base, name)
