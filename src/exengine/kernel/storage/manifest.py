"""The manifest of a dataset: ``exengine.json``, and the lock beside it.

It names the backend that wrote the dataset, the files that it may have, its status, the config and the
ledger. It is written when the dataset appears, and for the last time when it is finished: temporary file,
fsync, rename, fsync of the folder. A manifest that does not say "finished" means that the writer lives or
died.
"""

import errno
import json
import os
from typing import Any

from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import DatasetAccessError, DatasetDamagedError, MetadataError
from exengine.kernel.system import files
from exengine.kernel.system.bounded import parse_json, refuse_too_many_values

MANIFEST_NAME = "exengine.json"
LOCK_NAME = "exengine.lock"
FORMAT = "exengine-dataset"
FORMAT_VERSION = 1
MAX_BYTES = 16 * 2**20
"""A manifest that is larger is not read, and none is written."""
_ROOM_FOR_THE_END = 2**17
MAX_BACKEND_CHARACTERS = 500
"""Of the name of the backend."""


def write_manifest(folder: str, content: dict[str, Any], *, durable: bool) -> None:
    """Replace the manifest in a folder, so that a reader sees the old or the new one.

    Parameters
    ----------
    folder : str
        Of the dataset.
    content : dict
        JSON.
    durable : bool
        Whether the new one must survive power loss.
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
    """Refuse what would make a manifest that nobody reads; some room is left for how the dataset ends.

    Raises
    ------
    MetadataError
    """
    text = encode_manifest(content)
    try:
        if len(text) > MAX_BYTES - _ROOM_FOR_THE_END:
            raise ValueError(f"it has {len(text)} bytes; at most {MAX_BYTES} are read")
        refuse_too_many_values(text)
    except ValueError as error:
        raise MetadataError(f"the manifest of the dataset is too large {what}: {error}") from None


def read_manifest(folder: "str | os.PathLike[str]", *, dir_fd: int | None = None) -> dict[str, Any] | None:
    """Return the manifest in a folder, or None where there is none.

    Parameters
    ----------
    folder : path
    dir_fd : int, optional
        A descriptor of this folder, if it is open: then the path serves for messages only.

    Raises
    ------
    DatasetDamagedError
        When it cannot be understood.
    """
    path = os.path.join(folder, MANIFEST_NAME)
    try:
        with os.fdopen(_open_in(folder, MANIFEST_NAME, dir_fd), "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP):
            raise DatasetDamagedError(f"{path} is not read: {error.strerror}") from None
        raise DatasetAccessError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        return _checked(parse_json(text))
    except (ValueError, RecursionError) as error:
        raise DatasetDamagedError(f"{path} cannot be understood: {error}") from None


def _open_in(folder: "str | os.PathLike[str]", name: str, dir_fd: int | None) -> int:
    return files.open_regular(os.path.join(folder, name) if dir_fd is None else name, dir_fd=dir_fd)


def _checked(content: Any) -> dict[str, Any]:
    """Return what a manifest holds, when it is of the form that its users rely on."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it does not say that its format is {FORMAT!r}")
    if content.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"its format version is {content.get('format_version')!r:.60}, this release reads "
            f"{FORMAT_VERSION}"
        )
    backend = content.get("backend")
    if not isinstance(backend, str) or len(backend) > MAX_BACKEND_CHARACTERS:
        raise ValueError("it names no backend")
    for key, kind in (
        ("annotations", dict),
        ("facts", dict),
        ("reason", str),
        ("frames", int),
        ("files", list),
    ):
        if key in content and type(content[key]) is not kind:
            raise ValueError(f"its {key} is no {kind.__name__}, got {type(content[key]).__name__}")
    DatasetStatus(str(content.get("status"))[:60])
    return content


def status_of(manifest: dict[str, Any] | None) -> DatasetStatus:
    """Return the status that a manifest gives; ``incomplete`` where there is none."""
    return DatasetStatus(manifest["status"]) if manifest else DatasetStatus.INCOMPLETE


def take_lock(folder: str) -> int | None:
    """Take the writer's lock of a dataset.

    Returns
    -------
    int or None
        A file descriptor that holds the lock until it is closed; None where another writer has it.

    Raises
    ------
    OSError
        When it cannot be made, or something that is no regular file stands in its place.
    """
    descriptor = files.open_regular(os.path.join(folder, LOCK_NAME), os.O_RDWR | os.O_CREAT)
    try:
        taken = files.try_lock(descriptor)
    except BaseException:  # a file system without locks
        os.close(descriptor)
        raise
    if taken:
        return descriptor
    os.close(descriptor)
    return None


def has_writer(folder: "str | os.PathLike[str]", *, dir_fd: int | None = None) -> bool:
    """Return whether a writer is at work on the dataset. Changes nothing on the disk.

    Parameters
    ----------
    folder : path
    dir_fd : int, optional
        A descriptor of this folder, if it is open: then the path is not used.
    """
    try:
        descriptor = _open_in(folder, LOCK_NAME, dir_fd)
    except OSError:  # none, or nothing that a writer of ours locks
        return False
    try:
        return not files.try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)
