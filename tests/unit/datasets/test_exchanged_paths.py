"""Overwriting, while another process exchanges what is at the path: nothing but the dataset is deleted."""

import ctypes
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exengine.datasets.creation import open_storage
from exengine.datasets.opening import open_dataset
from exengine.kernel.errors import DatasetExistsError, ExEngineError
from exengine.kernel.system.held_folder import HeldFolder
from exengine.testing.own_nodes import make_file, make_folder, make_socket

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and sockets of POSIX")


def make_dataset(path, value=1):
    with open_storage("disk", path) as storage:
        storage.put({"time": 0}, np.full((3, 4), value, np.uint8), {})


def make_dataset_with_notes(path):
    make_dataset(path)
    make_file(path / "notes.txt")


def make_link(path):
    path.symlink_to(os.path.join(os.path.dirname(path), "photos"))


OTHERS = {
    "file": make_file, "folder": make_folder, "empty folder": os.mkdir, "pipe": os.mkfifo, "socket": make_socket,
    "link": make_link, "dataset": make_dataset, "dataset with notes": make_dataset_with_notes,
}  # fmt: skip


def snapshot(*paths):
    """Return inode, kind and content of everything at and below some paths."""
    found = {}
    for path in paths:
        below = (os.path.join(base, name) for base, names, more in os.walk(path) for name in (*names, *more))
        for each in (str(path), *below):
            status = os.lstat(each)
            is_file = os.path.isfile(each) and not os.path.islink(each)
            content = Path(each).read_bytes() if is_file else b""
            found[os.path.relpath(each, path)] = (status.st_ino, status.st_mode, content)
    return found


@pytest.fixture
def exchange_when_moved(monkeypatch):
    """Return what lets a function run once, between the check of a dataset and the moment when it is moved."""
    real = HeldFolder.rename
    waiting = []

    def rename(self, old, new):
        if waiting:
            waiting.pop()()
        real(self, old, new)

    monkeypatch.setattr(HeldFolder, "rename", rename)
    return waiting.append


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_exchanged_between_check_and_move_comes_back(installed, kind, tmp_path, exchange_when_moved):
    for number in range(25):  # 200 in all
        folder = tmp_path / str(number)
        folder.mkdir()
        make_folder(folder / "photos")
        make_dataset(folder / "data")
        OTHERS[kind](folder / "other")
        before = [snapshot(folder / name) for name in ("data", "other", "photos")]

        def exchange(folder=folder):
            os.rename(folder / "data", folder / "elsewhere")
            os.rename(folder / "other", folder / "data")

        exchange_when_moved(exchange)
        with pytest.raises(DatasetExistsError, match="was replaced by another process"):
            open_storage("disk", folder / "data", if_exists="overwrite")
        assert [snapshot(folder / name) for name in ("elsewhere", "data", "photos")] == before
        assert sorted(os.listdir(folder)) == ["data", "elsewhere", "photos"]


def test_what_came_into_the_place_of_what_was_moved_stays_and_the_error_says_where_the_other_is(
    installed, tmp_path, monkeypatch
):
    make_dataset(tmp_path / "data")
    before = snapshot(tmp_path / "data")
    real = HeldFolder.identity_of

    def identity_of(self, name):
        if ".replaced-" in name and not (tmp_path / "data").exists():
            make_file(tmp_path / "data")
            return (0, 0)
        return real(self, name)

    monkeypatch.setattr(HeldFolder, "identity_of", identity_of)
    with pytest.raises(DatasetExistsError, match="was replaced") as caught:
        open_storage("disk", tmp_path / "data", if_exists="overwrite")
    aside = next(path for path in tmp_path.iterdir() if ".replaced-" in path.name)
    assert str(aside) in caught.value.__notes__[0]
    assert snapshot(aside) == before
    assert (tmp_path / "data").read_text() == "another person's work"


@pytest.mark.parametrize("put", [make_file, make_folder, os.mkfifo, make_dataset])
def test_what_is_put_into_a_dataset_between_check_and_move_comes_back_with_it(
    installed, put, tmp_path, exchange_when_moved
):
    make_dataset(tmp_path / "data")
    exchange_when_moved(lambda: put(tmp_path / "data" / "notes"))
    with pytest.raises(DatasetExistsError, match="notes"):
        open_storage("disk", tmp_path / "data", if_exists="overwrite")
    assert len(open_dataset(tmp_path / "data")) == 1
    assert os.path.lexists(tmp_path / "data" / "notes")


def test_what_is_put_into_a_dataset_after_it_was_moved_stays(installed, tmp_path, monkeypatch):
    make_dataset(tmp_path / "data")
    cls = installed.load("disk")
    real = cls.create

    def create(*place, **options):
        aside = next(path for path in tmp_path.iterdir() if ".replaced-" in path.name)
        make_file(aside / "notes.txt")
        (aside / "1.npy").symlink_to(tmp_path / "data")
        return real(*place, **options)

    monkeypatch.setattr(cls, "create", create)
    with pytest.warns(UserWarning, match=r"could not be deleted and is now at .*\.replaced-"):
        storage = open_storage("disk", tmp_path / "data", if_exists="overwrite")
    storage.close()
    aside = next(path for path in tmp_path.iterdir() if ".replaced-" in path.name)
    assert sorted(os.listdir(aside)) == ["1.npy", "notes.txt"]


EXCHANGER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
one, two = (os.fsencode(path) for path in sys.argv[1:])
print("ready", flush=True)
while True:
    libc.renameat2(-100, one, -100, two, 2)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "renameat2"), reason="a system that exchanges no paths")
def test_a_process_that_exchanges_all_the_time_loses_nothing(installed, tmp_path):
    make_folder(tmp_path / "photos")
    (tmp_path / "photos" / "0.npy").write_bytes(b"a photo")
    make_dataset(tmp_path / "data")
    before = snapshot(tmp_path / "photos")
    outcomes = []
    command = [sys.executable, "-c", EXCHANGER, str(tmp_path / "data"), str(tmp_path / "photos")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as exchanger:
        try:
            exchanger.stdout.readline()
            for _ in range(200):
                try:
                    open_storage("disk", tmp_path / "data", if_exists="overwrite").close()
                    outcomes.append("made")
                except ExEngineError as error:
                    outcomes.append(type(error).__name__)
        finally:
            exchanger.kill()
    places = [path for path in tmp_path.iterdir() if path.is_dir() and (path / "thesis.txt").exists()]
    assert [snapshot(place) for place in places] == [before], outcomes
    assert len(outcomes) == 200


def test_a_free_name_is_never_taken_from_another(tmp_path):
    from exengine.kernel.system import files

    kinds = [*itertools.product((make_file, make_folder, os.mkdir), repeat=2)]
    for number, (make, occupy) in enumerate(kinds):
        for renameat2 in (True, False):
            folder = tmp_path / f"{number}-{renameat2}"
            folder.mkdir()
            make(folder / "old")
            occupy(folder / "new")
            with pytest.MonkeyPatch.context() as patch:
                if not renameat2:
                    patch.setattr(files, "_renameat2", lambda *_: False)
                with pytest.raises(FileExistsError):
                    files.rename_to_free_name(str(folder / "old"), str(folder / "new"))
                assert sorted(os.listdir(folder)) == ["new", "old"]
                files.rename_to_free_name(str(folder / "old"), str(folder / "free"))
            assert sorted(os.listdir(folder)) == ["free", "new"]
