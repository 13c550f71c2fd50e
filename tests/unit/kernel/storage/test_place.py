"""Promises D1 and D2: a new dataset lies on nothing, and has one writer."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import DatasetAccessError, DatasetExistsError, DatasetLockedError
from exengine.kernel.storage import manifest
from exengine.kernel.storage.place import DatasetPlace
from exengine.kernel.system import files


@pytest.fixture
def claim():
    """Return what claims a path; all claims are given back at the end."""
    places = []

    def claim(path):
        places.append(DatasetPlace.claim(os.fspath(path), "test"))
        return places[-1]

    yield claim
    for place in places:
        place.unlock()


def names_below(folder):
    return sorted(os.listdir(folder))


# -- claiming ------------------------------------------------------------------------------------


def test_a_claim_makes_a_folder_with_lock_and_manifest_at_the_path_exactly(tmp_path, claim):
    place = claim(tmp_path / "new" / "parents" / "data")
    assert place.path == os.path.realpath(tmp_path / "new" / "parents" / "data")
    assert names_below(place.path) == ["exengine.json", "exengine.lock"]
    assert names_below(tmp_path / "new" / "parents") == ["data"]
    content = manifest.read_manifest(place.path)
    assert (content["backend"], content["status"], content["annotations"]) == ("test", "incomplete", {})
    assert manifest.has_writer(place.path)


def test_an_empty_folder_is_claimed(tmp_path, claim):
    (tmp_path / "data").mkdir()
    assert names_below(claim(tmp_path / "data").path) == ["exengine.json", "exengine.lock"]


def test_an_empty_folder_that_cannot_be_replaced_is_filled(tmp_path, claim, monkeypatch):
    (tmp_path / "data").mkdir()
    inode = (tmp_path / "data").stat().st_ino
    rename = os.rename

    def busy(source, target):
        if os.path.isdir(source):
            raise OSError(16, "Device or resource busy")  # a mount point
        rename(source, target)

    monkeypatch.setattr(os, "rename", busy)
    place = claim(tmp_path / "data")
    assert (tmp_path / "data").stat().st_ino == inode
    assert names_below(tmp_path) == ["data"] and manifest.has_writer(place.path)


def test_a_path_may_end_in_a_slash_or_go_up_and_down(tmp_path, claim):
    assert claim(f"{tmp_path}/a/").path == os.path.realpath(tmp_path / "a")
    assert claim(f"{tmp_path}/x/../b").path == os.path.realpath(tmp_path / "b")


def test_a_relative_path_stays_where_it_was_when_the_process_goes_elsewhere(tmp_path, claim, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = claim("data")
    monkeypatch.chdir("/")
    place.annotate("x", 1)
    assert manifest.read_manifest(tmp_path / "data")["annotations"] == {"x": 1}


@pytest.mark.parametrize("length", [200, 255])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path, claim, length):
    assert os.path.basename(claim(tmp_path / ("n" * length)).path) == "n" * length


# -- refusing ------------------------------------------------------------------------------------


def test_what_is_there_is_refused_and_stays_as_it_is(tmp_path, claim):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("folder", "file", "link"):
        with pytest.raises(DatasetExistsError):
            claim(tmp_path / name)
    assert names_below(tmp_path) == ["file", "folder", "link"]
    assert names_below(tmp_path / "folder") == ["notes"]


def test_a_dataset_that_is_closed_still_exists(tmp_path, claim):
    claim(tmp_path / "data").unlock()
    with pytest.raises(DatasetExistsError, match="set if_exists='number' to add a number"):
        claim(tmp_path / "data")


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 300, "file/data", "x" * 5000])
def test_a_path_that_cannot_be_used_is_refused_and_nothing_is_left(tmp_path, claim, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetAccessError) as info:
        claim(path)
    assert isinstance(info.value, OSError)
    assert (tmp_path / "file").read_text() == ""
    assert not [name for name in names_below(tmp_path) if name.startswith(".")]


def test_the_names_of_folders_that_were_made_on_the_way_are_synced(tmp_path, claim, monkeypatch):
    place = claim(tmp_path / "a" / "b" / "data")
    synced = []
    monkeypatch.setattr("exengine.kernel.system.files.sync_folder", lambda folder: synced.append(str(folder)))
    place.conclude(DatasetStatus.COMPLETE, "", 0)
    assert {str(tmp_path / "a" / "b"), str(tmp_path / "a"), str(tmp_path)} <= set(synced)


@pytest.mark.parametrize("folder", ["", "data"])
def test_an_end_that_may_not_have_reached_the_disk_does_not_say_complete(
    tmp_path, claim, monkeypatch, folder
):
    place = claim(tmp_path / "data")
    real, failed = os.fsync, []

    def fail_once(descriptor):
        if os.path.samestat(os.fstat(descriptor), (tmp_path / folder).stat()) and not failed:
            failed.append(folder)
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(OSError, match="Input/output error"):
        place.conclude(DatasetStatus.COMPLETE, "", 3)
    content = manifest.read_manifest(tmp_path / "data")
    assert content["status"] == "failed" and "Input/output error" in content["reason"]


@pytest.fixture
def synced(monkeypatch):
    """Return the inodes of what was synced, in order."""
    real, done = os.fsync, []

    def fsync(descriptor):
        done.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return done


def test_a_manifest_is_on_the_disk_before_the_dataset_can_be_seen(tmp_path, claim, synced, monkeypatch):
    real = os.rename

    def rename(source, target):
        assert (Path(source) / manifest.MANIFEST_NAME).stat().st_ino in synced
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    claim(tmp_path / "data")
    assert synced


def test_a_manifest_that_replaces_another_is_on_the_disk_before_it_does(tmp_path, claim, synced, monkeypatch):
    place = claim(tmp_path / "data")
    real = os.replace

    def replace(source, target):
        assert os.stat(source).st_ino in synced
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    synced.clear()
    place.annotate("note", 1)
    assert synced


def test_a_synced_place_has_the_names_of_its_folders_on_the_disk_and_syncs_them_once(tmp_path, claim, synced):
    place = claim(tmp_path / "new" / "data")
    synced.clear()
    place.sync()
    assert {folder.stat().st_ino for folder in (tmp_path / "new", tmp_path)} <= set(synced)
    synced.clear()
    place.sync()
    assert not synced


def test_the_names_of_the_folders_are_on_the_disk_before_the_manifest_says_complete(
    tmp_path, claim, monkeypatch
):
    place = claim(tmp_path / "data")

    def fail(folder):
        assert manifest.read_manifest(tmp_path / "data")["status"] == "incomplete"
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("exengine.kernel.system.files.sync_folder", fail)
    with pytest.raises(OSError, match="Input/output error"):
        place.conclude(DatasetStatus.COMPLETE, "", 3)


def test_a_lock_that_cannot_be_closed_hinders_nobody(tmp_path, claim, monkeypatch):
    place = claim(tmp_path / "data")
    real = os.close

    def close(descriptor):
        real(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        place.unlock()
    place.unlock()
    assert not manifest.has_writer(tmp_path / "data")


@pytest.mark.parametrize("below", ["data", "deeper/still/data"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path, claim, below):
    file = tmp_path / "notes.txt"
    file.write_text("kept")
    with pytest.raises(DatasetAccessError, match=r"data: \S*notes\.txt is not a folder; choose a folder"):
        claim(file / below)
    assert file.read_text() == "kept"


@pytest.mark.parametrize("step", ["mkdir", "open", "rename", "replace"])
def test_a_claim_that_fails_half_way_leaves_nothing_and_no_lock(tmp_path, claim, monkeypatch, step):
    (tmp_path / "parent").mkdir()

    real = getattr(os, step)

    def fail(path, *more, **options):
        if "data" not in str(path) or (step == "open" and not more[0] & os.O_CREAT):  # to clear away
            return real(path, *more, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(
        DatasetAccessError, match="cannot create a dataset at .*: No space left on device"
    ) as info:
        claim(tmp_path / "parent" / "data")
    monkeypatch.undo()
    assert info.value.errno == 28
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert names_below(tmp_path / "parent") == []
    claim(tmp_path / "parent" / "data")


# -- one writer ----------------------------------------------------------------------------------


def test_a_second_writer_is_refused_under_every_spelling_of_the_path(tmp_path, claim, monkeypatch):
    claim(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "up").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for spelling in (
        "data",
        "./data/",
        "link",
        "up/data",
        "up/link",
        f"{tmp_path}/data",
        f"../{tmp_path.name}/data",
    ):
        with pytest.raises(DatasetLockedError) as info:
            claim(spelling)
        assert isinstance(info.value, BlockingIOError)
    assert names_below(tmp_path) == ["data", "link", "up"]


def test_of_many_threads_that_want_one_place_one_gets_it(tmp_path):
    start = threading.Barrier(16)
    outcomes = []

    def want():
        start.wait()
        try:
            outcomes.append(DatasetPlace.claim(str(tmp_path / "data"), "test"))
        except (DatasetLockedError, DatasetExistsError) as error:
            outcomes.append(error)

    threads = [threading.Thread(target=want) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [outcome for outcome in outcomes if isinstance(outcome, DatasetPlace)]
    assert len(outcomes) == 16 and len(winners) == 1
    assert names_below(tmp_path) == ["data"]
    assert manifest.has_writer(tmp_path / "data")
    winners[0].unlock()


CLAIM = """
import sys, time
from exengine.kernel.storage.place import DatasetPlace
try:
    place = DatasetPlace.claim(sys.argv[1], "test")
