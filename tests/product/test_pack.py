"""``exengine pack``: one file with the same frames, read by offset; everything else is refused."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

import exengine
from exengine.cli.main import main
from exengine.datasets.packing import pack
from exengine.errors import DatasetExistsError, StorageStateError, UnsupportedOperationError

FRAMES = [
    ({"position": place, "time": time, "channel": channel}, 100 * time + 7 * len(place) + (channel == "B"))
    for place in ("A1", "well 2")
    for time in range(5)
    for channel in ("A", "B")
    if (time, channel) != (3, "B")
]


def pixels(value):
    return (np.arange(40 * 30).reshape(40, 30) + value).astype(np.uint16)


KINDS = {
    "ome-zarr": ("ome-zarr", "cells.ome.zarr", {}),
    "zstd": ("ome-zarr", "cells.ome.zarr", {"codec": "zstd"}),
    "ndtiff": ("ndtiff", "cells", {"max_file_bytes": 2**16}),
}


@pytest.fixture(params=KINDS)
def dataset(tmp_path, request):
    backend, name, options = KINDS[request.param]
    with exengine.open_storage(backend, tmp_path / name, **options) as storage:
        for axes, value in FRAMES:
            storage.put(axes, pixels(value), {"value": value, "text": "é"})
        storage.annotate("ledger", {"offered": len(FRAMES), "stored": len(FRAMES)})
    return tmp_path / name


@pytest.fixture
def zarr(tmp_path):
    with exengine.open_storage("ome-zarr", tmp_path / "cells.ome.zarr", codec="zstd") as storage:
        for axes, value in FRAMES:
            storage.put(axes, pixels(value), None)
    return tmp_path / "cells.ome.zarr"


def test_the_file_has_the_same_frames_metadata_and_facts(dataset):
    report = pack(dataset)
    suffix = ".zip" if dataset.suffix == "" else ".ozx"
    assert report.path == str(dataset.parent / f"cells{suffix}") and report.frames == len(FRAMES)
    folder, packed = exengine.open_dataset(dataset), exengine.open_dataset(report.path)
    assert [dict(each) for each in packed] == [axes for axes, _ in FRAMES]
    for axes, value in FRAMES:
        assert np.array_equal(packed.get_data(axes), pixels(value))
        assert packed.get_metadata(axes) == {"value": value, "text": "é"}
    for fact in ("status", "axes", "annotations", "summary_metadata", "recorded_plan", "backend_name"):
        assert getattr(packed, fact) == getattr(folder, fact), fact
    assert packed.is_finished() and packed.path == report.path
    assert np.array_equal(packed.as_array(missing=0).compute(), folder.as_array(missing=0).compute())
    folder.close()
    packed.close()


def test_pixels_are_read_from_the_file_and_not_copied(dataset, tmp_path, monkeypatch):
    path = pack(dataset).path
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(copies))
    with exengine.open_dataset(path) as packed:
        for axes, _ in FRAMES:
            packed.get_data(axes)
        names = {each.name for each in copies.rglob("*") if each.is_file()}
        assert names <= {"exengine.json", "journal", "layout.jsonl"}
        assert sum(each.stat().st_size for each in copies.rglob("*") if each.is_file()) < pixels(0).nbytes * 5
    assert list(copies.iterdir()) == []


def test_verify_info_preview_and_convert_work_on_the_file(dataset, tmp_path, capsys):
    path = pack(dataset).path
    assert exengine.verify(path).ok and exengine.verify(path).checked == len(FRAMES)
    assert main(["info", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == len(FRAMES)
    assert main(["convert", path, str(tmp_path / "copy"), "--backend", "ndtiff"]) == 0
    assert exengine.verify(tmp_path / "copy").frames == len(FRAMES)


def test_verify_finds_a_changed_byte_in_every_file_with_frames(dataset):
    path = Path(pack(dataset).path)
    good = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = [each for each in archive.infolist() if each.file_size]
    kinds = ("/c/", "/frames.jsonl", "/journal", "/layout.jsonl", ".tif", ".index")
    damaged = [each for each in entries if any(kind in f"/{each.filename}" for kind in kinds)]
    assert len(damaged) >= 2
    for entry in damaged:
        content = bytearray(good)
        inside = entry.file_size // 2 if entry.filename.endswith(".tif") else min(64, entry.file_size // 2)
        content[entry.header_offset + 30 + len(entry.filename.encode()) + inside] ^= 0x55
        path.write_bytes(content)
        assert not exengine.verify(path).ok, entry.filename
    path.write_bytes(good)
    assert exengine.verify(path).ok


@pytest.mark.parametrize("signature", [b"PK\x05\x06", b"PK\x01\x02"])
def test_a_damaged_directory_is_an_error_with_the_path(dataset, signature):
    path = Path(pack(dataset).path)
    content = bytearray(path.read_bytes())
    content[content.rfind(signature) + 1] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(exengine.ExEngineError, match=path.name):
        exengine.verify(path)


def test_the_file_is_a_zip_without_compression_of_all_files(dataset):
    with zipfile.ZipFile(pack(dataset).path) as archive:
        assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None
        names = set(archive.namelist())
        for name in names:
            assert archive.read(name) == (dataset / name).read_bytes()
    on_disk = {each.relative_to(dataset).as_posix() for each in dataset.rglob("*") if each.is_file()}
    assert on_disk - names <= {"exengine.lock"}


def test_documents_come_first_and_a_comment_says_so_as_rfc_9_recommends(zarr):
    with zipfile.ZipFile(pack(zarr).path) as archive:
        names = archive.namelist()
        assert json.loads(archive.comment)["ome"]["version"] == "0.5"
    documents = [name for name in names if name.split("/")[-1] == "zarr.json"]
    assert names[0] == "zarr.json" and names[: len(documents)] == documents
    assert [name.count("/") for name in documents] == sorted(name.count("/") for name in documents)


def test_zarr_python_reads_the_file(zarr):
    library = pytest.importorskip("zarr", reason="zarr-python is not installed")
    folder = library.open_group(zarr, mode="r")
    with library.storage.ZipStore(pack(zarr).path, mode="r") as store:
        members = library.open_group(store, mode="r").members(max_depth=None)
        arrays = {name: np.asarray(each) for name, each in members if isinstance(each, library.Array)}
    assert arrays and all(np.array_equal(found, folder[name]) for name, found in arrays.items())


def test_a_dataset_that_is_not_finished_is_refused(tmp_path):
    storage = exengine.open_storage("ome-zarr", tmp_path / "live.ome.zarr")
    storage.put({"time": 0}, pixels(0), None)
    with pytest.raises(StorageStateError, match="only a finished dataset can be packed"):
        pack(tmp_path / "live.ome.zarr")
    storage.close()  # as after a crash
    with pytest.raises(StorageStateError, match="recover"):
        pack(tmp_path / "live.ome.zarr")
    assert os.listdir(tmp_path) == ["live.ome.zarr"]


def test_other_things_are_refused_and_nothing_is_left_behind(tmp_path, zarr):
    foreign = tmp_path / "foreign"  # a dataset of another program has no manifest
    with exengine.open_storage("ndtiff", foreign) as storage:
        storage.put({"time": 0}, pixels(0), None)
    (foreign / "exengine.json").unlink()
    packed = pack(zarr).path
    before = sorted(os.listdir(tmp_path))
    for path, error, text in (
        (packed, UnsupportedOperationError, "already a single file"),
        (foreign, UnsupportedOperationError, "exengine convert"),
        (zarr, DatasetExistsError, "already exists"),
        (tmp_path / "nothing", FileNotFoundError, "does not exist"),
        ("s3://bucket/demo.ome.zarr", UnsupportedOperationError, "URL"),
    ):
        with pytest.raises(error, match=text):
            pack(path)
    with pytest.raises(UnsupportedOperationError, match="must end in .ozx"):
        pack(zarr, tmp_path / "cells.tar")
    with pytest.raises(UnsupportedOperationError, match="inside the dataset itself"):
        pack(zarr, zarr / "cells.ozx")
    (zarr / "link").symlink_to(tmp_path)
    with pytest.raises(UnsupportedOperationError, match="not a regular file"):
        pack(zarr, tmp_path / "other.ozx")
    assert sorted(os.listdir(tmp_path)) == before


def test_an_error_while_writing_leaves_nothing_behind(zarr, tmp_path, monkeypatch):
    def fail(done, total):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        pack(zarr, on_progress=fail)
    assert os.listdir(tmp_path) == ["cells.ome.zarr"]


def test_the_command_prints_the_file(zarr, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pack", "cells.ome.zarr"]) == 0
    assert capsys.readouterr().out.startswith("packed: cells.ozx\n  frames   18\n")
    assert main(["pack", "cells.ome.zarr", "-o", "b.ozx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "b.ozx")
    assert main(["verify", "b.ozx"]) == 0
