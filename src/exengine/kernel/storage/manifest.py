"""The manifest of a dataset, ``exengine.json``, and the lock file next to it.

Both are in the dataset's folder. If the dataset is one file, both are next to that file, and their names
begin with the name of the file: ``scan.h5.exengine.json`` and ``scan.h5.exengine.lock``.

The manifest names the backend that wrote the dataset and the files that the dataset may contain. It also
records the dataset's status, the config and the ledger. It is first written when the dataset is created, and
for the last time when the dataset is finished. A durable write creates a temporary file, syncs it, renames it
and syncs the folder. While the status is "incomplete", the writer is still active or has died.

The file ends with a checksum of everything before it. If the checksum is wrong, a finished dataset has the
status "damaged". A manifest of an earlier release, or of another program, has no checksum.

A manifest is read and checked only once each time a dataset is opened. It is read to find the backend, and
:func:`handed_over` then passes it on to that backend.
"""

import copy
import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import DatasetAccessError, DatasetDamagedError, MetadataError
from exengine.kernel.system import files
from exengine.kernel.system.archive import open_packed
from exengine.kernel.system.bounded import parse_json, refuse_too_many_values
from exengine.kernel.wording import a

MANIFEST_NAME = "exengine.json"
LOCK_NAME = "exengine.lock"
FORMAT = "exengine-dataset"
FORMAT_VERSION = 1
MAX_BYTES = 16 * 2**20
"""The maximum size of a manifest, in bytes; a larger manifest is neither read nor written."""
_ROOM_FOR_THE_END = 2**17
_SEAL = b',\n "checksum": "crc32:%08x"  }'  # the two spaces are lost if another program rewrites the JSON
_MOST_WRONG = 4  # with at most this many wrong bytes, a damaged seal is still recognized as a seal
MAX_BACKEND_CHARACTERS = 500
"""The maximum length of a backend's name."""


