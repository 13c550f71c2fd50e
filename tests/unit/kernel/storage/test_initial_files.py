"""The files that a dataset contains from the moment at which it can be seen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from exengine.datasets.content import DatasetContent
from exengine.kernel.errors import DatasetAccessError, DatasetExistsError
from exengine.kernel.storage import building, manifest
from exengine.kernel.storage.place import DatasetPlace
from exengine.kernel.system import files
from exengine.kernel.system.held_folder import HeldFolder

PATTERNS = ("zarr.json", "{number}/zarr.json", "{number}/{number}/zarr.json", ".x/labels")
INITIAL = {"zarr.json": b"root", "0/zarr.json": b"image", "0/0/zarr.json": b"array", ".x/labels": b""}


@pytest.fixture
def claim(tmp_path):
    places = []

    def claim(initial=INITIAL, patterns=PATTERNS):
        places.append(DatasetPlace.claim(str(tmp_path / "data"), "test", patterns, initial))
        return places[-1]

    yield claim
    for place in places:
        place.unlock()


def contents(folder):
    files_below = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files_below}


def without_own(folder):
    found = contents(folder)
    assert found.pop(manifest.MANIFEST_NAME) and found.pop(manifest.LOCK_NAME) == b""
    return found


def test_a_dataset_contains_its_initial_files_when_it_appears(tmp_path, claim, monkeypatch):
    seen = []
    rename = os.rename
    monkeypatch.setattr(
        os, "rename", lambda source, target: (seen.append(contents(source)), rename(source, target))
    )
    place = claim()
    assert without_own(place.path) == INITIAL
    assert INITIAL.items() <= seen[0].items()
    assert os.listdir(tmp_path) == ["data"]


def test_initial_files_and_their_folders_are_on_the_disk_before_the_dataset_appears(
    tmp_path, claim, monkeypatch
):
    order = []
    fsync, rename = os.fsync, os.rename

    def note(descriptor):
        order.append(os.readlink(f"/proc/self/fd/{descriptor}").partition(".creating-")[2].partition("/")[2])
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", lambda *paths: (order.append("rename"), rename(*paths)))
    claim()
    before = order[: order.index("rename")]
    assert {*INITIAL, "", "0", "0/0", ".x"} <= {*before}
    assert before.index("0/0") > before.index("0/0/zarr.json")


def test_an_empty_folder_that_cannot_be_replaced_gets_them_before_the_manifest(tmp_path, claim, monkeypatch):
    (tmp_path / "data").mkdir()
    rename, moved = files.rename_to_free_name, []

    def busy(source, target):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "rename", busy)
    monkeypatch.setattr(
        files,
        "rename_to_free_name",
        lambda source, target: (moved.append(os.path.basename(target)), rename(source, target)),
    )
    place = claim()
    assert without_own(place.path) == INITIAL
    assert moved == ["exengine.lock", ".x", "0", "zarr.json", "exengine.json"]
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize("step", range(5))
def test_a_move_that_fails_half_way_leaves_the_folder_empty(tmp_path, claim, monkeypatch, step):
    (tmp_path / "data").mkdir()
    rename, count = files.rename_to_free_name, iter(range(100))

    def busy(source, target):
        raise OSError(16, "Device or resource busy")

    def fail(source, target):
        if next(count) == step:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", busy)
    monkeypatch.setattr(files, "rename_to_free_name", fail)
    with pytest.raises(DatasetAccessError, match="No space left"):
        claim()
    assert os.listdir(tmp_path) == ["data"] and os.listdir(tmp_path / "data") == []


@pytest.mark.parametrize("failing", [*INITIAL, "mkdir 0", "sync"])
def test_a_claim_that_cannot_write_them_leaves_nothing(tmp_path, claim, monkeypatch, failing):
    real_open, real_mkdir = files.open_new, os.mkdir

    def no_space():
        raise OSError(28, "No space left on device")

    def open_new(path, *more):
        return no_space() if str(path).endswith(f"/{failing}") else real_open(path, *more)

    def mkdir(path, *more, **named):
        return (
            no_space()
            if failing == "mkdir 0" and str(path).endswith("/0")
            else real_mkdir(path, *more, **named)
        )

    monkeypatch.setattr(files, "open_new", open_new)
    monkeypatch.setattr(os, "mkdir", mkdir)
    if failing == "sync":
        monkeypatch.setattr(building.files, "sync_folder", lambda path: no_space())
    with pytest.raises(DatasetAccessError, match="No space left"):
        claim()
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []
    claim()


def test_a_file_of_another_between_them_stays(tmp_path, claim, monkeypatch):
    def full(source, target):
        with open(os.path.join(source, "0", "thesis.txt"), "w") as file:
            file.write("mine")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(DatasetAccessError, match="No space left"):
        claim()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "name",
    ["other.json", "a/zarr.json", "/zarr.json", "../zarr.json", "0/../zarr.json", "0//zarr.json", "zarr.json/", "", 7,
     "exengine.json", "exengine.lock", "0\\zarr.json"],
)  # fmt: skip
def test_a_name_that_is_not_a_file_of_the_dataset_is_an_error_of_the_author(tmp_path, claim, name):
    with pytest.raises(TypeError, match="initial_files"):
        claim({name: b"x"}, (*PATTERNS, "exengine.json", "exengine.lock", "0\\zarr.json"))
    assert os.listdir(tmp_path) == []


def test_a_path_that_leads_outside_is_refused_even_if_a_pattern_allows_it(tmp_path, claim):
    with pytest.raises(TypeError, match="not a relative path"):
        claim({"../x": b""}, (".{name}/x",))


def test_a_storage_states_its_initial_files(tmp_path, disk_storage):
    class Described(disk_storage):
        dataset_files = (*disk_storage.dataset_files, "about/{number}.json")

        def initial_files(self):
            return {"about/1.json": b"{}"}

    with Described(tmp_path / "data") as storage:
        assert (tmp_path / "data" / "about" / "1.json").read_bytes() == b"{}"
        assert len(storage) == 0
    held = HeldFolder(str(tmp_path / "data"))
    DatasetContent(held, lambda backend: Described.dataset_files).delete()
    assert os.listdir(tmp_path / "data") == []
    held.close()


KILLED = """
import os, sys
from exengine.kernel.storage.place import DatasetPlace

os.rename = lambda *paths: os._exit(9)
DatasetPlace.claim(sys.argv[1], "disk", ["frame-{number}.npy", "about/{number}.json"], {"about/1.json": b"{}"})
"""


def test_the_manifest_names_the_files_that_a_killed_claim_leaves(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "data")], check=False)
    assert done.returncode == 9
    (left,) = tmp_path.iterdir()
    assert (left / "about" / "1.json").exists() and left.name.startswith(".data.creating-")
    with HeldFolder(str(left)) as held:
        (left / "thesis.txt").write_text("mine")
        with pytest.raises(DatasetExistsError, match="thesis"):
            DatasetContent(held, lambda backend: ("about/{number}.json",))
        (left / "thesis.txt").unlink()
        DatasetContent(held, lambda backend: ("about/{number}.json",)).delete()
    assert os.listdir(left) == []
