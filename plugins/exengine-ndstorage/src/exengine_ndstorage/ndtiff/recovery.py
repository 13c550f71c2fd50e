"""Mends an NDTiff dataset of ours in place, so that it is as if its last frame had been finished.

The order is that of a writer: the index is replaced when the one before is safe beside it, then the
files are brought into agreement with it. Every step looks at what is there and does what is left to
do, so that after being killed anywhere the same call comes to the same end.

What a writer had begun when it died, and the index does not name, is cut off the end of the files. Nothing
else is: where the index itself was damaged, or frames are taken out of it, all bytes stay where they are,
in case somebody can make something of them. Then the index from before lies beside the new one.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np

from exengine.base_classes import DataCoordinates, open_regular, read_at, sync_folder, write_at
from exengine.errors import DatasetDamagedError
from exengine_ndstorage.ndtiff import format as layout
from exengine_ndstorage.ndtiff.files import CHUNK_BYTES, READ, OpenFile
from exengine_ndstorage.ndtiff.index_entries import prove_chain
from exengine_ndstorage.ndtiff.index_table import FrameTable
from exengine_ndstorage.ndtiff.reader import read_header
from exengine_ndstorage.ndtiff.structure import BACKUP_NAME, Directory, directories, is_stack, read_link

_SUMMARY_BYTES_AT, _SUMMARY_AT = 24, 28  # in the header
_LEAST_HEADER = _SUMMARY_AT + 2
_ONE_WRITE_BYTES = 5 * 2**20  # a batch of small frames; a larger frame goes alone


def recover_in_place(path: str, lost: Collection[DataCoordinates]) -> None:
    """Take lost frames out of the index of a dataset, and bring its files into agreement with it.

    Parameters
    ----------
    path : str
        Of a dataset that this backend wrote, and whose lock the caller holds.
    lost : collection of DataCoordinates
        Frames that cannot be read back.

    Raises
    ------
    OSError
        When something cannot be written. The next call goes on from there.
    """
    index = os.path.join(path, layout.INDEX_NAME)
    table, whole_bytes = _read_index(index)
    dropped = set(table.superseded)
    for coordinates in lost:
        number = table.find(coordinates.__dict__)
        if number is not None:
            dropped.add(number)
    if dropped or whole_bytes != _size(index):
        _replace_index(path, whole_bytes, dropped)
    kept = {table.files[number]: frames for number, frames in table.in_file_order(dropped).items()}
    headers = _Headers(path, [*kept])
    for name in _stacks(path, kept):
        frames = [*directories(table, kept.get(name, np.zeros(0, np.intp)))]
        file = _MendedFile(path, name, frames)
        if file.is_an_attempt and kept:
            os.unlink(os.path.join(path, name))
        else:
            file.mend(headers)
    sync_folder(path)


# -- the index -----------------------------------------------------------------------------------


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.lexists(path) else -1


def _read_index(path: str) -> tuple[FrameTable, int]:
    """Return the frames that an index names, and how many of its bytes name them."""
    table = FrameTable()
    done = 0
    for chunk in _chunks(path):
        done += table.feed(chunk)
        if table.problem:
            break
    return table, done


def _chunks(path: str) -> Iterator[bytes]:
    """Yield an index in pieces that begin where an entry begins."""
    if not os.path.lexists(path):
        return
    file = OpenFile(path, READ)
    at = 0
    while chunk := read_at(file.descriptor, CHUNK_BYTES, at):
        yield chunk
        _, ends = prove_chain(chunk)
        if not len(ends):
            return
        at += int(ends[-1])


def _replace_index(folder: str, whole_bytes: int, dropped: Collection[int]) -> None:
    """Write an index without some entries and without what follows the last one; keep the old one."""
    index = os.path.join(folder, layout.INDEX_NAME)
    _keep_index(folder)
    with _replacing(index) as descriptor:
        at = number = done = 0
        for chunk in _chunks(index):
            starts, ends = prove_chain(chunk)
            parts = []
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                if done + end > whole_bytes:
                    break
                if number not in dropped:
                    parts.append(chunk[start:end])
                number += 1
            if parts:
                at = write_at(descriptor, [b"".join(parts)], at)
            done += int(ends[-1]) if len(ends) else 0
    sync_folder(folder)


def _keep_index(folder: str) -> None:
    """Keep a copy of the index, unless one is there: that is of an earlier run, and the older one."""
    index = os.path.join(folder, layout.INDEX_NAME)
    backup = os.path.join(folder, BACKUP_NAME)
    if os.path.lexists(backup) or not os.path.lexists(index):
        return
    with _replacing(backup) as descriptor:
        file = OpenFile(index, READ)
        at = 0
        while data := read_at(file.descriptor, CHUNK_BYTES, at):
            at = write_at(descriptor, [data], at)
    sync_folder(folder)


@contextmanager
def _replacing(path: str) -> Iterator[int]:
    """Give a new file to write to; it takes its place when all of it is on the disk."""
    temporary = path + ".new"
    descriptor = open_regular(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)


# -- the files -----------------------------------------------------------------------------------


def _stacks(folder: str, named: Collection[str]) -> list[str]:
    """Return the names of the files that hold, or held, frames."""
    there = set(os.listdir(folder))
    return sorted(there & ({*named} | {name for name in there if is_stack(name)}))


class _Headers:
    """A header of the dataset for files that have none: that of another file, or one without metadata.

    Parameters
    ----------
    folder : str
    names : list of str
        Of the files; all have the same header, apart from its last bytes.
    """

    def __init__(self, folder: str, names: list[str]) -> None:
        self._good: dict[int, bytes] = {}
        for name in names:
            path = os.path.join(folder, name)
            if _has_header(path):
                file = OpenFile(path, READ)
                summary_bytes = read_at(file.descriptor, 4, _SUMMARY_BYTES_AT)
                size = _SUMMARY_AT + int.from_bytes(summary_bytes, "little")
                size += size & 1
                self._good[size] = read_at(file.descriptor, size, 0)
                return

    def of(self, size: int) -> bytes:
        """Return a header up to the first directory, which lies at ``size``."""
        good = self._good.get(size)
        if good is None:
            good = layout.header(b"{}" + b" " * (size - _LEAST_HEADER))
        return good


def _has_header(path: str) -> bool:
    try:
        return read_header(path)[0] == layout.MAJOR_VERSION
    except (DatasetDamagedError, OSError):
        return False


class _MendedFile(OpenFile):
    """A file whose header leads to the first of its frames, each frame to the next, the last to none.

    Parameters
    ----------
    folder, name : str
    frames : list of Directory
        Those that are kept.
    """

    __slots__ = ("_folder", "_frames", "_path")

    def __init__(self, folder: str, name: str, frames: list[Directory]) -> None:
        self._folder = folder
        self._path = os.path.join(folder, name)
        self._frames = frames
        super().__init__(self._path, os.O_RDWR)

    @property
    def is_an_attempt(self) -> bool:
        """Whether the writer died before the header was whole."""
        small = self._size() <= _ONE_WRITE_BYTES
        return small and not self._frames and not self._index_was_changed() and not _has_header(self._path)

    def mend(self, headers: "_Headers") -> None:
        """Write what differs from what must be there."""
        first = self._frames[0].begin if self._frames else 0
        if not _has_header(self._path) and (first >= _LEAST_HEADER or not self._frames):
            self._put(headers.of(first or _LEAST_HEADER), 0)
        if read_link(self, layout.FIRST_IFD_AT) != first:
            self._put(first.to_bytes(4, "little"), layout.FIRST_IFD_AT)
        links = [*(directory.begin for directory in self._frames[1:]), 0]
        for directory, link in zip(self._frames, links, strict=False):
            there = read_at(self.descriptor, directory.form.ifd_bytes, directory.begin)
            wanted = directory.as_written(there, link)
            if there != wanted:
                self._put(wanted, directory.begin)
        self._cut()
        os.fsync(self.descriptor)

    def _cut(self) -> None:
        """Cut off what a writer had begun when it died: at most what goes to the disk in one write."""
        if self._index_was_changed():
            return
        end = max((directory.end for directory in self._frames), default=0)
        if not end:
            summary_bytes = int.from_bytes(read_at(self.descriptor, 4, _SUMMARY_BYTES_AT), "little")
            end = _SUMMARY_AT + summary_bytes + (summary_bytes & 1)
        behind = self._size() - end
        largest = max((directory.end - directory.begin for directory in self._frames), default=0)
        if 0 < behind <= max(_ONE_WRITE_BYTES, 2 * largest):
            os.ftruncate(self.descriptor, end)
        elif behind > 0:
            _keep_index(self._folder)

    def _index_was_changed(self) -> bool:
        return os.path.lexists(os.path.join(self._folder, BACKUP_NAME))

    def _size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def _put(self, data: bytes, at: int) -> None:
        write_at(self.descriptor, [data], at)
