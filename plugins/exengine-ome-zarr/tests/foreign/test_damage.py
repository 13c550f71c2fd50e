"""Torn shards and damaged chunks of other writers: reported, never returned as pixels."""

import json
import os

import crc32c
import numpy as np
import pytest
from hand_made import image, numbered

import exengine_ome_zarr.foreign.reader as reader_module
from exengine.base_classes import DatasetStatus
from exengine.cli.main import main
from exengine.errors import DatasetDamagedError
from exengine_ome_zarr.foreign import is_ome_zarr, open_foreign

DATA = numbered(4, 16, 20)
SHARD = "0/c/1/0/0"  # the frames at z = 2 and 3
INDEX_BYTES = 2 * 16 + 4


@pytest.fixture
def sharded(path, request):
    location = getattr(request, "param", "end")
    import zarr.codecs as codecs

    image(
        path,
        DATA,
        "zyx",
        chunks=(1, 16, 20),
        shards={"shape": (2, 16, 20), "index_location": location},
        compressors=codecs.ZstdCodec(),
    )
    return path


def with_index(content, change, location="end"):
    """Return a shard with a changed index and the checksum that belongs to it."""
    begin = len(content) - INDEX_BYTES if location == "end" else 0
    index = np.frombuffer(content[begin : begin + 32], "<u8").reshape(2, 2).copy()
    change(index)
    data = index.tobytes()
    data += crc32c.crc32c(data).to_bytes(4, "little")
    return content[:begin] + data + content[begin + INDEX_BYTES :]


def offset_outside(index):
    index[0, 0] = 10**6


def length_outside(index):
    index[0, 1] = 10**6


def sum_overflows(index):
    index[0] = 2**64 - 2, 3


def only_offset_is_empty(index):
    index[0, 0] = 2**64 - 1


STATES = {
    "empty": lambda content: b"",
    "shorter than its index": lambda content: content[:20],
    "index missing": lambda content: content[:-INDEX_BYTES],
    "cut off in its index": lambda content: content[:-10],
    "checksum wrong": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "byte of the index wrong": lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
    "zeros in place of the index": lambda content: content[:-INDEX_BYTES] + bytes(INDEX_BYTES),
    "offset outside": lambda content: with_index(content, offset_outside),
    "length outside": lambda content: with_index(content, length_outside),
    "sum overflows": lambda content: with_index(content, sum_overflows),
    "half empty": lambda content: with_index(content, only_offset_is_empty),
}


@pytest.mark.parametrize("state", STATES)
def test_a_torn_shard_is_reported_and_the_others_are_read(sharded, state):
    shard = sharded / SHARD
    shard.write_bytes(STATES[state](shard.read_bytes()))
    assert is_ome_zarr(sharded)
    dataset = open_foreign(sharded)
    assert dataset.status is DatasetStatus.COMPLETE  # nothing was read so far
    for z in (0, 1):
        np.testing.assert_array_equal(dataset[{"z": z}], DATA[z])
    for z in (2, 3):
        with pytest.raises(DatasetDamagedError, match="c/1/0/0 is a torn shard"):
            dataset.get_data({"z": z})
    assert dataset.status is DatasetStatus.DAMAGED and "c/1/0/0" in dataset.status_reason
    with pytest.raises(DatasetDamagedError):
        dataset.as_array().compute()


@pytest.mark.parametrize("state", STATES)
def test_the_check_of_the_structure_lists_torn_shards(sharded, state):
    shard = sharded / SHARD
    shard.write_bytes(STATES[state](shard.read_bytes()))
    dataset = open_foreign(sharded)
    (fault,) = dataset.check_structure()
    assert "c/1/0/0 is a torn shard" in fault
    assert dataset.status is DatasetStatus.DAMAGED and dataset.status_reason == fault
    assert dataset.check_structure() == [fault]


@pytest.mark.parametrize("sharded", ["start"], indirect=True)
@pytest.mark.parametrize("cut", [0, 10, INDEX_BYTES - 1])
def test_a_torn_shard_with_its_index_at_the_beginning_is_reported(sharded, cut):
    shard = sharded / SHARD
    shard.write_bytes(shard.read_bytes()[:cut])
    dataset = open_foreign(sharded)
    with pytest.raises(DatasetDamagedError, match="torn shard"):
        dataset.get_data({"z": 2})
    assert len(dataset.check_structure()) == 1


@pytest.mark.parametrize("sharded", ["start"], indirect=True)
def test_a_shard_that_lost_its_end_is_reported(sharded):
    shard = sharded / SHARD
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DatasetDamagedError, match="chunk . begins at byte"):
        open_foreign(sharded).get_data({"z": 2})


