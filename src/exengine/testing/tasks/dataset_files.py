"""Lists, copies and moves the files of a dataset: a folder, or one file with related files next to it."""

import glob
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from exengine.kernel.storage.manifest import LOCK_NAME


def dataset_at(path: Path) -> list[Path]:
    """Return the paths that form a dataset: one folder, or the main file and the related files next to it."""
    beside = path.parent.glob(f"{glob.escape(path.name)}.exengine.*")
    return [path, *sorted(file for file in beside if not file.name.endswith(LOCK_NAME))]


def files_of(path: Path) -> list[Path]:
    """Return the files of a dataset, largest first."""
    found = path.rglob("*") if path.is_dir() else dataset_at(path)
    files = [file for file in found if file.is_file()]
    return sorted(files, key=lambda file: (-file.stat().st_size, os.fspath(file)))


def name_in(path: Path, file: Path) -> str:
    """Return the name of a file of a dataset, without the path of the dataset."""
    return file.relative_to(path).as_posix() if path.is_dir() else file.name.removeprefix(path.name)


def place_in(original: Path, file: Path) -> Callable[[Path], Path]:
    """Return a function that maps the path of a copy of the dataset to the path of this file in the copy."""
    if original.is_dir():
        return lambda copy: copy / file.relative_to(original)
    return lambda copy: copy.with_name(copy.name + file.name.removeprefix(original.name))


def copy_to(original: Path, path: Path) -> None:
    """Copy a dataset to a path."""
    if original.is_dir():
        shutil.copytree(original, path)
    else:
        for file in dataset_at(original):
            shutil.copy2(file, path.with_name(path.name + file.name.removeprefix(original.name)))


def move_to(original: Path, path: Path) -> None:
    """Rename a dataset within its folder."""
    for place in [original] if original.is_dir() else dataset_at(original):
        place.rename(path.with_name(path.name + place.name.removeprefix(original.name)))


def remove(path: Path) -> None:
    """Delete a dataset that the kit made."""
    for place in dataset_at(path):
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
