"""Single-file datasets: creating, opening, moving, numbering, overwriting, recovering and converting them.

``EXENGINE_LONG=1`` kills recoveries and conversions at every call. Otherwise, they are killed at every third call.
"""

import contextlib
import itertools
import json
import os
import shutil
from functools import partial

import numpy as np
import pytest

import exengine
from exengine.datasets.conversion.convert import convert
from exengine.datasets.creation import open_storage
from exengine.datasets.opening import open_dataset
from exengine.datasets.recovery import recover
from exengine.datasets.verification import verify
from exengine.errors import (
    ConfigError,
    DatasetExistsError,
    DatasetLockedError,
    DatasetNotFoundError,
    StorageFailedError,
)
from exengine.kernel.storage.one_file.place import FilePlace
from exengine.testing.kills import killed_at_call

STEP = 1 if os.environ.get("EXENGINE_LONG") else 3
PATTERNS = ("{file}", "{file}.exengine.journal")

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("lines")]


def write(path, frames=2, finish=True, **how):
    storage = open_storage("lines", path, **how)
    for time in range(frames):
        storage.put({"time": time}, np.full((3, 4), time, np.uint16), {"time": time})
    if finish:
        storage.finish()
    storage.close()
    return storage.path


def frames_of(path):
    with contextlib.closing(open_dataset(path)) as dataset:
        return [
            (axes["time"], int(dataset.get_data(axes)[0, 0]), dataset.get_metadata(axes)) for axes in dataset
        ]


WHOLE = [(0, 0, {"time": 0}), (1, 1, {"time": 1})]


def names(folder):
    return sorted({*os.listdir(folder)} - {"site"})  # the installed backends


