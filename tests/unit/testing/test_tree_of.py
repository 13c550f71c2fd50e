"""The kit's comparison of folders: every change counts, holes are zeros, and they cost no time."""

import os

import pytest

from exengine.testing.subject import tree_of

SIZE = 300_000


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "inner" / "frames"
    path.parent.mkdir()
    path.write_bytes(bytes(SIZE))
    return path


@pytest.mark.parametrize("at", [0, 65_535, 65_536, 200_000, SIZE - 1])
def test_a_change_of_one_byte_anywhere_is_a_difference(file, tmp_path, at):
    before = tree_of(tmp_path)
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(b"\1")
    changed = tree_of(tmp_path)
    assert changed != before
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(b"\0")
    assert tree_of(tmp_path) == before


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1, SIZE + 65_536])
def test_another_size_is_a_difference(file, tmp_path, size):
    before = tree_of(tmp_path)
    os.truncate(file, size)
    assert tree_of(tmp_path) != before


def test_moved_bytes_are_a_difference(file, tmp_path):
    file.write_bytes(b"\1" + bytes(SIZE - 1))
    before = tree_of(tmp_path)
    file.write_bytes(bytes(65_536) + b"\1" + bytes(SIZE - 65_537))
    assert tree_of(tmp_path) != before


def test_a_hole_is_like_zeros(file, tmp_path):
    before = tree_of(tmp_path)
    os.truncate(file, 0)
    os.truncate(file, SIZE)
    assert tree_of(tmp_path) == before


def test_what_is_left_out_is_not_read(file, tmp_path):
    (tmp_path / "frames").write_bytes(b"other")
    assert set(tree_of(tmp_path, file)) == {"frames", "inner"}
    assert set(tree_of(tmp_path, file.parent)) == {"frames"}
    assert set(tree_of(tmp_path)) == {"frames", "inner", "inner/frames"}
