"""Moves an old dataset aside for a new one, for ``if_exists: overwrite``.

If several processes overwrite a dataset, they take turns; all but the first find a writer, and are refused.
The old dataset is deleted once the new one exists, and restored if the new one cannot be created. A killed
process leaves the old dataset beside its path, where :func:`left_beside` finds it.
"""

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from exengine.kernel.errors import DatasetExistsError, DatasetLockedError, ExEngineError
from exengine.kernel.storage import manifest
from exengine.kernel.system import files

_MAX_WAIT_S = 10.0


@contextmanager
def moved_aside(path: str, is_dataset: Callable[[str], bool]) -> Iterator[None]:
    """Move the dataset at a path aside while a new one is created there.

    Parameters
    ----------
    path : str
        With symbolic links resolved.
    is_dataset : callable
        Returns whether an installed backend recognises a path without a manifest.

    Raises
    ------
    DatasetLockedError
        If another writer holds it.
    DatasetExistsError
        If the path is not a dataset, or contains another one. It is not deleted.
    """
    parent, name = os.path.split(path)
    aside = os.path.join(parent, f".{files.cut_name(name)}.replaced-{os.getpid()}-{time.monotonic_ns()}")
    with _alone_in(parent):
        if not os.path.lexists(path) or (os.path.isdir(path) and not os.listdir(path)):
            yield
            return
        if manifest.has_writer(path):
            raise DatasetLockedError(f"{path} is being written by another storage; it is not overwritten")
        if (not os.path.isdir(path) or manifest.read_manifest(path) is None) and not is_dataset(path):
            raise DatasetExistsError(f"{path} is not a dataset of an installed backend; it is not deleted")
        if (inner := _dataset_inside(path)) is not None:
            raise DatasetExistsError(f"{path} holds another dataset, {inner}; it is not deleted")
        try:
            os.rename(path, aside)
            yield
        except BaseException as error:
            _bring_back(aside, path, error)
            raise
    try:
        if os.path.isdir(aside):
            shutil.rmtree(aside)
        else:
            os.remove(aside)
    except OSError as error:  # not an error of the caller: the new dataset exists
        warnings.warn(
            f"the overwritten dataset could not be deleted, and is in {aside}: {error}", stacklevel=2
        )


def _bring_back(aside: str, path: str, error: BaseException) -> None:
    """Move the old dataset back, unless a new one with frames exists."""
    if not os.path.lexists(aside):
        return
    try:
        begun = manifest.read_manifest(path) if os.path.isdir(path) else None
        if begun is not None and begun.get("frames") == 0 and not manifest.has_writer(path):
            shutil.rmtree(path)  # claimed, without a frame
        if not os.path.lexists(path):
            os.rename(aside, path)
            return
    except (OSError, ExEngineError):
        pass
    error.add_note(f"the old dataset is in {aside}")


def _dataset_inside(path: str) -> str | None:
    """Return a dataset with a manifest below another one, or None."""
    for folder, _, names in os.walk(path):
        if folder != path and manifest.MANIFEST_NAME in names:
            return folder
    return None


@contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Hold a lock on a folder, so that overwriting in it takes turns; skipped if folders cannot be locked."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        yield
        return
    try:
        deadline = time.monotonic() + _MAX_WAIT_S
        while not _is_locked(descriptor):
            if time.monotonic() > deadline:
                raise DatasetLockedError(f"another storage is being created in {folder}; try again")
            time.sleep(0.005)  # a blocking lock has no time limit
        yield
    finally:
        os.close(descriptor)


def _is_locked(folder: int) -> bool:
    try:
        return files.try_lock(folder)
    except OSError:  # some network file systems cannot lock folders
        return True


def left_beside(path: str) -> str | None:
    """Return the old dataset of an interrupted overwriting, or None."""
    parent, name = os.path.split(os.path.abspath(path))
    begin = f".{files.cut_name(name)}.replaced-"
    with suppress(OSError):
        left = [os.path.join(parent, entry) for entry in os.listdir(parent) if entry.startswith(begin)]
        return max(left, key=os.path.getmtime, default=None)
    return None
