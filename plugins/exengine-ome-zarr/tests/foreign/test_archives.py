"""Datasets in zip archives."""

import io
import pickle
import struct
import threading
import zipfile

import numpy as np
import pytest
from hand_made import image, numbered, plate, zipped

import exengine_ome_zarr.foreign.files as files_module
from exengine.errors import DatasetDamagedError, ExEngineError, StorageClosedError, UnsupportedOperationError
from exengine_ome_zarr.foreign import is_ome_zarr, open_foreign

DATA = numbered(2, 2, 3, 20, 30)
METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


@pytest.fixture
def archive(path, tmp_path):
    image(path, DATA, labels=("a", "b"), chunks=(1, 1, 2, 16, 16), shards=(1, 1, 4, 32, 32), factors=(1, 2))
    return zipped(path, tmp_path / "made.ozx")


@pytest.mark.parametrize("suffix", [".ozx", ".ome.zarr.zip", ".zip"])
@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
@pytest.mark.parametrize("method", METHODS)
def test_an_archive_is_read(path, tmp_path, version, method, suffix):
    image(path, DATA, version=version)
    target = zipped(path, tmp_path / f"made{suffix}", method=METHODS[method])
    assert is_ome_zarr(target)
    dataset = open_foreign(target)
    for coordinates in dataset:
        np.testing.assert_array_equal(
            dataset[coordinates], DATA[coordinates.time, coordinates.channel, coordinates.z]
        )
    assert dataset.check_structure() == []


@pytest.mark.parametrize("method", METHODS)
def test_shards_in_an_archive_are_read(path, tmp_path, method):
    image(path, DATA, chunks=(1, 1, 2, 16, 16), shards=(1, 1, 4, 32, 32))
    dataset = open_foreign(zipped(path, tmp_path / "made.ozx", method=METHODS[method]))
    np.testing.assert_array_equal(dataset.as_array().compute(), DATA)
    assert dataset.check_structure() == []


def test_a_plate_in_an_archive_with_a_folder_is_read(path, tmp_path):
    plate(path, {"A/1": [DATA], "B/2": [DATA + np.uint16(1)]})
    target = zipped(path, tmp_path / "made.zip", top="made.ome.zarr/")
    assert is_ome_zarr(target)
    assert open_foreign(target)[{"position": "B/2/0", "time": 0, "channel": 0, "z": 0}][0, 0] == 1


def test_an_archive_is_read_by_threads_and_after_pickling(archive):
    dataset = open_foreign(archive)
    wrong = []

    def read():
        for coordinates in dataset:
            place = coordinates.time, "ab".index(coordinates.channel), coordinates.z
            if not np.array_equal(dataset[coordinates], DATA[place]):
                wrong.append(coordinates)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy.level(1).as_array().compute(), DATA[..., ::2, ::2])


def test_closing_the_dataset_closes_the_archive_of_its_levels(archive):
    dataset = open_foreign(archive)
    level = dataset.level(1)
    dataset.close()
    with pytest.raises(StorageClosedError):
        level.get_data({"time": 0, "channel": "a", "z": 0})
    assert level.status == "complete"


def test_an_archive_that_is_cut_off_is_damaged(archive):
    archive.write_bytes(archive.read_bytes()[:-10])
    assert not is_ome_zarr(archive)
    with pytest.raises(DatasetDamagedError, match="cut off at its end"):
        open_foreign(archive)


@pytest.mark.parametrize("shards", [None, (2, 2, 4, 32, 32)])
def test_a_byte_that_changed_in_a_chunk_is_found(path, tmp_path, shards):
    import zarr.codecs as codecs

    crc = codecs.Crc32cCodec() if shards else None
    image(
        path,
        DATA,
        chunks=(1, 1, 1, 20, 30) if not shards else (1, 1, 2, 16, 16),
        shards=shards,
        compressors=crc,
    )
    archive = zipped(path, tmp_path / "made.ozx")
    with zipfile.ZipFile(archive) as made:
        info = made.getinfo("0/c/0/0/0/0/0")
        begin = info.header_offset + 30 + len(info.filename) + 100
    content = bytearray(archive.read_bytes())
    content[begin] ^= 0xFF
    archive.write_bytes(content)
    dataset = open_foreign(archive)
    with pytest.raises(DatasetDamagedError):
        dataset.get_data({"time": 0, "channel": 0, "z": 0})
    assert dataset.status == "damaged"