class Manifest(Mapping[str, Any]):
    """The checked and immutable content of ``exengine.json``.

    As a mapping, it contains the JSON values of the file. Its attributes have Python types, and defaults for
    fields that an older file may lack.

    Parameters
    ----------
    content : dict
        The parsed JSON, which the manifest owns from then on.
    file : tuple of int, optional
        The identity of the file that was read.
    problem : str, optional
        A description of damage in the bytes that were read.

    Raises
    ------
    ValueError
        If the content is not a manifest, or has a format version that this release cannot read.

    Examples
    --------
    >>> manifest = Manifest(
    ...     {"format": FORMAT, "format_version": 1, "backend": "ndtiff", "status": "complete", "frames": 3}
    ... )
    >>> manifest.status, manifest.frames, manifest.files, manifest["backend"]
    (<DatasetStatus.COMPLETE: 'complete'>, 3, None, 'ndtiff')
    """

    __slots__ = ("_content", "file", "problem", "status")

    _content: dict[str, Any]
    problem: str
    """A description of the damage, if the manifest does not match its checksum; otherwise empty."""
    status: DatasetStatus
    """The status of the dataset. It is ``damaged`` if there is a ``problem`` and the dataset is finished."""
    file: tuple[int, ...] | None
    """The identity of the file that was read: device, inode, time of the last change, and size."""

    def __init__(self, content: Any, file: tuple[int, ...] | None = None, problem: str = "") -> None:
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"the format is not {FORMAT!r}")
        if content.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"the format version is {content.get('format_version')!r:.60}, but this release reads "
                f"version {FORMAT_VERSION}"
            )
        backend = content.get("backend")
        if not isinstance(backend, str) or len(backend) > MAX_BACKEND_CHARACTERS:
            raise ValueError("the name of the backend is missing or too long")
        for key, kind in _KINDS.items():
            if key in content and type(content[key]) is not kind:
                raise ValueError(f"{key!r} must be {a(kind.__name__)}, got {type(content[key]).__name__}")
        status = DatasetStatus(str(content.get("status"))[:60])
        if problem and status is not DatasetStatus.INCOMPLETE:
            status = DatasetStatus.DAMAGED
        content.pop("checksum", None)  # the checksum belongs to the file's bytes, not to the content
        object.__setattr__(self, "status", status)
        object.__setattr__(self, "_content", content)
        object.__setattr__(self, "file", file)
        object.__setattr__(self, "problem", problem)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a manifest cannot be changed")

    def __getitem__(self, key: str) -> Any:
        return copy.deepcopy(self._content[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __reduce__(self) -> "tuple[type[Manifest], tuple[dict[str, Any], None, str]]":
        return Manifest, (self._content, None, self.problem)

    @classmethod
    def parse(cls, text: bytes, file: tuple[int, ...] | None = None) -> "Manifest":
        """Parse the content of a manifest file. ``problem`` is set if its checksum does not match.

        Raises
        ------
        ValueError, RecursionError
            If the bytes are not a manifest.
        """
        return cls(parse_json(text), file, _damage_in(text))

    @staticmethod
    def encode(content: "Mapping[str, Any]") -> bytes:
        """Return the bytes of a manifest, with their checksum.

        Examples
        --------
        >>> text = Manifest.encode({"backend": "ndtiff", "status": "complete", "reason": "all is well"})
        >>> Manifest.parse(text).problem, Manifest.parse(text.replace(b"well", b"wall")).problem
        ('', 'the manifest exengine.json does not match its checksum')
        """
        return encode_manifest(content)

    @property
    def backend(self) -> str:
        """The entry-point name of the backend that wrote the dataset, or ``module:Class``."""
        return str(self._content["backend"])

    @property
    def reason(self) -> str:
        """The human-readable reason for the status."""
        return self.problem or str(self._content.get("reason", ""))

    @property
    def frames(self) -> int | None:
        """The number of frames in a finished dataset; None while it is being written."""
        frames: int | None = self._content.get("frames")
        return frames

    @property
    def id(self) -> str:
        """The identifier that a single-file dataset shares with its manifest; empty for a folder."""
        return str(self._content.get("id", ""))

    @property
    def files(self) -> list[str] | None:
        """Patterns for the names of the dataset's files; None if an earlier release wrote the dataset."""
        return self.get("files")

    @property
    def annotations(self) -> dict[str, Any]:
        """A copy of the JSON values that were stored with the dataset."""
        return self.get("annotations") or {}

    @property
    def facts(self) -> dict[str, Any]:
        """A copy of the facts that the backend verifies when it opens the finished dataset."""
        return self.get("facts") or {}


_KINDS = {"annotations": dict, "facts": dict, "reason": str, "frames": int, "files": list}
_KINDS |= {"id": str, "samples": list}
_handed: "ContextVar[tuple[str, Manifest] | None]" = ContextVar("manifest", default=None)


def own_path(path: "str | os.PathLike[str]", name: str, *, one_file: bool | None = None) -> str:
    """Return the path of a file that ExEngine keeps for a dataset, such as the manifest.

    Parameters
    ----------
    path : path
        The folder or the file of the dataset.
    name : str
        :data:`MANIFEST_NAME` or :data:`LOCK_NAME`.
    one_file : bool, optional
        Whether the dataset is one file. By default, the file system is queried.

    Examples
    --------
    >>> own_path("data/scan.h5", MANIFEST_NAME, one_file=True)
    'data/scan.h5.exengine.json'
    """
    path = os.fspath(path)
    if one_file is None and os.path.isfile(path):
        one_file, path = True, os.path.realpath(path)  # the manifest is next to the linked file
    return f"{path}.{name}" if one_file else os.path.join(path, name)


@contextmanager
def handed_over(path: str, manifest: Manifest) -> Iterator[None]:
    """Make the next :func:`read_manifest` call for this path return a manifest that was just read.

    If the file has been replaced since then, the new file is read.

    Parameters
    ----------
    path : str
        The absolute path of a dataset.
    manifest : Manifest
    """
    token = _handed.set((os.path.realpath(path), manifest))
    try:
        yield
    finally:
        _handed.reset(token)


def _identity(file: str | int) -> tuple[int, ...] | None:
    """Return the identity of a file, given its path or descriptor; None if the file does not exist."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def write_manifest(dataset: str, content: dict[str, Any], *, durable: bool, one_file: bool = False) -> None:
    """Replace the manifest of a dataset, so that a reader sees either the old or the new manifest.

    Parameters
    ----------
    dataset : str
        The dataset's folder, or its file.
    content : dict
        JSON values.
    durable : bool
        Whether the new manifest must survive power loss.
    one_file : bool
        Whether the dataset is one file.
    """
    path = f"{dataset}.{MANIFEST_NAME}" if one_file else os.path.join(dataset, MANIFEST_NAME)
    temporary = path + ".new"
    with os.fdopen(files.open_new(temporary), "wb") as file:
        file.write(encode_manifest(content))
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if durable:
        files.sync_folder(os.path.dirname(path))


def encode_manifest(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a manifest, with their checksum."""
    text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **content}, indent=1).encode()
    body = text.removesuffix(b"\n}")
    return body + _SEAL % zlib.crc32(body)


def _damage_in(text: bytes) -> str:
    """Return a description of the damage in the bytes of a manifest; empty if they have no checksum."""
    size = len(_SEAL % 0)
    body, end = text[:-size], text[-size:]
    if end == _SEAL % zlib.crc32(body):
        return ""
    seals = zip(end, _SEAL % 0, _SEAL % 0xFFFFFFFF, strict=False)
    wrong = sum(is_ not in (zero, other) and zero == other for is_, zero, other in seals)
    is_sealed = len(end) == size and wrong <= _MOST_WRONG
    return f"the manifest {MANIFEST_NAME} does not match its checksum" if is_sealed else ""


def refuse_if_too_large(content: dict[str, Any], what: str) -> None:
    """Reject a manifest that would be too large to read; space is reserved for the final manifest.

    Raises
    ------
    MetadataError
    """
    text = encode_manifest(content)
    try:
        if len(text) > MAX_BYTES - _ROOM_FOR_THE_END:
            raise ValueError(f"the JSON has {len(text)} bytes; the limit is {MAX_BYTES - _ROOM_FOR_THE_END}")
        refuse_too_many_values(text)
    except ValueError as error:
        raise MetadataError(f"the dataset's manifest would be too large {what}: {error}") from None