except Exception as error:
    print(type(error).__name__, flush=True)
else:
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_of_many_processes_that_want_one_place_one_gets_it(tmp_path):
    command = [sys.executable, "-c", CLAIM, str(tmp_path / "data")]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(6)]
    outcomes = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.communicate()
    assert outcomes.count("mine") == 1
    assert set(outcomes) <= {"mine", "DatasetLockedError", "DatasetExistsError"}
    assert names_below(tmp_path) == ["data"]


FORKING = """
import os, sys, time
from exengine.kernel.storage.place import DatasetPlace
from exengine.kernel.storage import manifest
from exengine.kernel.system import files
from exengine_disk import DiskStorage
storage = DiskStorage(sys.argv[1])
child = os.fork()
if not child:
    print(os.getpid(), flush=True)
    os.close(1)
    sys.stdin.read()  # until the test ends
    os._exit(0)
sys.stdin.read()
"""


def test_the_lock_of_a_killed_writer_frees_itself_also_when_it_had_forked_children(installed, tmp_path):
    path = tmp_path / "data"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", FORKING, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as writer:
        child = int(writer.stdout.readline())
        assert manifest.has_writer(path)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        os.kill(child, 0)  # it lives
        assert not manifest.has_writer(path)


def test_a_program_that_the_writer_starts_does_not_hold_the_lock(tmp_path, claim):
    place = claim(tmp_path / "data")
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", "print('up', flush=True); input()"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, close_fds=False) as child:
        assert child.stdout.readline() == b"up\n"
        place.unlock()
        assert not manifest.has_writer(tmp_path / "data")
        child.communicate(b"\n")


