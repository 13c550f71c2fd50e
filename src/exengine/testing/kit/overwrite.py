"""Tests of ``if_exists: overwrite``: D4. Overwriting deletes a dataset of the backend and nothing else.

The kit itself creates everything that must not be overwritten, in its own folder.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from exengine.kernel.storage.file_patterns import FilePatterns, parts_beside
from exengine.kernel.storage.manifest import LOCK_NAME, MANIFEST_NAME, own_path
from exengine.testing.children import try_to_create
from exengine.testing.kit.disk import copy_of
from exengine.testing.kit.read import finished
from exengine.testing.own_nodes import make_file, make_folder, make_nodes, node_makers
from exengine.testing.promises import NotPromised, NotRun, PromiseBrokenError, promise
from exengine.testing.subject import Subject, tree_of
from exengine.testing.tasks.dataset_files import copy_to, dataset_at, files_of, place_in

_FRAMES = 4
_MOST_FILES = 4

State = dict[str, tuple[int, int, str]]


class OverwritePromises:
    """Tests of overwriting."""

    @promise("D4")
    def test_a_dataset_of_the_backend_is_overwritten(self, subject: Subject) -> None:
        _needs_declared_files(subject)
        for is_finished in (True, False):
            path = subject.new_path()
            storage = subject.create(path)
            subject.fill(storage, _FRAMES)
            if is_finished:
                storage.finish()
            storage.close()
            told = try_to_create(subject, os.fspath(path), "overwrite")["refused"]
            if told is not None:
                raise PromiseBrokenError(
                    "D4", f"overwriting a dataset of the backend failed: {told['message']}"
                )
            others = sorted(set(os.listdir(path.parent)) - {file.name for file in dataset_at(path)})
            if others:
                raise PromiseBrokenError(
                    "D4", f"overwriting left this file next to the dataset: {others[0]!r}"
                )

    @promise("D4")
    def test_a_dataset_with_anything_else_inside_is_not_overwritten(self, subject: Subject) -> None:
        _needs_declared_files(subject)
        original = subject.new_path()
        finished(subject, original, _FRAMES)
        for what, put in _additions(original) if original.is_dir() else _additions_beside(original):
            path = copy_of(subject, original)
            put(path)
            _stays(subject, path, f"a dataset with {what}")

    @promise("D4")
    def test_anything_else_is_not_overwritten(self, subject: Subject) -> None:
        _needs_place(subject)
        original = subject.new_path()
        finished(subject, original, _FRAMES)
        for what, make in _others(original):
            path = subject.new_path()
            make(path)
            _stays(subject, path, what)
            if sys.platform != "win32":
                link = path.parent / "link"
                link.symlink_to(path)
                _stays(subject, link, f"a link to {what}")


def _needs_place(subject: Subject) -> None:
    if not subject.can.persistent:
        subject.needs_reopen()
    if not subject.name:
        raise NotRun("this test needs the name of an installed backend, because it overwrites datasets")


def _needs_declared_files(subject: Subject) -> None:
    """If the backend has no ``dataset_files``, check that overwriting deletes nothing, then end the test."""
    _needs_place(subject)
    declared = subject.cls.dataset_files
    if declared:
        try:
            if parts_beside(declared) is None:
                FilePatterns(declared)
        except (TypeError, ValueError) as error:
            raise PromiseBrokenError("D4", f"dataset_files is invalid: {error}") from error
        return
    path = subject.new_path()
    finished(subject, path, _FRAMES)
    _stays(subject, path, "a dataset of a backend that declares no dataset_files")
    raise NotPromised("dataset_files=()")


def _stays(subject: Subject, path: Path, what: str) -> None:
    """Raise an error unless overwriting a path is refused and changes nothing."""
    before = _state_of(path.parent)
    told = try_to_create(subject, os.fspath(path), "overwrite")["refused"]
    if told is None:
        raise PromiseBrokenError("D4", f"{what} was overwritten")
    if "ExEngineError" not in told["kinds"]:
        raise PromiseBrokenError(
            "D4", f"overwriting {what} raised {told['message']}, which is not an ExEngineError"
        )
    if _state_of(path.parent) != before:
        raise PromiseBrokenError("D4", f"{what} was changed, although overwriting it was refused")


def _state_of(folder: Path) -> State:
    state = {}
    for name, digest in tree_of(folder).items():
        status = (folder / name).lstat()
        state[name] = (status.st_ino, status.st_mode, digest)
    return state


def _additions(original: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yield functions that add foreign content to a dataset, each with a description of that content."""

    def file_at(name: str) -> Callable[[Path], object]:
        return lambda path: make_file(path / name)

    files = [file for file in files_of(original) if file.name not in (MANIFEST_NAME, LOCK_NAME)][:_MOST_FILES]
    names = ["notes.txt", "thesis.tif", "photo.jpg", ".hidden", "exengine.json.orig"]
    for file in files:
        below = os.path.relpath(file.parent, original)
        stem, ending = os.path.splitext(file.name)
        near = (
            f"thesis{ending}", f"thesis_{file.name}", f"{stem} (copy){ending}", f"{stem}-old{ending}",
            f"{file.name}~", f"{file.name}.orig", f"._{file.name}",
        )  # fmt: skip
        names += [os.path.normpath(os.path.join(below, name)) for name in near]
    for name in dict.fromkeys(names):
        yield f"a foreign file {name!r}", file_at(name)
    yield "a git repository", lambda path: make_folder(path / ".git")
    yield "another dataset", lambda path: shutil.copytree(original, path / "second")
    yield "a deeply nested dataset", lambda path: shutil.copytree(original, path / "analysis" / "today")
    if sys.platform == "win32":
        return
    yield "a link", lambda path: (path / "link").symlink_to("..")
    for file in files:
        place = file.relative_to(original)
        for kind, make in node_makers().items():
            if kind != "device" or _makes_devices(original):
                yield f"a {kind} at {place}", lambda path, at=place, new=make: _in_place(path / at, new)  # type: ignore[misc]
        yield f"a link at {place}", lambda path, at=place: _moved_out(path, at)  # type: ignore[misc]