def read_manifest(path: "str | os.PathLike[str]", *, dir_fd: int | None = None) -> Manifest | None:
    """Return the manifest of a dataset, or None if there is no manifest.

    Parameters
    ----------
    path : path
        The dataset's folder, or its file.
    dir_fd : int, optional
        A descriptor of the open folder. If given, the path is used only in messages.

    Raises
    ------
    DatasetDamagedError
        If the file is not a manifest.
    DatasetAccessError
        If the file cannot be read.
    """
    handed = _handed.get()
    if handed is not None and dir_fd is None and handed[0] == os.path.realpath(path):
        _handed.set(None)
        if _identity(own_path(handed[0], MANIFEST_NAME)) == handed[1].file:
            return handed[1]
    if dir_fd is not None:
        return read_manifest_file(os.path.join(path, MANIFEST_NAME), MANIFEST_NAME, dir_fd)
    found = read_manifest_file(own_path(path, MANIFEST_NAME))
    if found is None and os.path.isfile(path):
        return _packed(os.path.join(path, MANIFEST_NAME))
    return found


def read_manifest_file(path: str, name: str = "", dir_fd: int | None = None) -> Manifest | None:
    """Return the manifest that a file contains. Raises the same errors as :func:`read_manifest`.

    Parameters
    ----------
    path : str
        The path of the manifest; used only in messages if a descriptor is given.
    name : str
        The name of the manifest in the open folder.
    dir_fd : int, optional
        A descriptor of the open folder.
    """
    try:
        opened = files.open_regular(path) if dir_fd is None else files.open_regular(name, dir_fd=dir_fd)
        with os.fdopen(opened, "rb") as file:
            identity = _identity(file.fileno())
            text = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP):
            raise DatasetDamagedError(f"{path} is not a manifest: {error.strerror}") from None
        raise DatasetAccessError(f"{path} cannot be read: {error.strerror}") from error
    return _parsed(path, text, identity)


def _parsed(path: str, text: bytes, identity: tuple[int, ...] | None) -> Manifest:
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"the file is larger than {MAX_BYTES} bytes")
        return Manifest.parse(text, identity)
    except (ValueError, RecursionError) as error:
        raise DatasetDamagedError(f"{path} is not a valid manifest: {error}") from None


def _packed(path: str) -> Manifest | None:
    """Return the manifest in a packed dataset, or None if the file contains no manifest."""
    try:
        file = open_packed(path)
    except (DatasetDamagedError, OSError):  # not an archive, or an archive without a manifest
        return None
    return _parsed(path, files.read_at(file.descriptor, min(file.size, MAX_BYTES + 1), file.start), None)


def status_of(manifest: Manifest | None) -> DatasetStatus:
    """Return the status in a manifest, or ``incomplete`` if the manifest is None."""
    return manifest.status if manifest is not None else DatasetStatus.INCOMPLETE


def take_lock(path: str, *, one_file: bool = False) -> int | None:
    """Acquire a dataset's writer lock.

    When the writer of a single-file dataset ends, it removes the lock file. If this happens just before the
    file is locked here, the lock is not acquired.

    Returns
    -------
    int or None
        A file descriptor that holds the lock until it is closed; None if another writer holds the lock.

    Raises
    ------
    OSError
        If the lock file cannot be created, or is not a regular file.
    """
    lock = f"{path}.{LOCK_NAME}" if one_file else os.path.join(path, LOCK_NAME)
    descriptor = files.open_regular(lock, os.O_RDWR | os.O_CREAT)
    try:
        taken = files.try_lock(descriptor) and (not one_file or _is_at(descriptor, lock))
    except BaseException:  # for example, on a file system without locks
        os.close(descriptor)
        raise
    if taken:
        return descriptor
    os.close(descriptor)
    return None


def _is_at(descriptor: int, path: str) -> bool:
    """Return whether an open file is still the file at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def has_writer(path: "str | os.PathLike[str]", *, dir_fd: int | None = None) -> bool:
    """Return whether the dataset has an active writer. Changes nothing on the disk.

    Parameters
    ----------
    path : path
        The dataset's folder, or its file.
    dir_fd : int, optional
        A descriptor of the open folder, used instead of the path.
    """
    if dir_fd is not None:
        return is_locked(LOCK_NAME, dir_fd)
    return is_locked(own_path(path, LOCK_NAME))


def is_locked(lock: str, dir_fd: int | None = None) -> bool:
    """Return whether a lock file is held by a writer.

    Parameters
    ----------
    lock : str
        The path of the lock file, or its name in the open folder.
    dir_fd : int, optional
        A descriptor of the open folder.
    """
    try:
        descriptor = files.open_regular(lock, dir_fd=dir_fd)
    except OSError:  # an ExEngine writer would have created a lock file
        return False
    try:
        return not files.try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)
