"""Wraps the Python functions that change files, to make one call fail or to record all syncs.

Only calls through Python's modules are observed, not the calls that a C library makes itself. Nothing can
therefore be concluded about a file that no Python code has opened for writing.
"""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exengine.kernel.system import files
from exengine.testing.tasks.dataset_files import dataset_at

WRITES = (
    "write", "pwrite", "writev", "pwritev", "ftruncate", "truncate", "rename", "replace", "link", "symlink",
    "unlink", "mkdir", "posix_fallocate", "sendfile", "copy_file_range",
)  # fmt: skip
SYNCS = ("fsync", "fdatasync")
SYNCS_OF_ALL = ((os, "sync"), (files, "sync_filesystem"))
_TO_WRITE = os.O_WRONLY | os.O_RDWR


class Calls:
    """A context manager that replaces the functions so that one call fails, and restores them on exit.

    Parameters
    ----------
    root : path
        The path of a dataset. Only calls on its files are counted: on a folder and everything in it, or on a
        file and the files that ExEngine keeps next to it.
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
        for module, name in (*everywhere, *SYNCS_OF_ALL):
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
        """The name of the function whose call failed; empty if that call was not reached."""
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
            return os.fstat(what).st_ino in inodes_of(self.root) | _inodes_beside(self.root)
        try:
            path = os.path.abspath(os.fsdecode(what))
        except TypeError:
            return False
        return path == self.root or path.startswith((self.root + os.sep, f"{self.root}.exengine."))


def _half(name: str, content: Any) -> Any:
    if name in ("write", "pwrite"):
        view = memoryview(content).cast("B")
        return view[: (len(view) + 1) // 2]
    first = memoryview(content[0]).cast("B")
    return [first[: (len(first) + 1) // 2]]


def inodes_of(root: str) -> dict[int, str]:
    """Return a dict that maps the inode of a folder, and of everything in it, to its path."""
    found = {os.lstat(root).st_ino: root} if os.path.lexists(root) else {}
    for base, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = os.path.join(base, name)
            try:
                found[os.lstat(path).st_ino] = path
            except FileNotFoundError:  # it has since been renamed or removed
                continue
    return found


def _inodes_beside(path: str) -> dict[int, str]:
    """Return the paths of the files that ExEngine keeps next to a single-file dataset, by inode."""
    return {os.lstat(file).st_ino: os.fspath(file) for file in dataset_at(Path(path))[1:]}


class Syncs:
    """Records the contents of files and folders as of their last sync.

    The files that Python code opens for writing are also recorded. Recording cannot be stopped.

    Parameters
    ----------
    root : path
        Only files and folders below this folder are recorded.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, int]] = {}
        self._opened: set[str] = set()
        sys.addaudithook(self._hear)
        for name in SYNCS:
            if hasattr(os, name):
                setattr(os, name, self._one(getattr(os, name)))
        for module, name in SYNCS_OF_ALL:
            if hasattr(module, name):
                setattr(module, name, self._every(getattr(module, name)))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path, mode, flags = arguments
            if (flags or 0) & _TO_WRITE or (isinstance(mode, str) and set(mode) & set("wax+")):
                self._opened.add(os.path.basename(os.fsdecode(path)))
        elif event == "os.rename" and os.path.basename(os.fsdecode(arguments[0])) in self._opened:
            self._opened.add(os.path.basename(os.fsdecode(arguments[1])))

    def _one(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: Any, *more: Any) -> Any:
            inode = os.fstat(fd if isinstance(fd, int) else fd.fileno()).st_ino
            path = inodes_of(self._root).get(inode)
            if path is not None:
                self._note(path)  # record first, because another thread may write during the call
            return real(fd, *more)

        return call

    def _every(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            for path in inodes_of(self._root).values():
                self._note(path)
            return real(*arguments)

        return call

    def _note(self, path: str) -> None:
        inode = os.lstat(path).st_ino
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                self._folders[inode] = {entry.name: entry.inode() for entry in entries}
        else:
            with open(path, "rb") as file:
                self._files[inode] = file.read()

    def sees(self, lacking: list[str]) -> bool:
        """Return whether Python code opened all of these files; only then are their syncs recorded."""
        return all(os.path.basename(name) in self._opened for name in lacking if os.path.isfile(name))

    def restore(self, dataset: str, copy: str) -> list[str]:
        """Write a copy of a dataset as power loss would leave it; return the paths that the copy lacks."""
        kinds = {inode: os.path.isdir(path) for inode, path in inodes_of(self._root).items()}
        if os.path.isdir(dataset):
            self._restore(os.lstat(dataset).st_ino, copy, kinds)
            places = {path: os.path.join(copy, os.path.relpath(path, dataset))
                      for path in inodes_of(dataset).values()}  # fmt: skip
        else:
            parent = self._folders.get(os.lstat(os.path.dirname(dataset)).st_ino, {})
            paths = [os.fspath(path) for path in dataset_at(Path(dataset))]
            places = {path: copy + path.removeprefix(dataset) for path in paths}
            for path, place in places.items():
                if os.path.basename(path) in parent:
                    self._restore(parent[os.path.basename(path)], place, kinds)
        return sorted(path for path, place in places.items() if _lacks(path, place))

    def _restore(self, inode: int, place: str, kinds: dict[int, bool]) -> None:
        if inode in self._folders or kinds.get(inode):
            os.mkdir(place)
            for name, other in self._folders.get(inode, {}).items():
                self._restore(other, os.path.join(place, name), kinds)
        else:
            with open(place, "wb") as file:
                file.write(self._files.get(inode, b""))


def _lacks(path: str, copy: str) -> bool:
    """Return whether a copy is missing or, if it is a file, differs in size from the original."""
    if not os.path.lexists(copy):
        return True
    return os.path.isfile(path) and os.path.getsize(copy) != os.path.getsize(path)
