"""Tests that an untrusted dataset is harmless: D3, C1. Opening it runs no code and accesses no other files.

Each hostile dataset is opened and read in a child process that watches Python's audit events.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exengine.kernel.storage.file_patterns import FILE
from exengine.kernel.storage.manifest import LOCK_NAME, MANIFEST_NAME, own_path
from exengine.testing.children import Child, try_to_create
from exengine.testing.kit.disk import FRAMES, copy_of, probe, unfinished
from exengine.testing.kit.read import finished
from exengine.testing.own_nodes import (
    make_device,
    make_endless_file,
    make_folder,
    make_nodes,
    make_socket,
    node_makers,
)
from exengine.testing.promises import PromiseBrokenError, promise
from exengine.testing.subject import Subject, tree_of
from exengine.testing.tasks.dataset_files import copy_to, files_of, name_in, place_in
from exengine.testing.watch import DECOY

BACKEND_NAMES = (
    f"{DECOY}:Store", f"{DECOY}.inner:Store", DECOY, "os:system", "subprocess:Popen", "builtins:eval",
    "pickle:loads", "os.system", "../x", "../outside/thesis.txt", "a\0b", "", " ", "x" * 100_000,
    "__import__('os').system('true')",
    "!!python/object/apply:os.system", "exengine.testing.children:main", "\ud800", "a:b:c", "%s%n{0}",
)  # fmt: skip
"""Hostile values for the name of the backend in a manifest."""

_MOST_FILES = 6


class SecurityPromises:
    """Tests with datasets and paths that were crafted to do harm."""

    @promise("D3", "C1")
    def test_a_hostile_dataset_runs_no_code_and_reaches_nothing_outside(self, subject: Subject) -> None:
        subject.needs_reopen()
        original = subject.new_path()
        finished(subject, original, FRAMES)
        hostile = dict(_hostile(subject, original))
        begun, only = unfinished(subject, original)
        if only:
            hostile |= dict(_with_other_files(subject, begun, only))
        probe(subject, hostile, "D3", judge_pixels=False, good=original)

    @promise("D5")
    def test_reading_a_dataset_unpickles_nothing(self, subject: Subject) -> None:
        subject.needs_reopen()
        path = subject.new_path()
        finished(subject, path, FRAMES)
        with Child(subject, "unpickle", path=os.fspath(path), count=FRAMES) as child:
            calls = child.result()["calls"]
        if calls:
            raise PromiseBrokenError(
                "D5", f"forbidden calls while a dataset was read: {', '.join(sorted(set(calls)))}"
            )

    @promise("D3", "D1")
    def test_a_new_dataset_writes_through_nothing_that_stands_in_its_place(self, subject: Subject) -> None:
        if not subject.can.persistent:
            subject.needs_reopen()
        outside = subject.new_path().parent / "outside"
        make_folder(outside)
        nodes = make_nodes(outside)
        before = tree_of(outside)
        traps = _traps_beside() if FILE in subject.cls.dataset_files else []
        ways = ("error", "overwrite") if subject.name else ("error",)
        for make in [*_traps(nodes), *traps]:
            for if_exists in ways:
                path = subject.new_path()
                make(path, outside)
                there = tree_of(path.parent)
                told = try_to_create(subject, os.fspath(path), if_exists)["refused"]
                if told is not None and "ExEngineError" not in told["kinds"]:
                    raise PromiseBrokenError(
                        "D1",
                        f"{make.__name__}: creating a dataset raised {told['message']}, which is not an "
                        "ExEngineError",
                    )
                if tree_of(outside) != before:
                    raise PromiseBrokenError(
                        "D3", f"{make.__name__}: creating a dataset changed files outside its folder"
                    )
                if subject.name and (told is None or tree_of(path.parent) != there):
                    raise PromiseBrokenError(
                        "D1", f"{make.__name__}: creating a dataset succeeded, or its refusal changed files"
                    )


def _hostile(subject: Subject, original: Path) -> Iterator[tuple[str, str]]:
    """Yield the paths of hostile datasets, each with a description of its fault."""
    yield from _with_other_files(subject, original, [name_in(original, file) for file in files_of(original)])
    yield from _with_other_manifests(subject, original)


def _with_other_files(subject: Subject, original: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield datasets in which one of these files has been replaced with a link or a special file."""
    outside, secrets = (subject.new_path().parent / name for name in ("outside", "secrets"))
    make_folder(secrets)
    make_endless_file(secrets / "endless")
    nodes = make_nodes(secrets)
    if original.is_dir():
        shutil.copytree(original, outside)
    else:
        outside.mkdir()
        copy_to(original, outside / original.name)
    files = [file for file in files_of(original) if name_in(original, file) in names]
    for file in files[:_MOST_FILES]:
        yield from _with_other_kinds(subject, original, file, outside, secrets, nodes)


