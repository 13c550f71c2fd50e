"""The few things that differ between operating systems."""

import errno
import os

import pytest

from exengine.kernel.system import files


@pytest.fixture
def descriptor(tmp_path):
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


@pytest.mark.skipif(files.WINDOWS, reason="no gathered writes there")
@pytest.mark.parametrize("taken", [0, 1, 4, 9])
def test_a_short_write_goes_on_behind_what_was_written(descriptor, monkeypatch, taken):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda file, parts, at: pwrite(file, b"".join(parts)[:taken], at))
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, bytes(data)[:3], at))
    assert files.write_at(descriptor, [b"01234", b"56789"], 2) == 12
    assert os.pread(descriptor, 99, 0) == b"\0\0" + b"0123456789"


@pytest.mark.skipif(files.WINDOWS, reason="no gathered writes there")
def test_a_file_system_that_takes_nothing_is_an_error_and_no_endless_loop(descriptor, monkeypatch):
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(OSError, match="accepted no more bytes") as info:
        files.write_at(descriptor, [b"01234"], 0)
    assert info.value.errno == errno.EIO