def test_an_empty_entry_in_the_index_is_the_fill_value(sharded):
    def change(index):
        index[0] = 2**64 - 1

    shard = sharded / SHARD
    shard.write_bytes(with_index(shard.read_bytes(), change))
    dataset = open_foreign(sharded)
    assert not dataset[{"z": 2}].any()
    np.testing.assert_array_equal(dataset[{"z": 3}], DATA[3])
    assert dataset.check_structure() == []


@pytest.mark.changes_files
def test_a_shard_that_is_replaced_is_read_again(sharded):
    dataset = open_foreign(sharded)
    shard, other = sharded / SHARD, sharded / "0/c/0/0/0"
    np.testing.assert_array_equal(dataset[{"z": 2}], DATA[2])
    content = other.read_bytes()
    new = shard.with_name("new")
    new.write_bytes(content)
    os.utime(new, ns=(1, 1))
    new.rename(shard)
    np.testing.assert_array_equal(dataset[{"z": 2}], DATA[0])


def test_the_number_of_files_and_faults_is_limited(sharded, monkeypatch):
    for shard in (sharded / "0/c").rglob("0"):
        if shard.is_file():
            shard.write_bytes(b"")
    assert len(open_foreign(sharded).check_structure()) == 2
    monkeypatch.setattr(reader_module, "MAX_FAULTS", 1)
    assert len(open_foreign(sharded).check_structure()) == 1
    monkeypatch.setattr(reader_module, "MAX_FILES_TO_CHECK", 0)
    assert open_foreign(sharded).check_structure() == []


# -- chunks --------------------------------------------------------------------------------------


CODECS = ("blosc", "zstd", "gzip", "zlib", "bz2", "lzma", "lz4")
DAMAGES = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "one byte": lambda content: content[:1],
    "garbage": lambda content: b"\xa5" * len(content),
    "longer": lambda content: content + b"\0" * 7,
}


@pytest.mark.parametrize("damage", ["empty", "cut off", "one byte", "garbage"])
@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_that_cannot_be_decoded_is_damaged(path, codec, damage):
    import numcodecs

    image(path, DATA, "zyx", "0.4", chunks=(1, 16, 20), compressors=numcodecs.get_codec({"id": codec}))
    chunk = path / "0/2/0/0"
    chunk.write_bytes(DAMAGES[damage](chunk.read_bytes()))
    dataset = open_foreign(path)
    with pytest.raises(DatasetDamagedError, match="0/2/0/0|cannot be decoded at 2/0/0"):
        dataset.get_data({"z": 2})
    assert dataset.status is DatasetStatus.DAMAGED
    np.testing.assert_array_equal(dataset[{"z": 1}], DATA[1])


@pytest.mark.parametrize("damage", ["empty", "cut off", "one byte", "longer"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_raw_chunk_of_another_length_is_damaged(path, version, damage):
    image(path, DATA, "zyx", version, chunks=(1, 16, 20), compressors=None)
    chunk = path / ("0/2/0/0" if version == "0.4" else "0/c/2/0/0")
    chunk.write_bytes(DAMAGES[damage](chunk.read_bytes()))
    dataset = open_foreign(path)
    (fault,) = dataset.check_structure()
    assert "2/0/0" in fault
    with pytest.raises(DatasetDamagedError):
        dataset.get_data({"z": 2})


def test_a_checksum_of_a_chunk_is_compared(path):
    import zarr.codecs as codecs

    image(path, DATA, "zyx", chunks=(1, 16, 20), compressors=[codecs.BloscCodec(), codecs.Crc32cCodec()])
    chunk = path / "0/c/2/0/0"
    content = bytearray(chunk.read_bytes())
    content[40] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(DatasetDamagedError, match="c/2/0/0"):
        open_foreign(path).get_data({"z": 2})
    np.testing.assert_array_equal(open_foreign(path).get_data({"z": 1}), DATA[1])


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "dangling link", "link of a folder"])
def test_a_chunk_that_is_not_a_regular_file_is_refused(path, tmp_path, kind):
    image(path, DATA, "zyx", chunks=(1, 16, 20))
    chunk = path / "0/c/2/0/0"
    outside = tmp_path / "outside"
    if kind == "link of a folder":
        (path / "0/c/2").rename(outside)
        (path / "0/c/2").symlink_to(outside)
    else:
        chunk.rename(outside)
        if kind == "folder":
            chunk.mkdir()
        elif kind == "pipe":
            os.mkfifo(chunk)
        else:
            chunk.symlink_to(outside if kind == "link" else tmp_path / "nowhere")
    dataset = open_foreign(path)
    with pytest.raises(DatasetDamagedError):
        dataset.get_data({"z": 2})
    np.testing.assert_array_equal(dataset[{"z": 1}], DATA[1])


def test_verify_reports_what_a_reader_reports(sharded, capsys):
    (sharded / SHARD).write_bytes(b"")
    assert main(["verify", str(sharded), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["status"], report["frames"]) == ("damaged", 4)
    assert [lost["coordinates"]["z"] for lost in report["damaged"]] == [2, 3]