def _with_other_kinds(
    subject: Subject, original: Path, file: Path, outside: Path, secrets: Path, nodes: list[str]
) -> Iterator[tuple[str, str]]:
    """Yield datasets in which a file has been replaced with a link or a special file."""
    name = file.relative_to(original if original.is_dir() else original.parent)
    kinds: list[tuple[str, Callable[[Path], Any]]] = []
    if sys.platform != "win32" and file != original:  # the path of a dataset may be a link
        kinds = [
            # The target is a valid file, but it lies outside the dataset.
            ("a link to a valid file outside the dataset", lambda place: place.symlink_to(outside / name)),
            (
                "a link to one of the user's private files",
                lambda place: place.symlink_to(secrets / "thesis.txt"),
            ),
            ("a link to an endless file", lambda place: place.symlink_to(secrets / "endless")),
            ("a dangling link", lambda place: place.symlink_to("nothing")),
            ("a link to itself", lambda place: place.symlink_to(place)),
            ("a link to a folder", lambda place: place.symlink_to(outside)),
        ]
        kinds += [
            (f"a link to a {kind}", lambda place, to=kind: place.symlink_to(secrets / to))  # type: ignore[misc]
            for kind in nodes
        ]
    if sys.platform != "win32":
        kinds += [(f"a {kind}", make) for kind, make in node_makers().items() if kind in nodes]
    place = place_in(original, file)
    for what, make in kinds:
        path = copy_of(subject, original)
        place(path).unlink()
        make(place(path))
        yield os.fspath(path), f"{name} is {what}"


def _with_other_manifests(subject: Subject, original: Path) -> Iterator[tuple[str, str]]:
    """Yield datasets that have hostile manifests."""
    manifest = Path(own_path(original, MANIFEST_NAME))
    if not manifest.is_file():
        return
    good = json.loads(manifest.read_text(encoding="utf-8"))
    changed: list[tuple[str, Any]] = [
        (f"backend {name!r:.60}", {**good, "backend": name}) for name in BACKEND_NAMES
    ]
    changed += [
        (f"{key} {value!r:.40}", {**good, key: value})
        for key in ("status", "frames", "annotations", "reason", "created", "format_version")
        for value in (None, -1, 1e300, [], {}, [[["a"]]], "../../x", {"__class__": DECOY}, True)
    ]
    for what, content in changed:
        path = copy_of(subject, original)
        Path(own_path(path, MANIFEST_NAME)).write_bytes(json.dumps(content).encode())
        yield os.fspath(path), f"the manifest has {what}"
    texts = [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"[" + b"[]," * 3_000_000 + b"0]",
        b"9" * 100_000,
        b"\xff\xfe",
        b"NaN",
    ]
    for text in texts:
        path = copy_of(subject, original)
        Path(own_path(path, MANIFEST_NAME)).write_bytes(text)
        yield os.fspath(path), f"the manifest begins with {text[:8]!r} (size in bytes: {len(text)})"


