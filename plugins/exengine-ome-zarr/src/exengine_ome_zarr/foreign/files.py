"""Read access to the files of a dataset in a folder or a zip archive.

Datasets are untrusted. A key, such as ``"0/c/0/1"``, cannot lead out of the dataset: links, pipes and devices
are refused, and so is a key with ``..``. Nothing is unpacked to disk, and each read is limited in size.
"""

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Protocol, TypeGuard

from exengine.base_classes import OpenFile, read_at
from exengine.errors import (
    DatasetDamagedError,
    DatasetNotFoundError,
    StorageClosedError,
    UnsupportedOperationError,
)

MAX_KEY_CHARS = 1024
MAX_ZIP_ENTRIES = 500_000
"""The maximum number of files in an archive; each file in the list takes about 600 bytes of memory."""
MAX_DIRECTORY_BYTES = 64 * 2**20
MAX_INFLATION = 2**31
"""The maximum size of a deflated file. Such a file is unpacked in memory."""

_PART = re.compile(r"[^/\\:\x00-\x1f\x7f]{1,255}")
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_END = struct.Struct("<4s4H2IH")
_END_64_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQ2H2I4Q")


def is_key(key: object) -> TypeGuard[str]:
    """Return whether a relative path from a metadata file stays inside the dataset."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS:
        return False
    return all(_PART.fullmatch(part) and part not in (".", "..") for part in key.split("/"))


def joined(*parts: str) -> str:
    """Join parts into a key, leaving out empty parts."""
    return "/".join(part for part in parts if part)


class Files(Protocol):
    """The files of a dataset, addressed by keys."""

    def read(self, key: str, most: int) -> bytes | None:
        """Return a whole file, or None if it does not exist.

        Raises
        ------
        DatasetDamagedError
            If the file is larger than ``most`` bytes, is not a regular file, or cannot be read.
        """

    def read_range(self, key: str, offset: int, size: int) -> bytes | None:
        """Return part of a file; fewer bytes if the file ends first. The errors are those of :meth:`read`."""

    def signature(self, key: str) -> tuple[int, int] | None:
        """Return a file's size and a number that changes when the file does, or None if there is no file."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all files under a prefix. Links are not followed."""

    def name(self, key: str) -> str:
        """Return the name of a file for messages."""

    def close(self) -> None:
        """Close the archive. Reads in progress in other threads still complete."""


