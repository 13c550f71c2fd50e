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


@pytest.fixture(params=["none", "zstd"])
def dataset(tmp_path, request):
    with exengine.open_storage("ome-zarr", tmp_path / "cells.ome.zarr", codec=request.param) as storage:
        for axes, value in FRAMES:
            storage.put(axes, pixels(value), {"value": value, "text": "é"})
        storage.annotate("ledger", {"offered": len(FRAMES), "stored": len(FRAMES)})
    return tmp_path / "cells.ome.zarr"


def test_the_file_has_the_same_frames_metadata_and_facts(dataset):
    report = pack(dataset)
    assert report.path == str(dataset.parent / "cells.ozx") and report.frames == len(FRAMES)
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
        assert names == {"exengine.json", "journal", "layout.jsonl"}
        assert sum(each.stat().st_size for each in copies.rglob("*") if each.is_file()) < pixels(0).nbytes * 5
    assert list(copies.iterdir()) == []


def test_verify_info_preview_and_convert_work_on_the_file(dataset, tmp_path, capsys):
    path = pack(dataset).path
    assert exengine.verify(path).ok and exengine.verify(path).checked == len(FRAMES)
    assert main(["info", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == len(FRAMES)
    assert main(["convert", path, str(tmp_path / "copy"), "--backend", "ndtiff"]) == 0
    assert exengine.verify(tmp_path / "copy").frames == len(FRAMES)


@pytest.mark.parametrize("part", ["pixels", "metadata", "journal", "directory"])
def test_verify_finds_damage_in_the_file(dataset, part):
    path = pack(dataset).path
    with zipfile.ZipFile(path) as archive:
        sizes = {each.filename: each for each in archive.infolist()}
    kinds = {"pixels": "/c/", "metadata": "/frames.jsonl", "journal": "/journal"}
    content = bytearray(Path(path).read_bytes())
    if part == "directory":
        at = content.rfind(b"PK\x05\x06") + 2
    else:
        entry = next(each for name, each in sizes.items() if kinds[part] in f"/{name}")
        at = entry.header_offset + 30 + len(entry.filename.encode()) + 64
        while part == "pixels" and not content[at]:
            at += 1
    content[at] ^= 0x55
    Path(path).write_bytes(content)
    if part == "directory":
        with pytest.raises(exengine.ExEngineError):
            exengine.verify(path)
    else:
        assert not exengine.verify(path).ok


def test_the_file_is_a_zip_without_compression_as_rfc_9_recommends(dataset):
    with zipfile.ZipFile(pack(dataset).path) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.comment)["ome"]["version"] == "0.5"
    documents = [name for name in names if name.split("/")[-1] == "zarr.json"]
    assert names[0] == "zarr.json" and names[: len(documents)] == documents
    assert [name.count("/") for name in documents] == sorted(name.count("/") for name in documents)
    on_disk = {each.relative_to(dataset).as_posix() for each in dataset.rglob("*") if each.is_file()}
    assert on_disk - set(names) <= {"exengine.lock"} and not set(names) - on_disk


def test_zarr_python_reads_the_file(dataset):
    zarr = pytest.importorskip("zarr", reason="zarr-python is not installed")
    path = pack(dataset).path
    with zarr.storage.ZipStore(path, mode="r") as store:
        found = {
            key: np.asarray(array)
            for key, array in zarr.open_group(store, mode="r").members(max_depth=None)
            if hasattr(array, "shape")
        }
    folder = zarr.open_group(dataset, mode="r")
    assert found and all(np.array_equal(pixels, np.asarray(folder[key])) for key, pixels in found.items())


def test_a_dataset_that_is_not_finished_is_refused(tmp_path):
    storage = exengine.open_storage("ome-zarr", tmp_path / "live.ome.zarr")
    storage.put({"time": 0}, pixels(0), None)
    with pytest.raises(StorageStateError, match="only a finished dataset can be packed"):
        pack(tmp_path / "live.ome.zarr")
    storage.close()  # as after a crash
    with pytest.raises(StorageStateError, match="recover"):
        pack(tmp_path / "live.ome.zarr")
    assert os.listdir(tmp_path) == ["live.ome.zarr"]


def test_other_things_are_refused_and_nothing_is_left_behind(tmp_path, dataset):
    with exengine.open_storage("ndtiff", tmp_path / "tiff") as storage:
        storage.put({"time": 0}, pixels(0), None)
    packed = pack(dataset).path
    before = sorted(os.listdir(tmp_path))
    for path, error, text in (
        (packed, UnsupportedOperationError, "already a single file"),
        (tmp_path / "tiff", UnsupportedOperationError, "exengine convert"),
        (dataset, DatasetExistsError, "already exists"),
        (tmp_path / "nothing", FileNotFoundError, "does not exist"),
        ("s3://bucket/demo.ome.zarr", UnsupportedOperationError, "URL"),
    ):
        with pytest.raises(error, match=text):
            pack(path)
    with pytest.raises(UnsupportedOperationError, match="must end in .ozx"):
        pack(dataset, tmp_path / "cells.tar")
    with pytest.raises(UnsupportedOperationError, match="in the dataset itself"):
        pack(dataset, dataset / "cells.ozx")
    (dataset / "link").symlink_to(tmp_path)
    with pytest.raises(UnsupportedOperationError, match="not a regular file"):
        pack(dataset, tmp_path / "other.ozx")
    assert sorted(os.listdir(tmp_path)) == before


def test_an_error_while_writing_leaves_nothing_behind(dataset, tmp_path, monkeypatch):
    def fail(done, total):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        pack(dataset, on_progress=fail)
    assert os.listdir(tmp_path) == ["cells.ome.zarr"]


def test_the_command_prints_the_file(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pack", "cells.ome.zarr"]) == 0
    assert capsys.readouterr().out.startswith("packed: cells.ozx\n  frames   18\n")
    assert main(["pack", "cells.ome.zarr", "-o", "b.ozx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "b.ozx")
    assert main(["verify", "b.ozx"]) == 0
