"""The journal: a record that was only partly written is no frame, wherever it was torn."""

import errno
import itertools
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exengine_ome_zarr.format import journal, sizes
from exengine_ome_zarr.format.journal import (
    HEADER,
    RECORD,
    RECORD_BYTES,
    JournalWriter,
    decode_record,
    encode_record,
    read_records,
    valid_records,
)

four, eight = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
fields = st.tuples(four, four, four, four, four, eight, four, four, eight, four, four, four)


def record(number, seed=0):
    some = np.random.default_rng([number, seed]).integers(0, 2**32, 12).tolist()
    return encode_record(number, *some)


def as_array(text):
    return np.frombuffer(text, RECORD)


@given(st.integers(0, 2**31), fields)
def test_a_record_returns_as_it_was_written(number, values):
    text = encode_record(number, *values)
    assert len(text) == RECORD_BYTES
    assert decode_record(text, number) == (number + 1, *values)
    assert decode_record(text, number + 1) is None


@given(fields, st.integers(0, RECORD_BYTES * 8 - 1))
def test_a_single_wrong_bit_makes_a_record_invalid(values, bit):
    text = bytearray(encode_record(7, *values))
    text[bit // 8] ^= 1 << bit % 8
    assert decode_record(bytes(text), 7) is None


@pytest.mark.parametrize("count", [3, 70])
def test_a_journal_torn_at_any_byte_has_every_whole_record_before_and_no_more(count):
    text = b"".join(record(number) for number in range(count))
    for at in range((count - 2) * RECORD_BYTES, len(text)):
        whole = at // RECORD_BYTES
        torn = text[:at].ljust(len(text), b"\0")
        assert valid_records(as_array(torn), 0) == whole
        assert decode_record(torn[whole * RECORD_BYTES :][:RECORD_BYTES], whole) is None


@given(st.data(), st.integers(0, 2**20))
def test_checking_many_records_at_once_equals_checking_each_by_itself(data, first):
    count = data.draw(st.integers(64, 200))
    text = bytearray(b"".join(record(first + number, count) for number in range(count)))
    for at in data.draw(st.lists(st.integers(0, len(text) - 1), max_size=3)):
        text[at] ^= data.draw(st.integers(0, 255))
    each = [
        decode_record(bytes(text[at : at + RECORD_BYTES]), first + at // RECORD_BYTES)
        for at in range(0, len(text), RECORD_BYTES)
    ]
    plain = each.index(None) if None in each else count
    assert valid_records(as_array(bytes(text)), first) == plain


def test_records_of_another_place_or_after_a_gap_do_not_count():
    text = b"".join(record(number) for number in (0, 1, 3, 4))
    assert valid_records(as_array(text), 0) == 2
    assert valid_records(as_array(text), 1) == 0
    assert valid_records(as_array(bytes(RECORD_BYTES * 5)), 0) == 0


@pytest.fixture
def writer(tmp_path):
    return JournalWriter(str(tmp_path / "journal"))


def on_disk(writer):
    return os.pread(writer.file.descriptor, 2**24, 0)


def test_what_was_appended_is_in_the_file_at_once(writer):
    for number in range(20):
        writer.append(record(number))
        assert len(read_records(writer.file.descriptor, 0)) == number + 1
        assert writer.read(number) == decode_record(record(number), number)
    assert writer.read(20) is None
    assert on_disk(writer).startswith(HEADER)


def test_space_is_reserved_before_it_is_mapped_in_steps_that_double(writer):
    seen = [os.fstat(writer.file.descriptor).st_size]
    assert seen == [sizes.JOURNAL_FIRST_BYTES]
    batch = b"".join(record(number) for number in range(1000))
    for _ in range(60):
        writer.append(batch)
        about = os.fstat(writer.file.descriptor)
        assert about.st_blocks * 512 >= writer.end and about.st_size >= writer.end
        if about.st_size != seen[-1]:
            seen.append(about.st_size)
    assert all(b - a == min(a, sizes.JOURNAL_STEP_BYTES) for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize("batch", [1, 7, 3000])
def test_records_that_cross_the_reserved_space_are_whole(writer, batch):
    count = 5000
    for first in range(0, count, batch):
        writer.append(b"".join(record(n) for n in range(first, min(first + batch, count))))
    writer.take_back(count)
    assert on_disk(writer) == HEADER + b"".join(record(number) for number in range(count))


def test_a_record_that_was_taken_back_is_gone_and_the_next_follows_the_last_good_one(writer):
    for number in range(5):
        writer.append(record(number))
    writer.take_back(3)
    assert on_disk(writer) == HEADER + b"".join(record(number) for number in range(3))
    writer.append(record(3, seed=1))
    assert writer.read(3) == decode_record(record(3, seed=1), 3)


def test_a_full_disk_is_an_error_of_append_and_what_was_written_stays(writer, monkeypatch):
    number = 0
    while writer.end + RECORD_BYTES <= sizes.JOURNAL_FIRST_BYTES:
        writer.append(record(number))
        number += 1

    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    end = writer.end
    with pytest.raises(OSError, match="No space left"):
        writer.append(record(number))
    assert writer.end == end and len(read_records(writer.file.descriptor, 0)) == number
    monkeypatch.undo()
    writer.append(record(number))
    assert len(read_records(writer.file.descriptor, 0)) == number + 1


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_cannot_reserve_space_is_written_without_a_map(tmp_path, monkeypatch, code):
    def refuse(descriptor, offset, length):
        raise OSError(code, "refused")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    writer = JournalWriter(str(tmp_path / "journal"))
    for number in range(5):
        writer.append(record(number))
    assert on_disk(writer) == HEADER + b"".join(record(number) for number in range(5))


def test_reading_in_pieces_finds_all_records(writer):
    count = 3 * 100 + 5
    writer.append(b"".join(record(number) for number in range(count)))
    first = 0
    while len(records := read_records(writer.file.descriptor, first, 100)):
        assert records["sequence"].tolist() == list(range(first + 1, first + 1 + len(records)))
        first += len(records)
    assert first == count


def test_the_dtype_of_records_is_that_of_the_packed_ones():
    text = record(3)
    values = as_array(text)[0].tolist()
    assert tuple(values[:-1]) == decode_record(text, 3)
    assert RECORD.itemsize == RECORD_BYTES == len(HEADER)
    assert journal.RECORD.names[-1] == "crc"
