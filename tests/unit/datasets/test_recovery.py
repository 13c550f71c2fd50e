"""``recover``: a finished dataset of what survives; killed anywhere and run again, the same one (C3)."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from exengine.datasets.opening import open_dataset
from exengine.datasets.recovery import recover
from exengine.datasets.recovery_base import MAX_NAMED
from exengine.datasets.verification import LostFrame, verify
from exengine.kernel.errors import (
    CoordinatesError,
    DatasetAccessError,
    DatasetDamagedError,
    DatasetExistsError,
    DatasetLockedError,
    DatasetNotFoundError,
    OptionError,
    StorageFailedError,
    UnsupportedOperationError,
)
from exengine.kernel.storage import manifest
from exengine.testing.kills import killed_at_call

pytestmark = pytest.mark.once

# Little changes on the disk between the end of one call and the start of the next.
MOMENTS = ["before", "after"] if os.environ.get("EXENGINE_LONG") else ["before"]


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data-recovered.checked"


@pytest.fixture
def make(make):
    """Return what makes a dataset of some frames, by default without an end."""
    return functools.partial(make, finish=False)


def pixels(time):
    return np.full((3, 4), time, np.uint16)


def damage(path, *numbers):
    for number in numbers:
        file = path / f"{number}.raw"
        content = bytearray(file.read_bytes())
        content[0] ^= 1
        file.write_bytes(content)


def digest(folder):
    """Return one number of all names, times and bytes of a folder, apart from installed modules."""
    whole = hashlib.sha256()
    for file in [folder, *sorted(folder.rglob("*"))]:
        if folder / "site" in (file, *file.parents):  # Python keeps there what it has compiled
            continue
        whole.update(
            repr((str(file), file.stat().st_mtime_ns, file.is_file() and file.read_bytes())).encode()
        )
    return whole.hexdigest()


def assert_holds(path, times, status="aborted"):
    with contextlib.closing(open_dataset(path)) as dataset:
        assert dataset.status == status
        assert [coordinates["time"] for coordinates in dataset] == list(times)
        for time in times:
            np.testing.assert_array_equal(dataset.get_data({"time": time}), pixels(time), strict=True)
            assert dataset.get_metadata({"time": time}) == {"time": time}


# -- into a copy ---------------------------------------------------------------------------------


def test_every_frame_of_an_incomplete_dataset_is_in_a_finished_one_beside_it(make, path, target):
    make(annotations={"config": {"a": 1}}, summary_metadata={"who": "me"})
    before = digest(path)
    report = recover(path)
    assert (report.outcome, report.path, report.backend) == ("recovered", str(target), "checked")
    assert (report.frames, report.total, report.lost, report.ok) == (5, 5, [], True)
    assert report.reason == f"recovered from {path}: 5 of 5 frames"
    assert_holds(target, range(5))
    with contextlib.closing(open_dataset(target)) as dataset:
        assert dataset.status_reason == report.reason
        assert dataset.annotations["config"] == {"a": 1}
        assert dataset.summary_metadata == {"who": "me"}
        assert dataset.annotations["recovery"]["source"] == str(path)
    assert verify(target).ok
    assert digest(path) == before
    assert sorted(target.parent.iterdir()) == [target, path, target.parent / "site"]


def test_the_copy_receives_the_axes_of_the_source_before_its_first_frame(
    make, path, target, checked, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        checked,
        "prepare_frames",
        lambda storage, plan: seen.append((len(storage), plan, list(plan.coordinates()))),
    )
    make()
    recover(path)
    ((stored, plan, coordinates),) = seen
    assert stored == 0 and plan.frames == 5
    assert [(axis.name, axis.positions) for axis in plan.axes] == [("time", (0, 1, 2, 3, 4))]
    assert (plan.shape, plan.dtype) == (None, None)  # frames of this backend may differ
    assert [dict(where) for where in coordinates] == [{"time": time} for time in range(5)]


def test_the_layout_is_planned_where_all_frames_have_one(make, path, checked, monkeypatch):
    seen = []
    limits = dataclasses.replace(checked.capabilities, same_shape=True)
    make()
    reader = type(open_dataset(path))
    monkeypatch.setattr(reader, "capabilities", limits)
    monkeypatch.setattr(checked, "prepare_frames", lambda storage, plan: seen.append(plan))
    damage(path, 0)
    recover(path)
    assert (seen[0].shape, seen[0].dtype) == ((3, 4), "uint16")


def test_a_plan_that_the_copy_refuses_is_reported_and_the_frames_are_kept(
    make, path, target, checked, monkeypatch
):
    def refuse(storage, plan):
        raise CoordinatesError("too many axes")

    monkeypatch.setattr(checked, "prepare_frames", refuse)
    make()
    report = recover(path)
    assert report.problems == ["the copy was written without a plan: too many axes"]
    assert_holds(target, range(5))


def test_what_does_not_survive_is_reported_and_kept_with_the_dataset(make, path, target):
    make()
    damage(path, 1)
    (path / "3.raw").unlink()
    report = recover(path)
    assert not report.ok
    assert (report.frames, report.total) == (3, 5)
    assert [frame.coordinates for frame in report.lost] == [{"time": 1}, {"time": 3}]
    assert report.reason.endswith("3 of 5 frames")
    assert_holds(target, [0, 2, 4])
    found = verify(target)
    assert [frame.coordinates for frame in found.missing] == [{"time": 1}, {"time": 3}]
    assert "1.raw is not what was written" in found.missing[0].reason
    assert found.problems == found.damaged == []


def test_a_finished_dataset_that_is_damaged_is_recovered_too(make, path, target):
    make(finish=True, annotations={"ledger": {"stored": 5, "balanced": True, "not_stored": []}})
    damage(path, 0)
    assert recover(path).frames == 4
    assert_holds(target, range(1, 5))
    assert verify(target).problems == []


def test_frames_that_nothing_names_any_more_are_counted(make, path, target):
    make(finish=True)
    lines = (path / "index").read_text().splitlines(keepends=True)
    (path / "index").write_text("".join(lines[:3]))
    report = recover(path)
    assert (report.frames, report.total, report.lost) == (3, 5, [])
    assert not report.ok
    assert "4.raw is not in the index" in report.problems
    assert verify(target).problems == ["further frames lost by the recovery, at unknown coordinates: 2"]


def test_the_second_run_changes_nothing_and_says_so(make, path, target):
    make()
    damage(path, 2)
    first = recover(path)
    before = digest(path.parent)
    second = recover(path)
    assert second.outcome == "already recovered"
    assert (second.frames, second.total, second.lost) == (first.frames, first.total, first.lost)
    assert digest(path.parent) == before


def test_a_dataset_that_is_finished_and_whole_needs_nothing(make, path, target):
    make(finish=True)
    before = digest(path.parent)
    for in_place in (False, True):
        report = recover(path, in_place=in_place)
        assert (report.outcome, report.path, report.frames) == ("nothing to recover", str(path), 5)
        assert report.status == "complete" and report.ok
    assert digest(path.parent) == before


@pytest.mark.parametrize("in_place", [False, True])
def test_a_dry_run_reports_the_same_and_writes_nothing(in_place, make, path):
    make()
    damage(path, 2)
    os.remove(path / "exengine.lock")
    before = digest(path.parent)
    dry = recover(path, dry_run=True, in_place=in_place)
    assert dry.dry_run
    assert digest(path.parent) == before
    wet = recover(path, in_place=in_place)
    assert {**dry.to_dict(), "dry_run": False} == wet.to_dict()


def test_what_is_at_the_target_is_not_touched(make, path, target):
    make()
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    before = digest(path.parent)
    with pytest.raises(DatasetExistsError, match="was not recovered from"):
        recover(path)
    assert digest(path.parent) == before


def test_another_dataset_at_the_target_is_not_touched(make, path, target):
    make()
    make(at=target, finish=True)
    before = digest(path.parent)
    with pytest.raises(DatasetExistsError, match="was not recovered from"):
        recover(path)
    assert digest(path.parent) == before


def test_a_target_that_was_recovered_from_it_and_has_changed_since_is_refused(make, path, target):
    make()
    recover(path)
    damage(target, 3)
    with pytest.raises(DatasetExistsError, match="has a different frame at"):
        recover(path)


def test_an_empty_folder_is_a_place(make, path, tmp_path):
    make()
    (tmp_path / "empty").mkdir()
    assert recover(path, output=tmp_path / "empty").frames == 5
    assert_holds(tmp_path / "empty", range(5))


def test_folders_on_the_way_to_the_output_are_made(make, path, tmp_path):
    make()
    recover(path, output=tmp_path / "a" / "b")
    assert_holds(tmp_path / "a" / "b", range(5))


@pytest.mark.parametrize("inside", ["", "sub", "sub/sub"])
def test_an_output_in_the_dataset_itself_is_wrong(inside, make, path):
    make()
    before = digest(path)
    with pytest.raises(OptionError):
        recover(path, output=path / inside)
    assert digest(path) == before


def test_in_place_goes_with_no_output(make, path, target):
    make()
    with pytest.raises(OptionError, match="either in_place or output"):
        recover(path, output=target, in_place=True)


def test_where_nothing_is_the_error_says_so(checked, tmp_path):
    with pytest.raises(DatasetNotFoundError):
        recover(tmp_path / "nothing")
    assert not (tmp_path / "nothing-recovered").exists()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_dataset_whose_writer_is_at_work_is_left_alone(in_place, dry_run, checked, path):
    with checked(path) as storage:
        storage.put({"time": 0}, pixels(0), None)
        before = digest(path.parent)
        with pytest.raises(DatasetLockedError, match="is being written"):
            recover(path, in_place=in_place, dry_run=dry_run)
        assert digest(path.parent) == before


def test_another_recovery_to_the_same_place_is_refused(make, path, target):
    make()
    workshop = path.parent / f".{target.name}.recovering"
    workshop.mkdir()
    lock = manifest.take_lock(str(workshop))
    before = digest(path.parent)
    with pytest.raises(DatasetLockedError, match="another recovery"):
        recover(path)
    assert digest(path.parent) == before
    os.close(lock)
    assert recover(path).frames == 5
    assert not workshop.exists()


def test_what_one_that_was_killed_has_left_is_removed(make, path, target):
    make()
    workshop = path.parent / f".{target.name}.recovering"
    make(at=workshop / target.name)
    (workshop / "exengine.lock").touch()
    recover(path)
    assert not workshop.exists()
    assert_holds(target, range(5))


def test_a_full_disk_ends_with_its_error_and_leaves_nothing(make, path, target, checked, monkeypatch):
    make()
    before = sorted(path.parent.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    for name, error in (("write_frame", StorageFailedError), ("finish_frames", StorageFailedError)):
        with monkeypatch.context() as patch:
            patch.setattr(checked, name, full)
            with pytest.raises(error, match="No space left"):
                recover(path)
        assert sorted(path.parent.iterdir()) == before
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", full)
        with pytest.raises(DatasetAccessError, match="No space left"):
            recover(path)
    assert recover(path).frames == 5


def test_a_frame_that_cannot_be_written_again_is_lost_with_the_reason(make, path, checked, monkeypatch):
    from exengine.kernel.errors import UnsupportedDataError

    make()

    def refuse(self, coordinates, data, metadata):
        if coordinates["time"] == 3:
            raise UnsupportedDataError("too odd")
        return metadata

    monkeypatch.setattr(checked, "check_frame", refuse)
    report = recover(path)
    assert report.lost == [LostFrame({"time": 3}, "the frame cannot be written to the copy: too odd")]
    assert recover(path).outcome == "already recovered"


def test_a_recovery_of_a_recovery_tells_of_both(make, path, target, tmp_path):
    make()
    damage(path, 1)
    recover(path)
    damage(target, 2)
    report = recover(target, output=tmp_path / "again")
    assert [frame.coordinates for frame in report.lost] == [{"time": 1}, {"time": 3}]
    assert (report.frames, report.total) == (3, 5)


def test_more_lost_frames_than_a_manifest_names_are_counted(make, path, target):
    make(count=MAX_NAMED + 5)
    damage(path, *range(1, MAX_NAMED + 5))
    assert len(recover(path).lost) == MAX_NAMED + 4
    kept = json.loads((target / "exengine.json").read_text())["annotations"]["recovery"]
    assert (len(kept["lost"]), kept["lost_count"], kept["total"]) == (MAX_NAMED, MAX_NAMED + 4, MAX_NAMED + 5)
    assert recover(path).outcome == "already recovered"


def test_a_backend_that_knows_nothing_of_recovery_is_recovered_into_a_copy(make, tmp_path, disk_storage):
    make(at=tmp_path / "plain", cls=disk_storage)
    report = recover(tmp_path / "plain")
    assert report.path == str(tmp_path / "plain-recovered")
    assert_holds(report.path, range(5))


def test_the_name_of_the_copy_is_on_the_disk_when_recover_returns(make, path, target, monkeypatch):
    from exengine.kernel.system import files

    make()
    done = []
    rename, sync_folder = files.rename_to_free_name, files.sync_folder
    monkeypatch.setattr(
        files, "rename_to_free_name", lambda old, new: (rename(old, new), done.append(str(new)))[0]
    )
    monkeypatch.setattr(
        files, "sync_folder", lambda folder: (sync_folder(folder), done.append(f"sync {folder}"))[0]
    )
    recover(path)
    assert f"sync {target.parent}" in done[done.index(str(target)) :]


# -- in place ------------------------------------------------------------------------------------


def test_in_place_the_dataset_itself_is_finished(make, path):
    make(annotations={"config": {"a": 1}})
    damage(path, 1)
    report = recover(path, in_place=True)
    assert (report.outcome, report.path, report.frames, report.total) == ("recovered", str(path), 4, 5)
    assert_holds(path, [0, 2, 3, 4])
    with contextlib.closing(open_dataset(path)) as dataset:
        assert dataset.annotations["config"] == {"a": 1}
        assert dataset.annotations["recovery"]["lost"][0]["coordinates"] == {"time": 1}
    before = digest(path)
    again = recover(path, in_place=True)
    assert (again.outcome, again.frames) == ("nothing to recover", 4)
    assert digest(path) == before


def test_in_place_a_backend_that_cannot_says_so_and_nothing_changes(make, path, disk_storage):
    make(cls=disk_storage)
    before = digest(path)
    with pytest.raises(UnsupportedOperationError, match="recover it into a copy"):
        recover(path, in_place=True)
    assert digest(path) == before


def test_in_place_a_dataset_without_manifest_is_refused(make, path):
    make()
    (path / "exengine.json").unlink()
    before = digest(path)
    with pytest.raises(UnsupportedOperationError, match="was not written by ExEngine"):
        recover(path, in_place=True)
    assert digest(path) == before
    assert recover(path).frames == 5  # into a copy


def test_in_place_an_error_of_the_disk_is_told_and_the_next_run_goes_on(make, path, monkeypatch):
    make()
    damage(path, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DatasetAccessError, match="No space left"):
            recover(path, in_place=True)
    assert recover(path, in_place=True).frames == 4
    assert_holds(path, [0, 2, 3, 4])


# -- killed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", MOMENTS)
def test_killed_at_any_call_a_copy_is_there_whole_or_not_at_all(when, make, path, target):
    make()
    damage(path, 1)
    before = digest(path)
    call = 0
    killed = True
    while killed:
        call += 1
        killed = killed_at_call(call, when, lambda: recover(path))
        if target.exists():
            assert_holds(target, [0, 2, 3, 4])
        report = recover(path)
        assert (report.frames, report.total, len(report.lost)) == (4, 5, 1), call
        assert_holds(target, [0, 2, 3, 4])
        assert digest(path) == before
        left = {entry.name for entry in path.parent.iterdir()} - {path.name, target.name, "site"}
        # Whoever was killed after the end of its work has left an empty folder; a run that works there
        # takes it away.
        assert left <= {f".{target.name}.recovering"}
        shutil.rmtree(target)
    assert call > 20
    assert recover(path).frames == 4
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, target.name, "site"}


@pytest.mark.parametrize("when", MOMENTS)
def test_killed_at_any_call_in_place_the_next_run_comes_to_the_same_end(when, make, path, tmp_path):
    make()
    damage(path, 1)
    shutil.copytree(path, tmp_path / "original")
    wanted = None
    call = 0
    killed = True
    while killed:
        call += 1
        killed = killed_at_call(call, when, lambda: recover(path, in_place=True))
        recover(path, in_place=True)
        assert_holds(path, [0, 2, 3, 4])
        files = {file.name: file.read_bytes() for file in path.iterdir()}
        wanted = wanted or files
        assert files == wanted, call
        shutil.rmtree(path)
        shutil.copytree(tmp_path / "original", path)
    assert call > 5


# -- nothing of others is removed or changed -----------------------------------------------------


def test_a_folder_of_another_with_the_name_of_the_hidden_one_stays(make, path, target):
    make()
    workshop = path.parent / f".{target.name}.recovering"
    workshop.mkdir()
    (workshop / "thesis.txt").write_text("mine")
    before = digest(path.parent)
    with pytest.raises(DatasetExistsError, match="was not created by a recovery; move it away"):
        recover(path)
    assert digest(path.parent) == before


@pytest.mark.parametrize("kind", ["file", "folder", "link", "in the copy", "for the copy"])
def test_what_another_has_put_into_the_hidden_folder_stays(make, path, target, kind):
    make()
    workshop = path.parent / f".{target.name}.recovering"
    make(at=workshop / target.name)
    (workshop / "exengine.lock").touch()
    if kind == "file":
        (workshop / "thesis.txt").write_text("mine")
    elif kind == "folder":
        (workshop / "photos").mkdir()
    elif kind == "link":
        (workshop / "link").symlink_to(path)
    elif kind == "in the copy":
        (workshop / target.name / "thesis.txt").write_text("mine")
    else:
        shutil.rmtree(workshop / target.name)
        (workshop / target.name).mkdir()
        (workshop / target.name / "thesis.txt").write_text("mine")
    before = digest(path.parent)
    with pytest.raises(DatasetExistsError, match="thesis|photos|link|was not deleted"):
        recover(path)
    assert digest(path.parent) == before


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_comes_into_the_place_of_the_copy_meanwhile_stays(
    make, path, target, kind, checked, monkeypatch
):
    make()
    real = checked.finish_frames

    def finish(self):
        real(self)
        if kind == "file":
            target.write_text("mine")
        elif kind == "folder":
            target.mkdir()
            (target / "thesis.txt").write_text("mine")
        else:
            target.symlink_to("nowhere")

    monkeypatch.setattr(checked, "finish_frames", finish)
    with pytest.raises(DatasetExistsError, match="was created by another process during the recovery"):
        recover(path)
    assert target.is_symlink() or "mine" in (target if kind == "file" else target / "thesis.txt").read_text()
    assert sorted(path.parent.iterdir()) == [target, path, target.parent / "site"]


def test_a_link_that_leads_nowhere_is_not_an_output(make, path, tmp_path):
    make()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(DatasetExistsError, match="is a broken symbolic link; choose another output"):
        recover(path, output=tmp_path / "link")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_in_place_a_dataset_with_hard_links_in_a_backup_is_refused(make, path, tmp_path, dry_run):
    make()
    (tmp_path / "backup").mkdir()
    os.link(path / "0.raw", tmp_path / "backup" / "0.raw")
    before = digest(tmp_path)
    with pytest.raises(UnsupportedOperationError, match=r"0\.raw has another hard link"):
        recover(path, in_place=True, dry_run=dry_run)
    assert digest(tmp_path) == before
    assert recover(path).frames == 5


def test_what_a_recovery_left_that_was_killed_while_it_claimed_is_removed(make, path, target):
    make()
    workshop = path.parent / f".{target.name}.recovering"
    building = workshop / f".{target.name}.creating-1-2"
    building.mkdir(parents=True)
    (workshop / manifest.LOCK_NAME).touch()
    (building / manifest.LOCK_NAME).touch()
    (building / "index").write_text("")  # an initial file of the format
    content = {"backend": "checked", "status": "incomplete", "annotations": {}}
    manifest.write_manifest(str(building), content, durable=False)
    (building / "thesis.txt").write_text("mine")  # the manifest tells it apart from the files of the dataset
    with pytest.raises(DatasetExistsError, match=r"thesis\.txt"):
        recover(path)
    assert (building / "index").exists()
    (building / "thesis.txt").unlink()
    assert recover(path).ok
    assert not workshop.exists()


# -- good pixels with damaged metadata -----------------------------------------------------------


@pytest.fixture
def unreadable_metadata(make, checked, monkeypatch):
    """Make a dataset; the metadata of its frame 3 cannot be read."""
    make(finish=True)
    reader = __import__(checked.__module__).CheckedReader
    read = reader.read_frame_metadata

    def fail(self, number):
        metadata = read(self, number)
        if metadata.get("time") == 3:
            error = DatasetDamagedError("the metadata are not what was written")
            error.readable = '{"time": 3?'
            raise error
        return metadata

    monkeypatch.setattr(reader, "read_frame_metadata", fail)


@pytest.mark.parametrize("in_place", [False, True], ids=["copy", "in place"])
def test_a_frame_whose_metadata_cannot_be_read_is_kept_and_named(in_place, unreadable_metadata, path):
    planned = recover(path, in_place=in_place, dry_run=True)
    report = recover(path, in_place=in_place)
    for said in (planned, report):
        assert (said.outcome, said.frames, said.total, said.lost, said.ok) == ("recovered", 5, 5, [], True)
        assert said.problems == [
            "the metadata of the frame at {'time': 3} were lost: the metadata are not what was written"
        ]
    with contextlib.closing(open_dataset(report.path)) as dataset:
        for time in range(5):
            np.testing.assert_array_equal(dataset.get_data({"time": time}), pixels(time), strict=True)
        metadata = dataset.get_metadata({"time": 3})
        assert "the metadata were lost: the metadata are not what was" in metadata["exengine_note"]
        assert in_place or metadata["exengine_damaged_metadata"] == '{"time": 3?'
        assert dataset.annotations["recovery"]["problems"] == report.problems
    assert verify(report.path).ok
    again = recover(path, in_place=in_place)
    assert again.outcome == ("nothing to recover" if in_place else "already recovered")
    assert (again.frames, again.lost) == (5, [])
