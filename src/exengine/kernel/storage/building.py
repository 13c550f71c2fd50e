"""The folder of a new dataset, which is built under a temporary name and then renamed into place."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from exengine.kernel.errors import DatasetAccessError, from_os
from exengine.kernel.storage import manifest
from exengine.kernel.storage.file_patterns import FilePatterns
from exengine.kernel.system import files
from exengine.kernel.system.held_folder import HeldFolder

_OWN = (manifest.LOCK_NAME, f"{manifest.MANIFEST_NAME}.new", manifest.MANIFEST_NAME)


def cannot_create(path: str, error: OSError) -> DatasetAccessError:
    """Return the error for a dataset that could not be created, for example because a parent is a file."""
    above = os.path.dirname(path)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    why = (error.strerror or str(error)) if os.path.isdir(above) else f"{above} is not a folder"
    message = f"cannot create a dataset at {path}: {why}; choose a folder that you can write to"
    return from_os(DatasetAccessError, message, error)


def make_parents(folder: str) -> tuple[str, ...]:
    """Create a folder and its parents; return the folders that gained an entry, the deepest first."""
    holders = []
    above = folder
    while not os.path.isdir(above):
        above = os.path.dirname(above)
        holders.append(above)
    os.makedirs(folder, exist_ok=True)
    return tuple(holders)


def check_names(names: Iterable[str], patterns: Sequence[str]) -> None:
    """Reject initial files that are not files of the dataset.

    Raises
    ------
    TypeError
        If a name is not a relative path below the folder, or matches none of the patterns. Such a name is
        due to a bug in the backend.
    """
    claimed = FilePatterns(patterns)
    for name in names:
        parts = name.split("/") if isinstance(name, str) else [""]
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
            raise TypeError(f"initial_files: {name!r:.200} is not a relative path with '/' between its parts")
        if parts[0] in _OWN:
            raise TypeError(f"initial_files: {name!r} is reserved for ExEngine; choose another name")
        if not claimed.match_file(name):
            raise TypeError(
                f"initial_files: {name!r:.200} matches none of the patterns of claimed_files: "
                f"{', '.join(patterns) or 'there are none'}; add a pattern to dataset_files"
            )


def write_files(building: str, initial: Mapping[str, bytes]) -> None:
    """Write the initial files of a dataset into a folder, and sync them."""
    folders: dict[str, None] = {}
    for name, data in initial.items():
        *above, _ = name.split("/")
        path = os.path.join(building, *name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with os.fdopen(files.open_new(path), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        folders.update((os.path.join(building, *above[:depth]), None) for depth in range(len(above) + 1))
    for folder in sorted(folders, reverse=True):  # the deepest folders first
        files.sync_folder(folder)


def rename_into_place(building: str, path: str) -> None:
    """Make a complete folder visible at its final path, which must be free or an empty folder.

    Raises
    ------
    OSError
        If the folder cannot be moved; it then keeps its temporary name.
    """
    try:
        os.rename(building, path)
    except OSError:
        # The path may be an empty folder that cannot be replaced, because it is a mount point or because the
        # system never replaces folders. In this case, move the contents, with the manifest last.
        if not (os.path.isdir(path) and not os.listdir(path)):
            raise
        others = sorted({*os.listdir(building)} - {*_OWN})
        moved = []
        try:
            # If two writers fill the same folder, the first to move its lock there wins.
            for name in (manifest.LOCK_NAME, *others, manifest.MANIFEST_NAME):
                files.rename_to_free_name(os.path.join(building, name), os.path.join(path, name))
                moved.append(name)
        except BaseException:
            for name in reversed(moved):
                with suppress(OSError):
                    files.rename_to_free_name(os.path.join(path, name), os.path.join(building, name))
            raise
        os.rmdir(building)


def discard_building(building: str, initial: Iterable[str] = ()) -> None:
    """Remove an unfinished folder and the files that a claim creates in it, but nothing else."""
    with suppress(OSError):
        with HeldFolder(building) as folder:
            for name in initial:
                with suppress(OSError):  # no such file, or its folder contains another file
                    _remove(folder, name.split("/"))
            for name in _OWN:
                with suppress(FileNotFoundError):
                    folder.remove_file(name)
        os.rmdir(building)


def _remove(folder: HeldFolder, parts: list[str]) -> None:
    """Remove a file, and its parent folders if they are then empty."""
    name, *below = parts
    if not below:
        folder.remove_file(name)
        return
    with folder.enter(name) as inside, suppress(OSError):
        _remove(inside, below)
    folder.remove_folder(name)
