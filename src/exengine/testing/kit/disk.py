"""Tests of datasets on disk: D1, C1, C2, C3."""

import glob
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exengine.kernel.storage.manifest import LOCK_NAME
from exengine.testing.children import Child, try_to_create
from exengine.testing.kit.read import finished
from exengine.testing.promises import NotPromised, NotRun, PromiseBrokenError, promise
from exengine.testing.subject import Subject, coordinates_of, tree_of

FRAMES = 6
_FLIPS = 40
_SECONDS = 10.0
_MIB = 1024


class DiskPromises:
    """Tests of existing, incomplete and damaged datasets."""

    @promise("D1")
    def test_a_new_dataset_never_lands_on_an_old_one(self, subject: Subject) -> None:
        if not subject.can.persistent:
            subject.needs_reopen()
        if not subject.name:
            raise NotRun(
                "this test needs the name of an installed backend, because ExEngine finds backends by name"
            )
        from exengine.datasets.creation import open_storage

        for ended in (True, False):
            path = subject.new_path()
            storage = subject.create(path)
            model = subject.fill(storage, 3)
            if ended:
                storage.finish()
            storage.close()
            before = [*map(_digest, dataset_at(path))]
            told = try_to_create(subject, os.fspath(path), "error")["refused"]
            if told is None or "DatasetExistsError" not in told["kinds"]:
                result = f"raised {told['message']}" if told else "succeeded"
                raise PromiseBrokenError(
                    "D1", f"creating a dataset at the path of an existing dataset {result}"
                )
            if try_to_create(subject, os.fspath(path), "number")["refused"] is not None:
                raise PromiseBrokenError("D1", "if_exists='number' was refused for an existing dataset")
            if [*map(_digest, dataset_at(path))] != before:
                raise PromiseBrokenError(
                    "D1", "creating a dataset at the path of an existing dataset changed the existing dataset"
                )
            numbered = open_storage(subject.name, path, if_exists="number", **subject.options)
            told_path = numbered.path
            numbered.close()
            if told_path and (not os.path.lexists(told_path) or os.path.samefile(told_path, path)):
                raise PromiseBrokenError(
                    "D1", f"the dataset was not created at the reported path {told_path}"
                )
            others = set(os.listdir(path.parent)) - {file.name for file in dataset_at(path)}
            if not others:
                raise PromiseBrokenError(
                    "D1", "if_exists='number' did not create a dataset next to the existing one"
                )
            if subject.can.reopen:
                model.check(subject.open(path), "D1")

    @promise("D1")
    def test_overwriting_leaves_nothing_of_the_old_dataset(self, subject: Subject) -> None:
        if not subject.can.persistent:
            subject.needs_reopen()
        if not subject.name:
            raise NotRun(
                "this test needs the name of an installed backend, because ExEngine finds backends by name"
            )
        from exengine.datasets.creation import open_storage

        path = subject.new_path()
        finished(subject, path, 4)
        if not subject.cls.dataset_files:
            told = try_to_create(subject, os.fspath(path), "overwrite")["refused"]
            if told is None or "DatasetExistsError" not in told["kinds"]:
                ended = f"raised {told['message']}" if told else "succeeded"
                raise PromiseBrokenError(
                    "D1", f"the backend declares no dataset_files, but overwriting its dataset {ended}"
                )
            raise NotPromised("dataset_files=()")
        storage = open_storage(subject.name, path, if_exists="overwrite", **subject.options)
        model = subject.fill(storage, 1, first=9)
        storage.finish()
        storage.close()
        if subject.can.reopen:
            model.check(subject.open(path), "D1", absent=subject.axes(0))

    @promise("D1")
    def test_what_is_no_dataset_is_never_overwritten(self, subject: Subject) -> None:
        if not subject.can.persistent:
            subject.needs_reopen()
        if not subject.name:
            raise NotRun(
                "this test needs the name of an installed backend, because ExEngine finds backends by name"
            )
        for make in (_a_file, _a_folder):
            path = subject.new_path()
            make(path)
            before = tree_of(path.parent)
            for if_exists in ("error", "overwrite"):
                if try_to_create(subject, os.fspath(path), if_exists)["refused"] is None:
                    raise PromiseBrokenError("D1", f"if_exists={if_exists!r} replaced a user's own files")
            if tree_of(path.parent) != before:
                raise PromiseBrokenError("D1", "creating a dataset changed a user's own files")

    @promise("C3")
    def test_opening_an_incomplete_dataset_writes_nothing(self, subject: Subject) -> None:
        subject.needs_reopen()
        path = subject.new_path()
        storage = subject.create(path)
        model = subject.fill(storage, 5)
        storage.close()
        before = _state_of(path.parent)
        for _ in range(2):
            opened = subject.open(path)
            model.check(opened, "C3")
            if subject.can.iterable:
                coordinates_of(opened)
            opened.close()
        if _state_of(path.parent) != before:
            raise PromiseBrokenError("C3", "opening an incomplete dataset for reading changed its files")

    @promise("C3")
    def test_opening_what_a_killed_writer_left_writes_nothing(self, subject: Subject) -> None:
        subject.needs_reopen()
        path = subject.new_path()
        with Child(subject, "write", path=os.fspath(path), count=5, level="put", end="wait") as child:
            child.wait_for(4)
            child.kill()
        before = _state_of(path.parent)
        with Child(subject, "read", path=os.fspath(path), count=5) as child:
            child.result()
        if _state_of(path.parent) != before:
            raise PromiseBrokenError("C3", "opening the dataset of a killed writer changed its files")

    @promise("C1", "C2", "D3")
    def test_opening_anything_ends_with_a_status_or_an_exception_of_ours(self, subject: Subject) -> None:
        subject.needs_reopen()
        original = subject.new_path()
        finished(subject, original, FRAMES)
        probe(
            subject,
            dict(_garbage(subject, original)),
            "C2",
            judge_pixels=subject.can.checksums,
            good=original,
        )

    @promise("C2", "C1", "D3", code="EX307")
    def test_a_damaged_frame_is_never_returned_as_good(self, subject: Subject) -> None:
        subject.needs_reopen()
        original = subject.new_path()
        finished(subject, original, FRAMES)
        probe(
            subject,
            dict(_flipped(subject, original)),
            "C2",
            judge_pixels=subject.can.checksums,
            good=original,
        )
        if not subject.can.checksums:
            subject.not_promised("checksums")


