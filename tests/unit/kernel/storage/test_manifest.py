"""The manifest and the lock: whole or not there, and freed when the writer dies."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import DatasetDamagedError
from exengine.kernel.storage import manifest
from exengine.kernel.storage.manifest import (
    Manifest,
    has_writer,
    read_manifest,
    status_of,
    take_lock,
    write_manifest,
)
from exengine.kernel.system import files

CONTENT = {"backend": "disk", "status": "incomplete", "annotations": {"config": {"ä": [1, None]}}}


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_written_is_read(folder, durable):
    write_manifest(folder, CONTENT, durable=durable)
    assert read_manifest(folder) == {"format": "exengine-dataset", "format_version": 1, **CONTENT}
    write_manifest(folder, {**CONTENT, "status": "complete"}, durable=durable)
    assert status_of(read_manifest(folder)) is DatasetStatus.COMPLETE
    assert os.listdir(folder) == ["exengine.json"]


def test_without_a_manifest_there_is_none_and_the_dataset_is_incomplete(folder):
    assert read_manifest(folder) is None
    assert status_of(None) is DatasetStatus.INCOMPLETE


@pytest.mark.parametrize("status", list(DatasetStatus))
def test_each_status_comes_back(folder, status):
    write_manifest(folder, {**CONTENT, "status": status.value}, durable=False)
    assert status_of(read_manifest(folder)) is status


@pytest.mark.parametrize("step", ["fsync", "replace", "dumps"])
def test_a_write_that_fails_leaves_the_old_manifest(folder, monkeypatch, step):
    write_manifest(folder, CONTENT, durable=False)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr({"fsync": os, "replace": os, "dumps": json}[step], step, fail)
    with pytest.raises(OSError, match="No space"):
        write_manifest(folder, {**CONTENT, "status": "complete"}, durable=True)
    monkeypatch.undo()
    assert status_of(read_manifest(folder)) is DatasetStatus.INCOMPLETE
    write_manifest(folder, {**CONTENT, "status": "aborted"}, durable=True)
    assert status_of(read_manifest(folder)) is DatasetStatus.ABORTED


def test_a_durable_manifest_is_synced_before_it_takes_its_name_and_its_folder_after(folder, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names))[1])
    write_manifest(folder, CONTENT, durable=True)
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "the format is not 'exengine-dataset'"),
        ({"format_version": 2}, "the format version is 2, but this release reads version 1"),
        ({"format_version": None}, "the format version is None"),
        ({"backend": None}, "the name of the backend is missing or too long"),
        ({"backend": 5}, "the name of the backend is missing or too long"),
        ({"status": "fine"}, "'fine' is not a valid DatasetStatus"),
        ({"status": None}, "'?None'? is not a valid DatasetStatus"),
        ({"status": ["complete"]}, "not a valid DatasetStatus"),
    ],
)
def test_a_manifest_that_says_something_else_is_damage(folder, change, says):
    content = {"format": "exengine-dataset", "format_version": 1, **CONTENT, **change}
    with open(os.path.join(folder, "exengine.json"), "w") as file:
        json.dump(content, file)
    with pytest.raises(DatasetDamagedError, match=says) as info:
        read_manifest(folder)
    assert "exengine.json" in str(info.value)


def test_a_manifest_cut_at_any_place_is_damage(folder):
    write_manifest(folder, CONTENT, durable=False)
    path = os.path.join(folder, "exengine.json")
    with open(path, "rb") as file:
        whole = file.read()
    for length in range(len(whole)):
        with open(path, "wb") as file:
            file.write(whole[:length])
        with pytest.raises(DatasetDamagedError):
            read_manifest(folder)


def test_a_byte_that_changed_anywhere_is_damage(folder):
    """With the summary metadata among the annotations, as most backends keep it."""
    content = {**CONTENT, "status": "complete", "frames": 3, "facts": {"index": {"checksum": "crc32:00"}}}
    write_manifest(folder, content, durable=False)
    path = os.path.join(folder, "exengine.json")
    with open(path, "rb") as file:
        whole = file.read()
    assert not read_manifest(folder).problem
    noticed = 0
    for offset in range(len(whole)):
        for mask in (0x01, 0x02, 0x10, 0x20, 0x80):
            changed = bytearray(whole)
            changed[offset] ^= mask
            try:
                found = Manifest.parse(bytes(changed))
            except ValueError:
                continue
            assert found.status is DatasetStatus.DAMAGED, (offset, mask)
            assert found.reason == found.problem == "the manifest exengine.json does not match its checksum"
            noticed += 1
    assert noticed > len(whole)  # most changes are still valid JSON


@pytest.mark.parametrize("indent", [None, 1])
def test_a_manifest_without_a_checksum_is_read(folder, indent):
    """It was written by an earlier release, or by a program that reads and writes JSON."""
    ends_like_it = {"facts": {"checksum": "crc32:00000000"}}
    for more in ({}, ends_like_it, {"checksum": "crc32:00000000"}):
        content = {"format": "exengine-dataset", "format_version": 1, **CONTENT, "status": "complete", **more}
        with open(os.path.join(folder, "exengine.json"), "w") as file:
            json.dump(content, file, indent=indent)
        found = read_manifest(folder)
        assert (found.status, found.problem) == (DatasetStatus.COMPLETE, "")


def test_an_unfinished_dataset_with_a_damaged_manifest_can_still_be_recovered():
    text = Manifest.encode(CONTENT).replace(b"null", b"true")
    assert (Manifest.parse(text).status, Manifest.parse(text).problem != "") == (
        DatasetStatus.INCOMPLETE,
        True,
    )


@given(content=st.binary(max_size=300))
def test_no_bytes_raise_anything_but_damage(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("manifest")
    (folder / "exengine.json").write_bytes(content)
    with pytest.raises(DatasetDamagedError):
        read_manifest(folder)


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b'{"a":' * 100_000, b"1" * 10_000, b"\xef\xbb\xbf{}", b"NaN"]
)
def test_what_would_break_a_parser_is_damage(folder, content):
    with open(os.path.join(folder, "exengine.json"), "wb") as file:
        file.write(content)
    with pytest.raises(DatasetDamagedError):
        read_manifest(folder)


def test_a_manifest_that_is_too_large_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(manifest, "MAX_BYTES", 100)
    write_manifest(folder, {**CONTENT, "annotations": {"x": "y" * 200}}, durable=False)
    with pytest.raises(DatasetDamagedError, match="larger than 100 bytes"):
        read_manifest(folder)


@pytest.mark.parametrize("kind", ["folder", "dangling link", "link", "pipe", "link to a device"])
def test_what_is_no_regular_file_is_damage_and_is_not_opened(folder, kind, tmp_path):
    place = os.path.join(folder, "exengine.json")
    if kind == "folder":
        os.mkdir(place)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        write_manifest(elsewhere, CONTENT, durable=False)
        targets = {
            "dangling link": "nowhere",
            "link": elsewhere / "exengine.json",
            "link to a device": "/dev/zero",
        }
        os.symlink(targets[kind], place)
    with pytest.raises(
        DatasetDamagedError, match="is not a manifest: the path is a (folder|pipe|symbolic link)"
    ):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"annotations": 5}, "'annotations' must be a dict"),
        ({"annotations": [["a", 1]]}, "'annotations' must be a dict"),
        ({"frames": True}, "'frames' must be an int"),
        ({"frames": "5"}, "'frames' must be an int"),
        ({"reason": ["x"]}, "'reason' must be a str"),
        ({"backend": "x" * 501}, "the name of the backend is missing or too long"),
    ],
)
def test_a_manifest_whose_parts_are_of_another_kind_is_damage(folder, changed, says):
    write_manifest(folder, {**CONTENT, **changed}, durable=False)
    with pytest.raises(DatasetDamagedError, match=says):
        read_manifest(folder)


def test_a_manifest_of_more_values_than_memory_should_hold_is_damage(folder):
    write_manifest(folder, {**CONTENT, "annotations": {"x": [[]] * 1_000_001}}, durable=False)
    with pytest.raises(DatasetDamagedError, match="the limit is 1000000"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["exengine.json.new", "exengine.lock"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_is_written_through_what_is_no_regular_file(folder, tmp_path, name, kind):
    outside = tmp_path / "outside"
    outside.write_text("the work of somebody else")
    place = os.path.join(folder, name)
    os.symlink(outside, place) if kind == "link" else os.mkfifo(place)
    with pytest.raises(OSError, match="not a regular file"):
        take_lock(folder) if name == "exengine.lock" else write_manifest(folder, CONTENT, durable=False)
    assert not has_writer(folder)
    assert outside.read_text() == "the work of somebody else"


# -- the lock ------------------------------------------------------------------------------------


def test_one_writer_has_the_lock_until_its_descriptor_is_closed(folder):
    assert not has_writer(folder)
    lock = take_lock(folder)
    assert has_writer(folder) and take_lock(folder) is None
    os.close(lock)
    assert not has_writer(folder)
    second = take_lock(folder)
    assert second is not None
    os.close(second)


def test_looking_for_a_writer_changes_nothing(folder, tmp_path):
    assert not has_writer(folder) and not has_writer(tmp_path / "nowhere")
    assert os.listdir(folder) == []
    lock = take_lock(folder)
    before = os.stat(os.path.join(folder, "exengine.lock")).st_mtime_ns
    assert has_writer(folder)
    assert os.stat(os.path.join(folder, "exengine.lock")).st_mtime_ns == before
    os.close(lock)


def test_several_may_look_at_once(folder):
    lock = take_lock(folder)
    os.close(lock)
    descriptor = os.open(os.path.join(folder, "exengine.lock"), os.O_RDONLY)
    assert manifest.files.try_lock(descriptor, shared=True)
    assert not has_writer(folder)
    os.close(descriptor)


def test_no_descriptor_is_left_open(folder):
    before = len(os.listdir("/proc/self/fd"))
    lock = take_lock(folder)
    assert take_lock(folder) is None and has_writer(folder)
    os.close(lock)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lock_that_the_file_system_does_not_have_leaves_no_file_open(tmp_path, monkeypatch):
    def no_locks(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files, "try_lock", no_locks)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match="No locks available"):
            manifest.take_lock(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before