class FolderFiles:
    """The files of a dataset in a folder.

    Parameters
    ----------
    folder : str
        The absolute path of the folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._checked: set[str] = {""}  # folders that are known not to be links

    def read(self, key: str, most: int) -> bytes | None:
        file = self._open(key)
        if file is None:
            return None
        size = os.fstat(file.descriptor).st_size
        if size > most:
            raise DatasetDamagedError(f"{self.name(key)} has {size} bytes; the limit is {most}")
        return self._read(file, size, 0, key)

    def read_range(self, key: str, offset: int, size: int) -> bytes | None:
        file = self._open(key)
        if file is None:
            return None
        end = min(offset + size, os.fstat(file.descriptor).st_size)
        return self._read(file, max(0, end - offset), offset, key)

    def _read(self, file: OpenFile, size: int, offset: int, key: str) -> bytes:
        try:
            return read_at(file.descriptor, size, offset)
        except OSError as error:
            raise DatasetDamagedError(f"{self.name(key)} cannot be read: {error.strerror}") from error

    def _open(self, key: str) -> OpenFile | None:
        if not is_key(key):
            raise DatasetDamagedError(f"{key!r:.80} is not the name of a file in {self._folder}")
        if not self._check_folders(key):
            return None
        try:
            return OpenFile(self.name(key), os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DatasetDamagedError(f"{self.name(key)} cannot be read: {error.strerror}") from error

    def _check_folders(self, key: str) -> bool:
        """Refuse a key that leads through links; return False if one of its folders does not exist."""
        folder = key.rpartition("/")[0]
        if folder in self._checked:
            return True
        at = 0
        while at < len(folder):
            end = folder.find("/", at + 1)
            at = len(folder) if end < 0 else end
            path = os.path.join(self._folder, folder[:at])
            try:
                mode = os.lstat(path).st_mode
            except (FileNotFoundError, NotADirectoryError):
                return False
            except OSError as error:
                raise DatasetDamagedError(f"{path} cannot be read: {error.strerror}") from error
            if stat.S_ISLNK(mode):
                raise DatasetDamagedError(f"{path} is a symbolic link, not a folder of the dataset")
        if len(self._checked) < MAX_ZIP_ENTRIES:
            self._checked.add(folder)
        return True

    def signature(self, key: str) -> tuple[int, int] | None:
        file = self._open(key)
        if file is None:
            return None
        status = os.fstat(file.descriptor)
        return status.st_size, status.st_mtime_ns

    def keys(self, prefix: str) -> Iterator[str]:
        if prefix and not self._check_folders(f"{prefix}/"):
            return
        pending = [prefix]
        while pending:
            folder = pending.pop()
            try:
                entries = sorted(os.scandir(os.path.join(self._folder, folder)), key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in entries:
                key = joined(folder, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(key)
                else:
                    yield key

    def name(self, key: str) -> str:
        return os.path.join(self._folder, *key.split("/"))

    def close(self) -> None:
        pass


class ZipFiles:
    """The files of a dataset in a zip archive. Only stored and deflated files can be read.

    Parameters
    ----------
    path : str
        The absolute path of the archive.

    Raises
    ------
    DatasetDamagedError
        If the file is not an archive, or its list of files is too large.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._file: OpenFile | None = OpenFile(path, os.O_RDONLY)
        except FileNotFoundError:
            raise DatasetNotFoundError(f"no dataset exists at {path}") from None
        except OSError as error:
            raise DatasetDamagedError(f"{path} cannot be read: {error.strerror}") from error
        self._size = os.fstat(self._file.descriptor).st_size
        _refuse_large_directory(self._file.descriptor, self._size, path)
        try:
            with os.fdopen(os.dup(self._file.descriptor), "rb") as file, zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except Exception as error:  # zipfile raises various errors for damaged archives
            raise DatasetDamagedError(f"{path} cannot be read as a zip archive: {error}") from error
        self._entries = {entry.filename: entry for entry in entries if is_key(entry.filename)}
        self._prefix = self._common_folder()

    def _common_folder(self) -> str:
        """Return the folder inside the archive that contains all files, with a final slash; usually empty."""
        if not {"zarr.json", ".zgroup", ".zattrs"}.isdisjoint(self._entries):
            return ""
        tops = {name.partition("/")[0] for name in self._entries}
        return f"{tops.pop()}/" if len(tops) == 1 else ""

    def read(self, key: str, most: int) -> bytes | None:
        entry = self._entries.get(self._prefix + key)
        if entry is None:
            return None
        most = min(most, MAX_INFLATION)
        if entry.file_size > most:
            raise DatasetDamagedError(f"{self.name(key)} has {entry.file_size} bytes; the limit is {most}")
        packed = self._packed(entry, key, 0, entry.compress_size)
        if entry.compress_type == zipfile.ZIP_STORED:
            data = packed
        else:
            try:
                data = zlib.decompressobj(-15).decompress(packed, entry.file_size + 1)
            except zlib.error as error:
                raise DatasetDamagedError(f"{self.name(key)} cannot be decompressed: {error}") from error
        if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
            raise DatasetDamagedError(f"{self.name(key)} does not match its checksum in the archive")
        return data

    def read_range(self, key: str, offset: int, size: int) -> bytes | None:
        entry = self._entries.get(self._prefix + key)
        if entry is None:
            return None
        if entry.compress_type == zipfile.ZIP_STORED:
            return self._packed(entry, key, offset, min(size, max(0, entry.file_size - offset)))
        data = self.read(key, MAX_INFLATION)
        return None if data is None else data[offset : offset + size]

    def _packed(self, entry: zipfile.ZipInfo, key: str, offset: int, size: int) -> bytes:
        """Return part of a file as it is stored in the archive, without decompressing it."""
        file = self._file
        if file is None:
            raise StorageClosedError(f"{self._path} is closed; open it again")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsupportedOperationError(
                f"{self.name(key)} is encrypted, or compressed by a method other than deflate"
            )
        if not 0 <= entry.header_offset <= self._size - entry.compress_size:
            raise DatasetDamagedError(f"the data of {self.name(key)} would lie outside the archive")
        if offset + size > entry.compress_size:
            raise DatasetDamagedError(f"{self.name(key)} is longer than its entry states")
        header = read_at(file.descriptor, _LOCAL_HEADER.size, entry.header_offset)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise DatasetDamagedError(f"{self.name(key)} is not at the offset that its entry states")
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        begin = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + offset
        data = read_at(file.descriptor, size, begin)
        if len(data) < size:
            raise DatasetDamagedError(f"{self.name(key)} is cut off at the end of the archive")
        return data

    def signature(self, key: str) -> tuple[int, int] | None:
        entry = self._entries.get(self._prefix + key)
        return None if entry is None else (entry.file_size, entry.CRC)

    def keys(self, prefix: str) -> Iterator[str]:
        start = f"{self._prefix}{prefix}/" if prefix else self._prefix
        return (name[len(self._prefix) :] for name in self._entries if name.startswith(start))

    def name(self, key: str) -> str:
        return f"{self._path}!{self._prefix}{key}"

    def close(self) -> None:
        self._file = None


