"""Intercepts a writer's calls that access the disk: counts them, and kills the process at one of them.

A store through a memory map also counts as a call.
"""

import builtins
import io
import mmap
import os
import signal
from collections.abc import Callable
from typing import Any

HALF = "half way through"


class Calls:
    """Intercepts a writer's calls that access the disk: counts them, and kills the process at one of them.

    Parameters
    ----------
    at : int
        The number of the call; -1 for none.
    when : str
    note : callable
        Called with the name of each call, and whether the call can be interrupted halfway.
    """

    def __init__(self, at: int, when: str, note: Callable[[str, bool], None]) -> None:
        self._at, self._when, self._note = at, when, note
        self._count = 0
        self._written: set[int] = set()  # descriptors of files that are open for writing

    def install(self) -> None:
        """Replace the functions of this process."""
        for name in _PLAIN:
            setattr(os, name, self._around(name, getattr(os, name)))
        for name in ("pwritev", "pwrite", "write", "writev"):
            setattr(os, name, self._around(name, getattr(os, name), _halves[name]))
        os.open = self._open(os.open)
        os.close = self._close(os.close)
        builtins.open = self._open_file(builtins.open)
        os.fdopen = self._open_descriptor(os.fdopen)
        mmap.mmap = self._map()

    def _around(
        self, name: str, call: Callable[..., Any], halve: Callable[..., tuple[Any, ...]] | None = None
    ) -> Callable[..., Any]:
        def instead(*arguments: Any, **more: Any) -> Any:
            mine = self._begin(name, halve is not None)
            if mine and self._when == HALF and halve is not None:
                call(*halve(*arguments))
                self._die()
            try:
                return call(*arguments, **more)
            finally:  # also after a failed call, for example if a folder already exists
                if mine:
                    self._die()

        return instead

    def _open(self, call: Callable[..., int]) -> Callable[..., int]:
        counted = self._around("open", call)

        def instead(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if not flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                return call(path, flags, *more, **named)
            descriptor = counted(path, flags, *more, **named)
            self._written.add(descriptor)
            return descriptor

        return instead

    def _close(self, call: Callable[[int], None]) -> Callable[[int], None]:
        counted = self._around("close", call)

        def instead(descriptor: int) -> None:
            if descriptor in self._written:
                self._written.discard(descriptor)
                counted(descriptor)
            else:
                call(descriptor)

        return instead

    def _raw(self) -> type[io.FileIO]:
        calls = self

        class Raw(io.FileIO):
            write = calls._around(
                "file.write", io.FileIO.write, lambda file, data: (file, data[: len(data) // 2])
            )
            close = calls._around("file.close", io.FileIO.close)

        return Raw

    def _open_descriptor(self, call: Callable[..., Any]) -> Callable[..., Any]:
        raw = self._raw()

        def instead(descriptor: int, mode: str = "r", *more: Any, **named: Any) -> Any:
            if mode != "wb":
                return call(descriptor, mode, *more, **named)
            self._written.discard(descriptor)  # the end of this call is a call of the file
            return io.BufferedWriter(raw(descriptor, "wb"))

        return instead

    def _map(self) -> type[mmap.mmap]:
        """Return a memory map that counts its stores."""
        calls = self

        class Map(mmap.mmap):
            def __setitem__(self, where: slice, data: bytes) -> None:
                store(self, where, data)

        def halve(mapped: mmap.mmap, where: slice, data: bytes) -> tuple[Any, ...]:
            half = len(data) // 2
            return mapped, slice(where.start, where.start + half), data[:half]

        store = calls._around("mmap.store", mmap.mmap.__setitem__, halve)
        return Map

    def _open_file(self, call: Callable[..., Any]) -> Callable[..., Any]:
        Raw = self._raw()

        def instead(path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
            if not set(mode) & set("wax+"):
                return call(path, mode, *more, **named)
            raw = self._around("file.open", Raw)(path, mode.replace("b", "").replace("t", ""))
            file: Any = io.BufferedWriter(raw)
            return file if "b" in mode else io.TextIOWrapper(file, named.get("encoding"))

        return instead

    def _begin(self, name: str, can_be_halved: bool) -> bool:
        mine = self._count == self._at
        self._count += 1
        self._note(name, can_be_halved)
        if mine and self._when == "before":
            self._die()
        return mine

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def _half(parts: list[Any]) -> list[Any]:
    """Return the first half of the bytes in several buffers."""
    data = b"".join(bytes(memoryview(part).cast("B")) for part in parts)
    return [data[: len(data) // 2]]


_PLAIN = (
    "fsync", "fdatasync", "ftruncate", "rename", "replace", "mkdir", "unlink", "rmdir", "link", "posix_fallocate",
)  # fmt: skip
_halves: dict[str, Callable[..., tuple[Any, ...]]] = {
    "pwritev": lambda descriptor, parts, offset: (descriptor, _half(parts), offset),
    "writev": lambda descriptor, parts: (descriptor, _half(parts)),
    "pwrite": lambda descriptor, data, offset: (descriptor, _half([data])[0], offset),
    "write": lambda descriptor, data: (descriptor, _half([data])[0]),
}