def rewritten(source, target, change):
    """Copy an archive with one entry more or one entry changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            change(new, info, old.read(info))
    return target


def keep(new, info, data):
    new.writestr(info.filename, data)


def test_names_that_lead_out_of_the_archive_are_ignored(archive, tmp_path):
    def change(new, info, data):
        keep(new, info, data)
        if info.filename == "zarr.json":
            new.writestr("../evil", b"x")
            new.writestr("/etc/passwd", b"x")
            new.writestr("a\\..\\b", b"x")

    dataset = open_foreign(rewritten(archive, tmp_path / "other.ozx", change))
    assert len(dataset) == 12 and not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_not_supported(archive, tmp_path, method):
    def change(new, info, data):
        new.writestr(info.filename, data, method if info.filename == "zarr.json" else None)

    target = rewritten(archive, tmp_path / "other.ozx", change)
    assert not is_ome_zarr(target)
    with pytest.raises(UnsupportedOperationError, match="other than deflate"):
        open_foreign(target)


def test_an_encrypted_file_is_not_supported(archive):
    content = bytearray(archive.read_bytes())
    at = content.rfind(b"PK\x01\x02")
    name = content.find(b"zarr.json", at)
    entry = content.rfind(b"PK\x01\x02", 0, name)
    content[entry + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(UnsupportedOperationError, match="encrypted"):
        open_foreign(archive)


def test_a_file_that_unpacks_to_more_than_it_claims_is_damaged(path, tmp_path):
    image(path, DATA)
    archive = zipped(path, tmp_path / "made.ozx", method=zipfile.ZIP_DEFLATED)
    content = bytearray(archive.read_bytes())
    name = content.rfind(b"zarr.json")
    entry = content.rfind(b"PK\x01\x02", 0, name)
    content[entry + 24 : entry + 28] = struct.pack("<I", 50)
    archive.write_bytes(content)
    with pytest.raises(ExEngineError):
        open_foreign(archive)


def test_a_bomb_is_not_unpacked(archive, tmp_path):
    def change(new, info, data):
        if info.filename == "zarr.json":
            bomb = b" " * 2**27
            new.writestr(info.filename, bomb, zipfile.ZIP_DEFLATED)
        else:
            keep(new, info, data)

    target = rewritten(archive, tmp_path / "other.ozx", change)
    assert not is_ome_zarr(target)
    with pytest.raises(DatasetDamagedError, match="has 134217728 bytes; the limit is"):
        open_foreign(target)


def test_an_archive_with_too_many_files_is_refused(archive, monkeypatch):
    monkeypatch.setattr(files_module, "MAX_ZIP_ENTRIES", 3)
    assert not is_ome_zarr(archive)
    with pytest.raises(DatasetDamagedError, match="the limits are 3 files"):
        open_foreign(archive)


def test_the_number_of_files_is_read_from_the_64_bit_record_too(tmp_path):
    out = io.BytesIO()
    out.write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2**40, 2**40, 2**40, 0))
    out.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, 0, 1))
    out.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    path = tmp_path / "huge.ozx"
    path.write_bytes(out.getvalue())
    with pytest.raises(DatasetDamagedError, match=f"lists {2**40} files"):
        open_foreign(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x05\x06", b"II*\0" * 100, b"PK\x05\x06" + b"\xff" * 18, b"\0" * 100_000]
)
def test_any_other_file_is_not_a_dataset(tmp_path, content):
    path = tmp_path / "file.ozx"
    path.write_bytes(content)
    assert not is_ome_zarr(path)
    with pytest.raises(ExEngineError):
        open_foreign(path)
