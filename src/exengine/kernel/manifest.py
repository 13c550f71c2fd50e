"""The manifest of a dataset: ``exengine.json``, and the lock beside it.

It names the backend that wrote the dataset, its status, the config and the ledger. It is written
when the dataset appears, and for the last time when it is finished: temporary file, fsync, rename,
fsync of the folder. A manifest that does not say "finished" means that the writer lives or died.
"""

import json
import os
from typing import Any

from exengine.kernel import platform
from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import DatasetAccessError, DatasetDamagedError

MANIFEST_NAME = "exengine.json"
LOCK_NAME = "exengine.lock"
FORMAT = "exengine-dataset"
FORMAT_VERSION = 1
MAX_BYTES = 64 * 2**20
"""A manifest that is larger is not read."""


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
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, "format_version": FORMAT_VERSION, **content}, file, indent=1)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if durable:
        platform.sync_folder(folder)


def read_manifest(folder: "str | os.PathLike[str]") -> dict[str, Any] | None:
    """Return the manifest in a folder, or None where there is none.

    Raises
    ------
    DatasetDamagedError
        When it cannot be understood.
    """
    path = os.path.join(folder, MANIFEST_NAME)
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DatasetAccessError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"it does not say that its format is {FORMAT!r}")
        if content.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"its format version is {content.get('format_version')!r}, this release "
                f"reads {FORMAT_VERSION}"
            )
        if not isinstance(content.get("backend"), str):
            raise ValueError("it names no backend")
        DatasetStatus(str(content.get("status")))
    except (ValueError, RecursionError) as error:
        raise DatasetDamagedError(f"{path} cannot be understood: {error}") from None
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
    """
    descriptor = os.open(os.path.join(folder, LOCK_NAME), os.O_RDWR | os.O_CREAT, 0o666)
    if platform.try_lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def has_writer(folder: "str | os.PathLike[str]") -> bool:
    """Return whether a writer is at work on the dataset. Changes nothing on the disk."""
    try:
        descriptor = os.open(os.path.join(folder, LOCK_NAME), os.O_RDONLY)
    except OSError:
        return False
    try:
        return not platform.try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)