def _refuse_large_directory(descriptor: int, size: int, path: str) -> None:
    """Refuse an archive if its list of files would take too much memory.

    The format is that of APPNOTE.TXT 6.3.10, sections 4.3.14 to 4.3.16.
    """
    begin = max(0, size - 65536 - _END.size)
    tail = read_at(descriptor, size - begin, begin)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise DatasetDamagedError(f"{path} is not a zip archive, or it is cut off at its end")
    _, _, _, _, entries, directory_bytes, _, _ = _END.unpack_from(tail, at)
    entries = 0 if entries == 0xFFFF else entries  # the 64-bit record contains the value
    directory_bytes = 0 if directory_bytes == 0xFFFFFFFF else directory_bytes
    locator = at - _END_64_LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        _, _, where, _ = _END_64_LOCATOR.unpack_from(tail, locator)
        for place in (where, begin + locator - _END_64.size):  # zipfile uses one of these two offsets
            record = read_at(descriptor, _END_64.size, min(max(0, place), size))
            if len(record) == _END_64.size and record[:4] == b"PK\x06\x06":
                _, _, _, _, _, _, _, count, count_bytes, _ = _END_64.unpack(record)
                entries, directory_bytes = max(entries, count), max(directory_bytes, count_bytes)
    if entries > MAX_ZIP_ENTRIES or directory_bytes > MAX_DIRECTORY_BYTES:
        raise DatasetDamagedError(
            f"{path} lists {entries} files in {directory_bytes} bytes; the limits are "
            f"{MAX_ZIP_ENTRIES} files and {MAX_DIRECTORY_BYTES} bytes"
        )


def files_at(path: str) -> Files:
    """Return the files of the folder or the zip archive at an absolute path.

    Raises
    ------
    DatasetNotFoundError
        If nothing exists there.
    DatasetDamagedError
        If the archive cannot be read.
    """
    if os.path.isdir(path):
        return FolderFiles(path)
    if not os.path.lexists(path):
        raise DatasetNotFoundError(f"no dataset exists at {path}")
    return ZipFiles(path)