def probe(subject: Subject, damaged: dict[str, str], label: str, *, judge_pixels: bool, good: Path) -> None:
    """Open damaged datasets in a child process, and raise an error unless each is handled as promised.

    Parameters
    ----------
    subject : Subject
        The backend under test.
    damaged : dict
        The damaged datasets: each path is mapped to a description of the damage.
    label : str
        The label of the promise that is broken if wrong pixels are returned.
    judge_pixels : bool
        Whether wrong pixels count as a broken promise.
    good : pathlib.Path
        An undamaged dataset. It is opened first, so that all required modules are already imported.

    Raises
    ------
    PromiseBrokenError
        If a dataset is not handled as promised.
    """
    seen: set[str] = set()
    faults: list[tuple[str, str]] = []
    ended = ""
    with Child(subject, "probe", paths=list(damaged), count=FRAMES, good=os.fspath(good)) as child:
        try:
            for line in child.lines(2 * _SECONDS, each_line=True):
                faults += _faults_of(line, damaged, label if judge_pixels else "")
                seen.add(line.get("path", ""))
        except PromiseBrokenError as error:
            ended = f": {error!s:.300}"
    left = [path for path in damaged if path not in seen]
    if left or ended:
        at = f" for this dataset: {damaged[left[0]]}" if left else ""
        faults.append(("C1", f"opening did not finish{at}{ended}"))
    if faults:
        broken, first = faults[0]
        more = f" (and {len(faults) - 1} more faults in {len(damaged)} datasets)" if len(faults) > 1 else ""
        raise PromiseBrokenError(broken, first + more)


def _faults_of(line: dict[str, Any], damaged: dict[str, str], label: str) -> list[tuple[str, str]]:
    """Return a label and a description for each fault in a child process's report on one dataset."""
    if "fault" in line:
        return [("C1", line["fault"])]
    if "memory_mib" in line:
        memory = line["memory_mib"]
        return [("C1", f"opening damaged datasets used {memory:.0f} MiB of memory")] if memory > _MIB else []
    what = damaged[line["path"]]
    faults = []
    if line["foreign"]:
        faults.append(("C1", f"{what}: opening raised {line['foreign']:.200}, which is not an ExEngineError"))
    if line["reached"]:
        faults.append(("D3", f"{what}: {line['reached'][0]}"))
    if line["seconds"] > _SECONDS:
        faults.append(("C1", f"{what}: opening took {line['seconds']:.0f} s"))
    if line["wrong"] and label:
        faults.append((label, f"{what}: {line['wrong']}"))
    return faults


