"""The pool holds few files open, and closes them."""

import os

import pytest

from exengine.base_classes import FilePool


def test_a_pool_holds_no_more_files_than_it_may(tmp_path):
    pool = FilePool(most=2)
    for number in range(5):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    held = [pool.open(number, str(tmp_path / str(number))) for number in range(5)]
    assert [os.pread(file.descriptor, 1, 0) for file in held] == [b"0", b"1", b"2", b"3", b"4"]
    assert [pool.get(number) is not None for number in range(5)] == [False, False, False, True, True]
    first = held[0].descriptor
    held.clear()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)
