"""The pool of open files."""

import os

from exengine.kernel.system.open_files import FilePool


def test_a_file_that_is_discarded_leaves_the_pool_and_can_still_be_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    pool = FilePool(2)
    file = pool.open("a", str(path))
    pool.discard("a")
    pool.discard("unknown")
    assert pool.get("a") is None
    assert os.pread(file.descriptor, 7, 0) == b"content"
