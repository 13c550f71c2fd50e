"""Puts an old dataset out of the way of a new one, for ``if_exists: overwrite``.

Of several processes that overwrite one dataset, one does at a time; the others find a writer at work, and are
refused. What was overwritten is deleted when the new dataset stands, and comes back when it cannot be made.
A process that is killed in between leaves it beside its place: :func:`left_beside` finds it.
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

_MOST_WAITING_S = 10.0


@contextmanager
def moved_aside(path: str, is_dataset: Callable[[str], bool]) -> Iterator[None]:
    """Put what is at a path out of the way while a new dataset is made there.

    Parameters
    ----------
    path : str
        With symbolic links resolved.
    is_dataset : callable
        Whether an installed backend knows what is there, when it has no manifest.

    Raises
    ------
    DatasetLockedError
        When a writer is at work there.
    DatasetExistsError
        When it is no dataset, or another one lies inside: then it is not deleted.
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
            raise DatasetExistsError(
                f"{path} is no dataset that an installed backend knows; it is not deleted"
            )
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
    except OSError as error:  # the new dataset stands: that is what was asked for
        warnings.warn(f"what was overwritten could not be deleted, and is in {aside}: {error}", stacklevel=2)


def _bring_back(aside: str, path: str, error: BaseException) -> None:
    """Put back what was moved aside, unless a new dataset with frames is in its place."""
    if not os.path.lexists(aside):
        return
    try:
        begun = manifest.read_manifest(path) if os.path.isdir(path) else None
        if begun is not None and begun.get("frames") == 0 and not manifest.has_writer(path):
            shutil.rmtree(path)  # claimed, and not even begun
        if not os.path.lexists(path):
            os.rename(aside, path)
            return
    except (OSError, ExEngineError):
        pass
    error.add_note(f"what was to be overwritten is in {aside}")


def _dataset_inside(path: str) -> str | None:
    """Return a dataset of ours that lies somewhere below another one."""
    for folder, _, names in os.walk(path):
        if folder != path and manifest.MANIFEST_NAME in names:
            return folder
    return None


@contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Let others that overwrite something in a folder wait; where it cannot be locked, nobody waits."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        yield
        return
    try:
        deadline = time.monotonic() + _MOST_WAITING_S
        while not _is_locked(descriptor):
            if time.monotonic() > deadline:
                raise DatasetLockedError(f"another storage is being made in {folder}; try again")
            time.sleep(0.005)  # a lock that is waited for has no time limit
        yield
    finally:
        os.close(descriptor)


def _is_locked(folder: int) -> bool:
    try:
        return files.try_lock(folder)
    except OSError:  # some network file systems lock no folders
        return True


def left_beside(path: str) -> str | None:
    """Return where a dataset is that was being overwritten when its process was killed, or None."""
    parent, name = os.path.split(os.path.abspath(path))
    begin = f".{files.cut_name(name)}.replaced-"
    with suppress(OSError):
        left = [os.path.join(parent, entry) for entry in os.listdir(parent) if entry.startswith(begin)]
        return max(left, key=os.path.getmtime, default=None)
    return None
