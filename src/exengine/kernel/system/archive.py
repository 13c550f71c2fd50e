"""Datasets packed into a single file: a ZIP archive without compression, in which files are read in place.

The archive contains each file of a dataset's folder, under its path relative to that folder. A backend that
reads such archives derives from :class:`PackableDatasets`.
"""

import errno
import functools
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import ClassVar

from exengine.kernel.errors import DatasetDamagedError
from exengine.kernel.system.files import read_at
from exengine.kernel.system.open_files import READ, OpenFile

_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, and length of the extra field
_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 1


class PackableDatasets:
    """Settings for packing datasets. A backend derives from this class in addition to its base class.

    ``can_open`` and ``open`` of such a backend accept packed datasets.
    """

    packed_suffix: ClassVar[str] = ".zip"
    """The suffix of a packed dataset."""

    packed_first: ClassVar[str] = ""
    """Files with this name are packed before all others, starting with those in the top folder."""

    packed_comment: ClassVar[bytes] = b""
    """The comment in the ZIP archive; empty if there is none."""


class Archive:
    """The files in an archive without compression.

    Parameters
    ----------
    path : path
        The archive.

    Raises
    ------
    DatasetDamagedError
        If the file is not a ZIP archive, or if a file in it is compressed, encrypted or listed twice.
    OSError
        If the file cannot be opened.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> from exengine.base_classes import Archive
    >>> path = tempfile.mkdtemp() + "/demo.zip"
    >>> with zipfile.ZipFile(path, "w") as file:
    ...     file.writestr("folder/a", b"0123456789")
    >>> archive = Archive(path)
    >>> archive.sizes, archive.read("folder/a", 3, 4)
    ({'folder/a': 10}, b'3456')
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        """The path of the archive."""
        self._file = OpenFile(self.path, READ)
        self.sizes: dict[str, int] = {}
        """Maps the name of each file to its size in bytes."""
        self._headers: dict[str, int] = {}
        self._starts: dict[str, int] = {}
        try:
            with os.fdopen(os.dup(self._file.descriptor), "rb") as file, zipfile.ZipFile(file) as archive:
                for each in archive.infolist():
                    self._add(each)
        except (zipfile.BadZipFile, ValueError, EOFError, struct.error, NotImplementedError) as error:
            raise DatasetDamagedError(f"{self.path} is not a packed dataset: {error}") from None

    def _add(self, entry: zipfile.ZipInfo) -> None:
        name = entry.filename
        if entry.is_dir():
            return
        if name in self.sizes:
            raise ValueError(f"it contains {name!r:.200} twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise ValueError(f"{name!r:.200} is compressed or encrypted, so it cannot be read in place")
        if entry.compress_size != entry.file_size:
            raise ValueError(f"{name!r:.200} is listed with two different sizes")
        self.sizes[name] = entry.file_size
        self._headers[name] = entry.header_offset

    def read(self, name: str, offset: int, length: int) -> bytes | None:
        """Return ``length`` bytes of a file, or fewer at its end; None if the archive lacks the file.

        Raises
        ------
        DatasetDamagedError
            If the archive is damaged at the beginning of the file.
        """
        size = self.sizes.get(name)
        if size is None:
            return None
        start = self._starts.get(name)
        if start is None:
            start = self._starts[name] = self._start(name)
        return read_at(self._file.descriptor, max(0, min(length, size - offset)), start + offset)

    def _start(self, name: str) -> int:
        """Return the position of a file's first byte in the archive."""
        at = self._headers[name]
        header = read_at(self._file.descriptor, _HEADER.size, at)
        if len(header) == _HEADER.size:
            signature, name_length, extra_length = _HEADER.unpack(header)
            stored = read_at(self._file.descriptor, name_length, at + _HEADER.size)
            if signature == _SIGNATURE and stored.decode(errors="replace") == name:
                return at + _HEADER.size + int(name_length) + int(extra_length)
        raise DatasetDamagedError(f"{self.path} is damaged at the beginning of {name!r:.200}")

    def open(self, name: str) -> OpenFile:
        """Open a file of the archive. The ``start`` of the result is the position of the file in the archive.

        Raises
        ------
        FileNotFoundError
            If the archive does not contain the file.
        DatasetDamagedError
            If the archive is damaged at the beginning of the file.
        """
        if name not in self.sizes:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.path.join(self.path, name))
        if name not in self._starts:
            self._starts[name] = self._start(name)
        return _ArchivedFile(self._file, self._starts[name], self.sizes[name])

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Yield the name and the size of each file."""
        return iter(self.sizes.items())


class _ArchivedFile(OpenFile):
    """A file in an archive. It keeps the archive open."""

    __slots__ = ("_archive", "_size", "start")

    def __init__(self, archive: OpenFile, start: int, size: int) -> None:
        self._archive = archive
        self.descriptor = archive.descriptor
        self.start = start
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def __del__(self) -> None:
        """Leave the descriptor open; it belongs to the archive."""


# -- paths of files in a folder or in an archive ---------------------------------------------------


def open_packed(path: str) -> OpenFile:
    """Open a file for reading, in a folder or in an archive.

    Offsets passed to ``read_at`` must include the ``start`` of the file.

    Parameters
    ----------
    path : str
        The path of the file. Its folder may be an archive: ``data/demo.zip/NDTiff.index``.

    Raises
    ------
    OSError
        If the file cannot be opened.
    DatasetDamagedError
        If the archive is damaged.
    """
    try:
        return OpenFile(path, READ)
    except NotADirectoryError:
        archive, name = os.path.split(path)
        return _archive_at(archive).open(name)


def packed_size(path: str) -> int | None:
    """Return the size of a regular file in a folder or in an archive; None if it does not exist."""
    try:
        status = os.stat(path)
        return status.st_size if stat.S_ISREG(status.st_mode) else None
    except NotADirectoryError:
        archive, name = os.path.split(path)
        return _archive_at(archive).sizes.get(name)
    except OSError:
        return None


def packed_names(path: str) -> list[str]:
    """Return the names of the files and folders in a folder, or of the files in an archive."""
    return list(_archive_at(path).sizes) if os.path.isfile(path) else os.listdir(path)


def _archive_at(path: str) -> Archive:
    status = os.stat(path)
    return _opened_archive(path, (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=4)
def _opened_archive(path: str, version: tuple[int, ...]) -> Archive:
    """Open an archive, or return the one that was recently opened with the same path and version."""
    return Archive(path)