def _additions_beside(original: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yield functions that add foreign content to a single-file dataset, or next to it."""

    def beside(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
        return lambda path: make(path.with_name(f"{path.name}.exengine.{name}"))

    for name in ("notes", "json.orig", "json~", "lock.bak"):
        yield f"a foreign file 'exengine.{name}' next to it", beside(name, make_file)
    yield "a folder next to it", beside("plots", make_folder)
    yield "bytes that another program added", lambda path: path.write_bytes(path.read_bytes() + b"more")
    yield "another file in its place", lambda path: path.write_bytes(b"another person's work")
    if sys.platform == "win32":
        return
    for file in dataset_at(original):
        place, name = place_in(original, file), file.name
        for kind, make in node_makers().items():
            if kind != "device" or _makes_devices(original):
                yield f"a {kind} at {name}", lambda path, at=place, new=make: _in_place(at(path), new)  # type: ignore[misc]
        yield f"a link at {name}", lambda path, at=place: _moved_out(path.parent, Path(at(path).name))  # type: ignore[misc]


def _makes_devices(original: Path) -> bool:
    folder = original.parent / "nodes"
    if not folder.exists():
        folder.mkdir()
        make_nodes(folder)
    return (folder / "device").exists()


def _in_place(place: Path, make: Callable[[Path], object]) -> None:
    place.unlink()
    make(place)


def _moved_out(path: Path, name: Path) -> None:
    """Move a file out of a dataset and replace it with a link to its new location."""
    out = path.parent / f"moved-out-{name.name}"
    (path / name).rename(out)
    (path / name).symlink_to(out)


def _others(original: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yield functions that create something other than an intact dataset, each with a description."""
    manifest = Path(own_path(original, MANIFEST_NAME))

    def checkout(path: Path) -> None:
        make_folder(path)
        make_folder(path / ".git")
        if manifest.is_file():
            shutil.copy(manifest, path / MANIFEST_NAME)

    def folder_of_datasets(path: Path) -> None:
        path.mkdir()
        for number in range(2):
            copy_to(original, path / f"run-{number}")

    yield "a file", make_file
    yield "a folder of files", make_folder
    yield "a folder of datasets", folder_of_datasets
    yield "a git checkout that contains a manifest", checkout
    for kind, make in node_makers().items():
        if kind != "device" or _makes_devices(original):
            yield f"a {kind}", make
    if sys.platform != "win32":
        yield "a dangling link", lambda path: path.symlink_to("nothing")
        yield "a link to itself", lambda path: path.symlink_to(path)
    if not manifest.is_file():
        return
    good = json.loads(manifest.read_text(encoding="utf-8"))
    changes = {
        "that is empty": b"",
        "that is truncated": manifest.read_bytes()[:30],
        "of another format": json.dumps({**good, "format": "other"}).encode(),
        "without a backend": json.dumps({key: good[key] for key in good if key != "backend"}).encode(),
        "of a backend that is not installed": json.dumps({**good, "backend": "exengine-kit-none"}).encode(),
        "that lists other files": json.dumps({**good, "files": ["other-{number}"]}).encode(),
    }
    for what, content in changes.items():

        def damaged(path: Path, content: bytes = content) -> None:
            copy_to(original, path)
            Path(own_path(path, MANIFEST_NAME)).write_bytes(content)

        yield f"a dataset with a manifest {what}", damaged

    def foreign(path: Path) -> None:
        copy_to(original, path)
        Path(own_path(path, MANIFEST_NAME)).unlink()

    yield "a dataset without a manifest", foreign