# -- the end -------------------------------------------------------------------------------------


def test_annotations_and_the_end_are_kept_in_the_manifest(tmp_path, claim):
    place = claim(tmp_path / "data")
    place.annotate("config", {"a": 1})
    place.annotate("ledger", [2])
    place.conclude(DatasetStatus.ABORTED, "no light", 7)
    content = manifest.read_manifest(tmp_path / "data")
    assert content["annotations"] == {"config": {"a": 1}, "ledger": [2]}
    assert (content["status"], content["reason"], content["frames"]) == ("aborted", "no light", 7)


def test_unlocking_is_idempotent_and_lets_others_see_that_nobody_writes(tmp_path, claim):
    place = claim(tmp_path / "data")
    place.unlock()
    place.unlock()
    assert not manifest.has_writer(tmp_path / "data")


def test_a_name_is_cut_by_its_bytes(tmp_path):
    place = DatasetPlace.claim(str(tmp_path / ("\U0001f52c" * 60)), "disk")  # 240 bytes, of 255
    place.unlock()
    assert os.listdir(tmp_path) == ["\U0001f52c" * 60]


def test_an_interrupt_leaves_neither_a_folder_nor_a_lock(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    monkeypatch.setattr(manifest, "write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        DatasetPlace.claim(str(tmp_path / "data"), "disk")
    assert os.listdir(tmp_path) == []
    assert not descriptors or len(os.listdir("/proc/self/fd")) == descriptors


def test_whoever_only_looks_for_a_writer_does_not_hinder_a_recovery(tmp_path):
    place = DatasetPlace.claim(str(tmp_path / "data"), "disk")
    place.unlock()
    with open(tmp_path / "data" / manifest.LOCK_NAME) as file:
        assert files.try_lock(file.fileno(), shared=True)
        looker = threading.Timer(0.03, file.close)
        looker.start()
        DatasetPlace.reclaim(str(tmp_path / "data")).unlock()
        looker.join()


# -- nothing of others is removed or replaced ----------------------------------------------------


def test_a_folder_of_another_with_the_name_of_the_one_that_is_built_stays(tmp_path, claim, monkeypatch):
    monkeypatch.setattr(time, "monotonic_ns", lambda: 7)
    other = tmp_path / f".data.creating-{os.getpid()}-7"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetAccessError, match="File exists"):
        claim(tmp_path / "data")
    assert (other / "thesis.txt").read_text() == "mine" and names_below(tmp_path) == [other.name]


def test_what_another_has_put_into_the_folder_that_is_built_stays(tmp_path, claim, monkeypatch):
    def full(source, target):
        (Path(source) / "thesis.txt").write_text("mine")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(DatasetAccessError, match="No space left"):
        claim(tmp_path / "data")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["thesis.txt"]


def test_of_two_that_fill_an_empty_folder_the_second_replaces_no_lock(tmp_path, claim, monkeypatch):
    (tmp_path / "data").mkdir()
    real = os.rename

    def busy(source, target):
        if os.path.isdir(source):  # a mount point; another writer is there first
            (tmp_path / "data" / manifest.LOCK_NAME).write_text("of another")
            monkeypatch.setattr(os, "listdir", lambda *_: [])  # which is not seen
            raise OSError(16, "Device or resource busy")
        real(source, target)

    monkeypatch.setattr(os, "rename", busy)
    with pytest.raises(DatasetAccessError, match="File exists"):
        claim(tmp_path / "data")
    monkeypatch.undo()
    assert names_below(tmp_path) == ["data"] and names_below(tmp_path / "data") == [manifest.LOCK_NAME]
    assert (tmp_path / "data" / manifest.LOCK_NAME).read_text() == "of another"


def test_an_unfinished_manifest_with_a_second_name_is_not_truncated_there(tmp_path, claim):
    place = claim(tmp_path / "data")
    (tmp_path / "thesis.txt").write_text("mine")
    os.link(tmp_path / "thesis.txt", tmp_path / "data" / "exengine.json.new")
    place.annotate("a", 1)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert manifest.read_manifest(tmp_path / "data")["annotations"] == {"a": 1}