def copy_of(subject: Subject, original: Path) -> Path:
    """Copy a dataset to a new path and return that path."""
    path = subject.new_path()
    copy_to(original, path)
    return path


def copy_to(original: Path, path: Path) -> None:
    """Copy a dataset to a path."""
    if original.is_dir():
        shutil.copytree(original, path)
    else:
        for file in dataset_at(original):
            shutil.copy2(file, path.with_name(path.name + file.name.removeprefix(original.name)))


def dataset_at(path: Path) -> list[Path]:
    """Return the paths of a dataset in its parent folder: its folder, or its file and those next to it."""
    beside = path.parent.glob(f"{glob.escape(path.name)}.exengine.*")
    return [path, *sorted(file for file in beside if not file.name.endswith(LOCK_NAME))]


def _digest(path: Path) -> Any:
    return tree_of(path) if path.is_dir() else path.read_bytes()


def place_in(original: Path, file: Path) -> Callable[[Path], Path]:
    """Return a function that finds the counterpart of a file of a dataset in a copy of the dataset."""
    if original.is_dir():
        return lambda copy: copy / file.relative_to(original)
    return lambda copy: copy.with_name(copy.name + file.name.removeprefix(original.name))


def files_of(path: Path) -> list[Path]:
    """Return the files of a dataset, largest first."""
    found = path.rglob("*") if path.is_dir() else dataset_at(path)
    files = [file for file in found if file.is_file()]
    return sorted(files, key=lambda file: (-file.stat().st_size, os.fspath(file)))


def _garbage(subject: Subject, original: Path) -> Iterator[tuple[str, str]]:
    """Yield paths without a valid dataset, each with a description of the fault."""
    noise = bytes((number * 197 + 31) % 256 for number in range(4096))
    for make in (_a_file, _a_folder, _an_empty_folder):
        path = subject.new_path()
        make(path)
        yield os.fspath(path), make.__name__.strip("_").replace("_", " ")
    yield os.fspath(subject.new_path()), "a path at which nothing exists"
    if sys.platform != "win32":
        path = subject.new_path()
        path.symlink_to(path)
        yield os.fspath(path), "a link to itself"
    for file in files_of(original)[:12]:
        place = place_in(original, file)
        size = file.stat().st_size
        changes: list[tuple[str, Any]] = [
            ("was truncated to 0 bytes", lambda content: b""),
            ("was truncated to one byte", lambda content: content[:1]),
            ("was truncated to half its size", lambda content: content[: len(content) // 2]),
            ("lost its last byte", lambda content: content[:-1]),
            ("was replaced by noise", lambda content: noise),
            ("has noise in its second half", lambda content: content[: len(content) // 2] + noise),
            ("contains only zeros", lambda content: bytes(len(content))),
            ("is followed by noise", lambda content: content + noise),
            ("was removed", None), ("was replaced by a folder", ...),
        ]  # fmt: skip
        for what, change in changes:
            path = copy_of(subject, original)
            target = place(path)
            if change is None or change is ...:
                target.unlink()
                if change is ...:
                    target.mkdir()
            else:
                target.write_bytes(change(target.read_bytes()))
            yield os.fspath(path), f"{file.name} ({size} bytes) {what}"


def _flipped(subject: Subject, original: Path) -> Iterator[tuple[str, str]]:
    """Yield copies of a dataset with one bit changed, usually in its largest file."""
    for rank, file in enumerate(files_of(original)[:12]):
        place = place_in(original, file)
        size = file.stat().st_size
        flips = _FLIPS if not rank else 6
        for offset in sorted(
            {size * k // flips + (size // flips) // 2 for k in range(flips)} if size else ()
        ):
            path = copy_of(subject, original)
            target = place(path)
            content = bytearray(target.read_bytes())
            content[min(offset, size - 1)] ^= 0x10
            target.write_bytes(content)
            yield os.fspath(path), f"one bit of {file.name} ({size} bytes) was changed, at offset {offset}"


def _a_file(path: Path) -> None:
    path.write_text("another person's work")


def _a_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("another person's work")


def _an_empty_folder(path: Path) -> None:
    path.mkdir()


def _state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the digest and modification time of each item below a folder, by relative path."""
    return {name: (digest, (folder / name).lstat().st_mtime_ns) for name, digest in tree_of(folder).items()}
