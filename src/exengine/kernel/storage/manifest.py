"""The manifest of a dataset, ``exengine.json``, and the lock file next to it.

The manifest names the backend that wrote the dataset and the files that the dataset may contain. It also
records the dataset's status, the config and the ledger. It is first written when the dataset is created, and
for the last time when the dataset is finished. A durable write creates a temporary file, syncs it, renames it
and syncs the folder. While the status is "incomplete", the writer is still active or has died.

A manifest is read and checked only once each time a dataset is opened. It is read to find the backend, and
:func:`handed_over` then passes it on to that backend.
"""

import copy
import errno
import json
import os
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

    __slots__ = ("_content", "file", "status")

    _content: dict[str, Any]
    status: DatasetStatus
    file: tuple[int, ...] | None
    """The identity of the file that was read: device, inode, time of the last change, and size."""

    def __init__(self, content: Any, file: tuple[int, ...] | None = None) -> None:
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
        object.__setattr__(self, "status", DatasetStatus(str(content.get("status"))[:60]))
        object.__setattr__(self, "_content", content)
        object.__setattr__(self, "file", file)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a manifest cannot be changed")

    def __getitem__(self, key: str) -> Any:
        return copy.deepcopy(self._content[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __reduce__(self) -> "tuple[type[Manifest], tuple[dict[str, Any]]]":
        return Manifest, (self._content,)

    @property
    def backend(self) -> str:
        """The entry-point name of the backend that wrote the dataset, or ``module:Class``."""
        return str(self._content["backend"])

    @property
    def reason(self) -> str:
        """The human-readable reason for the status."""
        return str(self._content.get("reason", ""))

    @property
    def frames(self) -> int | None:
        """The number of frames in a finished dataset; None while it is being written."""
        frames: int | None = self._content.get("frames")
        return frames

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
_handed: "ContextVar[tuple[str, Manifest] | None]" = ContextVar("manifest", default=None)


@contextmanager
def handed_over(folder: str, manifest: Manifest) -> Iterator[None]:
    """Make the next :func:`read_manifest` call for this folder return a manifest that was just read.

    If the file has been replaced since then, the new file is read.

    Parameters
    ----------
    folder : str
        An absolute path.
    manifest : Manifest
    """
    token = _handed.set((os.path.realpath(folder), manifest))
    try:
        yield
    finally:
        _handed.reset(token)


def _identity(file: str | int) -> tuple[int, ...] | None:
    """Return the identity of a file, by its path or descriptor; None if it does not exist."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def write_manifest(folder: str, content: dict[str, Any], *, durable: bool) -> None:
    """Replace the manifest in a folder, so that a reader sees either the old or the new manifest.

    Parameters
    ----------
    folder : str
        The dataset's folder.
    content : dict
        JSON values.
    durable : bool
        Whether the new manifest must survive power loss.
    """
    path = os.path.join(folder, MANIFEST_NAME)
    temporary = path + ".new"
    with os.fdopen(files.open_new(temporary), "wb") as file:
        file.write(encode_manifest(content))
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if durable:
        files.sync_folder(folder)


def encode_manifest(content: dict[str, Any]) -> bytes:
    """Return the bytes of a manifest."""
    return json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **content}, indent=1).encode()


def refuse_if_too_large(content: dict[str, Any], what: str) -> None:
    """Reject a manifest that would be too large to read; space is reserved for the final manifest.

    Raises
    ------
    MetadataError
    """
    text = encode_manifest(content)
    try:
        if len(text) > MAX_BYTES - _ROOM_FOR_THE_END:
            raise ValueError(f"the JSON text has {len(text)} bytes, but at most {MAX_BYTES} bytes are read")
        refuse_too_many_values(text)
    except ValueError as error:
        raise MetadataError(f"the dataset's manifest would be too large {what}: {error}") from None


def read_manifest(folder: "str | os.PathLike[str]", *, dir_fd: int | None = None) -> Manifest | None:
    """Return the manifest in a folder, or None if the folder has none.

    Parameters
    ----------
    folder : path
    dir_fd : int, optional
        A descriptor of this folder, if it is open. The path is then used only in messages.

    Raises
    ------
    DatasetDamagedError
        If the file is not a manifest.
    DatasetAccessError
        If the file cannot be read.
    """
    handed = _handed.get()
    if handed is not None and dir_fd is None and handed[0] == os.path.realpath(folder):
        _handed.set(None)
        if _identity(os.path.join(handed[0], MANIFEST_NAME)) == handed[1].file:
            return handed[1]
    path = os.path.join(folder, MANIFEST_NAME)
    try:
        with os.fdopen(_open_in(folder, MANIFEST_NAME, dir_fd), "rb") as file:
            identity: tuple[int, ...] | None = _identity(file.fileno())
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        packed = _packed(path)
        if packed is None:
            return None
        text, identity = packed, None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP):
            raise DatasetDamagedError(f"{path} is not a manifest: {error.strerror}") from None
        raise DatasetAccessError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"the file is larger than {MAX_BYTES} bytes")
        return Manifest(parse_json(text), identity)
    except (ValueError, RecursionError) as error:
        raise DatasetDamagedError(f"{path} is not a valid manifest: {error}") from None


def _packed(path: str) -> bytes | None:
    """Return the manifest in a packed dataset; None if there is none."""
    try:
        file = open_packed(path)
    except (DatasetDamagedError, OSError):  # not an archive, or without a manifest
        return None
    return files.read_at(file.descriptor, min(file.size, MAX_BYTES + 1), file.start)


def _open_in(folder: "str | os.PathLike[str]", name: str, dir_fd: int | None) -> int:
    return files.open_regular(os.path.join(folder, name) if dir_fd is None else name, dir_fd=dir_fd)


def status_of(manifest: Manifest | None) -> DatasetStatus:
    """Return the status in a manifest, or ``incomplete`` if the manifest is None."""
    return manifest.status if manifest is not None else DatasetStatus.INCOMPLETE


def take_lock(folder: str) -> int | None:
    """Acquire a dataset's writer lock.

    Returns
    -------
    int or None
        A file descriptor that holds the lock until it is closed; None if another writer holds the lock.

    Raises
    ------
    OSError
        If the lock file cannot be created, or is not a regular file.
    """
    descriptor = files.open_regular(os.path.join(folder, LOCK_NAME), os.O_RDWR | os.O_CREAT)
    try:
        taken = files.try_lock(descriptor)
    except BaseException:  # for example, on a file system without locks
        os.close(descriptor)
        raise
    if taken:
        return descriptor
    os.close(descriptor)
    return None


def has_writer(folder: "str | os.PathLike[str]", *, dir_fd: int | None = None) -> bool:
    """Return whether the dataset has an active writer. Changes nothing on the disk.

    Parameters
    ----------
    folder : path
    dir_fd : int, optional
        A descriptor of this folder, if it is open. The path is then not used.
    """
    try:
        descriptor = _open_in(folder, LOCK_NAME, dir_fd)
    except OSError:  # an ExEngine writer would have created a lock file
        return False
    try:
        return not files.try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)
