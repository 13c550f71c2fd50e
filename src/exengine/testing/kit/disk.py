"""Tests of datasets on disk: D1, C1, C2, C3."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from exengine.kernel.registry.options import options_of
from exengine.testing.children import Child, try_to_create
from exengine.testing.kit.read import finished
from exengine.testing.promises import NotPromised, NotRun, PromiseBrokenError, promise
from exengine.testing.subject import Subject, coordinates_of, tree_of
from exengine.testing.tasks.dataset_files import copy_to, dataset_at, files_of, name_in, place_in

FRAMES, FRAMES_THOROUGH = 6, 130
SUMMARY = "summary_metadata"
DAMAGES, DAMAGES_THOROUGH = 500, 3000
"""The approximate number of damaged datasets that are opened."""
_PROCESSOR_S, _PROCESSOR_THOROUGH_S = 2.0, 60.0
"""The approximate processor time, in seconds, for opening damaged datasets; slow backends open fewer."""
_SECONDS = 10.0
_PATIENCE_S = 12.0
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
                raise PromiseBrokenError("D1", f"creating a dataset over an existing one {result}")
            if try_to_create(subject, os.fspath(path), "number")["refused"] is not None:
                raise PromiseBrokenError("D1", "if_exists='number' was refused for an existing dataset")
            if [*map(_digest, dataset_at(path))] != before:
                raise PromiseBrokenError(
                    "D1", "attempts to create a dataset over an existing one changed the existing one"
                )
            numbered = open_storage(subject.name, path, if_exists="number", **subject.options)
            told_path = numbered.path
            numbered.close()
            if told_path and (not os.path.lexists(told_path) or os.path.samefile(told_path, path)):
                raise PromiseBrokenError(
                    "D1", f"the reported path {told_path} is not that of the new dataset"
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
                    raise PromiseBrokenError(
                        "D1", f"creating a dataset over a user's own files was not refused ({if_exists=})"
                    )
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

    @promise("C1", "D3")
    def test_opening_anything_ends_with_a_status_or_an_exception_of_ours(self, subject: Subject) -> None:
        subject.needs_reopen()
        original = subject.new_path()
        finished(subject, original, FRAMES)
        probe(subject, dict(_garbage(subject, original)), "C2", judge_pixels=False, good=original)

    @promise("C2", "C1", "D3", code="EX307")
    def test_damage_anywhere_is_noticed(self, subject: Subject) -> None:
        subject.needs_reopen()
        if SUMMARY in [option.name for option in options_of(subject.cls)]:
            subject = subject.with_options(**{SUMMARY: {"operator": "A. N. Other", "numbers": [1, 2.5]}})
        original = subject.new_path()
        finished(subject, original, FRAMES_THOROUGH if subject.thorough else FRAMES)
        _read_damaged(subject, original)
        begun, only = unfinished(subject, original)
        if only:
            _read_damaged(subject, begun, only)
        if not subject.can.checksums:
            subject.not_promised("checksums")


def unfinished(subject: Subject, original: Path) -> tuple[Path, list[str]]:
    """Write a dataset and close it without finishing it.

    Returns
    -------
    tuple of (pathlib.Path, list of str)
        The path, and the names of the files that the finished dataset ``original`` does not have, such as a
        journal.
    """
    path = subject.new_path()
    storage = subject.create(path)
    subject.fill(storage, FRAMES_THOROUGH if subject.thorough else FRAMES)
    storage.close()
    known = {name_in(original, file) for file in files_of(original)}
    return path, [name for file in files_of(path) if (name := name_in(path, file)) not in known]


def _read_damaged(subject: Subject, original: Path, only: Sequence[str] = ()) -> None:
    """Change a dataset in many places, and raise an error unless each change is handled as promised."""
    most = DAMAGES_THOROUGH if subject.thorough else DAMAGES
    processor_s = _PROCESSOR_THOROUGH_S if subject.thorough else _PROCESSOR_S
    spec: dict[str, Any] = {
        "good": os.fspath(original),
        "count": FRAMES_THOROUGH if subject.thorough else FRAMES,
        "most": most,
        "only": only,
        "processor_s": processor_s / 2 if only else processor_s,
        "seconds": _SECONDS,
    }
    faults: list[tuple[str, str]] = []
    at = ""
    told: dict[str, Any] = {}
    with Child(subject, "damage", **spec) as child:
        try:
            for line in child.lines(_PATIENCE_S, each_line=True):
                at = line.get("opening", at)
                if line.get("memory_mib", 0) > _MIB:
                    faults.append(("C1", f"opening a dataset used {line['memory_mib']:.0f} MiB of memory"))
                if "what" in line:
                    faults += _faults_of_damage(line, subject.can.checksums)
                told = line
        except PromiseBrokenError as error:
            told = {}
            faults.insert(0, ("C1", f"{at}: opening did not end: {error!s:.200}"))
    if not faults and "damaged" not in told:
        faults.append(("C1", f"{at}: opening did not end: {told.get('fault', '')}"))
    if faults:
        label, first = faults[0]
        more = f" (further faults after other changes: {len(faults) - 1})" if len(faults) > 1 else ""
        raise PromiseBrokenError(label, first + more)


def _faults_of_damage(line: dict[str, Any], checksums: bool) -> list[tuple[str, str]]:
    what = line["what"]
    if line["reached"]:
        return [("D3", f"{what}: {line['reached'][0]}")]
    if line["foreign"]:
        return [("C1", f"{what}: reading raised {line['foreign']:.200}, which is not an ExEngineError")]
    if line["seconds"] > _SECONDS:
        return [("C1", f"{what}: opening took {line['seconds']:.0f} s")]
    return [("C2", f"{what}: {line['wrong']}")] if line["wrong"] and checksums else []


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
            for line in child.lines(_PATIENCE_S, each_line=True):
                faults += _faults_of(line, damaged, label if judge_pixels else "")
                seen.add(line.get("path", ""))
        except PromiseBrokenError as error:
            ended = f": {error!s:.300}"
    left = [path for path in damaged if path not in seen]
    if left or ended:
        at = f" ({damaged[left[0]]})" if left else ""
        faults.append(("C1", f"opening a dataset did not end{at}{ended}"))
    if faults:
        broken, first = faults[0]
        more = (
            f" (further faults: {len(faults) - 1}; datasets tested: {len(damaged)})"
            if len(faults) > 1
            else ""
        )
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


def _digest(path: Path) -> Any:
    return tree_of(path) if path.is_dir() else path.read_bytes()


def _garbage(subject: Subject, original: Path) -> Iterator[tuple[str, str]]:
    """Yield paths without a valid dataset, each with a description of the fault."""
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
        path = copy_of(subject, original)
        target = place_in(original, file)(path)
        target.unlink()
        target.mkdir()
        yield os.fspath(path), f"{file.name} was replaced by a folder"


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