@pytest.fixture
def no_sync(monkeypatch):
    """Sync nothing, because processes are killed here, and no power is lost."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


# -- the files, and where they are --------------------------------------------------------------------


def test_the_lock_the_manifest_and_the_journal_are_next_to_the_file(tmp_path):
    storage = open_storage("lines", tmp_path / "scan.lines")
    assert names(tmp_path) == [
        "scan.lines", "scan.lines.exengine.journal", "scan.lines.exengine.json", "scan.lines.exengine.lock",
    ]  # fmt: skip
    storage.finish()
    storage.close()
    assert names(tmp_path) == ["scan.lines", "scan.lines.exengine.json"]


def test_a_dataset_opens_and_reads_the_same_while_it_is_written_and_afterwards(tmp_path):
    path = tmp_path / "scan.lines"
    with open_storage("lines", path) as storage:
        for time in range(2):
            storage.put({"time": time}, np.full((3, 4), time, np.uint16), {"time": time})
        assert frames_of(path) == WHOLE
        with contextlib.closing(open_dataset(path)) as dataset:
            assert dataset.status == "incomplete"
    assert frames_of(path) == WHOLE and verify(path).ok


def test_two_datasets_with_the_same_stem_do_not_share_a_manifest(tmp_path):
    write(tmp_path / "scan.lines", frames=1)
    write(tmp_path / "scan.jsonl", frames=2)
    assert len(frames_of(tmp_path / "scan.lines")) == 1 and len(frames_of(tmp_path / "scan.jsonl")) == 2


def test_a_file_that_was_moved_alone_opens_with_its_status_and_annotations(tmp_path):
    storage = open_storage("lines", tmp_path / "scan.lines", summary_metadata={"lens": "20x"})
    storage.put({"time": 0}, np.zeros((3, 4), np.uint16), {"time": 0})
    storage.abort("the user stopped it")
    storage.close()
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(tmp_path / "scan.lines", tmp_path / "elsewhere" / "renamed.lines")
    with contextlib.closing(open_dataset(moved)) as dataset:
        assert (dataset.status, dataset.status_reason) == ("aborted", "the user stopped it")
        assert dataset.annotations["summary_metadata"] == {"lens": "20x"}
    assert frames_of(moved) == WHOLE[:1]


def test_a_path_without_a_suffix_of_the_backend_is_rejected_with_a_path_that_works(tmp_path):
    with pytest.raises(ConfigError, match=r"end with \.lines or \.jsonl; set '.*/scan\.lines'"):
        open_storage("lines", tmp_path / "scan")
    assert names(tmp_path) == []
    write(tmp_path / "SCAN.LINES")


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_link_to_the_file_opens_the_dataset(tmp_path):
    write(tmp_path / "scan.lines", finish=False)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "latest").symlink_to(tmp_path / "scan.lines")
    assert frames_of(tmp_path / "links" / "latest") == WHOLE


# -- what is there already ----------------------------------------------------------------------------


def test_an_existing_file_is_numbered_or_overwritten_or_an_error(tmp_path):
    path = tmp_path / "scan.lines"
    write(path)
    with pytest.raises(DatasetExistsError, match="already exists"):
        open_storage("lines", path)
    assert write(path, if_exists="number") == str(tmp_path / "scan_1.lines")
    write(path, frames=1, if_exists="overwrite")
    assert frames_of(path) == WHOLE[:1] and frames_of(tmp_path / "scan_1.lines") == WHOLE
    assert names(tmp_path) == [
        "scan.lines", "scan.lines.exengine.json", "scan_1.lines", "scan_1.lines.exengine.json",
    ]  # fmt: skip


def test_a_second_writer_is_rejected_and_the_first_goes_on(tmp_path):
    path = tmp_path / "scan.lines"
    with open_storage("lines", path) as storage:
        for way in ("error", "overwrite"):
            with pytest.raises((DatasetExistsError, DatasetLockedError)):
                open_storage("lines", path, if_exists=way)
        with pytest.raises(DatasetLockedError):
            recover(path, in_place=True)
        storage.put({"time": 0}, np.zeros((3, 4), np.uint16), {"time": 0})
    assert frames_of(path) == WHOLE[:1]


def test_a_manifest_whose_file_was_moved_away_is_kept(tmp_path):
    path = tmp_path / "scan.lines"
    write(path)
    (tmp_path / "other").mkdir()
    path.rename(tmp_path / "other" / "scan.lines")
    for way in ("error", "overwrite"):
        with pytest.raises(DatasetExistsError, match="scan.lines is missing"):
            open_storage("lines", path, if_exists=way)
    assert names(tmp_path) == ["other", "scan.lines.exengine.json"]


def test_a_journal_whose_file_was_deleted_is_kept(tmp_path):
    path = tmp_path / "scan.lines"
    write(path, finish=False)
    path.unlink()
    with pytest.raises(DatasetExistsError, match="journal is part of a dataset"):
        open_storage("lines", path)
    assert "scan.lines.exengine.journal" in names(tmp_path)


def test_the_old_dataset_is_brought_back_if_the_new_one_cannot_be_created(tmp_path, monkeypatch, lines):
    path = tmp_path / "scan.lines"
    write(path)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    monkeypatch.setattr(lines, "annotate", lambda *_: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises((exengine.ExEngineError, OSError), match="no space"):
        open_storage("lines", path, if_exists="overwrite")
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_a_file_that_another_program_changed_is_not_replaced_by_finish(tmp_path):
    path = tmp_path / "scan.lines"
    storage = open_storage("lines", path)
    storage.put({"time": 0}, np.zeros((3, 4), np.uint16), {"time": 0})
    path.write_bytes(b"another person's work")
    with pytest.raises(StorageFailedError, match="another program has changed the file"):
        storage.finish()
    storage.close()
    assert path.read_bytes() == b"another person's work"
    path.unlink()


# -- killed at every step -----------------------------------------------------------------------------


def test_a_claim_that_was_killed_anywhere_does_not_block_the_path(tmp_path, lines, no_sync):
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        path = folder / "a.lines"
        folder.mkdir()
        initial = {"{file}": lines.initial_files(None)["{file}"]}
        if not killed_at_call(
            number, "before", partial(FilePlace.claim, str(path), "lines", PATTERNS, initial)
        ):
            break
        if path.exists():  # the dataset is there, with its manifest, and nobody holds it
            assert json.loads((folder / "a.lines.exengine.json").read_text())["status"] == "incomplete"
            write(path, if_exists="overwrite")
        else:
            write(path)
        assert frames_of(path) == WHOLE
        assert names(folder) == ["a.lines", "a.lines.exengine.json"]
    assert number > 8


def test_an_overwrite_that_was_killed_anywhere_loses_no_frame(tmp_path, no_sync):
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "a.lines"
        write(path)
        overwrite = partial(open_storage, "lines", path, if_exists="overwrite")
        if not killed_at_call(number, "before", overwrite):
            break
        (aside,) = [*folder.glob(".a.lines.replaced-*")] or [None]
        begun = path.exists() and frames_of(path) == []
        if aside is not None and any(aside.iterdir()):
            if (aside / "a.lines").exists():
                assert frames_of(aside / "a.lines") == WHOLE
                if not path.exists():
                    with pytest.raises(DatasetNotFoundError, match="move its files back"):
                        open_dataset(path)
        elif not begun:
            assert frames_of(path) == WHOLE
    assert number > 12


# -- whole datasets -------------------------------------------------------------------------------------


def test_recovery_into_a_copy_and_in_place_keep_every_frame(tmp_path):
    path = tmp_path / "scan.lines"
    write(path, finish=False)
    report = recover(path)
    assert (report.path, report.frames) == (str(tmp_path / "scan-recovered.lines"), 2)
    assert recover(path).outcome == "already recovered"
    assert recover(path, in_place=True).frames == 2
    assert recover(path, in_place=True).outcome == "nothing to recover"
    for each in (path, tmp_path / "scan-recovered.lines"):
        assert verify(each).ok and frames_of(each) == WHOLE
    assert len(names(tmp_path)) == 4


def test_conversion_publishes_one_file_and_repeats_and_overwrites(tmp_path):
    write(tmp_path / "source.lines")
    for way, outcome in (("error", "converted"), ("error", "already converted"), ("overwrite", "converted")):
        report = convert(tmp_path / "source.lines", tmp_path / "scan.lines", backend="lines", if_exists=way)
        assert report.outcome == outcome and frames_of(tmp_path / "scan.lines") == WHOLE
    report = convert(tmp_path / "source.lines", tmp_path / "scan.lines", backend="lines", if_exists="number")
    assert report.path == str(tmp_path / "scan_1.lines") and frames_of(report.path) == WHOLE
    assert len(names(tmp_path)) == 6


def test_a_recovery_that_was_killed_anywhere_is_finished_by_the_same_command(tmp_path, no_sync):
    path, copy = tmp_path / "scan.lines", tmp_path / "scan-recovered.lines"
    write(path, finish=False)
    for number in itertools.count(1, STEP):
        was_killed = killed_at_call(number, "before", lambda: recover(path))
        recover(path)
        assert frames_of(copy) == WHOLE and verify(copy).ok
        for file in tmp_path.glob("scan-recovered.lines*"):
            file.unlink()
        if not was_killed:
            break
    assert number > 20


def test_a_conversion_that_was_killed_anywhere_is_finished_by_the_same_command(tmp_path, no_sync):
    source, path = tmp_path / "source.lines", tmp_path / "scan.lines"
    write(source)
    for number in itertools.count(1, STEP):
        was_killed = killed_at_call(number, "before", lambda: convert(source, path, backend="lines"))
        convert(source, path, backend="lines")
        assert frames_of(path) == WHOLE and verify(path).ok
        left = [name for name in names(tmp_path) if "scan" in name]
        assert left == ["scan.lines", "scan.lines.exengine.json"]
        for name in left:
            (tmp_path / name).unlink()
        if not was_killed:
            break
    assert number > 40


def test_a_fork_leaves_the_lock_to_the_writer(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("no forks")
    place = FilePlace.claim(str(tmp_path / "a.lines"), "lines", PATTERNS, {"{file}": b"first"})
    child = os.fork()
    if child == 0:
        place.unlock()
        os._exit(0)
    os.waitpid(child, 0)
    assert "a.lines.exengine.lock" in names(tmp_path)
    place.unlock()
    assert "a.lines.exengine.lock" not in names(tmp_path)


def test_the_size_of_a_dataset_includes_the_files_next_to_it(tmp_path, capsys):
    from exengine.cli.main import main

    path = tmp_path / "scan.lines"
    write(path, finish=False)
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bytes"] == sum((tmp_path / name).stat().st_size for name in names(tmp_path))
    assert facts["frames"] == 2 and facts["being_written"] is False
