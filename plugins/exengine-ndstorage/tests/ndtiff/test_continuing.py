"""``NDTiffStorage.resume``: a second writer continues the dataset of one that died, byte for byte."""

import json
import shutil

import numpy as np
import pytest

import exengine
from exengine.errors import DatasetDamagedError, DatasetLockedError, OptionError
from exengine_ndstorage import NDTiffStorage

FRAMES = 23
OPTIONS = {"summary_metadata": {"name": "demo"}, "max_file_bytes": 8192}


def frame(number):
    shape, dtype = ((9, 7, 3), np.uint8) if number % 3 == 2 else ((9, 7), (np.uint8, np.uint16)[number % 2])
    axes = {"time": number // 2, "channel": ("DAPI", "FITC")[number % 2], "z": -number}
    return axes, np.full(shape, number, dtype), {"number": number, "text": "é" * number}


def write(storage, begin, end=FRAMES):
    for number in range(begin, end):
        storage.put(*frame(number))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("NDTiff")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "data"
    with NDTiffStorage(path, **OPTIONS) as storage:
        write(storage, 0)
    return content(path)


@pytest.fixture
def killed(tmp_path):
    """Return what leaves a dataset as after a kill: its first frames, and torn writes behind them."""

    def killed(frames, torn=b"", torn_index=b"", at=tmp_path / "data"):
        storage = NDTiffStorage(tmp_path / "alive", **OPTIONS)
        write(storage, 0, frames)
        shutil.copytree(tmp_path / "alive", at)
        storage.finish()
        storage.close()
        last = max(at.glob("*.tif"), key=lambda path: (len(path.name), path.name))
        with last.open("ab") as file:
            file.write(torn)
        with (at / "NDTiff.index").open("ab") as file:
            file.write(torn_index)
        return at

    return killed


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 13, 22, 23])
def test_a_continued_dataset_equals_one_that_was_written_at_once(killed, whole, frames):
    path = killed(frames, torn=b"torn pixels" * 50, torn_index=(20).to_bytes(4, "little") + b'{"time":')
    with NDTiffStorage.resume(path, **OPTIONS) as storage:
        assert len(storage) == frames
        write(storage, frames)
    assert content(path) == whole
    report = exengine.verify(path)
    assert report.ok and report.checked == FRAMES and report.status == "complete"


@pytest.mark.parametrize("end", ["abort", "fail", "recover", "keep"])
@pytest.mark.parametrize("frames", [1, 8, 13])
def test_a_dataset_that_was_finished_early_is_continued_to_the_same_bytes(tmp_path, whole, frames, end):
    path = tmp_path / "data"
    storage = NDTiffStorage(path, **OPTIONS)
    write(storage, 0, frames)
    if end in ("abort", "fail"):
        storage.abort("out of reach", failed=end == "fail")
    storage.close()
    if end == "recover":
        exengine.recover(path, in_place=True)
    with NDTiffStorage.resume(path, **OPTIONS) as storage:
        note = json.loads((path / "exengine.json").read_bytes())
        assert note["status"] == "incomplete" and not note.keys() & {"reason", "facts", "frames"}
        assert exengine.open_dataset(path).status == "incomplete"
        write(storage, frames)
    assert content(path) == whole
    report = exengine.verify(path)
    assert report.ok and report.checked == FRAMES and report.status == "complete"


def test_a_file_without_frames_that_the_writer_had_begun_is_written_anew(killed, whole):
    path = killed(8)
    count = len(list(path.glob("*.tif")))
    (path / f"NDTiffStack_{count}.tif").write_bytes(b"II*\0")
    with NDTiffStorage.resume(path, **OPTIONS) as storage:
        write(storage, 8)
    assert content(path) == whole


def test_the_frames_of_both_writers_can_be_read_while_it_is_written(killed):
    storage = NDTiffStorage.resume(killed(5), **OPTIONS)
    write(storage, 5, 9)
    for number in range(9):
        axes, pixels, metadata = frame(number)
        assert np.array_equal(storage.get_data(axes), pixels) and storage.get_metadata(axes) == metadata
    with pytest.raises(exengine.errors.CoordinatesExistError):
        storage.put(*frame(2))
    storage.finish()
    storage.close()


def test_a_writer_that_is_alive_is_not_interrupted(tmp_path):
    with NDTiffStorage(tmp_path / "data", **OPTIONS) as storage:
        write(storage, 0, 3)
        with pytest.raises(DatasetLockedError, match="is being written"):
            NDTiffStorage.resume(tmp_path / "data", **OPTIONS)
        write(storage, 3)


def test_other_options_are_refused_and_the_frames_stay(killed):
    path = killed(5)
    before = content(path)
    with pytest.raises(OptionError, match="was created with other options"):
        NDTiffStorage.resume(path, summary_metadata={"name": "other"})
    assert content(path) == before
    assert exengine.open_dataset(path).status == "incomplete"
    with NDTiffStorage.resume(path, **OPTIONS) as storage:
        assert len(storage) == 5


def test_a_dataset_without_frames_is_refused(killed):
    path = killed(0)
    with pytest.raises(DatasetDamagedError, match="contains no frames"):
        NDTiffStorage.resume(path, **OPTIONS)