def _traps(nodes: list[str]) -> list[Callable[[Path, Path], None]]:
    """Return functions that put a link or a special file where a new dataset will be created."""

    def the_lock_is_a_link(path: Path, outside: Path) -> None:
        path.mkdir()
        (path / LOCK_NAME).symlink_to(outside / "thesis.txt")

    def the_lock_is_a_link_to_nothing(path: Path, outside: Path) -> None:
        path.mkdir()
        (path / LOCK_NAME).symlink_to(outside / "new.txt")

    def the_lock_is_a_pipe(path: Path, outside: Path) -> None:
        path.mkdir()
        os.mkfifo(path / LOCK_NAME)

    def the_manifest_is_a_link(path: Path, outside: Path) -> None:
        path.mkdir()
        (path / MANIFEST_NAME).symlink_to(outside / "thesis.txt")

    def the_new_manifest_is_a_link(path: Path, outside: Path) -> None:
        path.mkdir()
        (path / f"{MANIFEST_NAME}.new").symlink_to(outside / "thesis.txt")

    def the_place_is_a_pipe(path: Path, outside: Path) -> None:
        os.mkfifo(path)

    def the_place_is_a_socket(path: Path, outside: Path) -> None:
        make_socket(path)

    def the_place_is_a_device(path: Path, outside: Path) -> None:
        make_device(path)

    def the_place_is_a_link_to_a_pipe(path: Path, outside: Path) -> None:
        path.symlink_to(outside / "pipe")

    def the_place_is_a_link_to_a_socket(path: Path, outside: Path) -> None:
        path.symlink_to(outside / "socket")

    def the_place_is_a_link_to_a_device(path: Path, outside: Path) -> None:
        path.symlink_to(outside / "device")  # a device node created by the kit

    def the_place_is_a_link_to_a_folder_of_others(path: Path, outside: Path) -> None:
        path.symlink_to(outside)

    if sys.platform == "win32":
        return []
    traps: list[Callable[[Path, Path], None]] = [
        the_lock_is_a_link, the_lock_is_a_link_to_nothing, the_lock_is_a_pipe, the_manifest_is_a_link,
        the_new_manifest_is_a_link, the_place_is_a_pipe, the_place_is_a_socket, the_place_is_a_link_to_a_pipe,
        the_place_is_a_link_to_a_socket, the_place_is_a_link_to_a_folder_of_others,
    ]  # fmt: skip
    if "device" in nodes:
        traps += [the_place_is_a_device, the_place_is_a_link_to_a_device]
    return traps


def _traps_beside() -> list[Callable[[Path, Path], None]]:
    """Return functions that put a link or a special file next to the path of a new single-file dataset."""

    def beside(path: Path, ending: str) -> Path:
        return path.with_name(f"{path.name}.{ending}")

    def the_lock_beside_is_a_link(path: Path, outside: Path) -> None:
        beside(path, LOCK_NAME).symlink_to(outside / "thesis.txt")

    def the_lock_beside_is_a_link_to_nothing(path: Path, outside: Path) -> None:
        beside(path, LOCK_NAME).symlink_to(outside / "new.txt")

    def the_lock_beside_is_a_pipe(path: Path, outside: Path) -> None:
        os.mkfifo(beside(path, LOCK_NAME))

    def the_manifest_beside_is_a_link(path: Path, outside: Path) -> None:
        beside(path, MANIFEST_NAME).symlink_to(outside / "thesis.txt")

    def the_new_manifest_beside_is_a_link(path: Path, outside: Path) -> None:
        beside(path, f"{MANIFEST_NAME}.new").symlink_to(outside / "thesis.txt")

    def the_new_file_beside_is_a_link(path: Path, outside: Path) -> None:
        beside(path, "exengine.new").symlink_to(outside / "thesis.txt")

    if sys.platform == "win32":
        return []
    return [
        the_lock_beside_is_a_link, the_lock_beside_is_a_link_to_nothing, the_lock_beside_is_a_pipe,
        the_manifest_beside_is_a_link, the_new_manifest_beside_is_a_link, the_new_file_beside_is_a_link,
    ]  # fmt: skip
